//! Ranks and bans over a relay.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use infernet_node::link;
use infernet_protocol::event::{Attestation, BatchShare, Experience, Promise, V1};
use infernet_protocol::inference::ModelId;
use infernet_protocol::money::Msat;
use nostr::{EventId, Filter, RelayUrl};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RateLimit, RelayBuilder};

use super::*;
use crate::testing::signed;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    ranks: Ranks,
    own: Keys,
    _relay: LocalRelay,
    _folder: tempfile::TempDir,
}

async fn bench() -> Bench {
    let relay = LocalRelay::new(RelayBuilder::default().rate_limit(RateLimit {
        max_reqs: 500,
        notes_per_minute: 1_000_000,
    }));
    relay.run().await.unwrap();
    let url: RelayUrl = relay.url().await;
    let own = Keys::generate();
    let options = link::Options::new([url], own.clone());
    let link = Link::connect(options).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s.sqlite")).await.unwrap();
    Bench {
        ranks: Ranks::new(own.clone(), link, store),
        own,
        _relay: relay,
        _folder: folder,
    }
}

impl Bench {
    fn says(
        &self,
        provider: &Keys,
        number: u64,
        experience: Experience,
        batch: Option<BatchShare>,
    ) -> Event {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let id = EventId::from_byte_array(id);
        let attestation = Attestation {
            v: V1,
            job: id,
            award: id,
            result: Some(id),
            receipt: None,
            provider: provider.public_key(),
            model: ModelId::from_bytes([1; 32]),
            experience,
            promised: Promise {
                first_token_ms: 1,
                tokens_per_s: 1.0,
            },
            measured: None,
            paid_msat: Msat::ZERO,
            verdict: (experience == Experience::Rejected).then_some(id),
            batch,
        };
        signed(&attestation, &self.own, clock::now())
    }

    async fn publishes(&self, event: &Event) {
        self.ranks.link.publish(event).await.unwrap();
    }

    /// What the relay has of a kind, by this author.
    async fn stored(&self, kind: Kind, author: PublicKey) -> Vec<Event> {
        let filter = Filter::new().kind(kind).author(author);
        let found = self.ranks.link.fetch(vec![filter], PATIENCE).await;
        found.unwrap()
    }
}

