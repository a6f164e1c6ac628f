//! What the parties of the story say, signed or not.

use infernet_protocol::event::{
    Accepts, AnnouncedModel, Announcement, Attestation, Award, Bid, Capacity, Checkers, DeviceKind,
    Experience, Hardware, Judgement, Limits, Load, Offer, Promise, Status, Usage, V1, Verdict,
};
use infernet_protocol::inference::{
    Dtype, Message, ModelId, Prompt, Role, Sampling, Task, TokenId,
};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::payload::{Chain, Generate, Payload, Piece, Work};
use infernet_protocol::seal::{Digest, Domain, Salt, salted_hash};
use infernet_protocol::tensor::{Element, Interface, Slot};
use nostr::secp256k1::SECP256K1;
use nostr::{Event, EventId, RelayUrl, Timestamp};
use sha2::Digest as _;

/// When the providers announce themselves.
pub const START: u64 = 1_790_000_000;

/// What A streams before it falls silent.
pub const FIRST_PIECES: [(&[TokenId], &str); 2] = [(&[4019], "Red"), (&[28, 3365], ", green")];

/// What B draws behind it; 2 is the end token.
pub const REST: (&[TokenId], &str) = (&[284, 4461, 30, 2], " and blue.");

pub const PRICE_A: Price = Price {
    input_msat: 10_000,
    output_msat: 80_000,
};

pub const PRICE_B: Price = Price {
    input_msat: 20_000,
    output_msat: 100_000,
};

pub const PROMISE: Promise = Promise {
    first_token_ms: 800,
    tokens_per_s: 24.5,
};

pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(START + seconds)
}

pub fn model(name: &str) -> ModelId {
    ModelId::from_bytes(sha2::Sha256::digest(name).into())
}

pub fn chat_model() -> ModelId {
    model("example chat model")
}

pub fn embedding_model() -> ModelId {
    model("example embedding model")
}

pub fn module() -> ModelId {
    model("example module")
}

/// It adds bytes up.
pub fn interface() -> Interface {
    Interface {
        label: "sum".into(),
        inputs: vec![Slot {
            name: "numbers".into(),
            dtype: Element::U8,
            shape: vec![-1],
        }],
        outputs: vec![Slot {
            name: "sum".into(),
            dtype: Element::F32,
            shape: vec![],
        }],
    }
}

pub fn relays() -> Vec<RelayUrl> {
    let urls = ["wss://relay.example.com", "wss://relay.example.org"];
    urls.iter().filter_map(|url| url.parse().ok()).collect()
}

pub const JOB_LIMITS: Limits = Limits {
    input_tokens: 32,
    output_tokens: 64,
};

pub fn announcement_a() -> Announcement {
    let chat = AnnouncedModel {
        model: chat_model(),
        name: "example/Chat-135M-Instruct".into(),
        aliases: vec!["chat-135m".into()],
        task: Task::TextGeneration,
        dtype: Dtype::Bf16,
        context: 8_192,
        price: PRICE_A,
        promise: PROMISE,
        continues: true,
        interface: None,
    };
    let embedding = AnnouncedModel {
        model: embedding_model(),
        name: "example/Embed-4".into(),
        aliases: vec![],
        task: Task::Embedding,
        dtype: Dtype::F32,
        context: 256,
        price: Price::FREE,
        promise: Promise {
            first_token_ms: 100,
            tokens_per_s: 0.0,
        },
        continues: false,
        interface: None,
    };
    let module = AnnouncedModel {
        model: module(),
        name: "example/Sum".into(),
        task: Task::Tensors,
        context: 16_384,
        interface: Some(interface()),
        ..embedding.clone()
    };
    Announcement {
        v: V1,
        id: "infernet".into(),
        name: "Provider A".into(),
        status: Status::Online,
        models: vec![chat, embedding, module],
        hardware: Hardware {
            device: DeviceKind::Cuda,
            name: "NVIDIA GeForce RTX 4090".into(),
            memory_mib: 24_564,
        },
        capacity: Capacity { slots: 2, queue: 8 },
        load: Load {
            running: 1,
            queued: 0,
        },
        terms: vec![PaymentTerms::Free, PaymentTerms::Escrow],
        direct: true,
        engine: "infernet-engine 0.1.0".into(),
        relays: relays(),
        expires_at: at(600),
    }
}

