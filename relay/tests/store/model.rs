//! The store answers as a list that is walked through does, and as nostr-lmdb does where that knows the rules.

use std::cmp::Reverse;
use std::collections::HashSet;

use infernet_protocol::kinds;
use infernet_relay::store::{Saved, Store};
use nostr::filter::MatchEventOptions;
use nostr::nips::nip01::Coordinate;
use nostr::{Event, EventId, Filter, Kind, PublicKey, Timestamp};
use nostr_database::NostrDatabase as _;
use nostr_lmdb::NostrLMDB;
use proptest::prelude::*;

use super::random::{self, Question, Recipe, Step};
use super::{ids, save};

/// A store that is a list.
#[derive(Default)]
struct Model {
    events: Vec<Event>,
    deleted: HashSet<(EventId, PublicKey)>,
    /// Deleted addresses, as text, and up to when.
    deleted_until: Vec<(String, Timestamp)>,
}

fn address(event: &Event) -> Option<String> {
    Some(named(event.coordinate()?.into_owned()))
}

/// An address as text. A replaceable kind has one version for each author, whatever its tags say.
fn named(mut address: Coordinate) -> String {
    if !address.kind.is_addressable() {
        address.identifier.clear();
    }
    address.to_string()
}

fn is_evidence(event: &Event) -> bool {
    kinds::is_evidence(event.kind.as_u16())
}

impl Model {
    /// What becomes of an event, in one word.
    fn save(&mut self, event: &Event) -> &'static str {
        if self.events.iter().any(|stored| stored.id == event.id) {
            return "duplicate";
        }
        let kept = is_evidence(event) || event.kind == Kind::EventDeletion;
        if self.deleted.contains(&(event.id, event.pubkey)) && !kept {
            return "deleted";
        }
        if let Some(own) = address(event) {
            let newer = |stored: &Event| {
                (stored.created_at, Reverse(stored.id)) > (event.created_at, Reverse(event.id))
            };
            let mut stored = self.events.iter();
            if stored.any(|stored| address(stored).as_ref() == Some(&own) && newer(stored)) {
                return "superseded";
            }
            let mut deleted = self.deleted_until.iter();
            if deleted.any(|(address, until)| *address == own && *until >= event.created_at) {
                return "deleted";
            }
            self.events
                .retain(|stored| address(stored).as_ref() != Some(&own));
        }
        if event.kind == Kind::EventDeletion {
            if !self.may_delete(event) {
                return "refused";
            }
            self.delete(event);
        }
        self.events.push(event.clone());
        "new"
    }

    fn may_delete(&self, deletion: &Event) -> bool {
        let by_id = deletion.tags.event_ids().all(|id| {
            let target = self.events.iter().find(|stored| stored.id == *id);
            target.is_none_or(|target| target.pubkey == deletion.pubkey && !is_evidence(target))
        });
        let mut addresses = deletion.tags.coordinates();
        by_id && addresses.all(|address| address.public_key == deletion.pubkey)
    }

    fn delete(&mut self, deletion: &Event) {
        for id in deletion.tags.event_ids() {
            self.deleted.insert((*id, deletion.pubkey));
            self.events
                .retain(|stored| stored.id != *id || stored.kind == Kind::EventDeletion);
        }
        for target in deletion.tags.coordinates() {
            let (named, until) = (named(target.clone()), deletion.created_at);
            self.events.retain(|stored| {
                address(stored).as_ref() != Some(&named) || stored.created_at > until
            });
            self.deleted_until.push((named, until));
        }
    }

    fn query(&self, filter: &Filter) -> Vec<EventId> {
        let now = Timestamp::now();
        let mut found: Vec<&Event> = self
            .events
            .iter()
            .filter(|event| filter.match_event(event, MatchEventOptions::new()))
            .filter(|event| !event.is_expired_at(&now))
            .collect();
        found.sort_by_key(|event| (Reverse(event.created_at), event.id));
        found.truncate(filter.limit.unwrap_or(usize::MAX));
        found.into_iter().map(|event| event.id).collect()
    }
}

fn word(saved: &Saved) -> &'static str {
    match saved {
        Saved::New => "new",
        Saved::Duplicate => "duplicate",
        Saved::Superseded(_) => "superseded",
        Saved::Deleted => "deleted",
        Saved::Refused(_) => "refused",
    }
}

