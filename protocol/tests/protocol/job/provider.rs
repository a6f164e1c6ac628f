//! An attempt as its provider lives it.

use infernet_protocol::bounds::{MAX_PAYLOAD_BYTES, MAX_REASON_BYTES, MAX_STOP_BYTES};
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::Millis;
use infernet_protocol::job::provider::{
    ALIVE_EVERY_MS, Attempt, Delivery, Effect, Input, LINGER_MS, PIECE_EVERY_MS,
};
use infernet_protocol::payload::{Chain, News, Output, Payload as _, Piece, Product, Progress};
use infernet_protocol::seal::Salt;
use nostr::EventId;
use proptest::collection::vec;
use proptest::prelude::*;

const START: Millis = Millis(1_000_000);
const DEADLINE: Millis = Millis(1_060_000);

fn award() -> EventId {
    EventId::from_byte_array([7; 32])
}

fn queued(ahead: u32) -> Attempt {
    let (attempt, effects) = Attempt::accept(START, &award(), ahead, DEADLINE);
    assert_eq!(effects, [Effect::Send(News::Accepted { ahead })]);
    attempt
}

fn running() -> Attempt {
    let mut attempt = queued(0);
    assert_eq!(attempt.step(START, Input::Started), Ok(vec![]));
    attempt
}

fn token(id: u32, text: &str) -> Input {
    let text = text.into();
    Input::Token { id, text }
}

fn finished(reason: EndReason, text: &str) -> Input {
    let text = text.into();
    Input::Finished { reason, text }
}

fn sent_pieces(effects: &[Effect]) -> Vec<Piece> {
    let piece = |effect: &Effect| match effect {
        Effect::Send(News::Piece(piece)) => Some(piece.clone()),
        _ => None,
    };
    effects.iter().filter_map(piece).collect()
}

fn delivery(effects: &[Effect]) -> &Delivery {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Deliver(delivery) => Some(delivery),
        _ => None,
    });
    found.expect("a delivery")
}

#[test]
fn the_first_piece_goes_at_once_and_later_ones_gather() {
    let mut attempt = running();
    let first = attempt.step(START, token(10, "a")).unwrap();
    assert_eq!(sent_pieces(&first)[0].text, "a");
    assert_eq!(attempt.step(START, token(11, "b")), Ok(vec![]));
    assert_eq!(attempt.step(START, token(12, "c")), Ok(vec![]));
    let due = attempt.next_deadline();
    assert_eq!(due, START.plus(PIECE_EVERY_MS));
    let second = sent_pieces(&attempt.step(due, Input::Tick).unwrap());
    let digest = Chain::start(&award())
        .after(0, &[10], "a")
        .after(1, &[11, 12], "bc")
        .digest();
    let expected = Piece {
        seq: 1,
        tokens: vec![11, 12],
        text: "bc".into(),
        digest,
    };
    assert_eq!(second, [expected]);
}

#[test]
fn who_waits_says_so() {
    let mut attempt = queued(2);
    let moved = attempt.step(START, Input::Moved { ahead: 1 });
    let alive = vec![Effect::Send(News::Alive { ahead: 1 })];
    assert_eq!(moved.as_ref(), Ok(&alive));
    assert_eq!(attempt.step(START, Input::Moved { ahead: 1 }), Ok(vec![]));
    let due = START.plus(ALIVE_EVERY_MS);
    assert_eq!(attempt.next_deadline(), due);
    assert_eq!(attempt.step(due, Input::Tick), Ok(alive));
}

/// Whoever goes on behind the last piece holds the same text back and shows it
/// then: it must not have been shown already.
#[test]
fn text_that_was_held_back_is_in_the_result_alone() {
    for reason in [EndReason::Stop, EndReason::Length] {
        let mut attempt = running();
        let mut effects = attempt.step(START, token(10, "a")).unwrap();
        effects.extend(attempt.step(START, finished(reason, "held")).unwrap());
        let shown: String = sent_pieces(&effects).into_iter().map(|p| p.text).collect();
        assert_eq!(shown, "a");
        assert_eq!(delivery(&effects).text, "aheld");
    }
    for reason in [EndReason::Cancelled, EndReason::Failed] {
        let mut attempt = running();
        attempt.step(START, token(10, "a")).unwrap();
        let effects = attempt.step(START, finished(reason, "held")).unwrap();
        assert_eq!(delivery(&effects).text, "a", "another will go on behind it");
    }
}

