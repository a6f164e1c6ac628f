//! Whether what came is what the provider of the current attempt owes.

use infernet_protocol::event::{Award, JobResult, Signed, Verdict};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{
    Check, Generated, Output, Payload, Product, Progress, Vector, Work,
};
use infernet_protocol::seal::{Conversation, Domain, overhear, salted_hash};
use infernet_protocol::tensor::{Interface, arrange};
use nostr::{Event, Keys, PublicKey};

/// What a result turned out to be.
#[derive(Debug)]
pub(crate) enum Checked {
    /// Not by the provider of this award, or about another one: none of this attempt's business.
    Foreign,
    /// By the provider, but not what it owes; for this reason.
    Bad(&'static str),
    /// What it says it is.
    Good(Product),
}

/// Whether a result is about an award, by its provider.
pub(crate) fn is_of(result: &Signed<JobResult>, award: &Signed<Award>) -> bool {
    result.author() == award.provider && result.award == award.id()
}

/// Checks a result against the award that it is about. What lies in a blob was `fetched` before.
pub(crate) fn check(
    result: &Signed<JobResult>,
    fetched: Option<Vec<u8>>,
    award: &Signed<Award>,
    work: &Work,
    pair: &Conversation,
) -> Checked {
    if !is_of(result, award) {
        return Checked::Foreign;
    }
    match product(result, fetched, award, work, pair) {
        Ok(product) => Checked::Good(product),
        Err(flaw) => Checked::Bad(flaw),
    }
}

fn product(
    result: &Signed<JobResult>,
    fetched: Option<Vec<u8>>,
    award: &Signed<Award>,
    work: &Work,
    pair: &Conversation,
) -> Result<Product, &'static str> {
    let same_job = result.job == award.job_id() && result.attempt == award.attempt;
    if !same_job || result.buyer != award.author() {
        return Err("it names another job, attempt or buyer");
    }
    if result.model != award.model {
        return Err("another model ran");
    }
    let agreed = award.agreed();
    let agreed = agreed.filter(|word| word.dtype == result.dtype);
    let agreed = agreed.ok_or("it was computed in another number format than agreed")?;
    let due = award.price.cost(
        result
            .usage
            .input_tokens
            .saturating_add(result.usage.prefix_tokens),
        result.usage.output_tokens,
    );
    if due.is_none_or(|due| result.due_msat > due) {
        return Err("it asks for more than the price");
    }
    if result.due_msat > award.budget_msat {
        return Err("it asks for more than the budget");
    }
    let opened = match fetched {
        Some(bytes) => result.output.open_fetched_between(bytes, pair),
        None => result.output.open_between(pair),
    };
    let bytes = opened.map_err(|_| "the output cannot be opened")?;
    let output = Output::from_bytes(&bytes).map_err(|_| "the output is malformed")?;
    let hash = salted_hash(
        Domain::Output,
        &output.salt,
        &award.id(),
        &award.provider,
        &bytes,
    );
    if hash != result.output_hash {
        return Err("the output's hash is wrong");
    }
    let module = agreed.interface.as_ref();
    fits(&output.product, work, result.ended, module)?;
    match &output.product {
        Product::Shard { answers } => asks_for_what_was_done(answers, result, award)?,
        Product::Verify { verdicts } => are_verdicts(verdicts, work, result, award)?,
        Product::TextGeneration { .. } | Product::Embedding { .. } | Product::Tensors { .. } => {}
    }
    Ok(output.product)
}