fn value<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let tag = event.tags.iter().find(|tag| tag.as_slice()[0] == name)?;
    tag.as_slice().get(1).map(String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_are_what_others_can_compute_from_the_relay() {
    let bench = bench().await;
    let (good, bad) = (Keys::generate(), Keys::generate());
    for number in 0..6 {
        let event = bench.says(&good, number, Experience::Completed, None);
        bench.publishes(&event).await;
    }
    bench
        .publishes(&bench.says(&bad, 7, Experience::Rejected, None))
        .await;
    bench.ranks.catch_up().await.unwrap();
    let now = clock::now();
    assert_eq!(bench.ranks.publish(now).await.unwrap(), 2);
    let said = bench.stored(ASSERTION, key_of(&bench.own)).await;
    let of = |keys: &Keys| {
        let key = keys.public_key().to_hex();
        let mut about = said.iter().filter(|e| value(e, "d") == Some(&key));
        about.next().unwrap()
    };
    // (1 + 6) / (4 + 6), and 1/4 of 1/4 less what one in five hundred forgives.
    assert_eq!(value(of(&good), "rank"), Some("70"));
    assert_eq!(value(of(&good), "jobs"), Some("6"));
    assert_eq!(value(of(&bad), "rank"), Some("6"));
    assert_eq!(value(of(&bad), "rejected"), Some("1"));
    assert_eq!(value(of(&bad), "uptime"), None, "nobody has watched");
    assert_ne!(key_of(&bench.own), bench.own.public_key());
    assert_eq!(bench.ranks.publish(now).await.unwrap(), 0, "nothing is new");
    let tomorrow = Timestamp::from_secs(now.as_secs() + SAY_AGAIN_S + 5);
    assert_eq!(bench.ranks.publish(tomorrow).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_say_in_our_place_counts_nothing() {
    let bench = bench().await;
    let provider = Keys::generate();
    let praise = bench.says(&provider, 1, Experience::Completed, None);
    let unsigned = nostr::UnsignedEvent::new(
        provider.public_key(),
        praise.created_at,
        praise.kind,
        praise.tags.clone(),
        praise.content.clone(),
    );
    let own_praise = unsigned.sign_with_keys(&provider);
    bench.ranks.keep(own_praise.unwrap()).await.unwrap_or(());
    let free = BatchShare {
        order: EventId::all_zeros(),
        buyer: provider.public_key(),
        fee_msat: Msat::ZERO,
    };
    for number in 0..5 {
        let event = bench.says(&provider, number, Experience::Completed, Some(free));
        bench.ranks.keep(event).await.unwrap();
    }
    let rank = bench
        .ranks
        .rank(&provider.public_key(), clock::now())
        .await
        .unwrap();
    assert_eq!((rank.standing.counted, rank.rank()), (5, 40));
}

/// More attestations than a relay answers at once are kept all the same.
#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_walked_once() {
    let bench = bench().await;
    let provider = Keys::generate();
    let old = |number: u64| {
        let event = bench.says(&provider, number, Experience::Completed, None);
        let at = Timestamp::from_secs(event.created_at.as_secs() - 10_000 + number);
        let body = Signed::<Attestation>::verify(event).unwrap();
        signed(&*body, &bench.own, at)
    };
    let events: Vec<_> = (0..1_100).map(old).collect();
    let publish = events.iter().map(|event| bench.ranks.link.publish(event));
    futures::future::try_join_all(publish).await.unwrap();
    bench.ranks.catch_up().await.unwrap();
    let kept = words::about(bench.ranks.store.pool(), &provider.public_key()).await;
    assert_eq!(kept.unwrap().len(), 1_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_are_a_list_that_others_can_follow() {
    let bench = bench().await;
    let (cheat, also) = (Keys::generate(), Keys::generate());
    let now = clock::now();
    let store = &bench.ranks.store;
    assert!(!bench.ranks.publish_bans(now).await.unwrap(), "none, ever");
    let reason = "quantised\nweights";
    store.ban(&cheat.public_key(), reason, now).await.unwrap();
    assert!(bench.ranks.publish_bans(now).await.unwrap());
    assert!(!bench.ranks.publish_bans(now).await.unwrap());
    store.ban(&also.public_key(), "", now).await.unwrap();
    // In the same second: the new list replaces the old one all the same.
    assert!(bench.ranks.publish_bans(now).await.unwrap());
    let lists = bench.stored(Kind::MuteList, bench.own.public_key()).await;
    let [list] = &lists[..] else {
        panic!("one list");
    };
    let banned: HashSet<_> = list.tags.public_keys().copied().collect();
    assert_eq!(banned, [cheat.public_key(), also.public_key()].into());
    let reasons = list.tags.iter().filter_map(|tag| tag.as_slice().get(3));
    assert!(reasons.into_iter().any(|r| r == "quantisedweights"));
    for keys in [&cheat, &also] {
        store.unban(&keys.public_key()).await.unwrap();
    }
    assert!(bench.ranks.publish_bans(now).await.unwrap());
    let lists = bench.stored(Kind::MuteList, bench.own.public_key()).await;
    assert_eq!(lists[0].tags.public_keys().count(), 0, "an empty one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_too_many_bans_still_is_an_event() {
    let bans: Vec<_> = (0..2_000)
        .map(|_| crate::store::Ban {
            provider: Keys::generate().public_key(),
            reason: "\"".repeat(100),
            since: clock::now(),
        })
        .collect();
    let list = ban_list::event(&bans)
        .sign_with_keys(&Keys::generate())
        .unwrap();
    let bytes = infernet_protocol::event::encoded_len(&list);
    assert!(bytes <= infernet_protocol::bounds::MAX_EVENT_BYTES);
    assert!(bytes > 60_000, "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uptime_is_the_share_of_what_was_watched() {
    let bench = bench().await;
    let (steady, flaky) = (Keys::generate().public_key(), Keys::generate().public_key());
    let hour = Duration::from_secs(3_600);
    let at = |hours: u64| Timestamp::from_secs(1_800_000_000 + hours * 3_600);
    let uptime = async |who, when| bench.ranks.presence().uptime(who, when).await.unwrap();
    assert_eq!(uptime(&steady, at(0)).await, None);
    for hours in 0..100 {
        let there = match hours % 4 {
            0 => vec![steady, flaky],
            _ => vec![steady],
        };
        bench.ranks.seen(there, hour, at(hours)).await.unwrap();
    }
    assert_eq!(uptime(&steady, at(99)).await, Some(1.0));
    assert_eq!(uptime(&flaky, at(99)).await, Some(0.25));
    // A month later nothing of it counts.
    let later = at(99 + 31 * 24);
    bench.ranks.seen([], hour, later).await.unwrap();
    assert_eq!(uptime(&flaky, later).await, None);
}
