//! A job as its buyer lives it.

use infernet_protocol::bounds::{MAX_BIDS, MAX_BLOB_PAYLOAD_BYTES};
use infernet_protocol::event::{CancelReason, Experience, Usage};
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::Millis;
use infernet_protocol::job::buyer::{
    Account, Candidate, Effect, End, Failure, Input, Job, Mode, Patience, Plan,
};
use infernet_protocol::payload::{Chain, Decline, Piece, Product, Vector};
use nostr::{EventId, PublicKey};

const START: Millis = Millis(1_000_000);

fn plan(mode: Mode) -> Plan {
    Plan {
        mode,
        deadline: START.plus(60_000),
        max_tokens: 10,
        max_attempts: 3,
        patience: Patience::default(),
    }
}

fn auction(enough_bids: usize) -> Plan {
    plan(Mode::Auction {
        window_ms: 1_000,
        enough_bids,
    })
}

fn id(n: u8) -> EventId {
    EventId::from_byte_array([n; 32])
}

fn candidate(n: u8, rank: f64) -> Candidate {
    Candidate {
        word: id(n),
        provider: PublicKey::from_byte_array([n; 32]),
        context: 100,
        continues: true,
        is_bid: false,
        rank,
        until: Millis(u64::MAX),
        good_enough: false,
    }
}

fn bid(n: u8, rank: f64) -> Candidate {
    Candidate {
        is_bid: true,
        ..candidate(n, rank)
    }
}

fn award(attempt: u32, word: u8, prefix: &[u32]) -> Effect {
    Effect::Award {
        attempt,
        word: id(word),
        prefix: prefix.to_vec(),
    }
}

fn show(text: &str, tokens: usize) -> Effect {
    let text = text.into();
    Effect::Show { text, tokens }
}

const AWARD: u8 = 100;

/// A job that listens to provider 1 under the award 100, with 2 and 3 at hand.
fn listening() -> Job {
    let candidates = vec![candidate(1, 3.0), candidate(2, 2.0), candidate(3, 1.0)];
    let (mut job, effects) = Job::begin(START, plan(Mode::Direct), candidates);
    assert_eq!(effects, [award(1, 1, &[])]);
    let awarded = Input::Awarded { award: id(AWARD) };
    assert_eq!(job.step(START, awarded), Ok(vec![]));
    job
}

/// Pieces of one token each, as an honest provider numbers and hashes them.
fn pieces(count: u32) -> Vec<Piece> {
    let mut chain = Chain::start(&id(AWARD));
    let piece = |seq: u32| {
        let text = format!("{seq} ");
        chain = chain.after(seq, &[seq], &text);
        Piece {
            seq,
            tokens: vec![seq],
            text,
            digest: chain.digest(),
        }
    };
    (0..count).map(piece).collect()
}

fn piece(piece: &Piece) -> Input {
    Input::Piece {
        award: id(AWARD),
        piece: piece.clone(),
    }
}

fn result(tokens: u32, ended: EndReason) -> Input {
    Input::Result {
        award: id(AWARD),
        result: id(200),
        ended,
        usage: Usage {
            input_tokens: 5,
            prefix_tokens: 0,
            output_tokens: tokens.into(),
        },
        product: Product::TextGeneration {
            text: (0..tokens).map(|n| format!("{n} ")).collect(),
            tokens: (0..tokens).collect(),
        },
    }
}

fn attested(effects: &[Effect]) -> Vec<Experience> {
    let account = |effect: &Effect| match effect {
        Effect::Attest(Account { experience, .. }) => Some(*experience),
        _ => None,
    };
    effects.iter().filter_map(account).collect()
}

