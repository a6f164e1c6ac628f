//! What it takes to check a job's last attempt.

use infernet_protocol::event::{Award, JobResult, Signed};
use infernet_protocol::payload::{Check, PayloadKey};
use infernet_protocol::seal::{self, Conversation};
use nostr::Keys;

/// The two events of an attempt and the keys of what is sealed in them. Whoever has it can read the work, and nothing
/// else that the two have ever said.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The award.
    pub award: Signed<Award>,
    /// The result.
    pub result: Signed<JobResult>,
    /// Key of the award's input.
    pub input_key: PayloadKey,
    /// Key of the result's output.
    pub output_key: PayloadKey,
}

impl Evidence {
    /// The evidence of an attempt of this buyer's, whose keys are unwrapped with its own.
    ///
    /// # Errors
    /// [`seal::Error::Closed`] if a payload is not between this buyer and that provider.
    pub fn of(
        award: Signed<Award>,
        result: Signed<JobResult>,
        buyer: &Keys,
    ) -> Result<Self, seal::Error> {
        let pair = Conversation::between(buyer.secret_key(), &award.provider)?;
        Self::between(award, result, &pair)
    }

    /// The same where the key that buyer and provider share was derived before.
    ///
    /// # Errors
    /// As [`Evidence::of`].
    pub(crate) fn between(
        award: Signed<Award>,
        result: Signed<JobResult>,
        pair: &Conversation,
    ) -> Result<Self, seal::Error> {
        let input_key = award.input.unwrap_key_between(pair)?;
        let output_key = result.output.unwrap_key_between(pair)?;
        Ok(Self {
            award,
            result,
            input_key: PayloadKey::from_bytes(input_key),
            output_key: PayloadKey::from_bytes(output_key),
        })
    }

    /// What a checker is given.
    pub fn check(&self) -> Check {
        Check {
            award: Box::new(self.award.event().clone()),
            result: Box::new(self.result.event().clone()),
            input_key: self.input_key,
            output_key: self.output_key,
        }
    }
}
