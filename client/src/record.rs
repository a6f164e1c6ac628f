//! A job's record: the signed events that tell its life, in the order in which one led to the other.
//!
//! What an award rests on (offer, bid, announcement) travels inside it, so a record tells these too when the relays
//! have long dropped them.

mod said;

use std::collections::{HashMap, HashSet};

use infernet_protocol::event::{Award, Basis, Refusal, Signed};
use infernet_protocol::kinds;
use infernet_protocol::seal::Sealed;
use nostr::{Event, EventId, Filter, Kind, PublicKey, Timestamp};

pub use said::Said;

use crate::{Client, Error};

/// Events by anybody that are asked for; the parties' own are asked for by name besides, so that nobody can crowd
/// them out.
const MAX_BY_ANYBODY: usize = 500;

/// One event of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it says.
    pub said: Said,
    /// Whether it was found inside an award only.
    pub embedded: bool,
}

/// The events of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The job.
    pub job: EventId,
    /// What is valid and names this job, in order.
    pub entries: Vec<Entry>,
    /// What is valid and names this job, but is by somebody who has no say in it.
    pub strangers: Vec<Said>,
    /// What is not valid, and why.
    pub refused: Vec<(Event, Refusal)>,
}

impl Record {
    /// The record that these events make, whatever else is among them.
    pub fn of(job: EventId, events: impl IntoIterator<Item = Event>) -> Self {
        let mut record = Self {
            job,
            entries: Vec::new(),
            strangers: Vec::new(),
            refused: Vec::new(),
        };
        for event in events {
            if kinds::is_market(event.kind.as_u16()) {
                record.take(event);
            }
        }
        record.set_strangers_aside();
        record.unfold();
        record.put_in_order();
        record
    }

    fn take(&mut self, event: Event) {
        match Said::read(event.clone()) {
            Ok(said) if said.job() == Some(self.job) => self.add(said, false),
            // It belongs to something else.
            Ok(_) => {}
            Err(refusal) if self.refused.iter().all(|(known, _)| *known != event) => {
                self.refused.push((event, refusal));
            }
            Err(_) => {}
        }
    }

    fn add(&mut self, said: Said, embedded: bool) {
        let known = |entry: &Entry| entry.said.event().id == said.event().id;
        if !self.entries.iter().any(known) {
            self.entries.push(Entry { said, embedded });
        }
    }

    /// Anybody may sign an event that names a job. Awards and attestations count by its buyer, results by who was
    /// awarded, cancels and receipts by either; bids and verdicts by anybody.
    fn set_strangers_aside(&mut self) {
        let Some(buyer) = self.buyer() else {
            return;
        };
        let own = self.awards().filter(|award| award.author() == buyer);
        let awarded: HashMap<EventId, PublicKey> = own.map(|a| (a.id(), a.provider)).collect();
        let has_a_say = |said: &Said| {
            let author = said.event().pubkey;
            let provider = said.award().and_then(|award| awarded.get(&award).copied());
            match said {
                Said::Announcement(_) | Said::Offer(_) | Said::Bid(_) | Said::Verdict(_) => true,
                Said::Award(_) | Said::Attestation(_) => author == buyer,
                Said::Result(_) => Some(author) == provider,
                Said::Receipt(_) | Said::Cancel(_) => author == buyer || Some(author) == provider,
            }
        };
        let (parties, strangers) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| has_a_say(&entry.said));
        self.entries = parties;
        self.strangers = Vec::into_iter(strangers)
            .map(|entry: Entry| entry.said)
            .collect();
    }

    /// Takes out what travels inside awards.
    fn unfold(&mut self) {
        let inside: Vec<Event> = self
            .awards()
            .flat_map(|award| inside(&award.basis))
            .collect();
        for event in inside {
            // A valid award has only valid events inside.
            if let Ok(said) = Said::read(event) {
                self.add(said, true);
            }
        }
    }

    /// Sorts by time, but nothing before what it names; within a second by attempt and stage.
    fn put_in_order(&mut self) {
        let attempts: HashMap<EventId, u32> = self.awards().map(|a| (a.id(), a.attempt)).collect();
        let attempt = |said: &Said| {
            said.award()
                .and_then(|a| attempts.get(&a))
                .copied()
                .unwrap_or(0)
        };
        self.entries.sort_by_key(|e| {
            (
                e.said.stage(),
                attempt(&e.said),
                e.said.event().created_at,
                e.said.event().id,
            )
        });
        let mut since: HashMap<EventId, Timestamp> = HashMap::new();
        for entry in &self.entries {
            let event = entry.said.event();
            let named = entry.said.named().into_iter();
            let after = named.filter_map(|id| since.get(&id).copied()).max();
            since.insert(
                event.id,
                event.created_at.max(after.unwrap_or(event.created_at)),
            );
        }
        self.entries
            .sort_by_key(|e| (since[&e.said.event().id], attempt(&e.said), e.said.stage()));
    }

    /// What is sealed in it: inputs and outputs.
    pub fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        self.entries.iter().filter_map(|entry| match &entry.said {
            Said::Award(award) => Some(&award.input),
            Said::Result(result) => Some(&result.output),
            _ => None,
        })
    }

    /// The awards, the first attempt first.
    pub fn awards(&self) -> impl Iterator<Item = &Signed<Award>> {
        self.entries.iter().filter_map(|entry| match &entry.said {
            Said::Award(award) => Some(&**award),
            _ => None,
        })
    }

    /// Who wants the job: the author of its offer, or of its first award. An award that rests on a bid has the offer
    /// inside, so it tells too.
    pub fn buyer(&self) -> Option<PublicKey> {
        let root = self.entries.iter().find(|e| e.said.event().id == self.job);
        let root = root.map(|entry| entry.said.event().pubkey);
        let mut auctioned = self
            .awards()
            .filter(|a| matches!(a.basis, Basis::Auction { .. }));
        root.or_else(|| auctioned.next().map(Signed::author))
    }

    /// What providers call themselves in what the awards rest on.
    pub fn names(&self) -> HashMap<PublicKey, String> {
        let announced = |entry: &Entry| match &entry.said {
            Said::Announcement(a) => Some((a.author(), a.name.clone())),
            _ => None,
        };
        self.entries.iter().filter_map(announced).collect()
    }
}

