//! Whatever arrives, it is refused with a reason; nothing panics.

use infernet_protocol::batch::{Answer, Done, Lines, Question};
use infernet_protocol::bounds::MAX_PAYLOAD_BYTES;
use infernet_protocol::event::{
    Attestation, Bid, Cancel, JobResult, Offer, Private, Receipt, Refusal, Signed, Talk, Verdict,
    check,
};
use infernet_protocol::inference::ModelId;
use infernet_protocol::kinds;
use infernet_protocol::payload::{Control, Input, Output, Payload, Progress, Vector};
use infernet_protocol::seal::{self, Conversation, Sealed};
use nostr::{Event, Kind, Tag, Tags, UnsignedEvent};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{self, one};
use crate::parties::{NOW, buyer, event, provider, stranger};

/// An event of this content and these tags, properly signed.
fn crafted(kind: u16, content: &str, tags: &[Vec<String>]) -> Event {
    let tags = tags.iter().filter_map(|tag| Tag::parse(tag).ok());
    let tags = Tags::from_list(tags.collect());
    let author = provider();
    let kind = Kind::from(kind);
    let unsigned = UnsignedEvent::new(author.public_key(), NOW, kind, tags, content);
    unsigned.sign_with_keys(&author).unwrap()
}

/// JSON of any form, some of it with our names in it.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let name = prop_oneof![
            proptest::sample::select(vec![
                "v", "type", "award", "job", "price", "models", "limits", "basis", "work", "order",
                "group", "size", "number", "phase",
            ])
            .prop_map(str::to_owned),
            any::<String>(),
        ];
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Into::into),
            vec((name, inner), 0..8).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

/// A valid body's JSON with one value replaced by another.
pub fn with(content: &str, pointer: &str, value: serde_json::Value) -> String {
    let mut json: serde_json::Value = serde_json::from_str(content).unwrap();
    *json.pointer_mut(pointer).expect("it is there") = value;
    json.to_string()
}

proptest! {
    #![proptest_config(crate::cases(200))]

    #[test]
    fn any_event_is_judged(
        kind in proptest::sample::select(kinds::ALL.to_vec()),
        content in any::<String>(),
        tags in vec(vec(any::<String>(), 1..4), 0..8),
    ) {
        prop_assert!(check(&crafted(kind, &content, &tags)).is_err());
    }

    #[test]
    fn any_json_is_judged(
        kind in proptest::sample::select(kinds::ALL.to_vec()),
        content in any_json(),
    ) {
        prop_assert!(check(&crafted(kind, &content.to_string(), &[])).is_err());
    }

    #[test]
    fn any_bytes_are_judged(bytes in vec(any::<u8>(), 0..300), text in any::<String>()) {
        let _ = Input::from_bytes(&bytes);
        let _ = Output::from_bytes(&bytes);
        let _ = Progress::from_bytes(&bytes);
        let _ = Control::from_bytes(&bytes);
        let _ = Question::from_bytes(&bytes);
        let _ = Answer::from_bytes(&bytes);
        let _ = Lines::from_bytes(&bytes);
        let _ = Done::from_bytes(&bytes);
        let _ = serde_json::from_slice::<Vector>(&bytes);
        let _ = text.parse::<ModelId>();
        let _ = Event::from_json_or_not(&text);
    }

    #[test]
    fn any_payload_json_is_judged(json in any_json()) {
        let bytes = json.to_string().into_bytes();
        prop_assert!(Input::from_bytes(&bytes).is_err());
        prop_assert!(Output::from_bytes(&bytes).is_err());
        prop_assert!(Progress::from_bytes(&bytes).is_err());
        prop_assert!(Control::from_bytes(&bytes).is_err());
        prop_assert!(Question::from_bytes(&bytes).is_err());
        prop_assert!(Answer::from_bytes(&bytes).is_err());
        prop_assert!(Lines::from_bytes(&bytes).is_err());
        prop_assert!(Done::from_bytes(&bytes).is_err() || json == serde_json::json!([]));
    }

    #[test]
    fn what_is_said_of_batches_is_read_as_it_was(
        question in generate::question(),
        answer in generate::answer(),
    ) {
        prop_assert_eq!(Question::from_bytes(&question.to_bytes()), Ok(question));
        prop_assert_eq!(Answer::from_bytes(&answer.to_bytes()), Ok(answer));
    }

    #[test]
    fn any_sealed_payload_stays_closed(key in any::<String>(), body in any::<String>()) {
        let (own, other) = (buyer(), provider().public_key());
        let sealed = Sealed { key, body: body.clone(), blob: None };
        prop_assert!(sealed.open(own.secret_key(), &other).is_err());
        prop_assert!(sealed.open_with(&[7; 32]).is_err());
        let conversation = Conversation::between(own.secret_key(), &other).unwrap();
        prop_assert!(seal::overhear(&conversation, &body).is_err());
    }
}

