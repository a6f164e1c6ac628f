#![allow(clippy::unwrap_used)]

use infernet_protocol::batch::{Blob, BlobKey, Group, Size};
use infernet_protocol::seal::Digest;
use infernet_protocol::verification::Secret;
use nostr::{EventId, Keys, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::group::State;
use crate::tally::{Ended, Tally};
use crate::testing;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

async fn store() -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.sqlite")).await;
    (store.unwrap(), folder)
}

fn group(number: u32) -> Group {
    Group {
        number,
        size: Size {
            lines: 3,
            ..Size::default()
        },
        input: Blob {
            sha256: Digest::from_bytes([1; 32]),
            bytes: 1,
            servers: vec!["http://127.0.0.1".into()],
        },
        key: BlobKey::from_bytes([2; 32]),
    }
}

/// A store with an order in it.
async fn with_order() -> (Store, TempDir, EventId) {
    let (store, folder) = store().await;
    let (us, buyer) = (Keys::generate(), Keys::generate());
    let secret = Secret::from_bytes([3; 32]);
    let order = testing::order(&us, &buyer, &secret, NOW);
    let until = Timestamp::from_secs(NOW.as_secs() + 60);
    let kept = store.quote(order.quote.id, buyer.public_key(), &secret, until, NOW);
    kept.await.unwrap();
    assert_eq!(store.take(&order, NOW).await.unwrap(), Taken::Yes);
    (store, folder, order.id())
}

#[tokio::test]
async fn a_quote_is_taken_once() {
    let (store, _folder) = store().await;
    let (us, buyer) = (Keys::generate(), Keys::generate());
    let secret = Secret::from_bytes([3; 32]);
    let order = testing::order(&us, &buyer, &secret, NOW);
    assert_eq!(store.take(&order, NOW).await.unwrap(), Taken::UnknownQuote);
    let until = Timestamp::from_secs(NOW.as_secs() + 60);
    let kept = store.quote(order.quote.id, buyer.public_key(), &secret, until, NOW);
    kept.await.unwrap();
    assert_eq!(store.take(&order, NOW).await.unwrap(), Taken::Yes);
    assert_eq!(store.take(&order, NOW).await.unwrap(), Taken::Yes);
    let again = testing::order_of(&us, &buyer, (*order.quote).clone(), 7, NOW);
    assert_eq!(store.take(&again, NOW).await.unwrap(), Taken::QuoteGone);
    let row = store.order(&order.id()).await.unwrap().unwrap();
    assert_eq!(row.secret, secret);
    assert_eq!(store.count_open(&buyer.public_key()).await.unwrap(), (1, 1));
    assert_eq!(store.count_open(&us.public_key()).await.unwrap(), (1, 0));
}

#[tokio::test]
async fn a_group_moves_forward_only() {
    let (store, _folder, order) = with_order().await;
    let token = BlobKey::from_bytes([4; 32]);
    let asked = group(0);
    let opened = store.open_group(&order, &asked, State::Unpaid, &token, NOW);
    assert_eq!(opened.await.unwrap().state, State::Unpaid);
    let step = async |step| store.advance(&order, 0, &step, NOW).await.unwrap();
    assert!(!step(Advance::Worked(Tally::default())).await, "not begun");
    assert!(step(Advance::Held).await);
    assert!(!step(Advance::Held).await, "held before");
    assert!(step(Advance::Worked(Tally::default())).await);
    assert!(step(Advance::Cancelled("late")).await);
    assert!(!step(Advance::Claiming).await, "it is over");
    let row = store.group(&order, 0).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.reason.as_deref()),
        (State::Cancelled, Some("late"))
    );
    assert!(store.open_groups(&order).await.unwrap().is_empty());
    assert_eq!(store.given_lines(&order).await.unwrap(), 0);
    // The same number again is the same group, however it is asked.
    let other = BlobKey::from_bytes([5; 32]);
    let again = store.open_group(&order, &asked, State::Unpaid, &other, NOW);
    assert_eq!(again.await.unwrap().token, token);
}

#[tokio::test]
async fn a_group_is_cut_once_and_a_shard_ends_once() {
    let (store, _folder, order) = with_order().await;
    let token = BlobKey::from_bytes([4; 32]);
    let asked = group(0);
    let opened = store.open_group(&order, &asked, State::Working, &token, NOW);
    opened.await.unwrap();
    store.cut(&order, 0, &[vec![0, 1], vec![2]]).await.unwrap();
    store.cut(&order, 0, &[vec![0, 1, 2]]).await.unwrap();
    assert_eq!(store.shards(&order, 0).await.unwrap().len(), 2);
    let failed = Ended::Failed { reason: "x".into() };
    let again: Option<(&[u32], u32)> = Some((&[1], 1));
    let made = store
        .end_shard(&order, 0, 0, &failed, again)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((made.number, made.tries, &made.lines[..]), (2, 1, &[1][..]));
    let twice = store.end_shard(&order, 0, 0, &failed, again).await.unwrap();
    assert_eq!(twice, None);
    let shards = store.shards(&order, 0).await.unwrap();
    let open: Vec<u32> = shards
        .iter()
        .filter(|s| s.ended.is_none())
        .map(|s| s.number)
        .collect();
    assert_eq!(open, [1, 2]);
}

#[tokio::test]
async fn what_is_left_of_a_group_is_tidied_away_once() {
    let (store, _folder, order) = with_order().await;
    let token = BlobKey::from_bytes([4; 32]);
    let asked = group(0);
    let opened = store.open_group(&order, &asked, State::Working, &token, NOW);
    opened.await.unwrap();
    store.cut(&order, 0, &[vec![0], vec![1]]).await.unwrap();
    let later = NOW + 10_u64;
    assert!(store.ended_before(later).await.unwrap().is_empty());
    let end = Advance::Cancelled("it was stopped");
    assert!(store.advance(&order, 0, &end, NOW).await.unwrap());
    assert!(store.ended_before(NOW).await.unwrap().is_empty());
    assert_eq!(store.ended_before(later).await.unwrap(), [(order, 0)]);
    store.forget_shards(&order, 0).await.unwrap();
    assert!(store.ended_before(later).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_event_stays_in_the_outbox_until_a_relay_has_it() {
    let (store, _folder, order) = with_order().await;
    let event = testing::note(&Keys::generate());
    assert!(store.close_order(&order, &event, NOW).await.unwrap());
    assert!(!store.close_order(&order, &event, NOW).await.unwrap());
    let unacknowledged = store.unacknowledged(NOW).await.unwrap();
    assert_eq!(unacknowledged, std::slice::from_ref(&event));
    store.acknowledge(&event.id, NOW).await.unwrap();
    assert!(store.unacknowledged(NOW).await.unwrap().is_empty());
}

#[tokio::test]
async fn dealings_and_bans_are_remembered() {
    let (store, _folder) = store().await;
    let ada = Keys::generate().public_key();
    let done = Dealing::Done {
        tokens: 10,
        cost: infernet_protocol::money::Msat(5),
    };
    for dealing in [done, done, Dealing::Rejected] {
        store.dealt(&ada, "ada", dealing, NOW).await.unwrap();
    }
    let all = store.dealings().await.unwrap();
    assert_eq!((all[0].done, all[0].rejected, all[0].tokens), (2, 1, 20));
    store.ban(&ada, "a wrong answer", NOW).await.unwrap();
    store.ban(&ada, "again", NOW).await.unwrap();
    assert_eq!(store.bans().await.unwrap()[0].reason, "a wrong answer");
    assert!(store.unban(&ada).await.unwrap());
    assert!(!store.unban(&ada).await.unwrap());
}
