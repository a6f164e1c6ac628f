#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use axum::body::Bytes;
use nostr::{EventBuilder, JsonUtil as _, Keys};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::sync::side::Side;

/// Version 1, and the fingerprint of an empty set over all of time.
const ABOUT_NOTHING: &str = "6100000100000000000000000000000000000000";

struct Bench {
    all: Arc<Reconciliation>,
    _folder: TempDir,
}

impl Bench {
    fn new(limits: ReconciliationLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        Self {
            all: Reconciliation::new(store, limits),
            _folder: folder,
        }
    }

    async fn keep_notes(&self, count: u64) {
        for n in 0..count {
            let note = EventBuilder::text_note(n.to_string())
                .custom_created_at(Timestamp::from_secs(1_000 + n))
                .sign_with_keys(&Keys::generate())
                .unwrap();
            let json = Bytes::from(note.as_json());
            self.all.store.save(Arc::new(note), json).await.unwrap();
        }
    }
}

async fn open(negotiations: &mut Negotiations, id: &str) -> String {
    negotiations
        .open(id, Filter::new(), ABOUT_NOTHING, Reader::default())
        .await
}

fn items(ids: &BTreeSet<(u64, u32)>) -> Vec<(Timestamp, EventId)> {
    let item = |(at, n): &(u64, u32)| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        id[4..12].copy_from_slice(&at.to_be_bytes());
        (Timestamp::from_secs(*at), EventId::from_byte_array(id))
    };
    ids.iter().map(item).collect()
}

fn ids(items: &BTreeSet<(u64, u32)>) -> BTreeSet<EventId> {
    self::items(items).into_iter().map(|(_, id)| id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Sets large enough for several messages, with many events of the same second.
    #[test]
    fn what_either_lacks_is_found(
        common in prop::collection::btree_set((0_u64..300, any::<u32>()), 0..3_000),
        ours in prop::collection::btree_set((0_u64..300, any::<u32>()), 0..3_000),
        theirs in prop::collection::btree_set((0_u64..300, any::<u32>()), 0..3_000),
    ) {
        let bench = Bench::new(ReconciliationLimits::default());
        let both = |own: &BTreeSet<_>| common.union(own).copied().collect::<BTreeSet<_>>();
        let (ours, theirs) = (both(&ours), both(&theirs));
        let (mut have, mut need) = (BTreeSet::new(), BTreeSet::new());
        Runtime::new().unwrap().block_on(async {
            let answering = Arc::new(sealed(items(&theirs)));
            let (mut side, mut message) = Side::begin(items(&ours)).await.unwrap();
            loop {
                let answer = bench.all.compare(answering.clone(), message).await.unwrap();
                assert!(answer.len() as u64 <= FRAME_BYTES);
                let (same, found) = side.take(answer).await.unwrap();
                have.extend(found.have);
                need.extend(found.need);
                let Some(next) = found.next else {
                    break;
                };
                (side, message) = (same, next);
            }
        });
        prop_assert_eq!(have, ids(&ours.difference(&theirs).copied().collect()));
        prop_assert_eq!(need, ids(&theirs.difference(&ours).copied().collect()));
    }

    #[test]
    fn no_message_breaks_either_side(
        set in prop::collection::btree_set((0_u64..50, any::<u32>()), 0..200),
        mut message in prop::collection::vec(any::<u8>(), 0..400),
        is_versioned in any::<bool>(),
    ) {
        if let (true, Some(version)) = (is_versioned, message.first_mut()) {
            *version = 0x61;
        }
        let bench = Bench::new(ReconciliationLimits::default());
        Runtime::new().unwrap().block_on(async {
            let answering = Arc::new(sealed(items(&set)));
            match bench.all.compare(answering, message.clone()).await {
                Ok(answer) => assert!(answer.len() as u64 <= FRAME_BYTES),
                Err(refusal) => assert!(refusal.to_string().starts_with("invalid: ")),
            }
            let (side, _) = Side::begin(items(&set)).await.unwrap();
            if let Ok((_, found)) = side.take(message.clone()).await {
                assert!(found.need.len() <= message.len() / 32);
                assert!(found.have.len() <= set.len());
            }
        });
    }
}

#[tokio::test]
async fn what_was_left_lying_gives_way_when_there_is_no_room() {
    let limits = ReconciliationLimits {
        events: 10,
        total_events: 15,
        per_connection: 4,
    };
    let bench = Bench::new(limits);
    bench.keep_notes(10).await;
    let (mut first, mut second) = (bench.all.connection(), bench.all.connection());
    assert!(open(&mut first, "a").await.starts_with("[\"NEG-MSG\""));
    let busy = open(&mut second, "a").await;
    assert!(
        busy.contains("blocked: too many reconciliations at once"),
        "{busy}"
    );
    tokio::time::pause();
    tokio::time::advance(IDLE + Duration::from_secs(1)).await;
    tokio::time::resume();
    assert!(open(&mut second, "a").await.starts_with("[\"NEG-MSG\""));
    let gone = first.message("a", ABOUT_NOTHING).await;
    assert!(gone.contains("closed: "), "{gone}");
    drop(second);
    assert_eq!(
        bench.all.held().items,
        0,
        "a connection takes its own along"
    );
    assert!(open(&mut first, "a").await.starts_with("[\"NEG-MSG\""));
    first.close("a");
    assert_eq!(bench.all.held().items, 0);
}

#[tokio::test]
async fn it_does_not_go_on_without_end() {
    let bench = Bench::new(ReconciliationLimits::default());
    let mut negotiations = bench.all.connection();
    open(&mut negotiations, "a").await;
    for _ in 0..MAX_ROUNDS {
        let answer = negotiations.message("a", ABOUT_NOTHING).await;
        assert!(answer.starts_with("[\"NEG-MSG\""), "{answer}");
    }
    let ended = negotiations.message("a", ABOUT_NOTHING).await;
    assert!(ended.contains("closed: it takes more messages"), "{ended}");
    assert!(negotiations.open.is_empty());
}