#[test]
fn a_failure_has_an_error_that_a_result_may_carry() {
    let long = "the device said:\n\u{1b}[31m".to_owned() + &"é".repeat(400);
    let ends = [
        finished(EndReason::Failed, ""),
        Input::Broke { error: long },
        Input::Broke {
            error: "out of memory".into(),
        },
    ];
    for input in ends {
        let mut attempt = running();
        let effects = attempt.step(START, input).unwrap();
        let delivery = delivery(&effects);
        assert_eq!(delivery.ended, EndReason::Failed);
        let error = delivery.error.as_ref().expect("an error");
        assert!(!error.is_empty() && error.len() <= MAX_REASON_BYTES);
        assert!(!error.chars().any(char::is_control));
    }
    let effects = running()
        .step(START, finished(EndReason::Stop, ""))
        .unwrap();
    assert_eq!(delivery(&effects).error, None);
}

#[test]
fn stopping_delivers_what_there_is_and_nothing_if_nothing_began() {
    let mut attempt = running();
    attempt.step(START, token(10, "a")).unwrap();
    let effects = attempt.step(START, Input::Stop).unwrap();
    assert_eq!(effects[0], Effect::Halt);
    assert_eq!(delivery(&effects).ended, EndReason::Cancelled);
    assert_eq!(delivery(&effects).tokens, [10]);
    assert_eq!(attempt.step(START, Input::Stop), Ok(vec![]));

    let mut attempt = queued(1);
    assert_eq!(attempt.step(START, Input::Stop), Ok(vec![Effect::Halt]));
    let again = attempt.step(START, Input::Resend { from: 0 });
    assert_eq!(again, Ok(vec![]));
}

#[test]
fn the_deadline_ends_it_and_then_it_is_forgotten() {
    for mut attempt in [queued(3), running()] {
        let effects = attempt.step(DEADLINE, Input::Tick).unwrap();
        assert_eq!(delivery(&effects).ended, EndReason::Failed);
        let again = attempt.step(DEADLINE, Input::Resend { from: 0 });
        assert_eq!(again, Ok(vec![Effect::Redeliver]));
        let end = DEADLINE.plus(LINGER_MS);
        assert_eq!(attempt.next_deadline(), end);
        assert_eq!(attempt.step(end, Input::Tick), Ok(vec![Effect::Forget]));
    }
}

#[test]
fn an_engine_that_speaks_out_of_turn_is_a_mistake() {
    assert!(queued(0).step(START, token(1, "a")).is_err());
    assert!(
        queued(0)
            .step(START, finished(EndReason::Stop, ""))
            .is_err()
    );
    assert!(running().step(START, Input::Started).is_err());
}

#[test]
fn one_wish_brings_a_bounded_number_of_pieces() {
    let mut attempt = running();
    for n in 0..500_u32 {
        let at = START.plus(u64::from(n) * PIECE_EVERY_MS);
        attempt.step(at, token(n, "x")).unwrap();
    }
    let now = START.plus(500 * PIECE_EVERY_MS);
    let effects = attempt.step(now, Input::Resend { from: 100 }).unwrap();
    let seqs: Vec<_> = sent_pieces(&effects).iter().map(|p| p.seq).collect();
    assert_eq!(seqs, (100..164).collect::<Vec<_>>());
    let effects = attempt.step(now, Input::Resend { from: 9_999 }).unwrap();
    assert_eq!(effects, [Effect::Send(News::Alive { ahead: 0 })]);
}

/// A fast engine at one instant, the worst text: every piece fits in an event,
/// and so does the result.
#[test]
fn pieces_and_results_fit_in_an_event() {
    for text in ["\u{1}", "\"", "é", "w", "a longer word than most", ""] {
        let mut attempt = running();
        let mut effects = vec![];
        while !attempt.has_ended() {
            effects.extend(attempt.step(START, token(u32::MAX, text)).unwrap());
        }
        for piece in sent_pieces(&effects) {
            let progress = Progress {
                award: award(),
                tab: None,
                news: News::Piece(piece),
            };
            assert!(progress.to_bytes().len() <= MAX_PAYLOAD_BYTES, "{text:?}");
        }
        let delivery = delivery(&effects);
        assert_eq!(delivery.ended, EndReason::Failed);
        let output = Output {
            salt: Salt::from_bytes([9; 32]),
            product: Product::TextGeneration {
                text: delivery.text.clone(),
                tokens: delivery.tokens.clone(),
            },
            proofs: vec![],
        };
        let bytes = output.to_bytes().len();
        assert!(bytes <= MAX_PAYLOAD_BYTES, "{text:?}: {bytes}");
        let held_back = 6 * MAX_STOP_BYTES;
        assert!(
            bytes > MAX_PAYLOAD_BYTES - held_back - 512,
            "{text:?}: {bytes} wastes room"
        );
    }
}

