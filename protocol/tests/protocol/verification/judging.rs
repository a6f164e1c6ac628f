//! One result's figures.

use infernet_protocol::event::Judgement::{Accepted, Inconclusive, Rejected};
use infernet_protocol::verification::{
    Fault, Figures, TextFigures, Texts, VectorFigures, judge_text, judge_vectors,
};

use super::{THRESHOLDS, chunk, drawn, even};

#[test]
fn a_mean_is_accepted_inconclusive_or_rejected() {
    for (margin, judgement) in [
        (0.0, Accepted),
        (0.0625, Accepted),
        (0.125, Inconclusive),
        (0.25, Inconclusive),
        (0.375, Rejected),
        (f32::NAN, Rejected),
        (f32::INFINITY, Rejected),
    ] {
        let said = judge_text(&[even(64, margin)], &THRESHOLDS);
        assert_eq!(said, judgement, "{margin}");
    }
}

#[test]
fn temperature_0_has_bounds_of_its_own() {
    let mut text = even(64, 0.375);
    text.greedy = true;
    assert_eq!(judge_text(&[text.clone()], &THRESHOLDS), Inconclusive);
    text.margins = vec![0.625; 64];
    assert_eq!(judge_text(&[text], &THRESHOLDS), Rejected);
}

#[test]
fn few_tokens_do_not_condemn_and_many_short_answers_do() {
    // One token in another's place, of an answer of four.
    let short = drawn(vec![0.0, 0.0, 3.0, 0.0]);
    assert_eq!(
        judge_text(std::slice::from_ref(&short), &THRESHOLDS),
        Accepted
    );
    let many = vec![short; 32];
    assert_eq!(judge_text(&many, &THRESHOLDS), Rejected);
    // Text that was made up is far enough off to be seen in ten tokens.
    assert_eq!(judge_text(&[even(10, 6.0)], &THRESHOLDS), Rejected);
}

#[test]
fn one_bad_answer_among_many_good_ones_is_seen() {
    let mut texts = vec![even(64, 0.0); 255];
    assert_eq!(judge_text(&texts, &THRESHOLDS), Accepted);
    texts.push(even(64, 0.5));
    assert_eq!(judge_text(&texts, &THRESHOLDS), Rejected);
}

#[test]
fn a_part_that_was_made_up_is_seen_in_its_window() {
    let mut margins = vec![0.0; 1_000];
    margins[500..532].fill(1.0);
    let mean = margins.iter().sum::<f32>() / 1_000.0;
    assert!(f64::from(mean) < THRESHOLDS.sampled.accept);
    assert_eq!(judge_text(&[drawn(margins)], &THRESHOLDS), Rejected);
}

#[test]
fn activations_reject_by_mean_and_by_the_worst_chunk() {
    let proven = |chunks: Vec<_>| TextFigures {
        chunks,
        ..even(96, 0.0)
    };
    let judge = |text| judge_text(&[text], &THRESHOLDS);
    assert_eq!(judge(proven(vec![chunk(30); 3])), Accepted);
    assert_eq!(judge(proven(vec![chunk(33); 3])), Rejected);
    assert_eq!(judge(proven(vec![chunk(0), chunk(49), chunk(0)])), Rejected);
    let mut far = chunk(0);
    far.mantissa_mean = f64::NAN;
    assert_eq!(judge(proven(vec![far])), Rejected);
}

#[test]
fn a_fault_rejects_whatever_the_numbers_say() {
    for fault in Fault::ALL {
        let text = TextFigures {
            fault: Some(fault),
            ..even(64, 0.0)
        };
        assert_eq!(judge_text(&[text], &THRESHOLDS), Rejected);
    }
}

#[test]
fn vectors_are_judged_by_the_least_cosine() {
    let judge = |least_cosine, fault| {
        let vectors = VectorFigures {
            vectors: 3,
            least_cosine,
            fault,
        };
        judge_vectors(&vectors, &THRESHOLDS)
    };
    assert_eq!(judge(0.999, None), Accepted);
    assert_eq!(judge(0.98, None), Rejected);
    assert_eq!(judge(f64::NAN, None), Rejected);
    assert_eq!(judge(1.0, Some(Fault::Missing)), Rejected);
}

#[test]
fn figures_that_cannot_belong_together_are_seen() {
    let honest = Texts::of(&[even(64, 0.25), even(8, 0.0)], &THRESHOLDS);
    let holds = |texts: &Texts| Figures::Texts(texts.clone()).hold_together(&THRESHOLDS);
    assert!(holds(&honest));
    let lies: [fn(&mut Texts); 5] = [
        |texts| texts.sampled.exact = 73,
        |texts| texts.sampled.margin_sum = 1e9,
        |texts| texts.sampled.worst_mean = 5.0,
        |texts| texts.sampled.worst_window = 5.0,
        |texts| texts.evidence = 100.0,
    ];
    for lie in lies {
        let mut texts = honest.clone();
        lie(&mut texts);
        assert!(!holds(&texts), "{texts:?}");
    }
}
