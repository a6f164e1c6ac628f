//! The examples of the documents: made by today's code, valid, and one story.

#[path = "../../examples/make_examples/batch.rs"]
mod batch;
#[path = "../../examples/make_examples/draws.rs"]
mod draws;
#[path = "../../examples/make_examples/life.rs"]
mod life;
#[path = "../../examples/make_examples/ordering.rs"]
mod ordering;
#[path = "../../examples/make_examples/words.rs"]
mod words;

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine as _;
use infernet_protocol::batch::{Answer, Done, Lines, Phase, Question, Reply};
use infernet_protocol::event::{
    Aggregator, Announcement, Attestation, Award, Basis, Bid, Body, Cancel, Experience, JobResult,
    ModelThresholds, Offer, Order, Private, Quote, Receipt, Settlement, Signed, Talk, Verdict,
    check,
};
use infernet_protocol::kinds;
use infernet_protocol::payload::{
    Chain, Control, Input, News, Output, Payload, Piece, Product, Progress, Wish, Work,
};
use infernet_protocol::seal::blob::decrypt;
use infernet_protocol::seal::{Conversation, Digest, Domain, Salt, overhear, salted_hash};
use infernet_protocol::tab::Statement;
use infernet_protocol::tensor::{arrange, tokens};
use nostr::{Event, Keys};
use serde_json::Value;
use sha2::Digest as _;

/// Examples that other documents' tests read.
const OTHERS: [&str; 5] = ["model", "reputation", "sampling", "toploc", "verification"];

/// All that are one signed event.
const EVENTS: [&str; 28] = [
    "aggregator.json",
    "announcement.json",
    "attestation-batch.json",
    "attestation-silent.json",
    "attestation.json",
    "award-direct.json",
    "award-second.json",
    "award-shard.json",
    "award.json",
    "bid-b.json",
    "bid.json",
    "cancel.json",
    "control.json",
    "offer.json",
    "order.json",
    "progress.json",
    "quote.json",
    "receipt.json",
    "result-direct.json",
    "result-shard.json",
    "result.json",
    "settlement-closing.json",
    "settlement.json",
    "talk-answer.json",
    "talk-question.json",
    "thresholds.json",
    "verdict-shard.json",
    "verdict.json",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../nips/examples")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn event(name: &str) -> Event {
    serde_json::from_str(&text(name)).unwrap()
}

