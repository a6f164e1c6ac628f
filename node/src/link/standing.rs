//! How we stand with one relay on one connection: who it knows us to be, and how much work it has seen.
//!
//! Pure: it is told what the relay says, and says what to do. A relay that asks for work is shown it on our answer to
//! its challenge (NIP-42), once for all that we send; what it refused meanwhile waits and is sent again.

use std::time::Duration;

use nostr::EventId;
use tokio::time::Instant;

use super::demand::MAX_WORK;

/// How often in one session a relay may ask who we are, and how long its question may be.
const MAX_CHALLENGES: usize = 8;
const MAX_CHALLENGE_BYTES: usize = 256;

/// The most hashes that are made for one relay in [`SPENDING`], on average.
const MAX_SPENT: u64 = 1 << (MAX_WORK + 1);
const SPENDING: Duration = Duration::from_secs(3_600);

/// How long a relay that asked for work is shown it unasked when it is connected anew.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// How long nothing is tried with a relay that did not take our answer, unless it asks anew.
const HOPELESS: Duration = Duration::from_secs(60);

/// What to do about something that was refused, or about a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait: an answer is under way, or the relay has yet to ask.
    Wait,
    /// Answer the challenge, with so many bits of work.
    Answer(u8),
    /// Nothing that we do would help.
    GiveUp(String),
}

/// What is known of a relay beyond one connection.
#[derive(Debug, Default)]
pub(super) struct Memory {
    asked: Option<(Instant, u8)>,
    spent: Option<(Instant, u64)>,
}

/// How we stand with a relay on this connection.
#[derive(Debug, Default)]
pub(super) struct Standing {
    challenge: Option<String>,
    challenges: usize,
    /// The bits of the answer that is being made.
    making: Option<u8>,
    /// The answers that the relay has not judged yet, with their bits.
    sent: Vec<(EventId, u8)>,
    /// The bits of the best answer that it has taken.
    shown: Option<u8>,
    /// Whether it has taken anything else since.
    has_helped: bool,
    /// The bits that something waits for.
    wanted: Option<u8>,
    /// Why nothing is tried at the moment, and since when.
    hopeless: Option<(Instant, String)>,
}

impl Standing {
    /// The challenge to answer.
    pub(super) fn challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// The relay asks who we are.
    pub(super) fn challenged(&mut self, challenge: &str) -> Next {
        self.challenges += 1;
        if self.challenges > MAX_CHALLENGES || challenge.len() > MAX_CHALLENGE_BYTES {
            return give_up("asks too often who we are");
        }
        let is_answered = self.is_under_way() || self.shown.is_some();
        if is_answered && self.challenge.as_deref() == Some(challenge) {
            return Next::Wait;
        }
        self.challenge = Some(challenge.to_owned());
        self.making = None;
        self.hopeless = None;
        Next::Answer(0)
    }

    /// What else to answer to a challenge: the work that something waits for, or that the relay wanted lately.
    pub(super) fn owed(&mut self, memory: &mut Memory, now: Instant) -> Next {
        let bits = self.wanted.unwrap_or(0).max(memory.asked(now));
        match self.making.is_none() && bits > 0 && memory.spend(bits, now) {
            true => self.make(bits),
            false => Next::Wait,
        }
    }

    /// The relay has refused something for want of `bits` of work, or with none, of an identity.
    pub(super) fn refused(&mut self, bits: u32, memory: &mut Memory, now: Instant) -> Next {
        let Some(bits) = u8::try_from(bits).ok().filter(|bits| *bits <= MAX_WORK) else {
            return give_up("that is more than is done for a relay");
        };
        if bits > 0 {
            memory.asked = Some((now, bits));
        }
        if self.under_way().is_some_and(|under_way| under_way >= bits) {
            self.wanted = self.wanted.max(Some(bits));
            return Next::Wait;
        }
        if let Some((since, why)) = &self.hopeless
            && now - *since < HOPELESS
        {
            return give_up(why);
        }
        match self.shown {
            Some(_) if bits == 0 => return give_up("it knows who we are, and asks again"),
            Some(shown) if shown >= bits && !self.has_helped => {
                return give_up("it has been shown as much, to no avail");
            }
            _ => {}
        }
        self.wanted = self.wanted.max(Some(bits));
        match (&self.challenge, self.making) {
            // What is being made is shown first: it may be enough by then.
            (None, _) | (_, Some(_)) => Next::Wait,
            _ if !memory.spend(bits, now) => give_up("that is too often"),
            _ => self.make(bits),
        }
    }

