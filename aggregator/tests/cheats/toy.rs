//! A model in miniature. What it says next is a hash of its weights, the prompt, the
//! seed and the last tokens; at each position there is a best token and a second best,
//! one unit of logits behind. Number formats make it take the second best now and then,
//! the more often the coarser they are. So margins behave as those of real models do,
//! and cost nothing.

use infernet_protocol::inference::{EndReason, Prompt, TokenId};
use infernet_protocol::payload::{Generate, Generated, Proof};
use infernet_protocol::verification::{
    Activations, ChunkDistance, Fault, Margins, TextFigures, Thresholds,
};
use sha2::{Digest as _, Sha256};

/// What fits these models.
pub const THRESHOLDS: Thresholds = Thresholds {
    sampled: MARGINS,
    greedy: MARGINS,
    activations: Activations {
        exponents: 24.0,
        worst_exponents: 48.0,
        mantissa_mean: 10.0,
        mantissa_median: 8.0,
    },
    least_cosine: 0.99,
};

const MARGINS: Margins = Margins {
    clip: 8.0,
    accept: 0.125,
    reject: 0.25,
    window: 0.75,
    pooled: 0.01,
};

const VOCABULARY: u32 = 50_000;
const CHUNK: usize = 32;
/// Tokens that it remembers, beside their number.
const MEMORY: usize = 4;
const CHUNK_BYTES: usize = 9;

/// A number format: how often, in thousandths, the second best token is taken, and how
/// many exponents come out otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    F32,
    Bf16,
    Bits8,
    Bits4,
}

impl Format {
    const fn slips(self) -> u64 {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 3,
            Self::Bits8 => 40,
            Self::Bits4 => 450,
        }
    }

    const fn exponents(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 4,
            Self::Bits8 => 30,
            Self::Bits4 => 70,
        }
    }
}

/// Weights in a number format.
#[derive(Debug, Clone, Copy)]
pub struct Toy {
    pub weights: u64,
    pub format: Format,
}

/// The model that is sold.
pub const GENUINE: Toy = Toy {
    weights: 1,
    format: Format::F32,
};

impl Toy {
    /// Its own answer.
    pub fn answer(&self, request: &Generate) -> Generated {
        let mut tokens: Vec<TokenId> = Vec::new();
        while tokens.len() < request.max_tokens as usize {
            tokens.push(self.next(request, &tokens));
        }
        generated(request, tokens, EndReason::Length)
    }

    /// How it would prove that it gave this answer.
    pub fn prove(&self, request: &Generate, tokens: &[TokenId]) -> Proof {
        let chunks = tokens.chunks(CHUNK).enumerate();
        let bytes = chunks.flat_map(|(number, chunk)| {
            let mut bytes = [0; CHUNK_BYTES];
            bytes[..8].copy_from_slice(&self.state(request, number, chunk).to_be_bytes());
            bytes[8] = self.format as u8;
            bytes
        });
        Proof(bytes.collect())
    }

    /// What it measures of another's answer.
    pub fn check(
        &self,
        request: &Generate,
        answer: &Generated,
        proof: Option<&Proof>,
    ) -> TextFigures {
        let tokens = &answer.tokens;
        let margin = |position: usize| {
            let (best, second) = self.drawn(request, &tokens[..position]);
            match tokens[position] {
                token if token == best => 0.0,
                token if token == second => 1.0,
                _ => 6.0,
            }
        };
        TextFigures {
            margins: (0..tokens.len()).map(margin).collect(),
            greedy: request.sampling.temperature == 0.0,
            chunks: proof.map_or_else(Vec::new, |proof| self.compare(request, tokens, proof)),
            fault: fault(request, answer, proof),
        }
    }

    fn compare(&self, request: &Generate, tokens: &[TokenId], proof: &Proof) -> Vec<ChunkDistance> {
        let said = proof.0.chunks(CHUNK_BYTES);
        let chunks = tokens.chunks(CHUNK).enumerate().zip(said);
        let distance = |((number, chunk), said): ((usize, &[TokenId]), &[u8])| {
            let own = self.state(request, number, chunk).to_be_bytes();
            let formats = [Format::F32, Format::Bf16, Format::Bits8, Format::Bits4];
            let format = formats.into_iter().find(|format| *format as u8 == said[8]);
            ChunkDistance {
                exponents: match (said[..8] == own, format) {
                    (true, Some(format)) => format.exponents(),
                    _ => 120,
                },
                mantissa_mean: 2.0,
                mantissa_median: 2.0,
            }
        };
        chunks.map(distance).collect()
    }

    fn next(&self, request: &Generate, before: &[TokenId]) -> TokenId {
        let (best, second) = self.drawn(request, before);
        let slips = self.hash(request, before, 2) % 1_000 < self.format.slips();
        if slips { second } else { best }
    }

    /// The best token and the second best.
    fn drawn(&self, request: &Generate, before: &[TokenId]) -> (TokenId, TokenId) {
        let token = |salt| (self.hash(request, before, salt) % u64::from(VOCABULARY)) as TokenId;
        let (best, second) = (token(0), token(1));
        (best, if second == best { best + 1 } else { second })
    }

    fn state(&self, request: &Generate, number: usize, chunk: &[TokenId]) -> u64 {
        let ends = chunk.iter().fold(1_000 + number as u64, |sum, token| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*token))
        });
        self.hash(request, chunk, ends)
    }

    fn hash(&self, request: &Generate, tokens: &[TokenId], salt: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.weights.to_be_bytes());
        hash.update(salt.to_be_bytes());
        if request.sampling.temperature > 0.0 {
            hash.update(request.sampling.seed.to_be_bytes());
        }
        hash.update(words(&request.prompt));
        hash.update((tokens.len() as u64).to_be_bytes());
        for token in tokens.iter().rev().take(MEMORY) {
            hash.update(token.to_be_bytes());
        }
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// An answer of these tokens.
pub fn generated(request: &Generate, tokens: Vec<TokenId>, ended: EndReason) -> Generated {
    Generated {
        text: text(&tokens),
        tokens,
        input_tokens: input_tokens(request),
        ended,
        error: None,
    }
}

/// What is certainly wrong with an answer.
fn fault(request: &Generate, answer: &Generated, proof: Option<&Proof>) -> Option<Fault> {
    let tokens = answer.tokens.len();
    let bytes = tokens.div_ceil(CHUNK) * CHUNK_BYTES;
    let is_whole = tokens == request.max_tokens as usize;
    match () {
        () if tokens > request.max_tokens as usize => Some(Fault::TooLong),
        // This model never stops by itself.
        () if answer.ended != EndReason::Length || !is_whole => Some(Fault::EndsFalsely),
        () if answer.text != text(&answer.tokens) => Some(Fault::TextDiffers),
        () if answer.input_tokens != input_tokens(request) => Some(Fault::InputMiscounted),
        () if proof.is_none_or(|proof| proof.0.len() != bytes) => Some(Fault::NoProof),
        () => None,
    }
}

fn text(tokens: &[TokenId]) -> String {
    tokens.iter().map(|token| format!("{token} ")).collect()
}

fn input_tokens(request: &Generate) -> u32 {
    words(&request.prompt).split_whitespace().count() as u32
}

/// What the model reads of a prompt.
pub fn words(prompt: &Prompt) -> &str {
    match prompt {
        Prompt::Text(text) => text,
        Prompt::Chat(messages) => &messages[0].content,
    }
}
