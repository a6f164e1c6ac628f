//! Why there is no answer, by what the caller can do about it.

use infernet_node::link;
use infernet_protocol::bounds::MAX_PAYLOAD_BYTES;
use infernet_protocol::inference::Task;
use infernet_protocol::job::buyer::Failure;
use infernet_protocol::money::Price;

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
    /// The input does not fit in an event. Nothing was published.
    #[error(
        "the input has {bytes} bytes and one job carries at most {MAX_PAYLOAD_BYTES}: make it shorter, or split it"
    )]
    TooLarge {
        /// Bytes it has.
        bytes: usize,
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
    /// The model is on sale, but at no price that can be paid.
    #[error(
        "{model} is on sale, but not for free: the cheapest asks {} + {} msat per million tokens, \
         and this client cannot pay yet", cheapest.input_msat, cheapest.output_msat
    )]
    NotFree {
        /// The model.
        model: String,
        /// The lowest price.
        cheapest: Price,
    },
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
