//! What it costs to coordinate a shard among many providers: these are made up, in this process, and answer at once;
//! relay and aggregator are the real ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use infernet_node::clock;
use infernet_node::link::{Delivery, Link, Options};
use infernet_protocol::event::{
    AnnouncedModel, Announcement, Award, Body, Capacity, DeviceKind, Hardware, JobResult, Load,
    Private, Promise, Signed, Status, Timing, Usage as Tokens, V1,
};
use infernet_protocol::inference::{Dtype, EndReason, ModelId, Task};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentTerms, Price};
use infernet_protocol::payload::{
    Generated, Input, News, Output, Payload, Product, Progress, Work,
};
use infernet_protocol::seal::{Conversation, Domain, Salt, Sealed, salted_hash, whisper};
use infernet_tests::Market;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, Filter, Keys, Kind, PublicKey, RelayUrl};

use super::{Usage, batch, chats};

/// Lines of the batch, the tokens that each may have, and those that a shard should have.
const LINES: usize = 4_096;
const TOKENS: usize = 64;
const SHARD_TOKENS: &str = "512";

/// Announcements that are sent at once; the relay takes so many more each second.
const BURST: usize = 500;

/// The cost of a shard, for more and more providers.
pub fn measure(numbers: &[usize]) {
    for &number in numbers {
        run(number);
    }
}

fn run(number: usize) {
    let market = Market::open().unwrap();
    let relay = market.relay.url.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let crowd = runtime.block_on(Crowd::announce(&relay, number));
    let shards = crowd.answered.clone();
    runtime.spawn(crowd.answer());
    let aggregator = market
        .aggregator("aggregator", &["--shard-tokens", SHARD_TOKENS])
        .unwrap();
    let folder = market.folder("files");
    let input = chats(&folder, LINES, TOKENS);
    let arguments = batch(&input, &folder.join("output.jsonl"));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let pids = [aggregator.process.id(), market.relay.process.id()];
    let before = pids.map(|pid| Usage::of(pid).unwrap());
    let began = Instant::now();
    let run = market.client("buyer").run(&arguments).unwrap();
    let took = began.elapsed().as_secs_f64();
    let after = pids.map(|pid| Usage::of(pid).unwrap());
    assert!(run.status.success(), "{}", run.stderr);
    let shards = shards.load(Ordering::Relaxed) as f64;
    let each = |n: usize| 1_000.0 * (after[n].cpu_s - before[n].cpu_s) / shards;
    println!(
        "{number} providers: {shards} shards in {took:.1} s, {:.0} a second; of processor time each takes {:.1} ms of the \
         aggregator and {:.1} ms of the relay; aggregator {:.0} MiB at most",
        shards / took,
        each(0),
        each(1),
        after[0].peak_mib
    );
}

/// Providers that answer at once.
struct Crowd {
    link: Link,
    keys: HashMap<PublicKey, Keys>,
    awards: infernet_node::link::Subscription,
    answered: Arc<AtomicU64>,
}

impl Crowd {
    async fn announce(relay: &str, number: usize) -> Self {
        let relay = RelayUrl::parse(relay).unwrap();
        let link = Link::connect(Options::new([relay], Keys::generate()))
            .await
            .unwrap();
        let keys: Vec<Keys> = (0..number).map(|_| Keys::generate()).collect();
        let filter = Filter::new()
            .kind(Kind::from(kinds::AWARD))
            .pubkeys(keys.iter().map(Keys::public_key));
        let awards = link.subscribe(vec![filter]).unwrap();
        for (index, part) in keys.chunks(BURST).enumerate() {
            let publishing = part.iter().enumerate().map(|(n, keys)| {
                let event = signed(&announcement(index * BURST + n), keys);
                let link = link.clone();
                async move { link.publish(&event).await.map(drop).unwrap() }
            });
            futures::future::join_all(publishing).await;
        }
        Self {
            link,
            keys: keys
                .into_iter()
                .map(|keys| (keys.public_key(), keys))
                .collect(),
            awards,
            answered: Arc::default(),
        }
    }

