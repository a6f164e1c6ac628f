//! What is sold, and how its seller behaves.

use infernet_payments::tab::provider::Terms;
use infernet_protocol::event::AnnouncedModel;
use infernet_protocol::money::{Msat, Price};
use nostr::Keys;

use crate::fake::text_model;

/// One sat for a token, in and out.
pub const SAT_A_TOKEN: Price = Price {
    input_msat: 1_000_000_000,
    output_msat: 1_000_000_000,
};

/// How a seller behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Honest,
    /// Asks for so much first.
    AsksFor(Msat),
    /// Sends an invoice of another node's.
    AnotherNode,
    /// Sends an invoice that names another award.
    AnotherAward,
    /// Sends an invoice that has run out, first.
    RunOut,
    /// Sends every invoice twice.
    AsksTwice,
    /// Asks for no money, and waits for it.
    NeverAsks,
    /// Claims so many tokens more than it draws, at their price.
    ClaimsMore(u64),
    /// Claims a cost that is not the price.
    ClaimsDear,
    /// Claims another input after the first piece.
    ChangesInput,
    /// Says after its first job that nothing was ever paid.
    ForgetsPayments,
    /// Signs with another key.
    Forges,
    /// Takes the money, and is never heard again.
    TakesAndStops,
    /// Draws so many tokens, and is never heard again.
    StopsAfter(u64),
    /// Draws so many tokens, and says that it failed.
    FailsAfter(u64),
    /// Asks for more when it accepts, whether it needs it or not, and draws once that is read.
    AsksEarly,
    /// Asks for so much once it has been paid, each time.
    GrowsGreedy(Msat),
    /// Draws so many tokens, shows its first invoice again and again, and says that it failed.
    ShowsAgainAndFails(u64),
    /// Is honest, and slow.
    Slow,
    /// Says nothing to the first wish for a refund, however often it comes.
    MissesRefund,
    /// Refuses to pay anything back.
    KeepsAll,
}

/// What is sold, and how.
#[derive(Debug, Clone)]
pub struct Offer {
    pub name: &'static str,
    pub model: AnnouncedModel,
    pub way: Way,
    pub tokens: u32,
    pub terms: Terms,
    pub keys: Keys,
}

impl Offer {
    pub fn new(name: &'static str, way: Way) -> Self {
        let mut model = text_model("tiny", 1);
        model.price = SAT_A_TOKEN;
        Self {
            name,
            model,
            way,
            tokens: 30,
            terms: Terms {
                prepaid_output_tokens: 4,
                stretch_output_tokens: 4,
                patience_ms: 20_000,
                ..Terms::default()
            },
            keys: Keys::generate(),
        }
    }

    /// The same, paid for so many tokens of output at first: no other top-up is under way before they are nearly drawn.
    pub fn prepaid(mut self, tokens: u64) -> Self {
        self.terms.prepaid_output_tokens = tokens;
        self
    }

    /// The same, promising this speed: more is asked first.
    pub fn speed(mut self, tokens_per_s: f32) -> Self {
        self.model.promise.tokens_per_s = tokens_per_s;
        self
    }
}
