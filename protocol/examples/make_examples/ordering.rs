//! What is said before a batch begins.

use infernet_protocol::batch::{Size, Wanted};
use infernet_protocol::event::{
    Accepts, Aggregator, Checkers, Checking, ModelThresholds, Quote, V1,
};
use infernet_protocol::inference::{Dtype, Message, Prompt, Role, Sampling, Task};
use infernet_protocol::money::{Msat, PaymentKind, Price};
use infernet_protocol::payload::Generate;
use infernet_protocol::seal::Digest;
use infernet_protocol::verification::{Activations, Margins, Thresholds};
use nostr::{Keys, PublicKey, SecretKey};

use super::words::{at, chat_model, relays};

/// What the aggregator says it does.
pub fn announcement(checker: PublicKey) -> Aggregator {
    let ranks = Keys::new(SecretKey::from_slice(&[0x67; 32]).expect("a scalar"));
    Aggregator {
        v: V1,
        id: "infernet".into(),
        name: "Aggregator".into(),
        tasks: vec![Task::TextGeneration, Task::Embedding],
        fee_ppm: 10_000,
        max_hold_msat: Msat(50_000_000),
        hold_s: 43_200,
        checkers: vec![checker],
        ranks: Some(ranks.public_key()),
        blobs: vec!["https://relay.example.com".into()],
        relays: relays(),
        software: "infernet-aggregator 0.1.0".into(),
        expires_at: at(600),
    }
}

/// What the buyer wants done.
pub fn wanted() -> Wanted {
    Wanted {
        task: Task::TextGeneration,
        accepts: vec![Accepts::Model(chat_model())],
        size: Size {
            lines: 2,
            input_tokens: 64,
            output_tokens: 128,
            longest: 96,
        },
        max_price: Some(MAX_PRICE),
        checkers: Checkers::Market,
        checking: CHECKING,
        deadline: at(4_000),
    }
}

const MAX_PRICE: Price = Price {
    input_msat: 50_000,
    output_msat: 200_000,
};

const CHECKING: Checking = Checking::Adaptive { least_ppm: 30_000 };

/// What the aggregator would do it for.
pub fn quote(buyer: PublicKey, commitment: Digest) -> Quote {
    let wanted = wanted();
    Quote {
        v: V1,
        nonce: 2_718_281_828,
        buyer,
        task: wanted.task,
        accepts: wanted.accepts,
        size: wanted.size,
        price: MAX_PRICE,
        fee_ppm: 10_000,
        checking_ppm: 300_000,
        // 64 tokens in and 128 out cost 29 msat, and 31 % of that is 9.
        most_msat: Msat(38),
        terms: PaymentKind::Escrow,
        checkers: wanted.checkers,
        checking: wanted.checking,
        commitment,
        seconds: 20,
        valid_until: at(700),
        deadline: wanted.deadline,
        relays: relays(),
    }
}

/// The batch's lines.
pub fn requests() -> Vec<Generate> {
    let line = |text: &str, seed| Generate {
        prompt: Prompt::Chat(vec![Message {
            role: Role::User,
            content: text.into(),
        }]),
        sampling: Sampling {
            temperature: 0.7,
            top_p: 0.95,
            top_k: 40,
            seed,
        },
        max_tokens: 64,
        stop: vec![],
        prefix: vec![],
    };
    vec![
        line("Name three colours.", 1_234_567),
        line("Name two planets.", 1_234_568),
    ]
}

/// By what the aggregator has work of the chat model judged.
pub fn model_thresholds() -> ModelThresholds {
    let measured = [("answers", 4_096.0), ("worst_mean", 0.031)];
    ModelThresholds {
        v: V1,
        id: ModelThresholds::id_of(&chat_model(), Dtype::Bf16),
        model: chat_model(),
        name: "example/Chat-135M-Instruct".into(),
        dtype: Dtype::Bf16,
        engine: "infernet-engine 0.1.0".into(),
        thresholds: thresholds(),
        measured: measured.map(|(name, figure)| (name.into(), figure)).into(),
    }
}

/// Made up, in the order of real ones.
pub fn thresholds() -> Thresholds {
    let margins = Margins {
        clip: 8.0,
        accept: 0.05,
        reject: 0.2,
        window: 0.5,
        pooled: 0.02,
    };
    Thresholds {
        sampled: margins,
        greedy: margins,
        activations: Activations {
            exponents: 38.0,
            worst_exponents: 60.0,
            mantissa_mean: 10.0,
            mantissa_median: 8.0,
        },
        least_cosine: 0.99,
    }
}