/// Whether a product is an answer to this work, by what a module was announced to give. What a failure leaves is not
/// looked at.
fn fits(
    product: &Product,
    work: &Work,
    ended: EndReason,
    module: Option<&Interface>,
) -> Result<(), &'static str> {
    match (product, work) {
        (Product::TextGeneration { .. }, Work::TextGeneration(_)) => Ok(()),
        (Product::Embedding { .. }, Work::Embedding { .. })
        | (Product::Tensors { .. }, Work::Tensors { .. })
        | (Product::Shard { .. }, Work::Shard { .. })
        | (Product::Verify { .. }, Work::Verify { .. })
            if ended == EndReason::Failed =>
        {
            Ok(())
        }
        (Product::Embedding { vectors }, Work::Embedding { texts }) => {
            match vectors.len() == texts.len() && are_vectors(vectors) {
                true => Ok(()),
                false => Err("the vectors are not as many as the texts, or are none"),
            }
        }
        (Product::Tensors { outputs }, Work::Tensors { .. }) => match module {
            None if outputs.is_empty() => Err("there is no tensor in it"),
            Some(module) if arrange(&module.outputs, outputs).is_err() => {
                Err("the tensors are not what the module was announced to give")
            }
            None | Some(_) => Ok(()),
        },
        (Product::Shard { answers }, Work::Shard { requests }) => {
            let asked = answers.iter().zip(requests);
            let mut too_long = asked.map(|(a, r)| a.tokens.len() > r.max_tokens as usize);
            if answers.len() != requests.len() || too_long.any(|too_long| too_long) {
                return Err("the texts are not as many as the requests, or too long");
            }
            // Such a text is no whole one, and would be checked as far as it goes.
            let mut stopped = answers
                .iter()
                .map(|answer| answer.ended == EndReason::Cancelled);
            match ended != EndReason::Cancelled && stopped.any(|stopped| stopped) {
                false => Ok(()),
                true => Err("a text says that it was stopped, and nobody stopped it"),
            }
        }
        (Product::Verify { verdicts }, Work::Verify { checks, .. }) => {
            match verdicts.len() == checks.len() {
                true => Ok(()),
                false => Err("the verdicts are not as many as the checks"),
            }
        }
        (
            Product::TextGeneration { .. }
            | Product::Embedding { .. }
            | Product::Tensors { .. }
            | Product::Shard { .. }
            | Product::Verify { .. },
            Work::TextGeneration(_)
            | Work::Embedding { .. }
            | Work::Tensors { .. }
            | Work::Shard { .. }
            | Work::Verify { .. },
        ) => Err("it is another kind of work"),
    }
}

/// Whether a shard costs no more than its texts that did not fail.
fn asks_for_what_was_done(
    answers: &[Generated],
    result: &JobResult,
    award: &Award,
) -> Result<(), &'static str> {
    let done = || answers.iter().filter(|answer| answer.error.is_none());
    let input = done().map(|answer| u64::from(answer.input_tokens)).sum();
    let output = done().map(|answer| answer.tokens.len() as u64).sum();
    let due = award.price.cost(input, output);
    match due.is_some_and(|due| result.due_msat <= due) {
        true => Ok(()),
        false => Err("it asks for more than its texts cost"),
    }
}

/// Whether verdicts are the checker's own, each about the result that it was given.
fn are_verdicts(
    verdicts: &[Event],
    work: &Work,
    result: &JobResult,
    award: &Award,
) -> Result<(), &'static str> {
    let Work::Verify { checks, .. } = work else {
        return Err("it is another kind of work");
    };
    // A check that failed leaves none.
    let is_failed = result.ended == EndReason::Failed;
    let all = verdicts.iter().zip(checks);
    match all
        .into_iter()
        .all(|(event, check)| is_verdict(event, check, award))
    {
        true => Ok(()),
        false if is_failed => Ok(()),
        false => Err("a verdict is not the checker's, or not about the result"),
    }
}

fn is_verdict(event: &Event, check: &Check, award: &Award) -> bool {
    let Ok(verdict) = Signed::<Verdict>::verify(event.clone()) else {
        return false;
    };
    verdict.author() == award.provider
        && verdict.result == check.result.id
        && verdict.award == check.award.id
        && verdict.provider == check.result.pubkey
        && verdict.model == award.model
}

/// Vectors of one length, with no infinities in them.
fn are_vectors(vectors: &[Vector]) -> bool {
    let length = vectors.first().map_or(0, |first| first.0.len());
    let whole = |v: &Vector| v.0.len() == length && v.0.iter().all(|x| x.is_finite());
    length > 0 && vectors.iter().all(whole)
}

/// What is owed for a result that nobody was there to hear: nothing if it is not what was asked for.
pub(crate) fn owed(
    result: &Signed<JobResult>,
    fetched: Option<Vec<u8>>,
    award: &Signed<Award>,
    work: &Work,
    keys: &Keys,
) -> Option<Msat> {
    let pair = Conversation::between(keys.secret_key(), &award.provider).ok()?;
    let Checked::Good(product) = check(result, fetched, award, work, &pair) else {
        return None;
    };
    let usage = &result.usage;
    let drawn = product.tokens().len() as u64;
    let input = usage.input_tokens.saturating_add(usage.prefix_tokens);
    let limits = &award.limits;
    let is_counted_right = usage.output_tokens == drawn
        && drawn <= limits.output_tokens.into()
        && input <= limits.input_tokens.into();
    let is_something = drawn > 0 || (limits.output_tokens == 0 && result.error.is_none());
    match is_something {
        true => is_counted_right.then_some(result.due_msat),
        false => Some(Msat::ZERO),
    }
}

