//! Questions of the kind that people ask, as many as are wanted.

use infernet_protocol::inference::{Message, ModelId, Prompt, Role, Sampling};
use infernet_protocol::payload::{Generated, Proof};

use super::CLIP;
use crate::port::{CheckText, Generate, Standing};

const SUBJECTS: [&str; 40] = [
    "the sea",
    "bread",
    "a lighthouse",
    "the moon",
    "bicycles",
    "a small village",
    "winter",
    "chess",
    "old maps",
    "a garden in spring",
    "the violin",
    "coffee",
    "railways",
    "honey bees",
    "a broken clock",
    "the desert",
    "letters",
    "volcanoes",
    "a good teacher",
    "the printing press",
    "whales",
    "mountains",
    "a night at the harbour",
    "glass",
    "the weather",
    "salt",
    "bridges",
    "a lost key",
    "the stars",
    "paper",
    "tea",
    "the history of numbers",
    "a market day",
    "rivers",
    "the human heart",
    "snow",
    "a long journey",
    "birds",
    "money",
    "silence",
];

const FORMS: [&str; 25] = [
    "Tell me about {}.",
    "Write a short story about {}.",
    "Explain {} to a child.",
    "Write a poem about {}.",
    "What are three facts about {}?",
    "Why do people care about {}?",
    "Write a letter to a friend about {}.",
    "List ten words that have to do with {}.",
    "Describe {} in one paragraph.",
    "What would the world be without {}?",
    "Write a dialogue between two people about {}.",
    "Give me a recipe or a set of instructions that involves {}.",
    "Summarise what is known about {}.",
    "Write the first page of a novel that begins with {}.",
    "What questions would you ask an expert on {}?",
    "Translate into French: I have always liked {}.",
    "Write a product description for something that reminds one of {}.",
    "Compare {} with something quite different.",
    "Write a news report about {}.",
    "Make a plan for a lesson about {}.",
    "Write a Python function whose name has to do with {}.",
    "What do poets say about {}?",
    "Invent a proverb about {} and explain it.",
    "How has {} changed over the last hundred years?",
    "Argue for and against {}.",
];

/// Something to ask a model.
#[derive(Debug, Clone)]
pub struct Question {
    /// What is asked.
    pub prompt: Prompt,
    /// How the answer is drawn.
    pub sampling: Sampling,
    /// The answer's length at most, in tokens.
    pub max_tokens: u32,
}

/// So many questions, drawn with `sampling` and seeds of their own. They are the same
/// every time; after a thousand the first come again, with other seeds. Those of
/// another `set` have other seeds, and come in another order.
pub fn questions(
    count: usize,
    set: u64,
    sampling: Sampling,
    is_chat: bool,
    max_tokens: u32,
) -> Vec<Question> {
    let all = SUBJECTS.len() * FORMS.len();
    let question = |number: usize| {
        // 7 and 1,000 have no common divisor.
        let which = (number * 7 + 500 * set as usize) % all;
        let form = FORMS[which % FORMS.len()];
        let text = form.replace("{}", SUBJECTS[which / FORMS.len()]);
        Question {
            prompt: match is_chat {
                true => Prompt::Chat(vec![Message {
                    role: Role::User,
                    content: text,
                }]),
                false => Prompt::Text(text),
            },
            sampling: Sampling {
                seed: set << 32 | number as u64,
                ..sampling
            },
            max_tokens,
        }
    };
    (0..count).map(question).collect()
}

impl Question {
    /// What an engine is asked.
    pub(super) fn request(&self, model: ModelId) -> Generate {
        Generate {
            model,
            prompt: self.prompt.clone(),
            sampling: self.sampling,
            max_tokens: self.max_tokens,
            stop: vec![],
            prefix: vec![],
            prove: true,
            standing: Standing::default(),
        }
    }

    /// What a checker is asked about an answer to it.
    pub fn check(&self, model: ModelId, answer: Generated, proof: Option<Proof>) -> CheckText {
        CheckText {
            model,
            prompt: self.prompt.clone(),
            sampling: self.sampling,
            max_tokens: self.max_tokens,
            stop: vec![],
            prefix: vec![],
            answer,
            proof,
            clip: CLIP,
            standing: Standing::default(),
        }
    }
}
