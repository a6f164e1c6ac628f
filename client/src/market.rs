//! The market as this client sees it: who sells what, and how its providers stand.
//!
//! Filled by one live subscription, read by every job, so that a second job needs no round trip.

mod bans;
mod choice;
mod means;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use infernet_protocol::event::{Announcement, Attestation, Body, Experience, Signed, Status};
use infernet_protocol::kinds;
use infernet_protocol::reputation::{self, Standing};
use nostr::{Event, EventId, Filter, Kind, PublicKey, Timestamp};

use bans::Bans;
pub(crate) use choice::{
    Order, Word, bids_to_expect, is_announced, no_such_model, on_bid, resolve, standing,
};

pub(crate) use means::Means;

/// Announcements that are kept; a market of more providers than this needs an index of its own.
const MAX_ANNOUNCEMENTS: usize = 2_048;

/// Attestations that are kept, all by authors whom the user trusts.
const MAX_ATTESTATIONS: usize = 20_000;

/// Attestations older than this count next to nothing (a 64th), so they are not asked for.
const ATTESTATIONS_SINCE_S: u64 = 6 * reputation::HALF_LIFE_S;

/// How far in the future an announcement may be dated: clocks differ, but one from next week would outlive all
/// that its author says until then.
const MAX_SKEW_S: u64 = 300;

/// A provider as its newest announcement and the trusted attestations show it.
#[derive(Debug, Clone)]
pub struct Provider {
    /// What it announced.
    pub announcement: Signed<Announcement>,
    /// How it stands.
    pub standing: Standing,
}

/// What is on sale, and how its sellers stand.
#[derive(Debug)]
pub(crate) struct Market {
    trusted: HashSet<PublicKey>,
    /// The newest of each author and name.
    announcements: HashMap<(PublicKey, String), Signed<Announcement>>,
    /// By the provider they are about.
    attestations: HashMap<PublicKey, Vec<Signed<Attestation>>>,
    known: HashSet<EventId>,
    bans: Bans,
    /// How providers stood within this second. Each job asks more than once, and each that is done adds a word.
    standings: RefCell<HashMap<PublicKey, (Timestamp, Standing)>>,
}

impl Market {
    /// An empty market for a reader who trusts these authors.
    pub fn new(trusted: HashSet<PublicKey>) -> Self {
        Self {
            trusted,
            announcements: HashMap::new(),
            attestations: HashMap::new(),
            known: HashSet::new(),
            bans: Bans::default(),
            standings: RefCell::default(),
        }
    }

    /// The same, without those whom these authors ban.
    pub fn follow_bans(mut self, authors: impl IntoIterator<Item = PublicKey>) -> Self {
        self.bans = Bans::following(authors);
        self
    }

    /// What to subscribe to.
    pub fn filters(&self, now: Timestamp) -> Vec<Filter> {
        let since = now.as_secs().saturating_sub(ATTESTATIONS_SINCE_S);
        let mut filters = vec![
            Filter::new().kind(Kind::from(kinds::ANNOUNCEMENT)),
            Filter::new()
                .kind(Kind::from(kinds::ATTESTATION))
                .authors(self.trusted.iter().copied())
                .since(Timestamp::from_secs(since)),
        ];
        filters.extend(self.bans.filter());
        filters
    }

    /// Takes in a verified event; what is not valid, or not newer, changes nothing.
    pub fn take(&mut self, event: Event, now: Timestamp) {
        match event.kind.as_u16() {
            Announcement::KIND => self.announced(event, now),
            Attestation::KIND => self.attested(event),
            // From the future, it would outlive all that its author says until then.
            _ if event.created_at.as_secs() > now.as_secs() + MAX_SKEW_S => {}
            _ => self.bans.take(&event),
        }
    }

    fn announced(&mut self, event: Event, now: Timestamp) {
        let Ok(announcement) = Signed::<Announcement>::from_verified(event) else {
            return;
        };
        if announcement.created_at().as_secs() > now.as_secs() + MAX_SKEW_S {
            return;
        }
        let key = (announcement.author(), announcement.id.clone());
        let known = self.announcements.get(&key);
        if known.is_some_and(|known| !replaces(&announcement, known)) {
            return;
        }
        let is_known = known.is_some();
        if !is_known && self.announcements.len() >= MAX_ANNOUNCEMENTS {
            self.announcements.retain(|_, kept| kept.expires_at > now);
        }
        if is_known || self.announcements.len() < MAX_ANNOUNCEMENTS {
            self.announcements.insert(key, announcement);
        }
    }

