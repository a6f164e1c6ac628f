//! What a wallet can be told to do wrong.

use std::collections::VecDeque;
use std::time::Duration;

/// One misbehaviour, once: of the next payment, call or notice that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next payment is under way for so long.
    Delay(Duration),
    /// The next payment fails after so long.
    Fail(Duration),
    /// The next payment stays under way until [`super::Wallet::resolve`].
    Stick,
    /// The next call never arrives.
    LoseRequest,
    /// The next call has its effect, and its answer is lost.
    LoseAnswer,
    /// The wallet crashes as the next call arrives.
    CrashBefore,
    /// The wallet crashes once the next call has had its effect, before it answers.
    CrashAfter,
    /// The next notice is told twice.
    TellTwice,
    /// The next notice is not told.
    TellNothing,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// It arrives and is answered.
    Works,
    RequestLost,
    AnswerLost,
    CrashBefore,
    CrashAfter,
}

/// What happens to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives { after: Duration },
    Fails { after: Duration },
    Sticks,
}

/// The misbehaviours that are still to come, in order.
#[derive(Debug, Default)]
pub(super) struct Plan(VecDeque<Fault>);

impl Plan {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push_back(fault);
    }

    pub(super) fn call(&mut self) -> Call {
        let call = |fault: &Fault| match fault {
            Fault::LoseRequest => Some(Call::RequestLost),
            Fault::LoseAnswer => Some(Call::AnswerLost),
            Fault::CrashBefore => Some(Call::CrashBefore),
            Fault::CrashAfter => Some(Call::CrashAfter),
            _ => None,
        };
        self.take(call).unwrap_or(Call::Works)
    }

    pub(super) fn fate(&mut self) -> Fate {
        let fate = |fault: &Fault| match *fault {
            Fault::Delay(after) => Some(Fate::Arrives { after }),
            Fault::Fail(after) => Some(Fate::Fails { after }),
            Fault::Stick => Some(Fate::Sticks),
            _ => None,
        };
        let at_once = Fate::Arrives {
            after: Duration::ZERO,
        };
        self.take(fate).unwrap_or(at_once)
    }

    /// How often the next notice is told.
    pub(super) fn tellings(&mut self) -> usize {
        let tellings = |fault: &Fault| match fault {
            Fault::TellTwice => Some(2),
            Fault::TellNothing => Some(0),
            _ => None,
        };
        self.take(tellings).unwrap_or(1)
    }

    /// Takes the first fault that means something here.
    fn take<T>(&mut self, meaning: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let found = self.0.iter().position(|fault| meaning(fault).is_some())?;
        self.0.remove(found).as_ref().and_then(meaning)
    }
}