pub fn offer() -> Offer {
    Offer {
        v: V1,
        nonce: 3_141_592_653,
        task: Task::TextGeneration,
        accepts: vec![
            Accepts::Model(chat_model()),
            Accepts::Name("chat-135m".into()),
        ],
        limits: JOB_LIMITS,
        max_price: Price {
            input_msat: 50_000,
            output_msat: 200_000,
        },
        budget_msat: Msat(1_000),
        terms: vec![PaymentKind::Tab, PaymentKind::Escrow],
        checkers: Checkers::Market,
        bids_until: at(63),
        deadline: at(180),
        relays: relays(),
    }
}

pub fn bid(offer: &Event, price: Price, terms: PaymentTerms) -> Bid {
    Bid {
        v: V1,
        offer: offer.id,
        buyer: offer.pubkey,
        model: chat_model(),
        name: "example/Chat-135M-Instruct".into(),
        dtype: Dtype::Bf16,
        context: 8_192,
        price,
        promise: PROMISE,
        terms,
        continues: true,
        expires_at: at(120),
    }
}

/// A's pieces, numbered and hashed.
pub fn pieces(award: &EventId) -> Vec<Piece> {
    let mut chain = Chain::start(award);
    let numbered = (0_u32..).zip(FIRST_PIECES);
    let piece = numbered.map(|(seq, (tokens, text))| {
        chain = chain.after(seq, tokens, text);
        Piece {
            seq,
            tokens: tokens.to_vec(),
            text: text.into(),
            digest: chain.digest(),
        }
    });
    piece.collect()
}

pub fn hash_of<P: Payload>(
    domain: Domain,
    salt: &Salt,
    about: &EventId,
    author: &nostr::PublicKey,
    payload: &P,
) -> Digest {
    salted_hash(domain, salt, about, author, &payload.to_bytes())
}

/// What the buyer tops its tab with B up by.
pub const TOP_UP: Msat = Msat(10_000);

/// The Lightning node that signs B's invoices.
pub fn node() -> nostr::secp256k1::PublicKey {
    let hash: [u8; 32] = sha2::Sha256::digest("example node").into();
    let secret = nostr::secp256k1::SecretKey::from_slice(&hash).expect("a hash is a key");
    secret.public_key(SECP256K1)
}

/// B's price; a prefix is billed as input.
pub fn due(usage: &Usage) -> Msat {
    let input = usage.input_tokens + usage.prefix_tokens;
    PRICE_B.cost(input, usage.output_tokens).expect("an amount")
}

pub fn verdict(award: &Event, job: EventId, result: &Event) -> Verdict {
    let figures = [
        ("exact_share", 1.0),
        ("mean_margin", 0.0031),
        ("tokens", 4.0),
    ];
    Verdict {
        v: V1,
        job,
        award: award.id,
        result: result.id,
        provider: result.pubkey,
        model: chat_model(),
        judgement: Judgement::Inconclusive,
        method: "token-difr/1".into(),
        figures: figures.map(|(name, figure)| (name.into(), figure)).into(),
        dtype: Dtype::Bf16,
        engine: "infernet-engine 0.1.0".into(),
    }
}

pub fn attestation(award: &Event, job: EventId, experience: Experience) -> Attestation {
    let said: Award = serde_json::from_str(&award.content).expect("our own award");
    Attestation {
        v: V1,
        job,
        award: award.id,
        result: None,
        receipt: None,
        provider: said.provider,
        model: said.model,
        experience,
        promised: PROMISE,
        measured: None,
        paid_msat: Msat::ZERO,
        verdict: None,
        batch: None,
    }
}

/// The question, with what was already answered.
pub fn work(prefix: Vec<TokenId>) -> Work {
    let say = |role, content: &str| Message {
        role,
        content: content.into(),
    };
    Work::TextGeneration(Generate {
        prompt: Prompt::Chat(vec![
            say(Role::System, "Answer briefly."),
            say(Role::User, "Name three colours."),
        ]),
        sampling: Sampling {
            temperature: 0.7,
            top_p: 0.95,
            top_k: 40,
            seed: 1_234_567,
        },
        max_tokens: 64,
        stop: vec!["\n\n".into()],
        prefix,
    })
}