    fn attested(&mut self, event: Event) {
        if !self.trusted.contains(&event.pubkey) || self.known.len() >= MAX_ATTESTATIONS {
            return;
        }
        let Ok(attestation) = Signed::<Attestation>::from_verified(event) else {
            return;
        };
        if self.known.insert(attestation.id()) {
            if attestation.experience != Experience::Completed {
                self.standings.borrow_mut().remove(&attestation.provider);
            }
            let about = self.attestations.entry(attestation.provider).or_default();
            about.push(attestation);
        }
    }

    /// Whether somebody whose bans are followed bans this provider: nothing is bought of it.
    pub fn bans(&self, provider: &PublicKey) -> bool {
        self.bans.hold_off(provider)
    }

    /// Who takes work now, and is not banned. One who says goodbye, or whose word has run out, does not.
    pub fn open(&self, now: Timestamp) -> impl Iterator<Item = &Signed<Announcement>> {
        self.announcements
            .values()
            .filter(move |a| a.status != Status::Offline && a.expires_at > now)
            .filter(|a| !self.bans(&a.author()))
    }

    /// How a provider stands; what was attested within this second may not count yet, unless it speaks against it.
    pub fn standing(&self, provider: &PublicKey, now: Timestamp) -> Standing {
        let mut standings = self.standings.borrow_mut();
        if let Some((at, standing)) = standings.get(provider)
            && *at == now
        {
            return *standing;
        }
        let standing = self.standing_with(provider, &[], now);
        standings.retain(|_, (at, _)| *at == now);
        standings.insert(*provider, (now, standing));
        standing
    }

    /// How a provider stands, with attestations that are not kept here counted in.
    pub fn standing_with(
        &self,
        provider: &PublicKey,
        more: &[Signed<Attestation>],
        now: Timestamp,
    ) -> Standing {
        let kept = self.attestations.get(provider).into_iter().flatten();
        let more = more
            .iter()
            .filter(|a| a.provider == *provider && !self.known.contains(&a.id()));
        reputation::standing(kept.chain(more), [], &self.trusted, now)
    }
}

