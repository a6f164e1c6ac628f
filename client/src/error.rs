//! Why there is no answer, by what the caller can do about it.

use infernet_node::link;
use infernet_protocol::inference::Task;
use infernet_protocol::job::buyer::Failure;
use infernet_protocol::money::{Msat, Price};

use crate::price::InWords;

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A relay's address cannot be read.
    #[error("{0:?} is no relay's address; one looks like wss://relay.example.com")]
    RelayAddress(String),
    /// The relays cannot be reached, or refuse.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The request itself is out of bounds.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// The input does not fit in an event, nor in a blob if there is a server for one. Nothing was published.
    #[error(
        "the input has {bytes} bytes and one job carries at most {most}: make it shorter, or split it"
    )]
    TooLarge {
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        most: usize,
    },
    /// Nobody sells the model.
    #[error("{}", no_such_model(model.as_deref(), *task, on_sale))]
    NoSuchModel {
        /// What was asked for; none for any.
        model: Option<String>,
        /// The task it is for.
        task: Task,
        /// Names of the models that are on sale for this task.
        on_sale: Vec<String>,
    },
    /// The model is on sale, but not for free, and there is no wallet to pay with.
    #[error(
        "{model} is on sale, but not for free: the cheapest asks {}. To pay, \
         set INFERNET_WALLET, or wallet in client.toml, to a wallet connection, and give --max-price {}:{}",
        InWords(cheapest), cheapest.input_msat, cheapest.output_msat
    )]
    NotFree {
        /// The model.
        model: String,
        /// The lowest price.
        cheapest: Price,
    },
    /// The model is on sale, but for more than was said.
    #[error(
        "{model} is on sale, but for more: the cheapest asks {}. \
         If that is not too much, give --max-price {}:{}",
        InWords(cheapest), cheapest.input_msat, cheapest.output_msat
    )]
    TooDear {
        /// The model.
        model: String,
        /// The lowest price.
        cheapest: Price,
    },
    /// The job may cost more than was said.
    #[error(
        "with {model} the job may cost {cost}, and {left} are left for it: raise --max-sats, or ask for fewer \
         tokens (--max-tokens)"
    )]
    OverLimit {
        /// The model.
        model: String,
        /// What it may cost.
        cost: Msat,
        /// What it may.
        left: Msat,
    },
    /// More has to be paid ahead than the buyer risks.
    #[error(
        "for {model} {ahead} have to be paid ahead, and you risk {risk} at most: raise risk_sats in client.toml"
    )]
    OverRisk {
        /// The model.
        model: String,
        /// What has to be paid ahead.
        ahead: Msat,
        /// What may be.
        risk: Msat,
    },
    /// What the provider asked for was not paid. It is not to blame.
    #[error("the payment did not go through: {0}")]
    Unpaid(String),
    /// The books of what was paid cannot be kept.
    #[error("{0}")]
    Purse(String),
    /// There is no wallet to pay with, or to be paid back to.
    #[error(
        "there is no wallet: set INFERNET_WALLET, or wallet in client.toml, to a wallet connection"
    )]
    NoWallet,
    /// There is nothing to check, or nobody who may.
    #[error("{0}")]
    Uncheckable(String),
    /// There is no aggregator for a batch, or it is not clear which one is meant.
    #[error("{0}")]
    NoAggregator(String),
    /// A provider that is owed money does not say where to.
    #[error("the provider does not answer")]
    PayoutUnanswered,
    /// A provider that is owed money does not take it so.
    #[error("the provider does not agree to the payout: {0}")]
    PayoutRefused(String),
    /// The chosen provider is not online, or does not take direct awards.
    #[error(
        "no provider {who:?} takes direct work now; there is: {}",
        list(online)
    )]
    NoSuchProvider {
        /// Who was asked for.
        who: String,
        /// Names of those who are online.
        online: Vec<String>,
    },
    /// The chosen provider does not sell the model.
    #[error("{who} does not sell {model}; it sells: {}", list(sells))]
    NotSoldBy {
        /// The provider.
        who: String,
        /// The model.
        model: String,
        /// What it sells.
        sells: Vec<String>,
    },
    /// Several providers go by the chosen name.
    #[error(
        "several providers are called {name:?}; say which one: {}",
        list(npubs)
    )]
    SeveralProviders {
        /// The name.
        name: String,
        /// Their public keys.
        npubs: Vec<String>,
    },
    /// The job was tried, and ended without an answer.
    #[error("the job failed: {0}")]
    Failed(Failure),
    /// The job failed because relays did not take its events.
    #[error("the job could not be published: {0}")]
    Unpublished(link::Error),
    /// The job was stopped by the user.
    #[error("the job was stopped")]
    Stopped,
    /// The client was closed.
    #[error("the client has been closed")]
    Closed,
}

impl From<crate::purse::Error> for Error {
    fn from(error: crate::purse::Error) -> Self {
        Self::Purse(error.to_string())
    }
}

fn no_such_model(model: Option<&str>, task: Task, on_sale: &[String]) -> String {
    match (model, on_sale) {
        (Some(model), []) => {
            format!("nobody sells {model}: no {task} model is on sale on these relays")
        }
        (None, _) => format!("no {task} model is on sale on these relays"),
        (Some(model), _) => format!(
            "nobody sells {model}; on sale for {task}: {}",
            list(on_sale)
        ),
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nobody".into(),
        _ => names.join(", "),
    }
}
