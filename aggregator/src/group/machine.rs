//! The life of a group, without I/O: `step(now, input) -> effects`.
//!
//! ```text
//! Unpaid ─▶ Working ─▶ Delivering ─▶ Delivered ─▶ Claiming ─▶ Settled
//!    └─────────┴───────────┴─────────────┴──────────┴──▶ Cancelled
//! ```
//! A group that costs nothing goes from Delivering to Settled at once. What is to be
//! done in a state can be done again: after a crash the machine is made anew from its
//! state ([`Machine::recovered`]) and says what to do.

use infernet_protocol::job::Millis;
use serde::{Deserialize, Serialize};

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Money is to be held first.
    Unpaid,
    /// Its lines are being bought.
    Working,
    /// They are done; the answers are being put where the buyer can fetch them.
    Delivering,
    /// The buyer can fetch them, closed.
    Delivered,
    /// The money is being claimed, which opens the answers.
    Claiming,
    /// It is over: paid, or free.
    Settled,
    /// It is over, and nobody pays.
    Cancelled,
}

impl State {
    /// Its name in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unpaid => "unpaid",
            Self::Working => "working",
            Self::Delivering => "delivering",
            Self::Delivered => "delivered",
            Self::Claiming => "claiming",
            Self::Settled => "settled",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Unpaid,
            Self::Working,
            Self::Delivering,
            Self::Delivered,
            Self::Claiming,
            Self::Settled,
            Self::Cancelled,
        ];
        all.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing more happens to it.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Settled | Self::Cancelled)
    }
}

/// What a group's life rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whether money is held for it.
    pub is_paid: bool,
    /// Until when money has to be held.
    pub pay_until: Millis,
    /// When no more work is begun.
    pub work_until: Millis,
    /// When what still runs is given up.
    pub wait_until: Millis,
    /// When it must be delivered.
    pub deadline: Millis,
    /// How long a delivered group waits to be fetched.
    pub fetch_ms: u64,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The wallet holds the money.
    Held,
    /// What was held has gone back, or never came and cannot come any more.
    HoldGone,
    /// The wallet has the money.
    Taken,
    /// All lines are done, or given up.
    Worked {
        /// Whether any line may be charged or handed over.
        any_accepted: bool,
        /// Whether it costs anything.
        is_charged: bool,
    },
    /// The answers are where the buyer can fetch them.
    Uploaded,
    /// They cannot be put there.
    NotUploaded,
    /// The buyer has fetched them.
    Fetched,
    /// The buyer, or the owner, wants no more of it.
    Stop,
    /// Time has passed.
    Tick,
}

/// Why a group was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// Nothing was held for it in time.
    Unpaid,
    /// The held money went back.
    HoldGone,
    /// Somebody stopped it.
    Stopped,
    /// No line could be done.
    Nothing,
    /// It was not delivered by the deadline.
    Late,
    /// No blob server took the answers.
    NotUploaded,
}

impl Cancelled {
    /// In words for the buyer.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unpaid => "nothing was paid for it in time",
            Self::HoldGone => "the held payment went back",
            Self::Stopped => "it was stopped",
            Self::Nothing => "none of its lines could be done",
            Self::Late => "it was not done by the deadline",
            Self::NotUploaded => "no blob server takes the answers",
        }
    }
}

/// Something to do. Doing it twice must change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Make the invoice that holds the money, and watch it.
    Hold,
    /// Buy what is not done.
    Work,
    /// Begin no more; what runs may end.
    WindUp,
    /// Give up what runs.
    Abandon,
    /// Merge the answers, close them, upload them.
    Deliver,
    /// Take the held money.
    Claim,
    /// Give the held money back, as far as it has not gone by itself. Work that was
    /// accepted is our loss.
    Release,
    /// It is settled: write down and publish what came of it.
    Settle,
    /// It came to nothing.
    Cancel(Cancelled),
}

impl Effect {
    /// Whether this is done before the step that it comes from is written down.
    pub const fn is_before_the_end(self) -> bool {
        matches!(self, Self::Abandon | Self::Release)
    }

    /// Whether what could not be done yet is still to be done in this state.
    pub const fn is_due_in(self, state: State) -> bool {
        match self {
            Self::Hold => matches!(state, State::Unpaid),
            Self::Work | Self::WindUp => matches!(state, State::Working),
            Self::Deliver => matches!(state, State::Delivering),
            Self::Claim => matches!(state, State::Claiming),
            Self::Abandon | Self::Release | Self::Settle | Self::Cancel(_) => true,
        }
    }
}

/// The machine of one group.
#[derive(Debug, Clone)]
pub struct Machine {
    terms: Terms,
    state: State,
    /// Whether no more work is begun.
    is_winding_up: bool,
    is_abandoned: bool,
    is_charged: bool,
    claim_at: Millis,
}

impl Machine {
    /// A new group, and what to do first.
    pub fn new(terms: Terms) -> (Self, Vec<Effect>) {
        let state = match terms.is_paid {
            true => State::Unpaid,
            false => State::Working,
        };
        Self::recovered(terms, state, terms.is_paid, terms.deadline)
    }

    /// A group as it was when the process ended, and what to do again. `is_charged`
    /// and `claim_at` are as they were when it was delivered.
    pub fn recovered(
        terms: Terms,
        state: State,
        is_charged: bool,
        claim_at: Millis,
    ) -> (Self, Vec<Effect>) {
        let machine = Self {
            terms,
            state,
            is_winding_up: false,
            is_abandoned: false,
            is_charged,
            claim_at,
        };
        let effects = match state {
            State::Unpaid => vec![Effect::Hold],
            State::Working => vec![Effect::Work],
            State::Delivering => vec![Effect::Deliver],
            State::Claiming => vec![Effect::Claim],
            State::Delivered | State::Settled | State::Cancelled => vec![],
        };
        (machine, effects)
    }