/// Reading text as an event never panics; whether it is one is another matter.
trait FromJsonOrNot {
    fn from_json_or_not(text: &str) -> Option<Event>;
}

impl FromJsonOrNot for Event {
    fn from_json_or_not(text: &str) -> Option<Event> {
        nostr::JsonUtil::from_json(text).ok()
    }
}

#[test]
fn deep_json_is_refused() {
    for (open, close) in [("[", "]"), ("{\"v\":", "}")] {
        let deep = format!("{}1{}", open.repeat(400), close.repeat(400));
        let refused = check(&crafted(kinds::CANCEL, &deep, &[]));
        assert!(matches!(refused, Err(Refusal::Content(_))), "{refused:?}");
        assert!(Input::from_bytes(deep.as_bytes()).is_err());
        let deeper = open.repeat(MAX_PAYLOAD_BYTES / open.len());
        assert!(Input::from_bytes(deeper.as_bytes()).is_err());
    }
}

/// Unknown names are skipped, however deep what stands there.
#[test]
fn a_deep_value_under_an_unknown_name_is_skipped() {
    let valid = event(&one(generate::cancel()), &provider());
    let deep = format!("{}1{}", "[".repeat(3_000), "]".repeat(3_000));
    let content = valid.content.replacen('{', &format!("{{\"x\":{deep},"), 1);
    let tags: Vec<_> = valid.tags.iter().map(|t| t.clone().to_vec()).collect();
    assert_eq!(check(&crafted(kinds::CANCEL, &content, &tags)), Ok(()));
}

#[test]
fn unknown_names_in_a_content_are_for_later_versions() {
    let valid = event(&one(generate::cancel()), &provider());
    let content = valid.content.replacen('{', "{\"later\":[1],", 1);
    let tags: Vec<_> = valid.tags.iter().map(|t| t.clone().to_vec()).collect();
    assert_eq!(check(&crafted(kinds::CANCEL, &content, &tags)), Ok(()));
}

#[test]
fn numbers_that_are_none_are_refused() {
    let bid = event(&one(generate::bid()), &provider());
    let tags: Vec<_> = bid.tags.iter().map(|t| t.clone().to_vec()).collect();
    let odd = [
        "1e400",
        "-1",
        "0.5",
        "NaN",
        "Infinity",
        "1e39",
        "\"1\"",
        "null",
        "18446744073709551616",
    ];
    for number in odd {
        for name in ["first_token_ms", "context", "input_msat", "expires_at", "v"] {
            let start = bid.content.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
            let len = bid.content[start..].find([',', '}']).unwrap();
            let mut content = bid.content.clone();
            content.replace_range(start..start + len, number);
            let refused = check(&crafted(kinds::BID, &content, &tags));
            assert!(refused.is_err(), "{name}: {number}");
        }
    }
    for speed in ["1e39", "-0.1", "NaN", "null", "1e400"] {
        let start = bid.content.find("\"tokens_per_s\":").unwrap() + 15;
        let len = bid.content[start..].find([',', '}']).unwrap();
        let mut content = bid.content.clone();
        content.replace_range(start..start + len, speed);
        assert!(
            check(&crafted(kinds::BID, &content, &tags)).is_err(),
            "{speed}"
        );
    }
}

#[test]
fn names_said_twice_are_refused() {
    let valid = event(&one(generate::cancel()), &provider());
    let content = valid.content.replacen('{', "{\"v\":1,", 1);
    let tags: Vec<_> = valid.tags.iter().map(|t| t.clone().to_vec()).collect();
    let refused = check(&crafted(kinds::CANCEL, &content, &tags));
    assert!(matches!(refused, Err(Refusal::Content(_))), "{refused:?}");
}

#[test]
fn another_version_is_refused_by_name() {
    let valid = event(&one(generate::cancel()), &provider());
    let content = with(&valid.content, "/v", 2.into());
    let tags: Vec<_> = valid.tags.iter().map(|t| t.clone().to_vec()).collect();
    let Err(Refusal::Content(why)) = check(&crafted(kinds::CANCEL, &content, &tags)) else {
        panic!("it is refused for its content");
    };
    assert!(why.contains("version 2"), "{why}");
}

#[test]
fn a_refusal_shows_no_control_characters_of_the_content() {
    let refused = check(&crafted(
        kinds::CANCEL,
        "{\"v\":1,\"reason\":\"\\u001b[31m\\n\"}",
        &[],
    ));
    assert!(
        !refused
            .unwrap_err()
            .to_string()
            .chars()
            .any(char::is_control)
    );
}

