//! Sealed payloads, salted hashes, running hashes, vectors.

use infernet_protocol::bounds::{
    MAX_ANNOUNCEMENT_BYTES, MAX_EVENT_BYTES, MAX_MODELS, MAX_PAYLOAD_BYTES, MAX_RELAYS,
    MAX_TERMS_BYTES,
};
use infernet_protocol::event::{
    Accepts, AnnouncedModel, Announcement, Award, Basis, Bid, Offer, check, encoded_len,
};
use infernet_protocol::inference::Task;
use infernet_protocol::money::{PaymentTerms, Price};
use infernet_protocol::payload::{Chain, Vector};
use infernet_protocol::seal::{
    Conversation, Domain, Error, Salt, Sealed, overhear, salted_hash, whisper,
};
use nostr::EventId;
use nostr::secp256k1::rand::SeedableRng as _;
use nostr::secp256k1::rand::rngs::StdRng;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{self, one};
use crate::parties::{buyer, event, provider, stranger};

fn close(payload: &[u8], seed: u64) -> Result<Sealed, Error> {
    let mut rng = StdRng::seed_from_u64(seed);
    let reader = provider().public_key();
    Sealed::close(payload, buyer().secret_key(), &reader, &mut rng)
}

proptest! {
    #![proptest_config(crate::cases(100))]

    #[test]
    fn both_sides_open_it_and_nobody_else(payload in vec(any::<u8>(), 1..2_000), seed: u64) {
        let sealed = close(&payload, seed).unwrap();
        let (buyer, provider, stranger) = (buyer(), provider(), stranger());
        let by_reader = sealed.open(provider.secret_key(), &buyer.public_key());
        prop_assert_eq!(by_reader, Ok(payload.clone()));
        let by_author = sealed.open(buyer.secret_key(), &provider.public_key());
        prop_assert_eq!(by_author, Ok(payload.clone()));
        for other in [&buyer, &provider] {
            let by_stranger = sealed.open(stranger.secret_key(), &other.public_key());
            prop_assert_eq!(by_stranger, Err(Error::Closed));
        }
        let key = sealed.unwrap_key(provider.secret_key(), &buyer.public_key()).unwrap();
        prop_assert_eq!(sealed.open_with(&key), Ok(payload));
        let mut wrong = key;
        wrong[0] ^= 1;
        prop_assert_eq!(sealed.open_with(&wrong), Err(Error::Closed));
    }

    #[test]
    fn an_altered_byte_keeps_it_closed(
        payload in vec(any::<u8>(), 1..200),
        of_body: bool,
        at in any::<prop::sample::Index>(),
    ) {
        let mut sealed = close(&payload, 1).unwrap();
        let part = if of_body { &mut sealed.body } else { &mut sealed.key };
        let at = at.index(part.len());
        let other = if part.as_bytes()[at] == b'A' { "B" } else { "A" };
        part.replace_range(at..=at, other);
        let opened = sealed.open(provider().secret_key(), &buyer().public_key());
        prop_assert_eq!(opened, Err(Error::Closed));
    }

    #[test]
    fn a_whisper_is_heard_by_two(message in vec(any::<u8>(), 1..500), seed: u64) {
        let (buyer, provider, stranger) = (buyer(), provider(), stranger());
        let between = |own: &nostr::Keys, other: &nostr::Keys| {
            Conversation::between(own.secret_key(), &other.public_key()).unwrap()
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let content = whisper(&between(&provider, &buyer), &message, &mut rng).unwrap();
        prop_assert_eq!(overhear(&between(&buyer, &provider), &content), Ok(message));
        let by_stranger = overhear(&between(&stranger, &provider), &content);
        prop_assert_eq!(by_stranger, Err(Error::Closed));
    }

    #[test]
    fn a_salted_hash_depends_on_everything(salt: [u8; 32], about: [u8; 32], bytes: [u8; 4]) {
        let hash = |domain, salt, about, author, bytes: &[u8]| {
            let about = EventId::from_byte_array(about);
            salted_hash(domain, &Salt::from_bytes(salt), &about, &author, bytes)
        };
        let (author, other) = (buyer().public_key(), provider().public_key());
        let mut flipped = [salt, about];
        flipped.iter_mut().for_each(|bytes| bytes[31] ^= 1);
        let hashes = [
            hash(Domain::Input, salt, about, author, &bytes),
            hash(Domain::Output, salt, about, author, &bytes),
            hash(Domain::Payment, salt, about, author, &bytes),
            hash(Domain::Input, flipped[0], about, author, &bytes),
            hash(Domain::Input, salt, flipped[1], author, &bytes),
            hash(Domain::Input, salt, about, other, &bytes),
            hash(Domain::Input, salt, about, author, &bytes[1..]),
        ];
        let different: std::collections::HashSet<_> = hashes.iter().collect();
        prop_assert_eq!(different.len(), hashes.len());
    }

    #[test]
    fn a_running_hash_depends_on_every_piece(
        award: [u8; 32],
        pieces in vec((vec(any::<u32>(), 0..4), "[a-z]{0,3}"), 1..6),
        at in any::<prop::sample::Index>(),
    ) {
        let of = |award, pieces: &[(Vec<u32>, String)]| {
            let start = Chain::start(&EventId::from_byte_array(award));
            let numbered = (0_u32..).zip(pieces);
            numbered.fold(start, |chain, (n, (tokens, text))| chain.after(n, tokens, text))
        };
        let whole = of(award, &pieces);
        let mut other_award = award;
        other_award[0] ^= 1;
        prop_assert_ne!(whole, of(other_award, &pieces));
        let at = at.index(pieces.len());
        let mut other_token = pieces.clone();
        other_token[at].0.push(0);
        prop_assert_ne!(whole, of(award, &other_token));
        let mut other_text = pieces.clone();
        other_text[at].1.push('x');
        prop_assert_ne!(whole, of(award, &other_text));
        prop_assert_ne!(whole, of(award, &pieces[1..]));
    }

    #[test]
    fn a_vector_keeps_every_bit(bits in vec(any::<u32>(), 0..100)) {
        let vector = Vector(bits.iter().map(|b| f32::from_bits(*b)).collect());
        let json = serde_json::to_string(&vector).unwrap();
        let read: Vector = serde_json::from_str(&json).unwrap();
        let read: Vec<_> = read.0.iter().map(|x| x.to_bits()).collect();
        prop_assert_eq!(read, bits);
    }
}

#[test]
fn a_vector_is_whole_floats_in_base64() {
    let json = serde_json::to_string(&Vector(vec![1.0, -2.0])).unwrap();
    assert_eq!(json, "\"AACAPwAAAMA=\"");
    for odd in ["\"AAA=\"", "\"!\"", "[1.0]", "\"AACAPwA=\""] {
        assert!(serde_json::from_str::<Vector>(odd).is_err(), "{odd}");
    }
}

#[test]
fn the_first_hash_of_a_chain_is_the_documented_one() {
    use sha2::{Digest as _, Sha256};
    let award = EventId::from_byte_array([5; 32]);
    let start = Sha256::new()
        .chain_update(b"infernet/pieces/1")
        .chain_update([5; 32])
        .finalize();
    let chain = Chain::start(&award);
    assert_eq!(chain.digest().to_string(), hex::encode(start));
    let next = Sha256::new()
        .chain_update(start)
        .chain_update([0, 0, 0, 0, 0, 0, 0, 2])
        .chain_update([0, 0, 0, 7, 0, 0, 1, 0])
        .chain_update("hé")
        .finalize();
    let after = chain.after(0, &[7, 256], "hé").digest();
    assert_eq!(after.to_string(), hex::encode(next));
}

#[test]
fn a_salt_never_reaches_a_log() {
    assert_eq!(format!("{:?}", Salt::from_bytes([7; 32])), "Salt(…)");
}

#[test]
fn another_version_of_the_encryption_is_refused() {
    let sealed = close(b"hello", 1).unwrap();
    let other = Sealed {
        body: sealed.body.replacen('A', "B", 1),
        ..sealed.clone()
    };
    assert!(sealed.body.starts_with('A') && other.body.starts_with('B'));
    let opened = other.open(provider().secret_key(), &buyer().public_key());
    assert_eq!(opened, Err(Error::Closed));
}

#[test]
fn nothing_and_too_much_are_not_sealed() {
    let error = |bytes| Err(Error::TooLarge { bytes });
    assert_eq!(close(&[], 1), error(0));
    let over = MAX_PAYLOAD_BYTES + 1;
    assert_eq!(close(&vec![1; over], 1), error(over));
    let conversation = Conversation::between(buyer().secret_key(), &provider().public_key());
    let mut rng = StdRng::seed_from_u64(1);
    let whispered = whisper(&conversation.unwrap(), &vec![1; over], &mut rng);
    assert_eq!(whispered, Err(Error::TooLarge { bytes: over }));
}

#[test]
fn what_others_sealed_too_large_is_not_opened() {
    use base64::Engine as _;
    use nostr::nips::nip44::v2;
    let key = [7; 32];
    let mut rng = StdRng::seed_from_u64(1);
    let large = vec![1; MAX_PAYLOAD_BYTES + 1];
    let conversation = v2::ConversationKey::new(key);
    let body = v2::encrypt_to_bytes_with_rng(&mut rng, &conversation, &large).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(body);
    assert_eq!(body.len(), 65_628);
    let sealed = Sealed {
        key: String::new(),
        body,
        blob: None,
    };
    assert!(matches!(
        sealed.open_with(&key),
        Err(Error::TooLarge { .. })
    ));
}

/// An announcement whose content is as large as it may be.
fn largest_announcement() -> Announcement {
    let mut announcement = one(generate::announcement());
    let model = AnnouncedModel {
        name: "HuggingFaceTB/SmolLM2-135M-Instruct".into(),
        aliases: vec![],
        interface: None,
        task: Task::Embedding,
        ..announcement.models[0].clone()
    };
    announcement.direct = true;
    announcement.terms = vec![PaymentTerms::Escrow];
    announcement.name = "A provider".into();
    announcement.models = vec![];
    let bytes = |a: &Announcement| serde_json::to_string(a).unwrap().len();
    while announcement.models.len() < MAX_MODELS {
        announcement.models.push(model.clone());
        if bytes(&announcement) > MAX_ANNOUNCEMENT_BYTES {
            announcement.models.pop();
            break;
        }
    }
    for n in 0..announcement.models.len() {
        let room = MAX_ANNOUNCEMENT_BYTES.saturating_sub(bytes(&announcement));
        let name = &mut announcement.models[n].name;
        name.push_str(&"n".repeat(room.min(128 - name.len())));
    }
    announcement
}

fn many_relays(bytes: usize) -> Vec<nostr::RelayUrl> {
    let url = |n| format!("wss://relay{n}.example/{}", "r".repeat(bytes));
    (0..MAX_RELAYS).map(|n| url(n).parse().unwrap()).collect()
}

fn largest_auction() -> Award {
    let offer = Offer {
        relays: many_relays(125),
        accepts: (0..8)
            .map(|n| Accepts::Name(format!("{n}{}", "m".repeat(50))))
            .collect(),
        max_price: Price {
            input_msat: 1 << 50,
            output_msat: 1 << 50,
        },
        ..one(generate::offer())
    };
    let offer_bytes = serde_json::to_string(&offer).unwrap().len();
    assert!(
        (MAX_TERMS_BYTES - 200..=MAX_TERMS_BYTES).contains(&offer_bytes),
        "{offer_bytes}"
    );
    let offer = event(&offer, &buyer());
    let bid = Bid {
        name: "m".repeat(128),
        terms: PaymentTerms::Free,
        offer: offer.id,
        price: Price::FREE,
        ..one(generate::bid())
    };
    Award {
        job: Some(offer.id),
        task: serde_json::from_str::<Offer>(&offer.content).unwrap().task,
        model: bid.model,
        price: bid.price,
        terms: bid.terms.kind(),
        basis: Basis::Auction {
            offer: Box::new(offer),
            bid: Box::new(event(&bid, &provider())),
        },
        ..one(generate::auction_award())
    }
}

fn largest_direct() -> Award {
    let announcement = largest_announcement();
    let bytes = serde_json::to_string(&announcement).unwrap().len();
    assert!(bytes > MAX_ANNOUNCEMENT_BYTES - 10, "{bytes}");
    let model = &announcement.models[0];
    Award {
        job: Some(EventId::all_zeros()),
        task: model.task,
        model: model.model,
        price: model.price,
        terms: announcement.terms[0].kind(),
        basis: Basis::Direct {
            announcement: Box::new(event(&announcement, &provider())),
        },
        ..one(generate::direct_award())
    }
}

/// The bounds fit each other: the largest payload in an award that rests on the
/// largest words still is an event that relays take.
#[test]
fn the_largest_payload_fits_in_the_largest_award() {
    let input = close(&vec![b'x'; MAX_PAYLOAD_BYTES], 1).unwrap();
    assert_eq!(input.body.len(), 54_704);
    for award in [largest_auction(), largest_direct()] {
        let award = Award {
            input: input.clone(),
            relays: many_relays(40),
            ..award
        };
        let event = event(&award, &buyer());
        let bytes = encoded_len(&event);
        assert!(bytes <= MAX_EVENT_BYTES, "{bytes}");
        assert_eq!(check(&event), Ok(()));
    }
}