/// As many tokens as there is room for, and then the longest beginning of a stop
/// string that turned out to be none.
#[test]
fn text_that_was_held_back_still_fits() {
    let draw = |attempt: &mut Attempt, most: usize| {
        let mut drawn = 0;
        while drawn < most && !attempt.has_ended() {
            attempt.step(START, token(u32::MAX, "\u{1}")).unwrap();
            drawn += 1;
        }
        drawn
    };
    // The last one found no room.
    let most = draw(&mut running(), usize::MAX) - 1;
    let mut attempt = running();
    draw(&mut attempt, most);
    let finished = Input::Finished {
        reason: EndReason::Stop,
        text: "\u{1}".repeat(MAX_STOP_BYTES),
    };
    let effects = attempt.step(START, finished).unwrap();
    let delivery = delivery(&effects);
    assert_eq!(delivery.ended, EndReason::Stop);
    let output = Output {
        salt: Salt::from_bytes([9; 32]),
        product: Product::TextGeneration {
            text: delivery.text.clone(),
            tokens: delivery.tokens.clone(),
        },
        proofs: vec![],
    };
    assert!(output.to_bytes().len() <= MAX_PAYLOAD_BYTES);
}

/// What a driver may say, with the milliseconds that pass before it.
fn any_inputs() -> impl Strategy<Value = Vec<(u64, Input)>> {
    let input = prop_oneof![
        8 => ("[a-z\"\n]{0,3}", 0..9_u32).prop_map(|(text, id)| Input::Token { id, text }),
        2 => (0..5_u32).prop_map(|ahead| Input::Moved { ahead }),
        1 => Just(Input::Stop),
        1 => Just(Input::Tick),
        1 => Just(Input::Broke { error: "broken".into() }),
        1 => Just(finished(EndReason::Stop, "end")),
    ];
    vec((0..200_u64, input), 0..60)
}

/// Plays inputs to a running attempt; with `curious`, a buyer asks for
/// everything again between any two of them, twice.
fn play(inputs: &[(u64, Input)], curious: bool) -> Vec<Effect> {
    let mut attempt = running();
    let (mut now, mut effects) = (START, vec![]);
    for (after, input) in inputs {
        now = now.plus(*after);
        effects.extend(attempt.step(now, input.clone()).unwrap());
        if curious {
            let once = attempt.step(now, Input::Resend { from: 0 }).unwrap();
            let state = format!("{attempt:?}");
            let twice = attempt.step(now, Input::Resend { from: 0 }).unwrap();
            assert_eq!(state, format!("{attempt:?}"), "asking changes something");
            assert_eq!(once, twice);
            let sent = sent_pieces(&effects);
            assert!(sent_pieces(&once).iter().all(|piece| sent.contains(piece)));
        }
    }
    effects.extend(attempt.step(DEADLINE, Input::Tick).unwrap());
    assert!(attempt.has_ended());
    effects
}

/// Everything an attempt's effects say of its answer.
fn answer(effects: &[Effect]) -> (Vec<u32>, String, Vec<Delivery>) {
    let pieces = sent_pieces(effects);
    let mut deliveries: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deliver(delivery) => Some(delivery.clone()),
            _ => None,
        })
        .collect();
    for delivery in &mut deliveries {
        delivery.timing = Default::default();
    }
    let tokens = pieces.iter().flat_map(|p| p.tokens.clone()).collect();
    (
        tokens,
        pieces.into_iter().map(|p| p.text).collect(),
        deliveries,
    )
}

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn one_result_that_holds_the_pieces(inputs in any_inputs()) {
        let effects = play(&inputs, false);
        let (tokens, text, deliveries) = answer(&effects);
        prop_assert_eq!(deliveries.len(), 1);
        prop_assert_eq!(&deliveries[0].tokens, &tokens);
        prop_assert!(deliveries[0].text.starts_with(&text));
        let halts = effects.iter().filter(|e| **e == Effect::Halt).count();
        prop_assert_eq!(halts, 1);
    }

    #[test]
    fn asking_again_changes_nothing(inputs in any_inputs()) {
        prop_assert_eq!(answer(&play(&inputs, false)), answer(&play(&inputs, true)));
    }

    #[test]
    fn pieces_follow_each_other_and_fit_their_hash(inputs in any_inputs()) {
        let mut chain = Chain::start(&award());
        for (n, piece) in (0_u32..).zip(sent_pieces(&play(&inputs, false))) {
            chain = chain.after(n, &piece.tokens, &piece.text);
            prop_assert_eq!(piece.seq, n);
            prop_assert_eq!(piece.digest, chain.digest());
        }
    }
}