/// A message by this attempt's provider about this attempt.
pub(super) fn progress(
    author: &PublicKey,
    content: &str,
    award: &Signed<Award>,
    conversation: &Conversation,
) -> Option<Progress> {
    if *author != award.provider {
        return None;
    }
    let bytes = overhear(conversation, content).ok()?;
    let progress = Progress::from_bytes(&bytes).ok()?;
    (progress.award == award.id()).then_some(progress)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::event::Body;
    use infernet_protocol::inference::{Dtype, Prompt, Sampling};
    use infernet_protocol::payload::{Generate, News};
    use infernet_protocol::seal::{Digest, whisper};
    use infernet_protocol::tensor::{Element, Slot, Tensor};
    use nostr::secp256k1::rand::rngs::OsRng;

    use super::*;
    use crate::audit::story::Story;

    fn chat() -> Work {
        Work::TextGeneration(Generate {
            prompt: Prompt::Text("Hello".into()),
            sampling: Sampling::default(),
            max_tokens: 8,
            stop: vec![],
            prefix: vec![],
        })
    }

    /// What is said of the result after `spoil`, signed by the provider all the same.
    fn flaw(spoil: impl Fn(&mut JobResult)) -> Option<&'static str> {
        let mut story = Story::direct();
        spoil(&mut story.result);
        match verdict(&story, &story.provider) {
            Checked::Bad(flaw) => Some(flaw),
            Checked::Good(_) => None,
            Checked::Foreign => Some("foreign"),
        }
    }

    fn verdict(story: &Story, signer: &Keys) -> Checked {
        let unsigned = story.result.to_unsigned(signer.public_key(), story.at(2));
        let result = Signed::verify(unsigned.sign_with_keys(signer).unwrap()).unwrap();
        let pair = Conversation::between(story.buyer.secret_key(), &story.provider.public_key());
        let award = story.signed_award();
        check(&result, None, &award, &chat(), &pair.unwrap())
    }

    #[test]
    fn a_result_that_keeps_its_word_is_good() {
        assert_eq!(flaw(|_| {}), None);
    }

    #[test]
    fn every_broken_word_is_named() {
        let hash = Digest::from_bytes([1; 32]);
        assert_eq!(
            flaw(|r| r.output_hash = hash),
            Some("the output's hash is wrong")
        );
        assert_eq!(
            flaw(|r| r.attempt = 2),
            Some("it names another job, attempt or buyer")
        );
        assert_eq!(
            flaw(|r| r.job = nostr::EventId::all_zeros()),
            Some("it names another job, attempt or buyer")
        );
        assert_eq!(
            flaw(|r| r.due_msat = Msat(1)),
            Some("it asks for more than the price")
        );
        assert_eq!(
            flaw(|r| r.dtype = Dtype::Int4),
            Some("it was computed in another number format than agreed")
        );
        let altered = flaw(|r| r.output.body.replace_range(0..4, "AAAA"));
        assert_eq!(altered, Some("the output cannot be opened"));
    }

    #[test]
    fn somebody_elses_result_and_one_of_another_award_are_foreign() {
        let mut story = Story::direct();
        assert!(matches!(
            verdict(&story, &Keys::generate()),
            Checked::Foreign
        ));
        story.result.award = nostr::EventId::all_zeros();
        assert!(matches!(verdict(&story, &story.provider), Checked::Foreign));
    }

    #[test]
    fn a_text_of_a_shard_that_nobody_stopped_was_not_stopped() {
        let Work::TextGeneration(asked) = chat() else {
            unreachable!("it generates");
        };
        let shard = Work::Shard {
            requests: vec![asked.clone(), asked],
        };
        let judge = |second, of_the_shard| {
            let answers = [EndReason::Stop, second].map(|ended| Generated {
                text: String::new(),
                tokens: vec![1, 2],
                input_tokens: 1,
                ended,
                error: (ended == EndReason::Failed).then(|| "it does not fit".into()),
            });
            let answers = answers.into();
            fits(&Product::Shard { answers }, &shard, of_the_shard, None).is_ok()
        };
        for ended in [EndReason::Stop, EndReason::Length, EndReason::Failed] {
            assert!(judge(ended, EndReason::Stop), "{ended:?}");
        }
        assert!(!judge(EndReason::Cancelled, EndReason::Stop));
        assert!(judge(EndReason::Cancelled, EndReason::Cancelled));
    }

    #[test]
    fn vectors_must_be_as_many_as_the_texts_and_whole() {
        let texts = Work::Embedding {
            texts: vec!["a".into(), "b".into()],
        };
        let judge = |vectors: &[&[f32]], ended| {
            let vectors = vectors.iter().map(|v| Vector(v.to_vec())).collect();
            fits(&Product::Embedding { vectors }, &texts, ended, None).is_ok()
        };
        assert!(judge(&[&[0.1, 0.2], &[0.3, 0.4]], EndReason::Stop));
        assert!(judge(&[], EndReason::Failed));
        let wrong: [&[&[f32]]; 4] = [
            &[],
            &[&[0.1]],
            &[&[0.1], &[0.1, 0.2]],
            &[&[0.1], &[f32::NAN]],
        ];
        for vectors in wrong {
            assert!(!judge(vectors, EndReason::Stop), "{vectors:?}");
        }
        let text = Product::TextGeneration {
            text: String::new(),
            tokens: vec![],
        };
        assert!(fits(&text, &texts, EndReason::Stop, None).is_err());
    }

    #[test]
    fn tensors_must_be_those_that_were_announced() {
        let slot = |name: &str, shape: &[i64]| Slot {
            name: name.into(),
            dtype: Element::U8,
            shape: shape.to_vec(),
        };
        let module = Interface {
            label: "sum".into(),
            inputs: vec![slot("numbers", &[-1])],
            outputs: vec![slot("sum", &[2])],
        };
        let tensor = |name: &str, bytes: &[u8]| Tensor {
            name: name.into(),
            dtype: Element::U8,
            shape: vec![bytes.len() as u64],
            data: bytes.to_vec(),
        };
        let work = Work::Tensors {
            inputs: vec![tensor("numbers", &[1])],
        };
        let judge = |outputs: &[Tensor], ended, module| {
            let outputs = outputs.to_vec();
            fits(&Product::Tensors { outputs }, &work, ended, module).is_ok()
        };
        let good = tensor("sum", &[1, 2]);
        let stop = EndReason::Stop;
        assert!(judge(std::slice::from_ref(&good), stop, Some(&module)));
        assert!(judge(std::slice::from_ref(&good), stop, None));
        assert!(judge(&[], EndReason::Failed, Some(&module)));
        assert!(!judge(&[], stop, None));
        for wrong in [
            vec![],
            vec![tensor("sum", &[1])],
            vec![tensor("product", &[1, 2])],
            vec![good.clone(), good],
        ] {
            assert!(!judge(&wrong, stop, Some(&module)), "{wrong:?}");
        }
    }

    #[test]
    fn only_the_providers_own_words_about_this_award_are_heard() {
        let story = Story::direct();
        let award = story.signed_award();
        let provider = story.provider.public_key();
        let theirs =
            Conversation::between(story.provider.secret_key(), &story.buyer.public_key()).unwrap();
        let ours = Conversation::between(story.buyer.secret_key(), &provider).unwrap();
        let says = |award: nostr::EventId| {
            let progress = Progress {
                award,
                tab: None,
                news: News::Alive { ahead: 0 },
            };
            whisper(&theirs, &progress.to_bytes(), &mut OsRng).unwrap()
        };
        let heard =
            |author: &PublicKey, content: &str| progress(author, content, &award, &ours).is_some();
        let word = says(award.id());
        assert!(heard(&provider, &word));
        assert!(
            !heard(&Keys::generate().public_key(), &word),
            "an author who only repeats it"
        );
        assert!(
            !heard(&provider, &says(nostr::EventId::all_zeros())),
            "a replay from another attempt"
        );
        assert!(
            !heard(&provider, &word.replacen(&word[40..44], "AAAA", 1)),
            "an altered message"
        );
        assert!(!heard(&provider, ""), "nothing");
    }
}