    fn make(&mut self, bits: u8) -> Next {
        self.making = Some(bits);
        Next::Answer(bits)
    }

    /// The most bits of an answer that is being made or judged.
    fn under_way(&self) -> Option<u8> {
        let sent = self.sent.iter().map(|(_, bits)| *bits).max();
        self.making.max(sent)
    }

    /// An answer with so much work goes out.
    pub(super) fn answers(&mut self, id: EventId, bits: u8) {
        self.making.take_if(|making| *making == bits);
        self.sent.push((id, bits));
    }

    /// Whether `id` is an answer of ours that the relay had not judged yet, which it now has.
    pub(super) fn is_judged(&mut self, id: &EventId, taken: bool) -> bool {
        let Some(place) = self.sent.iter().position(|(sent, _)| sent == id) else {
            return false;
        };
        let (_, bits) = self.sent.remove(place);
        if taken {
            self.shown = self.shown.max(Some(bits));
            self.has_helped = false;
        }
        true
    }

    /// Whether something waits for it.
    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether what waits would be taken now.
    pub(super) fn is_enough(&self) -> bool {
        self.shown >= self.wanted
    }

    /// Whether an answer is being made.
    pub(super) const fn is_making(&self) -> bool {
        self.making.is_some()
    }

    /// The bits that something waits for.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted.unwrap_or(0).into()
    }

    /// Whether an answer is still to come or to be judged.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way().is_some()
    }

    /// The relay has taken something.
    pub(super) const fn helped(&mut self) {
        self.has_helped = true;
    }

    /// Nothing waits any more.
    pub(super) const fn settled(&mut self) {
        self.wanted = None;
    }

    /// What waits waits in vain.
    pub(super) fn given_up(&mut self, why: &str, now: Instant) {
        self.wanted = None;
        self.making = None;
        self.hopeless = Some((now, why.to_owned()));
    }
}

fn give_up(why: &str) -> Next {
    Next::GiveUp(why.to_owned())
}

impl Memory {
    /// The bits that the relay wanted lately.
    fn asked(&self, now: Instant) -> u8 {
        let lately = self.asked.filter(|(at, _)| now - *at < REMEMBERED);
        lately.map_or(0, |(_, bits)| bits)
    }