fn read<B: Body>(name: &str) -> Signed<B> {
    Signed::verify(event(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn payload<P: Payload>(name: &str) -> P {
    P::from_bytes(text(name).as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn json(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap()
}

/// The keys of somebody in the story.
fn keys(who: &str) -> Keys {
    let keys = json("keys.json");
    let pair = Keys::parse(keys[who]["secret"].as_str().unwrap()).unwrap();
    assert_eq!(keys[who]["public"], pair.public_key().to_hex());
    pair
}

#[test]
fn are_made_by_this_code_and_none_is_missing() {
    let made = life::files();
    for (name, expected) in &made {
        let hint = "run: cargo run -p infernet-protocol --example make_examples";
        assert_eq!(&text(name), expected, "{name} is not up to date; {hint}");
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let others = OTHERS.iter().any(|other| name.starts_with(other));
        assert!(
            others || made.contains_key(name.as_str()),
            "{name} is not tested"
        );
    }
}

#[test]
fn verify_and_serialise_to_the_same() {
    fn same<B: Body>(name: &str) {
        let signed = read::<B>(name);
        let again = serde_json::to_string(&*signed).unwrap();
        assert_eq!(again, signed.event().content, "{name}");
    }
    let mut seen = BTreeSet::new();
    for name in EVENTS {
        let event = event(name);
        event.verify().unwrap();
        assert_eq!(check(&event), Ok(()), "{name}");
        let again = serde_json::to_string_pretty(&event).unwrap() + "\n";
        assert_eq!(again, text(name), "{name}");
        match event.kind.as_u16() {
            kinds::ANNOUNCEMENT => same::<Announcement>(name),
            kinds::OFFER => same::<Offer>(name),
            kinds::BID => same::<Bid>(name),
            kinds::AWARD => same::<Award>(name),
            kinds::RESULT => same::<JobResult>(name),
            kinds::RECEIPT => same::<Receipt>(name),
            kinds::VERDICT => same::<Verdict>(name),
            kinds::ATTESTATION => same::<Attestation>(name),
            kinds::CANCEL => same::<Cancel>(name),
            kinds::AGGREGATOR => same::<Aggregator>(name),
            kinds::THRESHOLDS => same::<ModelThresholds>(name),
            kinds::QUOTE => same::<Quote>(name),
            kinds::ORDER => same::<Order>(name),
            kinds::SETTLEMENT => same::<Settlement>(name),
            kinds::PROGRESS | kinds::CONTROL => drop(Private::parse(&event).unwrap()),
            kinds::TALK => drop(Talk::parse(&event).unwrap()),
            other => panic!("{name}: kind {other}"),
        }
        seen.insert(event.kind.as_u16());
    }
    assert_eq!(
        seen,
        BTreeSet::from(kinds::ALL),
        "every kind has an example"
    );
}

#[test]
fn payloads_serialise_to_the_same() {
    fn same<P: Payload>(name: &str) {
        assert_eq!(payload::<P>(name).to_bytes(), text(name).into_bytes());
    }
    same::<Input>("payload-input.json");
    same::<Input>("payload-input-second.json");
    same::<Input>("payload-input-direct.json");
    same::<Output>("payload-output.json");
    same::<Output>("payload-output-direct.json");
    same::<Progress>("payload-progress.json");
    same::<Control>("payload-control.json");
    same::<Control>("payload-payout.json");
    same::<Progress>("payload-payable.json");
    same::<Input>("payload-input-shard.json");
    same::<Input>("payload-input-verify.json");
    same::<Output>("payload-output-shard.json");
    same::<Output>("payload-output-verify.json");
    same::<Question>("payload-question.json");
    same::<Question>("payload-question-group.json");
    same::<Answer>("payload-answer.json");
    same::<Answer>("payload-answer-standing.json");
    same::<Lines>("payload-lines.json");
    same::<Done>("payload-done.json");
}

#[test]
fn the_auction_is_one_story() {
    let offer = read::<Offer>("offer.json");
    let (bid_a, bid_b) = (read::<Bid>("bid.json"), read::<Bid>("bid-b.json"));
    for (bid, who) in [(&bid_a, "provider_a"), (&bid_b, "provider_b")] {
        assert_eq!(bid.author(), keys(who).public_key());
        assert_eq!((bid.offer, bid.buyer), (offer.id(), offer.author()));
    }
    let (first, second) = (
        read::<Award>("award.json"),
        read::<Award>("award-second.json"),
    );
    for (award, attempt, bid) in [(&first, 1, &bid_a), (&second, 2, &bid_b)] {
        assert_eq!(award.author(), keys("buyer").public_key());
        assert_eq!((award.job_id(), award.attempt), (offer.id(), attempt));
        assert_eq!(award.provider, bid.author());
        let basis = Basis::Auction {
            offer: Box::new(offer.event().clone()),
            bid: Box::new(bid.event().clone()),
        };
        assert_eq!(award.basis, basis);
    }
    let cancel = read::<Cancel>("cancel.json");
    assert_eq!((cancel.job, cancel.award), (offer.id(), Some(first.id())));
    assert_eq!(cancel.counterparty, Some(bid_a.author()));
    let silent = read::<Attestation>("attestation-silent.json");
    assert_eq!(
        (silent.award, silent.provider),
        (first.id(), bid_a.author())
    );
    assert_eq!(silent.experience, Experience::Silent);
    let result = read::<JobResult>("result.json");
    assert_eq!((result.job, result.award), (offer.id(), second.id()));
    assert_eq!(
        (result.author(), result.buyer),
        (bid_b.author(), offer.author())
    );
    assert_eq!((result.attempt, result.model), (2, second.model));
}

#[test]
fn what_follows_a_result_names_it() {
    let award = read::<Award>("award-second.json");
    let result = read::<JobResult>("result.json");
    let receipt = read::<Receipt>("receipt.json");
    assert_eq!(
        (receipt.award, receipt.result),
        (award.id(), Some(result.id()))
    );
    assert_eq!(receipt.counterparty, result.author());
    assert_eq!(
        (receipt.usage, receipt.due_msat),
        (result.usage, result.due_msat)
    );
    let input = result.usage.input_tokens + result.usage.prefix_tokens;
    let due = award.price.cost(input, result.usage.output_tokens);
    assert_eq!(Some(result.due_msat), due, "a prefix is billed as input");
    let verdict = read::<Verdict>("verdict.json");
    assert_eq!((verdict.award, verdict.result), (award.id(), result.id()));
    assert_eq!(verdict.author(), keys("checker").public_key());
    let attestation = read::<Attestation>("attestation.json");
    assert_eq!(attestation.result, Some(result.id()));
    assert_eq!(attestation.receipt, Some(receipt.id()));
    assert_eq!(attestation.paid_msat, receipt.paid_msat);
    assert_eq!(attestation.provider, result.author());
}

/// A tab's totals, as the documents define what is signed of them.
#[test]
fn both_sides_sign_the_same_totals() {
    let tab = json("tab.json");
    let award = read::<Award>("award-second.json");
    let result = read::<JobResult>("result.json");
    let statement = Statement {
        buyer: award.author(),
        provider: award.provider,
        award: award.id(),
        totals: serde_json::from_value(tab["totals"].clone()).unwrap(),
    };
    assert_eq!(tab["award"], award.id().to_hex());
    assert_eq!(tab["digest"], hex::encode(statement.digest()));
    assert_eq!(statement.totals.due_msat, result.due_msat);
    let due = payload::<Progress>("payload-due.json").tab.unwrap();
    let Wish::Acknowledge { tab: agreed } = payload::<Control>("payload-acknowledge.json").wish
    else {
        panic!("it acknowledges");
    };
    assert_eq!(
        (due.totals, agreed.totals),
        (statement.totals, statement.totals)
    );
    statement
        .verify(&statement.provider, &due.signature)
        .unwrap();
    statement
        .verify(&statement.buyer, &agreed.signature)
        .unwrap();
    assert_eq!(tab["by_provider"], due.signature.to_string());
    assert_eq!(tab["by_buyer"], agreed.signature.to_string());
}

/// A receipt's payments are hashed with the salt of the award's input.
#[test]
fn a_receipt_names_its_payments_by_salted_hashes() {
    let receipt = read::<Receipt>("receipt.json");
    let salt = payload::<Input>("payload-input-second.json").salt;
    let hash = sha2::Sha256::digest(b"example preimage");
    let payment = salted_hash(
        Domain::Payment,
        &salt,
        &receipt.award,
        &receipt.author(),
        &hash,
    );
    assert_eq!(receipt.payments, [payment]);
}

/// An award's input, opened by its provider and held against its hash.
fn opened(award: &Signed<Award>, provider: &Keys) -> String {
    let bytes = award
        .input
        .open(provider.secret_key(), &award.author())
        .unwrap();
    let input = Input::from_bytes(&bytes).unwrap();
    let about = award.basis.word().id;
    let hash = salted_hash(Domain::Input, &input.salt, &about, &award.author(), &bytes);
    assert_eq!(award.input_hash, hash);
    String::from_utf8(bytes).unwrap()
}

/// A result's output, opened by its buyer and held against its hash.
fn opened_output(result: &Signed<JobResult>) -> String {
    let buyer = keys("buyer");
    let bytes = result
        .output
        .open(buyer.secret_key(), &result.author())
        .unwrap();
    let output = Output::from_bytes(&bytes).unwrap();
    let hash = salted_hash(
        Domain::Output,
        &output.salt,
        &result.award,
        &result.author(),
        &bytes,
    );
    assert_eq!(result.output_hash, hash);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn what_is_sealed_is_what_the_payload_files_say() {
    let (a, b) = (keys("provider_a"), keys("provider_b"));
    let input = |name, keys| opened(&read(name), keys);
    assert_eq!(input("award.json", &a), text("payload-input.json"));
    assert_eq!(
        input("award-second.json", &b),
        text("payload-input-second.json")
    );
    assert_eq!(
        input("award-direct.json", &a),
        text("payload-input-direct.json")
    );
    let output = |name| opened_output(&read(name));
    assert_eq!(output("result.json"), text("payload-output.json"));
    assert_eq!(
        output("result-direct.json"),
        text("payload-output-direct.json")
    );
}

#[test]
fn what_is_private_is_what_the_payload_files_say() {
    let parties = [
        (
            "progress.json",
            "payload-progress.json",
            "provider_a",
            "buyer",
        ),
        (
            "control.json",
            "payload-control.json",
            "buyer",
            "provider_a",
        ),
    ];
    let offer = read::<Offer>("offer.json");
    for (name, file, author, reader) in parties {
        let event = event(name);
        let private = Private::parse(&event).unwrap();
        assert_eq!(event.pubkey, keys(author).public_key());
        assert_eq!(private.reader, keys(reader).public_key());
        assert_eq!(private.job, offer.id());
        let reader = keys(reader);
        let key = Conversation::between(reader.secret_key(), &event.pubkey).unwrap();
        let bytes = overhear(&key, &private.content).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text(file));
    }
    let award = read::<Award>("award.json");
    assert_eq!(
        payload::<Progress>("payload-progress.json").award,
        award.id()
    );
    assert_eq!(payload::<Control>("payload-control.json").award, award.id());
}

/// The second attempt goes on behind what the first one brought, and both
/// together are the answer.
#[test]
fn the_second_attempt_continues_the_first() {
    let pieces = running_hash();
    let brought: Vec<_> = pieces.iter().flat_map(|p| p.tokens.clone()).collect();
    let News::Piece(sent) = payload::<Progress>("payload-progress.json").news else {
        panic!("it is a piece");
    };
    assert_eq!(sent, pieces[1]);
    let work = |name| match payload::<Input>(name).work {
        Work::TextGeneration(generate) => generate,
        _ => panic!("it is a text generation"),
    };
    let (first, second) = (
        work("payload-input.json"),
        work("payload-input-second.json"),
    );
    assert_eq!(second.prefix, brought);
    assert!(first.prefix.is_empty());
    assert_eq!(first.sampling, second.sampling, "the same seed");
    assert_eq!(first.max_tokens, second.max_tokens, "of the whole answer");
    let Product::TextGeneration { text, tokens } = payload::<Output>("payload-output.json").product
    else {
        panic!("it is a text");
    };
    let shown: String = pieces.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(shown + &text, "Red, green and blue.");
    let usage = read::<JobResult>("result.json").usage;
    assert_eq!(usage.prefix_tokens, brought.len() as u64);
    assert_eq!(usage.output_tokens, tokens.len() as u64);
}

/// The pieces of `sealing.json`, each checked against the running hash.
fn running_hash() -> Vec<Piece> {
    let example = &json("sealing.json")["running_hash"];
    let award = read::<Award>("award.json").id();
    assert_eq!(example["award"], award.to_hex());
    let [before, pieces @ ..] = &example["pieces"].as_array().unwrap()[..] else {
        panic!("there is a hash before the first piece");
    };
    let mut chain = Chain::start(&award);
    assert_eq!(before["before the first piece"], chain.digest().to_string());
    let read = pieces.iter().map(|piece| {
        let piece: Piece = serde_json::from_value(piece.clone()).unwrap();
        chain = chain.after(piece.seq, &piece.tokens, &piece.text);
        assert_eq!(piece.digest, chain.digest());
        piece
    });
    read.collect()
}

#[test]
fn the_worked_examples_of_sealing_hold() {
    let example = json("sealing.json");
    let award = read::<Award>("award.json");
    let of = |name: &str| example["input_hash"][name].as_str().unwrap().to_owned();
    let hash = salted_hash(
        Domain::Input,
        &of("salt").parse::<Salt>().unwrap(),
        &of("about").parse().unwrap(),
        &of("author").parse().unwrap(),
        text(&of("bytes")).as_bytes(),
    );
    assert_eq!(hash, of("hash").parse::<Digest>().unwrap());
    assert_eq!(hash, award.input_hash);
    let key = example["sealed_input"]["payload_key"].as_str().unwrap();
    let key: [u8; 32] = hex::decode(key).unwrap().try_into().unwrap();
    let opened = award.input.open_with(&key).unwrap();
    assert_eq!(
        String::from_utf8(opened).unwrap(),
        text("payload-input.json")
    );
}

#[test]
fn the_worked_example_of_a_blob_holds() {
    let example = &json("sealing.json")["blob"];
    let of = |name: &str| example[name].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(of("bytes"));
    let bytes = bytes.unwrap();
    assert_eq!(Digest::of(&bytes), of("sha256").parse::<Digest>().unwrap());
    let key: [u8; 32] = hex::decode(of("key")).unwrap().try_into().unwrap();
    let opened = decrypt(&key, bytes).unwrap();
    assert_eq!(opened, text(of("payload")).as_bytes());
}

/// What the module of the announcement takes and gives.
#[test]
fn the_tensors_fit_the_announced_module() {
    let announcement = read::<Announcement>("announcement.json");
    let modules = announcement.models.iter();
    let interface = modules.filter_map(|model| model.interface.as_ref()).next();
    let interface = interface.expect("a module is announced");
    let Work::Tensors { inputs } = payload::<Input>("payload-input-tensors.json").work else {
        panic!("these are tensors");
    };
    let Product::Tensors { outputs } = payload::<Output>("payload-output-tensors.json").product
    else {
        panic!("these are tensors");
    };
    arrange(&interface.inputs, &inputs).unwrap();
    arrange(&interface.outputs, &outputs).unwrap();
    // Seven bytes are two tokens.
    assert_eq!(inputs[0].data.len(), 7);
    assert_eq!(tokens(&inputs), 2);
    let sum: f32 = inputs[0].data.iter().map(|&byte| f32::from(byte)).sum();
    assert_eq!(outputs[0].data, sum.to_le_bytes());
}

/// What a talk event says, opened by its reader.
fn overheard(name: &str, reader: &str) -> String {
    let event = event(name);
    let talk = Talk::parse(&event).unwrap();
    let reader = keys(reader);
    assert_eq!(talk.reader, reader.public_key());
    let key = Conversation::between(reader.secret_key(), &event.pubkey).unwrap();
    String::from_utf8(overhear(&key, &talk.content).unwrap()).unwrap()
}

#[test]
fn the_batch_is_one_story() {
    let (buyer, aggregator) = (keys("buyer").public_key(), keys("aggregator").public_key());
    assert_eq!(read::<Aggregator>("aggregator.json").author(), aggregator);
    let question = overheard("talk-question.json", "aggregator");
    assert_eq!(question, text("payload-question.json"));
    let answer = overheard("talk-answer.json", "buyer");
    assert_eq!(answer, text("payload-answer.json"));
    let order = read::<Order>("order.json");
    assert_eq!((order.author(), order.aggregator), (buyer, aggregator));
    assert_eq!(&*order.quote, read::<Quote>("quote.json").event());
    let (award, result) = (
        read::<Award>("award-shard.json"),
        read::<JobResult>("result-shard.json"),
    );
    assert_eq!((award.author(), award.job_id()), (aggregator, award.id()));
    assert_eq!(result.award, award.id());
    let sealed = opened(&award, &keys("provider_a"));
    assert_eq!(sealed, text("payload-input-shard.json"));
    let verdict = read::<Verdict>("verdict-shard.json");
    assert_eq!(verdict.result, result.id());
    let said = read::<Attestation>("attestation-batch.json");
    assert_eq!(said.verdict, Some(verdict.id()));
    let batch = said.batch.unwrap();
    assert_eq!((batch.order, batch.buyer), (order.id(), buyer));
    let settlement = read::<Settlement>("settlement.json");
    assert_eq!((settlement.order, settlement.buyer), (order.id(), buyer));
    let group = settlement.group.as_ref().unwrap();
    let results: Vec<_> = group
        .results
        .iter()
        .map(|r| (r.result, r.verdict))
        .collect();
    assert_eq!(results, [(result.id(), Some(verdict.id()))]);
    assert_eq!(batch.fee_msat, group.charge.fee_msat);
    assert_eq!(result.due_msat, group.charge.work_msat);
}

/// As `batch.md` says to.
#[test]
fn an_auditor_finds_the_batch_in_order() {
    let quote = read::<Quote>("quote.json");
    let settlement = read::<Settlement>("settlement.json");
    let secret = read::<Settlement>("settlement-closing.json")
        .secret
        .unwrap();
    assert_eq!(secret.commitment(), quote.commitment);
    let group = settlement.group.as_ref().unwrap();
    for checked in &group.results {
        let chosen = secret.chooses(&checked.result, checked.chance_ppm);
        assert_eq!(chosen, checked.verdict.is_some());
    }
    assert!(group.charge.total() <= quote.most_msat);
    assert!(group.charge.total() <= group.taken_msat);
    let result = read::<JobResult>("result-shard.json").usage;
    let (input, output) = (result.input_tokens, result.output_tokens);
    assert!(quote.allows(&group.charge, input, output));
    let payment = payload::<Answer>("payload-answer.json");
    let Reply::Group(standing) = payment.reply else {
        panic!("it is about a group");
    };
    let Phase::Settled { delivery, preimage } = standing.phase else {
        panic!("it is settled");
    };
    assert_eq!(delivery.charge, group.charge);
    let key = infernet_protocol::batch::BlobKey::of_delivery(preimage.as_bytes());
    let salt = Salt::from_bytes(*key.as_bytes());
    let hash = sha2::Sha256::digest(preimage.as_bytes());
    let author = settlement.author();
    let about = &settlement.order;
    let payment = salted_hash(Domain::Payment, &salt, about, &author, &hash);
    assert_eq!(group.payment, Some(payment));
}

/// The checker opens what it checks with the two keys that it is given.
#[test]
fn a_check_opens_its_award_and_its_result() {
    let Work::Verify { checks, .. } = payload::<Input>("payload-input-verify.json").work else {
        panic!("these are checks");
    };
    let award = Signed::<Award>::verify((*checks[0].award).clone()).unwrap();
    let result = Signed::<JobResult>::verify((*checks[0].result).clone()).unwrap();
    let input = award.input.open_with(checks[0].input_key.as_bytes());
    let output = result.output.open_with(checks[0].output_key.as_bytes());
    assert_eq!(input.unwrap(), text("payload-input-shard.json").as_bytes());
    assert_eq!(
        output.unwrap(),
        text("payload-output-shard.json").as_bytes()
    );
    let Product::Verify { verdicts } = payload::<Output>("payload-output-verify.json").product
    else {
        panic!("these are verdicts");
    };
    assert_eq!(verdicts, [event("verdict-shard.json")]);
}

#[test]
fn the_direct_job_rests_on_the_announcement() {
    let announcement = read::<Announcement>("announcement.json");
    let award = read::<Award>("award-direct.json");
    assert_eq!(award.job, None);
    assert_eq!(award.job_id(), award.id());
    assert_eq!(award.basis.word(), announcement.event());
    let result = read::<JobResult>("result-direct.json");
    assert_eq!((result.job, result.award), (award.id(), award.id()));
    assert_eq!(result.author(), award.provider);
}