#[test]
fn a_direct_job_asks_the_best_at_once_and_shows_what_comes() {
    let mut job = listening();
    let pieces = pieces(2);
    assert_eq!(job.step(START, piece(&pieces[0])), Ok(vec![show("0 ", 1)]));
    assert_eq!(job.step(START, piece(&pieces[1])), Ok(vec![show("1 ", 1)]));
    let at = START.plus(100);
    let effects = job.step(at, result(3, EndReason::Stop)).unwrap();
    assert_eq!(effects[0], show("2 ", 1));
    assert_eq!(attested(&effects), [Experience::Completed]);
    let end = End::Done {
        award: id(AWARD),
        result: id(200),
        ended: EndReason::Stop,
    };
    assert_eq!(effects.last(), Some(&Effect::End(end)));
    assert_eq!(job.next_deadline(), None);
}

#[test]
fn an_auction_ends_by_enough_bids_by_a_good_one_or_by_time() {
    let begin = || Job::begin(START, auction(2), vec![candidate(9, 99.0)]).0;
    let mut job = begin();
    let step = |job: &mut Job, candidate| job.step(START, Input::Candidate(candidate)).unwrap();
    assert_eq!(step(&mut job, bid(1, 1.0)), []);
    assert_eq!(step(&mut job, bid(1, 2.0)), [], "a second bid of the same");
    assert_eq!(step(&mut job, bid(2, 5.0)), [award(1, 2, &[])]);

    let mut job = begin();
    let good = Candidate {
        good_enough: true,
        ..bid(1, -7.0)
    };
    assert_eq!(step(&mut job, good), [award(1, 1, &[])]);

    let mut job = begin();
    assert_eq!(step(&mut job, bid(1, -7.0)), []);
    let end = job.next_deadline().unwrap();
    assert_eq!(end, START.plus(1_000));
    let bidders_first = vec![award(1, 1, &[])];
    assert_eq!(job.step(end, Input::Tick), Ok(bidders_first));
    assert_eq!(step(&mut job, bid(3, 9.0)), [], "a bid after the award");
}

#[test]
fn any_number_of_announcements_leaves_room_for_bids() {
    let announced = (0..MAX_BIDS as u8).map(|n| candidate(n, 1.0)).collect();
    let (mut job, _) = Job::begin(START, auction(1), announced);
    let bid = Input::Candidate(bid(200, -1.0));
    assert_eq!(job.step(START, bid), Ok(vec![award(1, 200, &[])]));
}

#[test]
fn bids_are_bounded() {
    let (mut job, _) = Job::begin(START, auction(1_000), vec![]);
    for n in 0..=MAX_BIDS as u8 {
        let bid = bid(n, n.into());
        assert_eq!(job.step(START, Input::Candidate(bid)), Ok(vec![]));
    }
    let last_that_counts = MAX_BIDS as u8 - 1;
    let effects = job.step(START.plus(1_000), Input::Tick).unwrap();
    assert_eq!(effects, [award(1, last_that_counts, &[])]);
}

#[test]
fn a_rank_that_is_no_number_is_no_reason_to_panic() {
    let candidates = vec![candidate(1, f64::NAN), candidate(2, f64::INFINITY)];
    let (_, effects) = Job::begin(START, plan(Mode::Direct), candidates);
    assert_eq!(effects.len(), 1);
}

#[test]
fn the_next_one_goes_on_behind_what_was_shown() {
    let mut job = listening();
    for p in pieces(3) {
        job.step(START, piece(&p)).unwrap();
    }
    let effects = job.step(START.plus(5_000), Input::Tick).unwrap();
    assert_eq!(attested(&effects), [Experience::Silent]);
    let cancel = Effect::Cancel {
        award: id(AWARD),
        provider: PublicKey::from_byte_array([1; 32]),
        reason: CancelReason::Silent,
    };
    assert!(effects.contains(&cancel));
    assert_eq!(effects.last(), Some(&award(2, 2, &[0, 1, 2])));
    assert_eq!(
        job.step(START.plus(5_000), piece(&pieces(4)[3])),
        Ok(vec![])
    );
}

