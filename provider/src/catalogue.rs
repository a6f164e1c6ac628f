//! What is on sale, and on which terms.

use infernet_engine::{Engine, ModelInfo};
use infernet_protocol::event::{AnnouncedModel, Promise};
use infernet_protocol::inference::{ModelId, Task};
use infernet_protocol::money::{PaymentTerms, Price};

use crate::options::Options;

/// One model on sale, for one task.
#[derive(Debug, Clone)]
pub struct Item {
    /// The model, as the engine describes it.
    pub model: ModelInfo,
    /// What is done with it: the model's own task, or checking others.
    pub task: Task,
    /// What it costs.
    pub price: Price,
}

/// How one may pay for what costs money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    /// By a tab, on these conditions.
    pub tab: Option<PaymentTerms>,
    /// Through an aggregator.
    pub escrow: bool,
}

impl Item {
    /// The terms that it is sold on: any of these where it costs money.
    pub fn terms(&self, ways: Ways) -> impl Iterator<Item = PaymentTerms> {
        let is_free = self.price.is_free();
        let free = is_free.then_some(PaymentTerms::Free);
        let tab = ways.tab.filter(|_| !is_free);
        let escrow = (ways.escrow && !is_free).then_some(PaymentTerms::Escrow);
        free.into_iter().chain(tab).chain(escrow)
    }

    /// Whether it goes on behind another provider's tokens: every engine here
    /// rebuilds a text from its tokens; vectors and tensors have no middle.
    pub const fn continues(&self) -> bool {
        matches!(self.task, Task::TextGeneration)
    }

    /// The item as it stands in an announcement.
    pub fn announced(&self, promise: Promise) -> AnnouncedModel {
        AnnouncedModel {
            model: self.model.id,
            name: self.model.name.clone(),
            aliases: vec![],
            task: self.task,
            dtype: self.model.dtype,
            context: self.model.context,
            price: self.price,
            promise,
            continues: self.continues(),
            interface: self.model.interface.clone(),
        }
    }
}

/// Everything on sale.
#[derive(Debug, Clone)]
pub struct Catalogue {
    items: Vec<Item>,
}

/// Why there is nothing to sell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The engine has no model.
    #[error("there is no model to sell: name one with --model PATH")]
    Empty,
    /// A price is set for a model that is not there.
    #[error("a price is set for {0}, but no such model is loaded")]
    UnknownModel(String),
}

impl Catalogue {
    /// The engine's models at the options' prices.
    ///
    /// # Errors
    /// No model, or a price without one.
    pub fn new(engine: &dyn Engine, options: &Options) -> Result<Self, Error> {
        let models = engine.models();
        let is_loaded = |name: &&String| models.iter().any(|model| model.name == **name);
        if let Some(name) = options.prices.keys().find(|name| !is_loaded(name)) {
            return Err(Error::UnknownModel(name.clone()));
        }
        if models.is_empty() {
            return Err(Error::Empty);
        }
        let mut items: Vec<_> = models.iter().map(|model| item(model, options)).collect();
        if options.verify {
            let checkers = items.iter().filter_map(|item| checker(item, options));
            let checkers: Vec<_> = checkers.collect();
            items.extend(checkers);
        }
        Ok(Self { items })
    }

    /// A catalogue of these.
    #[cfg(test)]
    pub const fn of(items: Vec<Item>) -> Self {
        Self { items }
    }

    /// All items.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The item of this manifest, for this task.
    pub fn item(&self, model: &ModelId, task: Task) -> Option<&Item> {
        let mut items = self.items.iter();
        items.find(|item| (item.model.id, item.task) == (*model, task))
    }

    /// The tasks that items do, each once.
    pub fn tasks(&self) -> Vec<Task> {
        let mut tasks: Vec<_> = self.items.iter().map(|item| item.task).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// The terms that items are sold on, each once.
    pub fn terms(&self, ways: Ways) -> Vec<PaymentTerms> {
        let terms = self.items.iter().flat_map(|item| item.terms(ways));
        let mut terms: Vec<_> = terms.collect();
        terms.sort_unstable_by_key(PaymentTerms::kind);
        terms.dedup();
        terms
    }

    /// Whether anything costs money.
    pub fn has_prices(&self) -> bool {
        self.items.iter().any(|item| !item.price.is_free())
    }
}

fn item(model: &ModelInfo, options: &Options) -> Item {
    let own = options.prices.get(&model.name);
    Item {
        model: model.clone(),
        task: model.task,
        price: own.copied().unwrap_or(options.price),
    }
}

/// A model as one that others' results are checked with, if they can be computed again.
/// What is read then costs what else is read costs, unless said otherwise.
fn checker(item: &Item, options: &Options) -> Option<Item> {
    let input_msat = options.price_verify.unwrap_or(item.price.input_msat);
    let price = Price {
        input_msat,
        output_msat: 0,
    };
    match item.task {
        Task::TextGeneration | Task::Embedding => Some(Item {
            task: Task::Verify,
            price,
            ..item.clone()
        }),
        Task::Tensors | Task::Verify => None,
    }
}