/// The newer of two replaceable events stays; of two with the same date the one with the lower id (NIP-01).
fn replaces(new: &Signed<Announcement>, known: &Signed<Announcement>) -> bool {
    (new.created_at(), std::cmp::Reverse(new.id()))
        > (known.created_at(), std::cmp::Reverse(known.id()))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::event::{
        AnnouncedModel, Capacity, DeviceKind, Hardware, Load, Promise, V1,
    };
    use infernet_protocol::inference::{Dtype, ModelId, Task};
    use infernet_protocol::money::{Msat, PaymentTerms, Price};
    use nostr::Keys;

    use super::*;

    pub fn model(name: &str, id: u8) -> AnnouncedModel {
        AnnouncedModel {
            model: ModelId::from_bytes([id; 32]),
            name: name.into(),
            aliases: vec![],
            task: Task::TextGeneration,
            dtype: Dtype::Scripted,
            context: 2_048,
            price: Price::FREE,
            promise: Promise {
                first_token_ms: 100,
                tokens_per_s: 50.0,
            },
            continues: true,
            interface: None,
        }
    }

    pub fn announcement(name: &str, models: Vec<AnnouncedModel>) -> Announcement {
        Announcement {
            v: V1,
            id: "infernet".into(),
            name: name.into(),
            status: Status::Online,
            models,
            hardware: Hardware {
                device: DeviceKind::Cpu,
                name: "a processor".into(),
                memory_mib: 1,
            },
            capacity: Capacity { slots: 1, queue: 4 },
            load: Load::default(),
            terms: vec![PaymentTerms::Free],
            direct: true,
            engine: "scripted/1".into(),
            relays: vec![],
            expires_at: at(1_000),
        }
    }

    pub const fn at(s: u64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + s)
    }

    pub fn signed(body: &impl Body, keys: &Keys, when: Timestamp) -> Event {
        let unsigned = body.to_unsigned(keys.public_key(), when);
        unsigned.sign_with_keys(keys).unwrap()
    }

    fn names(market: &Market, now: Timestamp) -> Vec<String> {
        let mut names: Vec<_> = market.open(now).map(|a| a.name.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_announcement_of_each_provider_counts() {
        let (ada, bob) = (Keys::generate(), Keys::generate());
        let mut market = Market::new(HashSet::new());
        let say = |name: &str| announcement(name, vec![model("m", 1)]);
        market.take(signed(&say("ada 2"), &ada, at(2)), at(3));
        market.take(signed(&say("ada 1"), &ada, at(1)), at(3));
        market.take(signed(&say("bob"), &bob, at(1)), at(3));
        assert_eq!(names(&market, at(3)), ["ada 2", "bob"]);
    }

    #[test]
    fn who_said_goodbye_or_ran_out_is_not_open() {
        let (ada, bob) = (Keys::generate(), Keys::generate());
        let mut market = Market::new(HashSet::new());
        let mut goodbye = announcement("ada", vec![]);
        goodbye.status = Status::Offline;
        let stays = announcement("bob", vec![model("m", 1)]);
        market.take(
            signed(&announcement("ada", vec![model("m", 1)]), &ada, at(1)),
            at(2),
        );
        market.take(signed(&goodbye, &ada, at(2)), at(2));
        market.take(signed(&stays, &bob, at(1)), at(2));
        assert_eq!(names(&market, at(2)), ["bob"]);
        assert!(names(&market, at(1_000)).is_empty());
    }

    fn list(keys: &Keys, banned: &[&Keys], when: Timestamp) -> Event {
        let tags = banned
            .iter()
            .map(|keys| nostr::Tag::public_key(keys.public_key()));
        let list = nostr::EventBuilder::new(Kind::MuteList, "").tags(tags);
        list.custom_created_at(when).sign_with_keys(keys).unwrap()
    }

    #[test]
    fn who_is_banned_by_those_we_follow_is_not_open() {
        let (judge, stranger) = (Keys::generate(), Keys::generate());
        let (ada, bob) = (Keys::generate(), Keys::generate());
        let mut market = Market::new(HashSet::new()).follow_bans([judge.public_key()]);
        for (name, keys) in [("ada", &ada), ("bob", &bob)] {
            let said = announcement(name, vec![model("m", 1)]);
            market.take(signed(&said, keys, at(1)), at(2));
        }
        market.take(list(&stranger, &[&ada, &bob], at(2)), at(3));
        assert_eq!(names(&market, at(3)), ["ada", "bob"], "nobody follows it");
        market.take(list(&judge, &[&bob], at(2)), at(3));
        assert_eq!(names(&market, at(3)), ["ada"]);
        assert!(market.bans(&bob.public_key()));
        market.take(list(&judge, &[], at(1)), at(3));
        assert_eq!(names(&market, at(3)), ["ada"], "an old list");
        market.take(list(&judge, &[], at(90_000)), at(3));
        assert_eq!(names(&market, at(3)), ["ada"], "one of tomorrow");
        market.take(list(&judge, &[], at(3)), at(3));
        assert_eq!(names(&market, at(3)), ["ada", "bob"]);
    }

    #[test]
    fn an_announcement_from_next_week_is_refused() {
        let mut market = Market::new(HashSet::new());
        let mut body = announcement("ada", vec![model("m", 1)]);
        body.expires_at = at(700_000);
        market.take(signed(&body, &Keys::generate(), at(600_000)), at(0));
        assert!(names(&market, at(0)).is_empty());
    }

    #[test]
    fn only_trusted_attestations_are_kept_and_each_once() {
        let (me, stranger, provider) = (Keys::generate(), Keys::generate(), Keys::generate());
        let mut market = Market::new(HashSet::from([me.public_key()]));
        let body = Attestation {
            v: V1,
            job: EventId::all_zeros(),
            award: EventId::all_zeros(),
            result: None,
            receipt: None,
            provider: provider.public_key(),
            model: ModelId::from_bytes([1; 32]),
            experience: Experience::Silent,
            promised: model("m", 1).promise,
            measured: None,
            paid_msat: Msat::ZERO,
            verdict: None,
            batch: None,
        };
        let mine = signed(&body, &me, at(1));
        market.take(mine.clone(), at(2));
        market.take(mine.clone(), at(2));
        market.take(signed(&body, &stranger, at(1)), at(2));
        let standing = market.standing(&provider.public_key(), at(2));
        assert_eq!((standing.counted, standing.ignored), (1, 0));
        assert!(standing.score < 0.5);
        let more = [mine, signed(&body, &stranger, at(1))].map(|e| Signed::verify(e).unwrap());
        let standing = market.standing_with(&provider.public_key(), &more, at(2));
        assert_eq!((standing.counted, standing.ignored), (1, 1));
    }
}