    /// Whether that much work may still be done for the relay; counts it if so.
    fn spend(&mut self, bits: u8, now: Instant) -> bool {
        let (since, spent) = match self.spent {
            Some((since, spent)) if now - since < SPENDING => (since, spent),
            _ => (now, 0),
        };
        let spent = spent + (1 << bits);
        let may = spent <= MAX_SPENT;
        if may {
            self.spent = Some((since, spent));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// One connection to a relay that has asked who we are.
    struct Talk {
        standing: Standing,
        memory: Memory,
        now: Instant,
        answers: u8,
    }

    impl Talk {
        fn begun() -> Self {
            let mut talk = Self {
                standing: Standing::default(),
                memory: Memory::default(),
                now: Instant::now(),
                answers: 0,
            };
            assert_eq!(talk.standing.challenged("riddle"), Next::Answer(0));
            let plain = talk.answers(0);
            assert!(talk.standing.is_judged(&plain, true));
            talk
        }

        fn refused(&mut self, bits: u32) -> Next {
            self.standing.refused(bits, &mut self.memory, self.now)
        }

        fn answers(&mut self, bits: u8) -> EventId {
            self.answers += 1;
            let id = EventId::from_byte_array([self.answers; 32]);
            self.standing.answers(id, bits);
            id
        }

        /// Shows the work, and the relay takes it.
        fn shows(&mut self, bits: u8) {
            let id = self.answers(bits);
            assert!(self.standing.is_judged(&id, true));
            assert!(self.standing.is_enough());
            self.standing.settled();
        }

        fn gives_up(&mut self, bits: u32) -> bool {
            matches!(self.refused(bits), Next::GiveUp(_))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_serves_all_that_was_refused() {
        let mut talk = Talk::begun();
        assert_eq!(talk.refused(18), Next::Answer(18));
        assert_eq!(talk.refused(18), Next::Wait);
        assert_eq!(talk.refused(12), Next::Wait);
        assert_eq!(talk.refused(0), Next::Wait);
        let id = talk.answers(18);
        assert_eq!(talk.refused(18), Next::Wait, "not judged yet");
        assert!(!talk.standing.is_enough());
        assert!(talk.standing.is_judged(&id, true) && talk.standing.is_enough());
        assert!(!talk.standing.is_judged(&id, true), "once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_rises_meanwhile_is_shown_next() {
        let mut talk = Talk::begun();
        assert_eq!(talk.refused(18), Next::Answer(18));
        assert_eq!(talk.refused(20), Next::Wait);
        let id = talk.answers(18);
        assert!(talk.standing.is_judged(&id, true));
        assert!(!talk.standing.is_enough() && !talk.standing.is_under_way());
        let owed = talk.standing.owed(&mut talk.memory, talk.now);
        assert_eq!(owed, Next::Answer(20));
        talk.shows(20);
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_done_again_only_if_it_has_helped() {
        let mut talk = Talk::begun();
        assert_eq!(talk.refused(10), Next::Answer(10));
        talk.shows(10);
        assert!(talk.gives_up(10));
        talk.standing.helped();
        assert_eq!(talk.refused(10), Next::Answer(10));
        talk.shows(10);
        assert_eq!(talk.refused(11), Next::Answer(11), "it is more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_we_are_is_said_once() {
        let mut talk = Talk::begun();
        assert!(talk.gives_up(0));
        talk.standing.helped();
        assert!(talk.gives_up(0));
        assert_eq!(talk.standing.challenged("riddle"), Next::Wait);
        assert_eq!(talk.standing.challenged("another"), Next::Answer(0));
        for n in 0..MAX_CHALLENGES {
            talk.standing.challenged(&n.to_string());
        }
        let more = talk.standing.challenged("more");
        assert!(matches!(more, Next::GiveUp(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn work_for_one_relay_is_bounded() {
        let mut talk = Talk::begun();
        assert!(talk.gives_up(29) && talk.gives_up(255) && talk.gives_up(256));
        assert!(talk.gives_up(u32::MAX));
        for _ in 0..2 {
            assert_eq!(talk.refused(28), Next::Answer(28));
            talk.shows(28);
            talk.standing.helped();
        }
        assert!(talk.gives_up(28));
        assert!(talk.gives_up(1));
        talk.now += SPENDING;
        assert_eq!(talk.refused(28), Next::Answer(28));
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_wanted_work_lately_is_shown_it_on_the_next_connection() {
        let mut talk = Talk::begun();
        assert_eq!(talk.refused(18), Next::Answer(18));
        let Talk {
            mut memory, now, ..
        } = talk;
        let mut owed = |after: Duration| {
            let mut next = Standing::default();
            assert_eq!(next.challenged("new"), Next::Answer(0));
            next.owed(&mut memory, now + after)
        };
        assert_eq!(owed(Duration::from_secs(60)), Next::Answer(18));
        assert_eq!(owed(REMEMBERED), Next::Wait);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_challenge_is_answered_when_it_comes() {
        let mut standing = Standing::default();
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(standing.refused(9, &mut memory, now), Next::Wait);
        assert_eq!(standing.challenged("late"), Next::Answer(0));
        assert_eq!(standing.owed(&mut memory, now), Next::Answer(9));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_for_a_while_with_a_relay_that_did_not_take_our_answer() {
        let mut talk = Talk::begun();
        assert_eq!(talk.refused(9), Next::Answer(9));
        talk.standing.given_up("it says nothing", talk.now);
        assert_eq!(talk.refused(9), give_up("it says nothing"));
        talk.now += HOPELESS;
        assert_eq!(talk.refused(9), Next::Answer(9));
    }
}