#[test]
fn whoever_cannot_continue_is_not_asked_to() {
    let cannot = Candidate {
        continues: false,
        ..candidate(2, 2.0)
    };
    let candidates = vec![candidate(1, 3.0), cannot];
    let (mut job, _) = Job::begin(START, plan(Mode::Direct), candidates);
    job.step(START, Input::Awarded { award: id(AWARD) })
        .unwrap();
    job.step(START, piece(&pieces(1)[0])).unwrap();
    let effects = job.step(START, Input::GivenUp { award: id(AWARD) });
    let end = Effect::End(End::Failed(Failure::NobodyLeft));
    assert_eq!(effects.unwrap().last(), Some(&end));
}

#[test]
fn a_gap_is_asked_for_and_filled() {
    let mut job = listening();
    let p = pieces(4);
    job.step(START, piece(&p[0])).unwrap();
    assert_eq!(job.step(START, piece(&p[3])), Ok(vec![]));
    assert_eq!(job.step(START, piece(&p[2])), Ok(vec![]));
    let asks = job.next_deadline().unwrap();
    let resend = Effect::Resend {
        award: id(AWARD),
        from: 1,
    };
    assert_eq!(job.step(asks, Input::Tick), Ok(vec![resend]));
    let all = vec![show("1 2 3 ", 3)];
    assert_eq!(job.step(asks, piece(&p[1])), Ok(all));
    let quiet = Some(asks.plus(2_500));
    assert_eq!(job.next_deadline(), quiet, "the gap is closed");
    for repeated in &p {
        assert_eq!(job.step(asks, piece(repeated)), Ok(vec![]));
    }
    assert_eq!(job.next_deadline(), quiet, "a repeated piece opens none");
}

#[test]
fn a_missing_piece_is_taken_however_many_wait_behind_it() {
    let plan = Plan {
        max_tokens: 5_000,
        ..plan(Mode::Direct)
    };
    let (mut job, _) = Job::begin(START, plan, vec![candidate(1, 1.0)]);
    job.step(START, Input::Awarded { award: id(AWARD) })
        .unwrap();
    let pieces = pieces(3_000);
    for p in &pieces[1..] {
        job.step(START, piece(p)).unwrap();
    }
    job.step(START, piece(&pieces[0])).unwrap();
    assert!(job.shown().len() > 1_000, "{} shown", job.shown().len());
}

#[test]
fn a_silent_provider_is_asked_at_half_time() {
    let mut job = listening();
    let alive = Input::Alive {
        award: id(AWARD),
        accepted: true,
    };
    job.step(START, alive).unwrap();
    let half = START.plus(2_500);
    assert_eq!(job.next_deadline(), Some(half));
    let effects = job.step(half, Input::Tick).unwrap();
    let look_up = Effect::LookUp { award: id(AWARD) };
    let resend = Effect::Resend {
        award: id(AWARD),
        from: 0,
    };
    assert_eq!(effects, [look_up, resend]);
    assert_eq!(job.next_deadline(), Some(START.plus(5_000)));
}

#[test]
fn the_wait_for_an_acknowledgement_begins_with_the_award() {
    let (mut job, _) = Job::begin(START, plan(Mode::Direct), vec![candidate(1, 1.0)]);
    let signed = START.plus(3_000);
    job.step(signed, Input::Awarded { award: id(AWARD) })
        .unwrap();
    assert_eq!(job.next_deadline(), Some(signed.plus(2_000)));
    let effects = job.step(signed.plus(4_000), Input::Tick).unwrap();
    assert_eq!(attested(&effects), [Experience::Silent]);
}