    /// How far it is.
    pub const fn state(&self) -> State {
        self.state
    }

    /// When it is claimed at the latest, once it is delivered.
    pub const fn claim_at(&self) -> Millis {
        self.claim_at
    }

    /// When to wake it, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        let terms = &self.terms;
        match self.state {
            State::Unpaid => Some(terms.pay_until),
            State::Working if !self.is_winding_up => Some(terms.work_until),
            State::Working if !self.is_abandoned => Some(terms.wait_until),
            // What was given up ends by itself, and says so.
            State::Working => None,
            State::Delivering => Some(terms.deadline),
            State::Delivered => Some(self.claim_at),
            // The wallet's word is waited for, however long it takes.
            State::Claiming | State::Settled | State::Cancelled => None,
        }
    }

    /// What to do now that this has happened.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Effect> {
        match (self.state, input) {
            (State::Unpaid, Input::Held) => self.work(),
            (State::Unpaid, Input::HoldGone) => self.cancel(Cancelled::Unpaid),
            (State::Unpaid, Input::Stop) => self.cancel(Cancelled::Stopped),
            (State::Unpaid, Input::Tick) if now >= self.terms.pay_until => {
                self.cancel(Cancelled::Unpaid)
            }

            (
                State::Working,
                Input::Worked {
                    any_accepted: false,
                    ..
                },
            ) => self.cancel(Cancelled::Nothing),
            (State::Working, Input::Worked { is_charged, .. }) => {
                self.state = State::Delivering;
                self.is_charged = is_charged && self.terms.is_paid;
                vec![Effect::Deliver]
            }
            (State::Working, Input::HoldGone) => self.cancel(Cancelled::HoldGone),
            (State::Working, Input::Stop) => self.wind_up(),
            (State::Working, Input::Tick) => self.worked_on(now),

            (State::Delivering, Input::Uploaded) => self.delivered(now),
            (State::Delivering, Input::NotUploaded) => self.cancel(Cancelled::NotUploaded),
            (State::Delivering, Input::HoldGone) => self.cancel(Cancelled::HoldGone),
            (State::Delivering, Input::Tick) if now >= self.terms.deadline => {
                self.cancel(Cancelled::Late)
            }

            (State::Delivered, Input::Fetched) => self.claim(),
            (State::Delivered, Input::Tick) if now >= self.claim_at => self.claim(),
            (State::Delivered, Input::HoldGone) => self.cancel(Cancelled::HoldGone),

            (State::Claiming, Input::Taken) => {
                self.state = State::Settled;
                vec![Effect::Settle]
            }
            // The claim came too late: the buyer has its money back.
            (State::Claiming, Input::HoldGone) => self.cancel(Cancelled::HoldGone),

            // Said again, or nothing of this state's business.
            (
                State::Unpaid,
                Input::Tick | Input::Taken | Input::Worked { .. } | Input::Uploaded,
            )
            | (State::Unpaid, Input::NotUploaded | Input::Fetched)
            | (State::Working, Input::Held | Input::Taken | Input::Uploaded)
            | (State::Working, Input::NotUploaded | Input::Fetched)
            | (State::Delivering, Input::Held | Input::Taken | Input::Worked { .. })
            | (State::Delivering, Input::Fetched | Input::Stop | Input::Tick)
            | (State::Delivered, Input::Held | Input::Taken | Input::Worked { .. })
            | (State::Delivered, Input::Uploaded | Input::NotUploaded)
            | (State::Delivered, Input::Stop | Input::Tick)
            | (State::Claiming, Input::Held | Input::Worked { .. } | Input::Uploaded)
            | (State::Claiming, Input::NotUploaded | Input::Fetched | Input::Stop | Input::Tick)
            | (State::Settled | State::Cancelled, _) => vec![],
        }
    }

    fn work(&mut self) -> Vec<Effect> {
        self.state = State::Working;
        vec![Effect::Work]
    }

    fn worked_on(&mut self, now: Millis) -> Vec<Effect> {
        let mut effects = vec![];
        if now >= self.terms.work_until {
            effects = self.wind_up();
        }
        if now >= self.terms.wait_until && !self.is_abandoned {
            self.is_abandoned = true;
            effects.push(Effect::Abandon);
        }
        effects
    }

    fn wind_up(&mut self) -> Vec<Effect> {
        match std::mem::replace(&mut self.is_winding_up, true) {
            true => vec![],
            false => vec![Effect::WindUp],
        }
    }

    fn delivered(&mut self, now: Millis) -> Vec<Effect> {
        if !self.is_charged {
            self.state = State::Settled;
            return match self.terms.is_paid {
                true => vec![Effect::Release, Effect::Settle],
                false => vec![Effect::Settle],
            };
        }
        self.state = State::Delivered;
        self.claim_at = now.plus(self.terms.fetch_ms).min(self.terms.deadline);
        vec![]
    }

    fn claim(&mut self) -> Vec<Effect> {
        self.state = State::Claiming;
        vec![Effect::Claim]
    }

    fn cancel(&mut self, why: Cancelled) -> Vec<Effect> {
        let mut effects = vec![];
        if self.state == State::Working && !self.is_abandoned {
            self.is_abandoned = true;
            effects.push(Effect::Abandon);
        }
        // Also where the money went back by itself: who did accepted work is owed.
        if self.terms.is_paid {
            effects.push(Effect::Release);
        }
        self.state = State::Cancelled;
        effects.push(Effect::Cancel(why));
        effects
    }
}

#[cfg(test)]
mod tests;
