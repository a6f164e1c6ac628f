//! A verdict in plain words.

use infernet_protocol::event::{Judgement, Verdict};
use infernet_protocol::verification::{Drawn, Fault, Figures, Texts, VectorFigures};

/// What a checker found, in some lines.
pub fn of(verdict: &Verdict, checker: &str, provider: &str) -> String {
    let judged = match verdict.judgement {
        Judgement::Accepted => format!("Accepted: {checker} comes to what {provider} sent."),
        Judgement::Inconclusive => {
            format!("Inconclusive: {checker} cannot tell. Another checker may, or a longer answer.")
        }
        Judgement::Rejected => {
            format!("REJECTED: what {provider} sent is not what its model says, by {checker}.")
        }
    };
    let mut lines = vec![judged];
    match Figures::of(verdict) {
        Ok(Figures::Texts(texts)) => lines.extend(of_texts(&texts)),
        Ok(Figures::Vectors(vectors)) => lines.extend(of_vectors(&vectors)),
        Err(_) => lines.push(format!(
            "  Its method, {}, is not known here.",
            verdict.method
        )),
    }
    lines.push(format!(
        "  Checked in {} with {}.",
        verdict.dtype, verdict.engine
    ));
    lines.join("\n") + "\n"
}

fn of_texts(texts: &Texts) -> Vec<String> {
    let mut lines = Vec::new();
    for (drawn, how) in [
        (&texts.sampled, "sampled"),
        (&texts.greedy, "most probable"),
    ] {
        lines.extend(of_drawn(drawn, how));
    }
    let activations = &texts.activations;
    lines.push(match activations.chunks {
        0 => "  There was no proof of its activations (submit --prove asks for one).".into(),
        chunks => format!(
            "  Activations: {chunks} {}, {:.1} of 128 exponents differ, mantissas by {:.1} on average.",
            if chunks == 1 { "chunk" } else { "chunks" },
            activations.exponents,
            activations.mantissa_mean
        ),
    });
    lines.extend(
        texts
            .faults
            .keys()
            .map(|fault| format!("  Certainly wrong: {}.", said(*fault))),
    );
    lines
}

fn of_drawn(drawn: &Drawn, how: &str) -> Option<String> {
    let mean = drawn.margin_sum / drawn.tokens.max(1) as f64;
    (drawn.tokens > 0).then(|| {
        format!(
            "  Tokens: {} of {} ({how}) are the checker's too; the others are off by {mean:.3} on average over all, \
             {:.3} in the worst stretch.",
            drawn.exact, drawn.tokens, drawn.worst_window
        )
    })
}

fn of_vectors(vectors: &VectorFigures) -> Vec<String> {
    let mut lines = vec![format!(
        "  Vectors: {}, the least cosine with the checker's is {:.5}.",
        vectors.vectors, vectors.least_cosine
    )];
    lines.extend(
        vectors
            .fault
            .map(|fault| format!("  Certainly wrong: {}.", said(fault))),
    );
    lines
}

const fn said(fault: Fault) -> &'static str {
    match fault {
        Fault::UnknownToken => "it has a token that the model does not have",
        Fault::TooLong => "it is longer than was asked for",
        Fault::EndsFalsely => "it does not end for the reason that it says",
        Fault::GoesOnAfterEnd => "it goes on behind its end",
        Fault::TextDiffers => "its text is not that of its tokens",
        Fault::InputMiscounted => "the prompt's tokens are miscounted",
        Fault::NoProof => "a proof was asked for, and there is none that fits",
        Fault::Missing => "there is not one answer for each question",
    }
}
