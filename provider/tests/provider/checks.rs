//! Checking the results of others.

use std::sync::Arc;

use infernet_engine::Fault;
use infernet_protocol::event::{Announcement, Award, JobResult, Judgement, Signed, Verdict};
use infernet_protocol::inference::Task;
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::{Check, Decline, Generate, PayloadKey, Product, Wish, Work};
use infernet_protocol::verification::{
    Activations, Fault as Found, Figures, METHOD_TEXTS, METHOD_VECTORS, Margins, Thresholds,
};
use nostr::{EventBuilder, JsonUtil};

use super::buyer::{Buyer, generate};
use super::house::{Provider, Relay, play_money, quick, slow};
use super::paying::{PRICE, paid, pay};
use super::shards::shard;

pub const THRESHOLDS: Thresholds = Thresholds {
    sampled: MARGINS,
    greedy: MARGINS,
    activations: Activations {
        exponents: 38.0,
        worst_exponents: 64.0,
        mantissa_mean: 10.0,
        mantissa_median: 8.0,
    },
    least_cosine: 0.999,
};

const MARGINS: Margins = Margins {
    clip: 4.0,
    accept: 0.1,
    reject: 0.4,
    window: 0.8,
    pooled: 0.05,
};

/// Somebody who sells, and somebody who checks, with the same models.
struct Pair {
    _relay: Relay,
    seller: Provider,
    checker: Provider,
    buyer: Buyer,
    sold: Signed<Announcement>,
    checked: Signed<Announcement>,
}

impl Pair {
    async fn open() -> Self {
        let relay = Relay::start().await;
        let seller = Provider::start(&[&relay], quick(), |o| o.verify = true).await;
        let checker = Provider::start(&[&relay], quick(), |o| o.verify = true).await;
        let mut buyer = Buyer::connect(&[&relay]).await;
        let sold = buyer.online(seller.handle.public_key()).await;
        let checked = buyer.online(checker.handle.public_key()).await;
        Self {
            _relay: relay,
            seller,
            checker,
            buyer,
            sold,
            checked,
        }
    }

    /// Buys this of the seller, with proofs.
    async fn buy(&mut self, work: Work) -> Check {
        let mut draft = self.buyer.draft(&self.sold, work);
        draft.input.prove = true;
        let award = self.buyer.place(draft).await;
        let (result, _) = self.buyer.output(&award).await;
        check(&self.buyer, &award, &result)
    }

    async fn award(&self, of: &Signed<Announcement>, checks: Vec<Check>) -> Signed<Award> {
        let model = checks[0].model();
        let thresholds = THRESHOLDS;
        let mut draft = self.buyer.draft(of, Work::Verify { checks, thresholds });
        draft.body.model = model;
        self.buyer.place(draft).await
    }

    /// What the checker says.
    async fn judge(&mut self, checks: Vec<Check>) -> Vec<Signed<Verdict>> {
        let award = self.award(&self.checked, checks).await;
        let (result, product) = self.buyer.result(&award).await;
        assert!(result.usage.input_tokens > 0 && result.usage.output_tokens == 0);
        let Product::Verify { verdicts } = product else {
            panic!("these are no verdicts");
        };
        let verdicts = verdicts
            .into_iter()
            .map(|event| Signed::verify(event).unwrap());
        let verdicts: Vec<Signed<Verdict>> = verdicts.collect();
        for verdict in &verdicts {
            assert_eq!(verdict.author(), self.checker.handle.public_key());
            assert_eq!(verdict.provider, self.seller.handle.public_key());
        }
        verdicts
    }

    /// What the checker says of work of the seller's.
    async fn judged(&mut self, work: Work) -> Signed<Verdict> {
        let check = self.buy(work).await;
        self.judge(vec![check]).await.remove(0)
    }

    async fn declined(&mut self, check: Check) -> Decline {
        let award = self.award(&self.checked, vec![check]).await;
        self.buyer.declined(award.id()).await
    }
}

fn check(buyer: &Buyer, award: &Signed<Award>, result: &Signed<JobResult>) -> Check {
    let key = |sealed: &infernet_protocol::seal::Sealed| {
        let key = sealed.unwrap_key(buyer.keys.secret_key(), &award.provider);
        PayloadKey::from_bytes(key.unwrap())
    };
    Check {
        award: Box::new(award.event().clone()),
        result: Box::new(result.event().clone()),
        input_key: key(&award.input),
        output_key: key(&result.output),
    }
}

trait OfModel {
    fn model(&self) -> infernet_protocol::inference::ModelId;
}

impl OfModel for Check {
    fn model(&self) -> infernet_protocol::inference::ModelId {
        let award = Signed::<Award>::from_verified((*self.award).clone());
        award.unwrap().model
    }
}

fn texts() -> Work {
    Work::Embedding {
        texts: vec!["the sea".to_owned(), "the sky".to_owned()],
    }
}