    async fn answer(mut self) {
        let keys = Arc::new(self.keys);
        while let Some(delivery) = self.awards.next().await {
            let Delivery::Event(event) = delivery else {
                continue;
            };
            let (link, keys, answered) = (self.link.clone(), keys.clone(), self.answered.clone());
            tokio::spawn(async move {
                let award = Signed::<Award>::from_verified(*event).unwrap();
                let keys = &keys[&award.provider];
                link.send(&accepted(&award, keys)).unwrap();
                let result = result(&award, keys);
                let by = tokio::time::Instant::now() + Duration::from_secs(20);
                link.publish_until(&result, by).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
    }
}

fn signed(body: &impl Body, keys: &Keys) -> Event {
    let unsigned = body.to_unsigned(keys.public_key(), clock::now());
    unsigned.sign_with_keys(keys).unwrap()
}

fn announcement(number: usize) -> Announcement {
    Announcement {
        v: V1,
        id: "infernet".into(),
        name: format!("provider {number}"),
        status: Status::Online,
        models: vec![AnnouncedModel {
            model: ModelId::from_bytes([1; 32]),
            name: "scripted".into(),
            aliases: vec![],
            task: Task::TextGeneration,
            dtype: Dtype::Scripted,
            context: 4_096,
            price: Price::FREE,
            promise: Promise {
                first_token_ms: 50,
                tokens_per_s: 100.0,
            },
            continues: true,
            interface: None,
        }],
        hardware: Hardware {
            device: DeviceKind::Cpu,
            name: "a processor".into(),
            memory_mib: 1,
        },
        capacity: Capacity { slots: 1, queue: 4 },
        load: Load::default(),
        terms: vec![PaymentTerms::Free],
        direct: true,
        engine: "made up/1".into(),
        relays: vec![],
        expires_at: clock::now() + 3_600_u64,
    }
}

fn accepted(award: &Signed<Award>, keys: &Keys) -> Event {
    let conversation = Conversation::between(keys.secret_key(), &award.author()).unwrap();
    let progress = Progress {
        award: award.id(),
        tab: None,
        news: News::Accepted { ahead: 0 },
    };
    let content = whisper(&conversation, &progress.to_bytes(), &mut OsRng).unwrap();
    let envelope = Private {
        kind: kinds::PROGRESS,
        job: award.job_id(),
        reader: award.author(),
        content,
    };
    let unsigned = envelope.to_unsigned(keys.public_key(), clock::now());
    unsigned.sign_with_keys(keys).unwrap()
}

fn result(award: &Signed<Award>, keys: &Keys) -> Event {
    let input = award
        .input
        .open(keys.secret_key(), &award.author())
        .unwrap();
    let Work::Shard { requests } = Input::from_bytes(&input).unwrap().work else {
        panic!("only shards are bought");
    };
    let answers: Vec<Generated> = requests
        .iter()
        .map(|request| Generated {
            text: " word".repeat(request.max_tokens as usize),
            tokens: vec![1; request.max_tokens as usize],
            input_tokens: 16,
            ended: EndReason::Length,
            error: None,
        })
        .collect();
    let drawn = answers
        .iter()
        .map(|answer| answer.tokens.len() as u64)
        .sum();
    let usage = Tokens {
        input_tokens: 16 * answers.len() as u64,
        prefix_tokens: 0,
        output_tokens: drawn,
    };
    let output = Output {
        salt: Salt::from_bytes([3; 32]),
        product: Product::Shard { answers },
        proofs: vec![],
    };
    let (bytes, own) = (output.to_bytes(), keys.public_key());
    let hash = salted_hash(Domain::Output, &output.salt, &award.id(), &own, &bytes);
    let sealed = Sealed::close(&bytes, keys.secret_key(), &award.author(), &mut OsRng);
    let result = JobResult {
        v: V1,
        job: award.job_id(),
        award: award.id(),
        attempt: award.attempt,
        buyer: award.author(),
        ended: EndReason::Stop,
        error: None,
        model: award.model,
        dtype: Dtype::Scripted,
        engine: "made up/1".into(),
        usage,
        timing: Timing::default(),
        due_msat: Msat::ZERO,
        output_hash: hash,
        output: sealed.unwrap(),
    };
    signed(&result, keys)
}
