//! What dishonest providers answer.

use infernet_engine::calibration::{Question, answer, questions};
use infernet_engine::{CheckText, Engine, Generate, Standing, Step, TorchEngine};
use infernet_protocol::inference::{Dtype, EndReason, Message, Prompt, Role, Sampling, TokenId};
use infernet_protocol::payload::{Generated, Proof};

use crate::models::Models;
use crate::{AT_ONCE, Failure, TOKENS};

/// Tokens of one chunk of a proof.
const CHUNK: u32 = 32;

/// A way to cheat.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cheat {
    AnotherModel,
    EightBits,
    FourBits,
    MadeUp,
    CutShort,
    OldResult,
    ShortPrompt,
    OtherSeed,
    /// The first 32 tokens are honest, and the others of four bits.
    HonestBeginning,
}

pub const ALL: [Cheat; 9] = [
    Cheat::AnotherModel,
    Cheat::EightBits,
    Cheat::FourBits,
    Cheat::MadeUp,
    Cheat::CutShort,
    Cheat::OldResult,
    Cheat::ShortPrompt,
    Cheat::OtherSeed,
    Cheat::HonestBeginning,
];

impl Cheat {
    /// Whether it is one at temperature 0, where there is no noise.
    pub fn is_one(self, greedy: bool) -> bool {
        !greedy || self != Self::OtherSeed
    }

    pub fn name(self, greedy: bool) -> String {
        let name = match self {
            Self::AnotherModel => "another model",
            Self::EightBits => "8 bits",
            Self::FourBits => "4 bits",
            Self::MadeUp => "made up",
            Self::CutShort => "cut short",
            Self::OldResult => "an old result",
            Self::ShortPrompt => "prompt shortened",
            Self::OtherSeed => "another seed",
            Self::HonestBeginning => "32 tokens honest, then 4 bits",
        };
        let at = if greedy {
            "temperature 0"
        } else {
            "temperature 1"
        };
        format!("{name}, {at}")
    }
}

/// Who cheats, with what.
pub struct Cheats<'a> {
    pub models: &'a Models,
    pub count: usize,
    /// The model that is sold, as honest providers run it too.
    pub honest: TorchEngine,
}

impl Cheats<'_> {
    /// So many answers of each kind.
    pub async fn commit(
        &self,
        cheat: Cheat,
        sampling: Sampling,
    ) -> Result<Vec<CheckText>, Failure> {
        let honest = &self.honest;
        let asked = questions(self.count, 100, sampling, true, TOKENS);
        Ok(match cheat {
            Cheat::AnotherModel => all(&self.models.load_shortened()?, &asked).await?,
            Cheat::EightBits => all(&self.models.load(Dtype::Int8)?, &asked).await?,
            Cheat::FourBits => all(&self.models.load(Dtype::Int4)?, &asked).await?,
            Cheat::MadeUp => made_up(honest, all(honest, &asked).await?)?,
            Cheat::CutShort => cut_short(honest, all(honest, &longer(asked)).await?)?,
            Cheat::OldResult => of_others(all(honest, &asked).await?),
            Cheat::ShortPrompt => short_prompts(honest, &asked).await?,
            Cheat::OtherSeed => other_seeds(honest, asked).await?,
            Cheat::HonestBeginning => self.honest_beginnings(longer(asked)).await?,
        })
    }

    async fn honest_beginnings(&self, asked: Vec<Question>) -> Result<Vec<CheckText>, Failure> {
        let beginning = |asked: &Question| Question {
            max_tokens: CHUNK,
            ..asked.clone()
        };
        let beginnings: Vec<_> = asked.iter().map(beginning).collect();
        let mut work = all(&self.honest, &beginnings).await?;
        work.retain(|text| text.answer.ended == EndReason::Length);
        for text in &mut work {
            text.max_tokens = TOKENS + CHUNK;
        }
        let cheaper = self.models.load(Dtype::Int4)?;
        for some in work.chunks_mut(AT_ONCE) {
            go_on(&cheaper, some).await?;
        }
        Ok(work)
    }
}

/// Questions that are answered at more length.
fn longer(mut asked: Vec<Question>) -> Vec<Question> {
    for question in &mut asked {
        question.max_tokens = TOKENS + CHUNK;
    }
    asked
}

async fn all(engine: &TorchEngine, asked: &[Question]) -> Result<Vec<CheckText>, Failure> {
    Ok(answer(engine, engine.models()[0].id, asked, AT_ONCE).await?)
}

/// As if their proofs were without fault.
fn unproven(mut work: Vec<CheckText>) -> Vec<CheckText> {
    for text in &mut work {
        text.proof = None;
    }
    work
}

/// Says something else in as many tokens, with a proof of what was asked.
fn made_up(engine: &TorchEngine, mut work: Vec<CheckText>) -> Result<Vec<CheckText>, Failure> {
    let text = include_str!("../../benches/text.md");
    let model = engine.models()[0].id;
    let tokens = engine.encode(&model, &Prompt::Text(text.into()))?;
    let pieces = tokens.chunks_exact(TOKENS as usize).cycle();
    work.retain(|text| text.answer.ended == EndReason::Length);
    for (text, piece) in work.iter_mut().zip(pieces) {
        text.answer.tokens = piece.to_vec();
        text.answer.text = engine.decode(&model, piece)?;
    }
    Ok(work)
}

