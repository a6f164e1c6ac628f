//! How much of a provider's work is checked (adaptive replication, as BOINC does).

use serde::{Deserialize, Serialize};

use crate::event::{Checking, Judgement};

/// Results in a row that must pass before fewer than all are checked.
pub const PROBATION: u32 = 10;

/// What a (provider, model, engine version) has shown: how many results in a row have
/// passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trust {
    /// Results that have passed since the last that did not.
    pub streak: u32,
}

impl Trust {
    /// The trust after one check more. What told nothing changes nothing.
    #[must_use]
    pub const fn after(self, judgement: Judgement) -> Self {
        let streak = match judgement {
            Judgement::Accepted => self.streak.saturating_add(1),
            Judgement::Inconclusive => self.streak,
            Judgement::Rejected => 0,
        };
        Self { streak }
    }

    /// How probable it is that the next result is checked, in millionths.
    pub const fn chance_ppm(self, checking: Checking) -> u32 {
        match checking {
            Checking::None => 0,
            Checking::Full => 1_000_000,
            Checking::Adaptive { least_ppm } if self.streak >= PROBATION => {
                let chance = 1_000_000 / self.streak;
                if chance > least_ppm {
                    chance
                } else {
                    least_ppm
                }
            }
            Checking::Adaptive { .. } => 1_000_000,
        }
    }
}