/// A store and its model, to which the same happens.
struct Pair {
    folder: tempfile::TempDir,
    store: Option<Store>,
    model: Model,
    came: Vec<Event>,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Some(Store::open(folder.path()).unwrap()),
            folder,
            model: Model::default(),
            came: Vec::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Save(recipe) => self.save(&recipe.event()).await,
            Step::Repeat(place) if !self.came.is_empty() => {
                let event = self.came[place % self.came.len()].clone();
                self.save(&event).await;
            }
            Step::Delete {
                author,
                created_at,
                targets,
                by_address,
            } if !self.came.is_empty() => {
                let targets = targets
                    .iter()
                    .map(|place| &self.came[place % self.came.len()]);
                let targets: Vec<&Event> = targets.collect();
                let deletion = random::deletion_of(*author, *created_at, &targets, *by_address);
                self.save(&deletion).await;
            }
            Step::Remove(place) if !self.came.is_empty() => {
                let id = self.came[place % self.came.len()].id;
                self.store().remove(vec![id]).await.unwrap();
                self.model.events.retain(|event| event.id != id);
            }
            Step::Purge => {
                let now = Timestamp::now();
                self.store().purge(now).await.unwrap();
                self.model.events.retain(|event| !event.is_expired_at(&now));
            }
            Step::Reopen => {
                drop(self.store.take());
                self.store = Some(Store::open(self.folder.path()).unwrap());
            }
            Step::Repeat(_) | Step::Delete { .. } | Step::Remove(_) => {}
        }
    }

    async fn save(&mut self, event: &Event) {
        let said = self.store().judge(event).unwrap();
        let saved = save(self.store(), event).await;
        assert_eq!(saved, said);
        assert_eq!(word(&saved), self.model.save(event), "{event:?}");
        self.came.push(event.clone());
        self.compare_ids();
    }

    fn compare_ids(&self) {
        for event in &self.came {
            let has = self.model.events.iter().any(|stored| stored.id == event.id);
            assert_eq!(self.store().has(&event.id).unwrap(), has, "{event:?}");
        }
    }

    async fn compare(&self, question: &Question) {
        let filter = question.filter(&self.came);
        let expected = self.model.query(&filter);
        assert_eq!(
            ids(self.store(), filter.clone()).await,
            expected,
            "{filter:?}"
        );
        let count = self.store().count(filter.clone()).await.unwrap();
        assert_eq!((count.events, count.exact), (expected.len() as u64, true));
        let items = self.store().items(filter, expected.len()).await.unwrap();
        let items: Vec<EventId> = items.into_iter().map(|(_, id)| id).collect();
        assert_eq!(items, expected);
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_answers_as_a_list_does(steps in random::steps(), questions in random::questions()) {
        block(async {
            let mut pair = Pair::new();
            for step in &steps {
                pair.step(step).await;
            }
            for question in &questions {
                pair.compare(question).await;
            }
        });
    }

    #[test]
    fn it_answers_as_nostr_lmdb_does(steps in random::steps(), questions in random::questions()) {
        // That knows neither evidence nor expirations, takes every `d` tag for an identifier (and addressable events
        // without one for regular ones), and its deletions also hold against others' events.
        let comparable = |recipe: &Recipe| {
            let identifiers = recipe.tags.iter().filter(|(letter, _)| *letter == 'd');
            recipe.expiration.is_none() && (recipe.kind != 30_000 || identifiers.count() == 1)
        };
        let events = steps.iter().filter_map(|step| match step {
            Step::Save(recipe) if comparable(recipe) => Some(recipe.event()),
            _ => None,
        });
        let events: Vec<Event> = events.collect();
        block(async {
            let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let ours = Store::open(ours.path()).unwrap();
            let theirs = NostrLMDB::open(theirs.path()).unwrap();
            for event in &events {
                let (one, other) = (ours.save_event(event).await.unwrap(), theirs.save_event(event).await.unwrap());
                assert_eq!(one, other, "{event:?}");
            }
            for question in &questions {
                let mut filter = question.filter(&events);
                if filter.ids.is_some() {
                    // Of ids it answers the lowest, not the newest.
                    filter.limit = None;
                }
                let expected: Vec<Event> = theirs.query(filter.clone()).await.unwrap().into_iter().collect();
                let found: Vec<Event> = ours.events(&filter).await;
                assert_eq!(found, expected, "{filter:?}");
            }
        });
    }
}

trait Parsed {
    async fn events(&self, filter: &Filter) -> Vec<Event>;
}

impl Parsed for Store {
    async fn events(&self, filter: &Filter) -> Vec<Event> {
        let found = self.query(filter.clone(), usize::MAX).await.unwrap();
        found.iter().map(|stored| stored.event().unwrap()).collect()
    }
}