#[test]
fn lies_end_an_attempt() {
    let p = pieces(2);
    let mut altered = p[1].clone();
    altered.text = "another".into();
    let mut too_many = p[0].clone();
    too_many.tokens = (0..11).collect();
    too_many.digest = Chain::start(&id(AWARD))
        .after(0, &too_many.tokens, &too_many.text)
        .digest();
    let mut endless = p[0].clone();
    endless.text = "x".repeat(MAX_BLOB_PAYLOAD_BYTES + 1);
    endless.digest = Chain::start(&id(AWARD))
        .after(0, &endless.tokens, &endless.text)
        .digest();
    let embedding = Input::Result {
        award: id(AWARD),
        result: id(200),
        ended: EndReason::Stop,
        usage: Usage::default(),
        product: Product::Embedding {
            vectors: vec![Vector(vec![1.0])],
        },
    };
    let lies = [
        vec![piece(&p[0]), piece(&altered)],
        vec![piece(&too_many)],
        vec![piece(&endless)],
        vec![embedding],
        vec![result(11, EndReason::Stop)],
        vec![result(9, EndReason::Length)],
        vec![piece(&altered), piece(&p[0])],
        vec![Input::BadResult { award: id(AWARD) }],
    ];
    for lie in lies {
        let mut job = listening();
        let effects: Vec<_> = lie
            .into_iter()
            .flat_map(|input| job.step(START, input).unwrap())
            .collect();
        assert_eq!(attested(&effects), [Experience::Invalid]);
        assert!(matches!(
            effects.last(),
            Some(Effect::Award { attempt: 2, .. })
        ));
    }
}

#[test]
fn length_is_a_full_answer_or_a_full_context() {
    let mut job = listening();
    let effects = job.step(START, result(10, EndReason::Length)).unwrap();
    assert_eq!(attested(&effects), [Experience::Completed]);

    let small = Candidate {
        context: 12,
        ..candidate(1, 1.0)
    };
    let (mut job, _) = Job::begin(START, plan(Mode::Direct), vec![small]);
    job.step(START, Input::Awarded { award: id(AWARD) })
        .unwrap();
    let effects = job.step(START, result(7, EndReason::Length)).unwrap();
    assert_eq!(attested(&effects), [Experience::Completed]);
}

#[test]
fn declining_is_no_fault_but_dropping_the_work_is() {
    let declined = Input::Declined {
        award: id(AWARD),
        reason: Decline::Busy,
    };
    let mut job = listening();
    assert_eq!(
        job.step(START, declined.clone()),
        Ok(vec![award(2, 2, &[])])
    );

    let mut job = listening();
    job.step(START, piece(&pieces(1)[0])).unwrap();
    let effects = job.step(START, declined).unwrap();
    assert_eq!(attested(&effects), [Experience::Failed]);
    assert_eq!(effects.last(), Some(&award(2, 2, &[0])));
}

#[test]
fn who_never_got_the_award_is_not_blamed() {
    let mut job = listening();
    let effects = job.step(START, Input::AwardFailed);
    assert_eq!(effects, Ok(vec![award(2, 2, &[])]));

    let mut job = listening();
    job.step(START, piece(&pieces(1)[0])).unwrap();
    let effects = job.step(START, Input::AwardFailed);
    assert_eq!(effects, Ok(vec![]), "it got there by another relay");
}

#[test]
fn an_award_that_nobody_signed_is_no_attempt() {
    let candidates = vec![candidate(1, 3.0), candidate(2, 2.0)];
    let (mut job, _) = Job::begin(START, plan(Mode::Direct), candidates);
    let effects = job.step(START, Input::AwardFailed);
    assert_eq!(effects, Ok(vec![award(1, 2, &[])]));
    let effects = job.step(START, Input::AwardFailed);
    let end = Effect::End(End::Failed(Failure::NobodyLeft));
    assert_eq!(effects, Ok(vec![end]), "they were there");
}

#[test]
fn a_word_that_has_run_out_is_not_awarded_on() {
    let stale = |candidate: Candidate| Candidate {
        until: START.plus(1_000),
        ..candidate
    };
    let mut job = listening();
    job.step(START, Input::Candidate(stale(bid(2, 2.0))))
        .unwrap();
    let newer = Candidate {
        word: id(33),
        ..candidate(3, 1.0)
    };
    job.restock([stale(candidate(2, 2.0)), newer]);
    let later = START.plus(1_000);
    let effects = job
        .step(later, Input::GivenUp { award: id(AWARD) })
        .unwrap();
    assert_eq!(
        effects.last(),
        Some(&award(2, 33, &[])),
        "on its newer word"
    );
}

