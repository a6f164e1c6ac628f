//! What becomes of events that are given to another relay: which are under way, which it took, and when it wants
//! something else first. It is told what the relay says, and does nothing itself.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use infernet_node::link::Demand;
use nostr::EventId;

/// Events that may be under way at a time.
const IN_FLIGHT: usize = 64;

/// How often one event is given before it counts as refused.
const TRIES: u32 = 4;

/// The pause after a refusal that names none; each one after that is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pauses in a row after which nothing was taken: then it is given up.
const MOST_PAUSES: u32 = 8;

/// An event to be given.
#[derive(Debug)]
struct Parcel {
    id: EventId,
    json: String,
    tries: u32,
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The event.
    pub id: EventId,
    /// Nothing if the other has it now, else why not.
    pub refused: Option<String>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this event.
    Send(String),
    /// Hear an OK.
    Hear,
    /// Say who we are, with so many bits of work, as these words want it.
    Identify(u32, String),
    /// Send nothing for a while.
    Pause(Duration),
    /// It is over.
    Done(Vec<Verdict>),
    /// The relay wants fewer events, again and again.
    GiveUp(String),
}

/// Events on their way.
#[derive(Debug)]
pub struct Delivery {
    queue: VecDeque<Parcel>,
    under_way: HashMap<EventId, Parcel>,
    verdicts: Vec<Verdict>,
    demand: Option<(u32, String)>,
    pause: Option<(Option<Duration>, String)>,
    pauses: u32,
}

impl Delivery {
    /// None is sent yet.
    pub fn of(events: impl IntoIterator<Item = (EventId, String)>) -> Self {
        let parcel = |(id, json)| Parcel { id, json, tries: 0 };
        Self {
            queue: events.into_iter().map(parcel).collect(),
            under_way: HashMap::new(),
            verdicts: Vec::new(),
            demand: None,
            pause: None,
            pauses: 0,
        }
    }

    /// What to do now.
    pub fn next(&mut self) -> Next {
        let is_held = self.demand.is_some() || self.pause.is_some();
        let may_send = !is_held && self.under_way.len() < IN_FLIGHT;
        if let Some(parcel) = self.queue.pop_front_if(|_| may_send) {
            let json = parcel.json.clone();
            self.under_way.insert(parcel.id, parcel);
            return Next::Send(json);
        }
        if !self.under_way.is_empty() {
            return Next::Hear;
        }
        if let Some((bits, said)) = self.demand.take() {
            return Next::Identify(bits, said);
        }
        match self.pause.take() {
            Some((_, said)) if self.pauses >= MOST_PAUSES => Next::GiveUp(said),
            Some((pause, _)) => {
                let own = FIRST_PAUSE * 2_u32.pow(self.pauses);
                self.pauses += 1;
                Next::Pause(pause.unwrap_or(own).min(LONGEST_PAUSE))
            }
            None => Next::Done(std::mem::take(&mut self.verdicts)),
        }
    }

    /// The other answered an event. One that is not under way is none of ours.
    pub fn answered(&mut self, id: EventId, taken: bool, said: &str) {
        let Some(mut parcel) = self.under_way.remove(&id) else {
            return;
        };
        if taken || said.starts_with("duplicate:") {
            self.pauses = 0;
            return self.judge(id, None);
        }
        parcel.tries += 1;
        let demand = Demand::in_words(said);
        if demand == Demand::Nothing || parcel.tries >= TRIES {
            return self.judge(id, Some(said.to_owned()));
        }
        self.queue.push_front(parcel);
        match demand {
            Demand::Standing(bits) => {
                let before = self.demand.as_ref().map_or(0, |(bits, _)| *bits);
                self.demand = Some((bits.max(before), said.to_owned()));
            }
            Demand::Patience(pause) => {
                let before = self.pause.take().and_then(|(pause, _)| pause);
                self.pause = Some((pause.max(before), said.to_owned()));
            }
            Demand::Nothing => {}
        }
    }

    fn judge(&mut self, id: EventId, refused: Option<String>) {
        self.verdicts.push(Verdict { id, refused });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(n: u8) -> EventId {
        EventId::from_byte_array([n; 32])
    }

    fn delivery(of: u8) -> Delivery {
        Delivery::of((0..of).map(|n| (id(n), n.to_string())))
    }

    /// Sends all that may be sent, and answers what that was.
    fn sent(delivery: &mut Delivery) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            match delivery.next() {
                Next::Send(json) => sent.push(json.parse().unwrap()),
                Next::Hear => return sent,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_bounded_number_is_under_way_and_each_is_judged_once() {
        let mut delivery = delivery(100);
        assert_eq!(sent(&mut delivery).len(), IN_FLIGHT);
        delivery.answered(id(3), true, "");
        delivery.answered(id(3), false, "blocked: twice");
        delivery.answered(id(4), false, "blocked: no");
        delivery.answered(id(5), false, "duplicate: have it");
        delivery.answered(id(200), false, "blocked: not ours");
        assert_eq!(sent(&mut delivery), [64, 65, 66]);
        let mut under_way: Vec<_> = (0..67).collect();
        let verdicts = loop {
            match delivery.next() {
                Next::Send(json) => under_way.push(json.parse().unwrap()),
                Next::Hear => delivery.answered(id(under_way.pop().unwrap()), true, ""),
                Next::Done(verdicts) => break verdicts,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(verdicts.len(), 100);
        let refused: Vec<_> = verdicts.iter().filter(|v| v.refused.is_some()).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].id, id(4));
    }

    #[test]
    fn what_waits_for_work_is_sent_again_after_it() {
        let mut delivery = delivery(3);
        assert_eq!(sent(&mut delivery), [0, 1, 2]);
        delivery.answered(id(0), false, "pow: 7 bits of work needed");
        delivery.answered(id(1), false, "pow: 9 bits of work needed");
        assert_eq!(delivery.next(), Next::Hear, "others are under way");
        delivery.answered(id(2), true, "");
        assert!(matches!(delivery.next(), Next::Identify(9, _)));
        let mut again = sent(&mut delivery);
        again.sort_unstable();
        assert_eq!(again, [0, 1]);
    }

    #[test]
    fn pauses_are_as_long_as_said_and_end() {
        let mut delivery = delivery(1);
        let mut pauses = Vec::new();
        let mut given = 0;
        let mut end = loop {
            match delivery.next() {
                Next::Send(_) => given += 1,
                Next::Hear if given == 1 => {
                    delivery.answered(id(0), false, "rate-limited: again in 12 s");
                }
                Next::Hear => delivery.answered(id(0), false, "error: the disk is full"),
                Next::Pause(pause) => pauses.push(pause.as_secs()),
                other => break other,
            }
        };
        assert_eq!(
            pauses,
            [12, 2, 4],
            "its own word, else twice as long each time"
        );
        assert_eq!(given, TRIES);
        let Next::Done(verdicts) = &mut end else {
            panic!("{end:?}");
        };
        assert_eq!(
            verdicts[0].refused.as_deref(),
            Some("error: the disk is full")
        );
    }

    #[test]
    fn a_relay_that_never_takes_anything_is_given_up() {
        let mut delivery = delivery(60);
        let mut pauses = 0;
        let said = loop {
            match delivery.next() {
                Next::Send(json) => {
                    delivery.answered(id(json.parse().unwrap()), false, "rate-limited: no");
                }
                Next::Pause(pause) => {
                    assert!(pause <= LONGEST_PAUSE);
                    pauses += 1;
                }
                Next::GiveUp(said) => break said,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((pauses, said.as_str()), (MOST_PAUSES, "rate-limited: no"));
    }
}