#[tokio::test]
async fn a_model_is_announced_for_checks_too() {
    let pair = Pair::open().await;
    let tasks: Vec<_> = pair
        .checked
        .models
        .iter()
        .map(|m| (m.task, m.model))
        .collect();
    let text = pair
        .checked
        .model("scripted", Task::TextGeneration)
        .unwrap();
    let checks = pair.checked.model("scripted", Task::Verify).unwrap();
    assert_eq!(text.model, checks.model);
    assert!(!checks.continues);
    let tags = pair.checked.event().tags.iter();
    let models = tags.filter(|tag| tag.as_slice()[0] == "m").count();
    assert_eq!(models, 3, "each model is named once");
    // Text and vectors can be computed again; modules are compared otherwise.
    let verify = tasks.iter().filter(|(task, _)| *task == Task::Verify);
    assert_eq!((tasks.len(), verify.count()), (5, 2));
}

#[tokio::test]
async fn honest_work_is_accepted() {
    let mut pair = Pair::open().await;
    for (work, tokens) in [(generate("Count for me", 20), 20), (shard(5), 100)] {
        let verdict = pair.judged(work).await;
        assert_eq!(verdict.judgement, Judgement::Accepted);
        assert_eq!(verdict.method, METHOD_TEXTS);
        assert_eq!(verdict.figures["greedy.tokens"], f64::from(tokens));
        assert_eq!(verdict.figures["greedy.exact"], f64::from(tokens));
        assert!(verdict.figures["activations.chunks"] >= 1.0);
        assert!(Figures::of(&verdict).unwrap().hold_together(&THRESHOLDS));
    }
    let verdict = pair.judged(texts()).await;
    assert_eq!(
        (verdict.judgement, verdict.method.as_str()),
        (Judgement::Accepted, METHOD_VECTORS)
    );
    assert_eq!(verdict.figures["vectors"], 2.0);
}

/// Of an answer that another provider had begun, only its own part is judged.
#[tokio::test]
async fn work_that_goes_on_behind_a_prefix_is_judged_for_itself() {
    let mut pair = Pair::open().await;
    let Work::TextGeneration(asked) = generate("Count for me", 20) else {
        unreachable!("it generates");
    };
    let behind = Generate {
        prefix: vec![0, 1, 2, 3, 4],
        ..asked
    };
    let verdict = pair.judged(Work::TextGeneration(behind.clone())).await;
    assert_eq!(verdict.judgement, Judgement::Accepted);
    assert_eq!(verdict.figures["greedy.tokens"], 15.0);
    assert_eq!(verdict.figures["activations.chunks"], 1.0);
    pair.seller.engine.set_fault(Fault::WrongAfter(0));
    let verdict = pair.judged(Work::TextGeneration(behind)).await;
    assert_eq!(verdict.judgement, Judgement::Rejected);
}

#[tokio::test]
async fn what_is_read_for_a_check_is_paid_for() {
    let relay = Relay::start().await;
    let seller = Provider::start(&[&relay], quick(), |_| {}).await;
    let (_network, till, purse) = play_money();
    let mut buyer = Buyer::connect(&[&relay]).await;
    let aggregator = buyer.keys.public_key;
    let checker = Provider::start(&[&relay], quick(), |options| {
        options.price = PRICE;
        options.verify = true;
        options.price_verify = Some(PRICE.input_msat / 2);
        options.wallet = Some(Arc::new(till));
        options.escrow.from.insert(aggregator);
    })
    .await;
    let sold = buyer.online(seller.handle.public_key()).await;
    let checked = buyer.online(checker.handle.public_key()).await;
    let award = buyer.ask(&sold, 20).await;
    let (result, _) = buyer.output(&award).await;
    let checks = vec![check(&buyer, &award, &result)];
    let thresholds = THRESHOLDS;
    let work = Work::Verify { checks, thresholds };
    // 3 tokens of prompt and 20 of answer, at half of a hundredth of a satoshi.
    let cost = Msat(23 * 5);
    let mut lent = buyer.draft(&checked, work.clone());
    lent.body.terms = PaymentKind::Escrow;
    lent.body.budget_msat = cost;
    let lent = buyer.place(lent).await;
    let (result, _) = buyer.result(&lent).await;
    assert_eq!((result.usage.input_tokens, result.due_msat), (23, cost));
    let on_tab = buyer.place(paid(&buyer, &checked, work)).await;
    let invoice = buyer.invoice(&on_tab).await;
    pay(&purse, &invoice).await;
    let (result, _) = buyer.result(&on_tab).await;
    assert_eq!((result.usage.input_tokens, result.due_msat), (23, cost));
}