/// Ends after 63 tokens as if there were no more to say; what is proven is genuine.
fn cut_short(engine: &TorchEngine, work: Vec<CheckText>) -> Result<Vec<CheckText>, Failure> {
    let model = engine.models()[0].id;
    let mut work = unproven(work);
    work.retain(|text| text.answer.ended == EndReason::Length);
    let end = end_token(engine)?;
    for text in &mut work {
        text.answer.tokens.truncate(TOKENS as usize - 1);
        text.answer.text = engine.decode(&model, &text.answer.tokens)?;
        text.answer.tokens.push(end);
        text.answer.ended = EndReason::Stop;
    }
    Ok(work)
}

/// The token that ends the model's answers: what a chat's last message ends with.
fn end_token(engine: &TorchEngine) -> Result<TokenId, Failure> {
    let model = engine.models()[0].id;
    let tokens = engine.encode(&model, &chat("x".into()))?;
    let text = |token: &TokenId| engine.decode(&model, &[*token]);
    let special: Vec<_> = tokens
        .iter()
        .filter(|token| text(token).is_ok_and(|text| text.is_empty()))
        .collect();
    // Every message begins with one and ends with another; the last begins an answer.
    let beginning = special.last().ok_or("no special token")?;
    let end = special.iter().rev().find(|token| token != &beginning);
    Ok(**end.ok_or("no end token")?)
}

fn chat(content: String) -> Prompt {
    Prompt::Chat(vec![Message {
        role: Role::User,
        content,
    }])
}

/// Each is given for the next question.
fn of_others(work: Vec<CheckText>) -> Vec<CheckText> {
    let others = work.iter().cycle().skip(1);
    let swapped = work.iter().zip(others).map(|(asked, other)| CheckText {
        answer: Generated {
            input_tokens: asked.answer.input_tokens,
            ..other.answer.clone()
        },
        proof: other.proof.clone(),
        ..asked.clone()
    });
    swapped.collect()
}

/// A text to read comes before each question, and is left out.
async fn short_prompts(
    engine: &TorchEngine,
    asked: &[Question],
) -> Result<Vec<CheckText>, Failure> {
    let model = engine.models()[0].id;
    let paragraphs = include_str!("../../benches/text.md").split("\n\n");
    let paragraphs: Vec<_> = paragraphs.filter(|text| text.len() > 400).collect();
    let mut work = all(engine, asked).await?;
    for (text, paragraph) in work.iter_mut().zip(paragraphs.into_iter().cycle()) {
        if let Prompt::Chat(messages) = &text.prompt {
            let whole = format!("{paragraph}\n\n{}", messages[0].content);
            text.prompt = chat(whole);
            text.answer.input_tokens = engine.count_tokens(&model, &text.prompt)?;
        }
    }
    Ok(work)
}

async fn other_seeds(
    engine: &TorchEngine,
    asked: Vec<Question>,
) -> Result<Vec<CheckText>, Failure> {
    let mut others = asked.clone();
    for other in &mut others {
        other.sampling.seed += 1 << 20;
    }
    let mut work = all(engine, &others).await?;
    for (text, asked) in work.iter_mut().zip(asked) {
        text.sampling = asked.sampling;
    }
    Ok(work)
}

/// Goes on behind answers' honest beginnings, with all of them together.
async fn go_on(engine: &TorchEngine, works: &mut [CheckText]) -> Result<(), Failure> {
    let model = engine.models()[0].id;
    let begin = |work: &CheckText| {
        engine.generate(Generate {
            model,
            prompt: work.prompt.clone(),
            sampling: work.sampling,
            max_tokens: work.max_tokens,
            stop: vec![],
            prefix: work.answer.tokens.clone(),
            prove: true,
            standing: Standing::default(),
        })
    };
    let rests: Vec<_> = works.iter().map(begin).collect::<Result<_, _>>()?;
    for (work, mut rest) in works.iter_mut().zip(rests) {
        while let Some(step) = rest.next().await {
            match step {
                Step::Started { .. } => {}
                Step::Token { id, .. } => work.answer.tokens.push(id),
                Step::Ended { reason, proof, .. } => {
                    work.answer.ended = reason;
                    if let (Some(whole), Some(Proof(more))) = (&mut work.proof, proof) {
                        whole.0.extend(more);
                    }
                }
                Step::Failed(error) => return Err(error.into()),
            }
        }
        work.answer.text = engine.decode(&model, &work.answer.tokens)?;
    }
    Ok(())
}

/// Whether this is cheap work that may be given genuine proofs: nothing is wrong with its
/// activations then.
pub fn can_be_proven(name: &str) -> bool {
    let cheap = [Cheat::AnotherModel, Cheat::EightBits, Cheat::FourBits];
    let names = cheap
        .iter()
        .flat_map(|cheat| [cheat.name(true), cheat.name(false)]);
    names.into_iter().any(|cheap| cheap == name)
}