#[test]
fn who_only_ever_says_that_it_is_alive_is_rated_at_the_deadline() {
    let stalls = |begins_ms: u64, pieces: &[Piece]| {
        let (mut job, _) = Job::begin(
            START.plus(begins_ms),
            plan(Mode::Direct),
            vec![candidate(1, 1.0)],
        );
        let at = START.plus(begins_ms);
        job.step(at, Input::Awarded { award: id(AWARD) }).unwrap();
        for one in pieces {
            job.step(at, piece(one)).unwrap();
        }
        let mut effects = vec![];
        for second in begins_ms / 1_000..=60 {
            let alive = Input::Alive {
                award: id(AWARD),
                accepted: true,
            };
            effects.extend(job.step(START.plus(second * 1_000), alive).unwrap());
        }
        let end = Effect::End(End::Failed(Failure::Deadline));
        assert_eq!(effects.last(), Some(&end));
        attested(&effects)
    };
    assert_eq!(stalls(0, &[]), [Experience::Silent]);
    assert_eq!(stalls(0, &pieces(1)), [], "it was slow, not idle");
    assert_eq!(stalls(59_000, &[]), [], "it had no time");
}

#[test]
fn failures_say_what_happened() {
    let failure = |candidates, inputs: &[Input]| {
        let (mut job, mut effects) = Job::begin(START, plan(Mode::Direct), candidates);
        for input in inputs {
            effects.extend(job.step(START, input.clone()).unwrap());
        }
        match effects.last() {
            Some(Effect::End(End::Failed(failure))) => *failure,
            other => panic!("{other:?}"),
        }
    };
    let awarded = Input::Awarded { award: id(AWARD) };
    let declined = Input::Declined {
        award: id(AWARD),
        reason: Decline::Model,
    };
    let given_up = Input::GivenUp { award: id(AWARD) };
    assert_eq!(failure(vec![], &[]), Failure::NoProvider);
    let one = || vec![candidate(1, 1.0)];
    assert_eq!(
        failure(one(), &[awarded.clone(), declined]),
        Failure::Declined(Decline::Model)
    );
    let again = [awarded.clone(), given_up.clone()];
    assert_eq!(failure(one(), &again), Failure::NobodyLeft);
    let many = (1..9).map(|n| candidate(n, 1.0)).collect();
    assert_eq!(
        failure(many, &[&again[..]; 3].concat()),
        Failure::TooManyAttempts
    );
}

#[test]
fn nothing_is_awarded_at_the_deadline() {
    let mut job = listening();
    let at = START.plus(60_000);
    let effects = job.step(at, Input::GivenUp { award: id(AWARD) }).unwrap();
    let end = Effect::End(End::Failed(Failure::Deadline));
    assert_eq!(effects.last(), Some(&end));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Award { .. })));

    let (job, effects) = Job::begin(at, plan(Mode::Direct), vec![candidate(1, 1.0)]);
    assert!(job.has_ended());
    assert_eq!(effects, [end]);
}

#[test]
fn awards_that_nobody_asked_for_are_the_drivers_mistake() {
    let awarded = Input::Awarded { award: id(7) };
    assert!(listening().step(START, awarded.clone()).is_err());
    let (mut job, _) = Job::begin(START, auction(3), vec![]);
    let before = format!("{job:?}");
    assert!(job.step(START, awarded.clone()).is_err());
    assert!(job.step(START, Input::AwardFailed).is_err());
    assert_eq!(before, format!("{job:?}"), "a mistake changes nothing");
    job.step(START, Input::Stop).unwrap();
    assert_eq!(job.step(START, awarded), Ok(vec![]));
}