#[tokio::test]
async fn several_results_are_judged_in_their_order() {
    let mut pair = Pair::open().await;
    let honest = pair.buy(generate("Count for me", 20)).await;
    pair.seller.engine.set_fault(Fault::WrongAfter(4));
    let wrong = pair.buy(generate("Count for me", 20)).await;
    let results = [&honest, &wrong, &honest].map(|check| check.result.id);
    let verdicts = pair.judge(vec![honest.clone(), wrong, honest]).await;
    let found: Vec<_> = verdicts.iter().map(|v| (v.result, v.judgement)).collect();
    let expected = [
        Judgement::Accepted,
        Judgement::Rejected,
        Judgement::Accepted,
    ];
    let expected: Vec<_> = results.into_iter().zip(expected).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn other_tokens_and_other_vectors_are_rejected() {
    let mut pair = Pair::open().await;
    pair.seller.engine.set_fault(Fault::WrongAfter(4));
    for work in [generate("Count for me", 20), shard(4), texts()] {
        let verdict = pair.judged(work).await;
        assert_eq!(verdict.judgement, Judgement::Rejected, "{}", verdict.method);
    }
}

#[tokio::test]
async fn what_a_buyer_cut_off_is_judged_as_far_as_it_went() {
    let relay = Relay::start().await;
    let seller = Provider::start(&[&relay], slow(), |_| {}).await;
    let checker = Provider::start(&[&relay], quick(), |o| o.verify = true).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let sold = buyer.online(seller.handle.public_key()).await;
    let checked = buyer.online(checker.handle.public_key()).await;
    let award = buyer.ask(&sold, 20).await;
    buyer.piece(award.id(), 2).await;
    buyer.wish(&award, Wish::Stop);
    let (result, _) = buyer.output(&award).await;
    let checks = vec![check(&buyer, &award, &result)];
    let thresholds = THRESHOLDS;
    let draft = buyer.draft(&checked, Work::Verify { checks, thresholds });
    let judging = buyer.place(draft).await;
    let (_, product) = buyer.result(&judging).await;
    let Product::Verify { verdicts } = product else {
        panic!("these are no verdicts");
    };
    let verdict = Signed::<Verdict>::verify(verdicts[0].clone()).unwrap();
    assert_eq!(
        verdict.judgement,
        Judgement::Accepted,
        "{:?}",
        verdict.figures
    );
    assert!(!verdict.figures.contains_key(Found::EndsFalsely.figure()));
}

#[tokio::test]
async fn a_result_that_does_not_belong_together_is_declined() {
    let mut pair = Pair::open().await;
    let one = pair.buy(generate("Count for me", 20)).await;
    let other = pair.buy(generate("Count for me", 10)).await;
    let of_another_award = Check {
        award: other.award.clone(),
        ..one.clone()
    };
    assert_eq!(pair.declined(of_another_award).await, Decline::Input);
    let keys_of_another = Check {
        input_key: other.input_key,
        ..one.clone()
    };
    assert_eq!(pair.declined(keys_of_another).await, Decline::Input);
    let mut forged = (*one.result).clone();
    forged.content = forged
        .content
        .replace("\"ended\":\"stop\"", "\"ended\":\"length\"");
    assert_ne!(forged.content, one.result.content);
    let forged = Check {
        result: Box::new(forged),
        ..one.clone()
    };
    assert_eq!(pair.declined(forged).await, Decline::Input);
    let note = EventBuilder::text_note("no award").sign_with_keys(&pair.buyer.keys);
    let note = Check {
        result: Box::new(note.unwrap()),
        ..one.clone()
    };
    assert!(!note.result.as_json().is_empty());
    assert_eq!(pair.declined(note).await, Decline::Input);
    // Whole it is taken on.
    let verdicts = pair.judge(vec![one]).await;
    assert_eq!(verdicts[0].judgement, Judgement::Accepted);
}

#[tokio::test]
async fn nobody_checks_its_own_work() {
    let mut pair = Pair::open().await;
    let own = pair.buy(generate("Count for me", 20)).await;
    let award = pair.award(&pair.sold, vec![own]).await;
    assert_eq!(pair.buyer.declined(award.id()).await, Decline::Input);
}

#[tokio::test]
async fn who_does_not_check_says_so() {
    let mut pair = Pair::open().await;
    let check = pair.buy(generate("Count for me", 20)).await;
    let relay = &pair._relay;
    let plain = Provider::start(&[relay], quick(), |_| {}).await;
    let word = pair.buyer.online(plain.handle.public_key()).await;
    assert!(word.models.iter().all(|model| model.task != Task::Verify));
    // Of a task that is not announced there is no valid award; the input says another.
    let mut draft = pair.buyer.draft(&word, generate("Count", 20));
    draft.input.work = Work::Verify {
        checks: vec![check],
        thresholds: THRESHOLDS,
    };
    let award = pair.buyer.place(draft).await;
    assert_eq!(pair.buyer.declined(award.id()).await, Decline::Input);
}