#[test]
fn a_payload_error_never_quotes_the_payload() {
    let secret = "{\"salt\":\"my secret prompt\",\"work\":\"my secret prompt\"}";
    let error = Input::from_bytes(secret.as_bytes()).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn signatures_by_others_are_refused() {
    let mine = event(&one(generate::offer()), &buyer());
    let theirs = event(&one(generate::offer()), &stranger());
    let changes: [fn(&mut Event, &Event); 6] = [
        |event, theirs| event.pubkey = theirs.pubkey,
        |event, theirs| event.sig = theirs.sig,
        |event, theirs| event.id = theirs.id,
        |event, _| event.created_at = NOW + 1,
        |event, _| event.content.push(' '),
        |event, _| event.tags = Tags::new(),
    ];
    for change in changes {
        let mut event = mine.clone();
        change(&mut event, &theirs);
        assert_eq!(Signed::<Offer>::verify(event), Err(Refusal::Signature));
    }
}

#[test]
fn nobody_speaks_for_its_own_good() {
    let verdict = one(generate::verdict());
    assert!(Signed::<Verdict>::verify(event(&verdict, &provider())).is_err());
    let attestation = one(generate::attestation());
    assert!(Signed::<Attestation>::verify(event(&attestation, &provider())).is_err());
    let receipt = one(generate::receipt());
    assert!(Signed::<Receipt>::verify(event(&receipt, &stranger())).is_err());
}

#[test]
fn a_failure_has_an_error_and_nothing_else_has() {
    let result = one(generate::result());
    use infernet_protocol::inference::EndReason;
    let cases = [
        (EndReason::Failed, Some("out of memory"), true),
        (EndReason::Failed, None, false),
        (EndReason::Stop, Some("out of memory"), false),
        (EndReason::Stop, None, true),
    ];
    for (ended, error, holds) in cases {
        let result = JobResult {
            ended,
            error: error.map(Into::into),
            ..result.clone()
        };
        let verified = Signed::<JobResult>::verify(event(&result, &provider()));
        assert_eq!(verified.is_ok(), holds, "{ended:?} {error:?}");
    }
}

#[test]
fn a_private_envelope_needs_its_job_and_its_reader() {
    let private = Private {
        kind: kinds::PROGRESS,
        job: nostr::EventId::all_zeros(),
        reader: buyer().public_key(),
        content: "AAAA".into(),
    };
    let author = provider();
    let whole = private.to_unsigned(author.public_key(), NOW);
    let whole = whole.sign_with_keys(&author).unwrap();
    assert_eq!(check(&whole), Ok(()));
    assert_eq!(Private::parse(&whole), Ok(private));
    for name in ["e", "p", "alt"] {
        let tags = whole.tags.iter().filter(|t| t.as_slice()[0] != name);
        let tags: Vec<_> = tags.map(|t| t.clone().to_vec()).collect();
        let refused = check(&crafted(kinds::PROGRESS, "AAAA", &tags));
        assert_eq!(refused, Err(Refusal::Tag(name.into())));
    }
    let long = "A".repeat(54_705);
    let tags: Vec<_> = whole.tags.iter().map(|t| t.clone().to_vec()).collect();
    assert!(check(&crafted(kinds::CONTROL, &long, &tags)).is_err());
    assert_eq!(check(&crafted(kinds::CONTROL, &long[1..], &tags)), Ok(()));
    assert_eq!(
        Private::parse(&crafted(1, "AAAA", &tags)),
        Err(Refusal::Kind(1))
    );
}

#[test]
fn talk_needs_its_reader() {
    let talk = Talk {
        reader: buyer().public_key(),
        content: "AAAA".into(),
    };
    let author = provider();
    let whole = talk.to_unsigned(author.public_key(), NOW);
    let whole = whole.sign_with_keys(&author).unwrap();
    assert_eq!(check(&whole), Ok(()));
    assert_eq!(Talk::parse(&whole), Ok(talk));
    for name in ["p", "alt"] {
        let tags = whole.tags.iter().filter(|t| t.as_slice()[0] != name);
        let tags: Vec<_> = tags.map(|t| t.clone().to_vec()).collect();
        let refused = check(&crafted(kinds::TALK, "AAAA", &tags));
        assert_eq!(refused, Err(Refusal::Tag(name.into())));
    }
    let long = "A".repeat(54_705);
    let tags: Vec<_> = whole.tags.iter().map(|t| t.clone().to_vec()).collect();
    assert!(check(&crafted(kinds::TALK, &long, &tags)).is_err());
    assert_eq!(check(&crafted(kinds::TALK, &long[1..], &tags)), Ok(()));
}

#[test]
fn unused_kinds_are_refused() {
    let bid = one(generate::bid());
    assert!(Signed::<Cancel>::verify(event(&bid, &provider())).is_err());
    assert_eq!(check(&crafted(1, "hello", &[])), Err(Refusal::Kind(1)));
    assert!(Signed::<Bid>::verify(event(&bid, &provider())).is_ok());
}