fn inside(basis: &Basis) -> Vec<Event> {
    match basis {
        Basis::Auction { offer, bid } => vec![(**offer).clone(), (**bid).clone()],
        Basis::Direct { announcement } => vec![(**announcement).clone()],
    }
}

/// Asks the relays for a job's events: first by anybody, then by its buyer and its providers by name.
pub(crate) async fn fetch(client: &Client, job: EventId) -> Result<Vec<Event>, Error> {
    let about = || Filter::new().event(job);
    let root = Filter::new().id(job);
    let mut events = client
        .fetch(vec![root, about().limit(MAX_BY_ANYBODY)])
        .await?;
    let Some(buyer) = Record::of(job, events.clone()).buyer() else {
        return Ok(events);
    };
    let awards = about().author(buyer).kind(Kind::from(kinds::AWARD));
    let others = [kinds::ATTESTATION, kinds::CANCEL, kinds::RECEIPT].map(Kind::from);
    events.extend(
        client
            .fetch(vec![awards, about().author(buyer).kinds(others)])
            .await?,
    );
    let providers: HashSet<_> = Record::of(job, events.clone())
        .awards()
        .filter(|award| award.author() == buyer)
        .map(|award| award.provider)
        .collect();
    if !providers.is_empty() {
        events.extend(client.fetch(vec![about().authors(providers)]).await?);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::event::Body;

    use super::*;
    use crate::audit::story::Story;

    fn kinds_of(record: &Record) -> Vec<&'static str> {
        record.entries.iter().map(|e| e.said.kind_name()).collect()
    }

    #[test]
    fn a_record_is_in_the_order_in_which_one_event_led_to_the_other() {
        let story = Story::auction();
        let expected = ["offer", "bid", "award", "result", "attestation"];
        let mut events = story.events();
        assert_eq!(kinds_of(&Record::of(story.job(), events.clone())), expected);
        events.reverse();
        assert_eq!(kinds_of(&Record::of(story.job(), events)), expected);
    }

    #[test]
    fn what_the_relays_dropped_is_found_inside_the_award() {
        let story = Story::auction();
        let lasts = |event: &Event| kinds::is_evidence(event.kind.as_u16());
        let record = Record::of(story.job(), story.events().into_iter().filter(lasts));
        assert_eq!(
            kinds_of(&record),
            ["offer", "bid", "award", "result", "attestation"]
        );
        assert!(record.entries[0].embedded && record.entries[1].embedded);
        assert_eq!(record.buyer(), Some(story.buyer.public_key()));
    }

    #[test]
    fn other_jobs_and_rubbish_do_not_belong() {
        let (story, other) = (Story::auction(), Story::direct());
        let mut altered = story.events().pop().unwrap();
        altered.content.push(' ');
        let events = story
            .events()
            .into_iter()
            .chain(other.events())
            .chain([altered]);
        let record = Record::of(story.job(), events);
        assert_eq!(record.entries.len(), 5);
        assert!(record.strangers.is_empty());
        assert_eq!(record.refused.len(), 1);
        assert_eq!(record.refused[0].1, Refusal::Signature);
    }

    #[test]
    fn strangers_have_no_say() {
        let story = Story::auction();
        let mallory = nostr::Keys::generate();
        let forged = story.result.to_unsigned(mallory.public_key(), story.at(3));
        let forged = forged.sign_with_keys(&mallory).unwrap();
        let record = Record::of(story.job(), story.events().into_iter().chain([forged]));
        assert_eq!(record.entries.len(), 5);
        assert_eq!(record.strangers.len(), 1);
    }
}
