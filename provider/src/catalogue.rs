//! What is on sale, and on which terms.

use infernet_engine::{Engine, ModelInfo};
use infernet_protocol::event::{AnnouncedModel, Promise};
use infernet_protocol::inference::{ModelId, Task};
use infernet_protocol::money::{PaymentTerms, Price};

use crate::options::Options;

/// One model on sale.
#[derive(Debug, Clone)]
pub struct Item {
    /// The model, as the engine describes it.
    pub model: ModelInfo,
    /// What it costs.
    pub price: Price,
}

impl Item {
    /// The terms that it is sold on: the tab's where it costs money.
    pub const fn terms(&self, tab: Option<PaymentTerms>) -> Option<PaymentTerms> {
        match self.price.is_free() {
            true => Some(PaymentTerms::Free),
            false => tab,
        }
    }

    /// Whether it goes on behind another provider's tokens: every engine here
    /// rebuilds a text from its tokens; vectors and tensors have no middle.
    pub const fn continues(&self) -> bool {
        matches!(self.model.task, Task::TextGeneration)
    }

    /// The item as it stands in an announcement.
    pub fn announced(&self, promise: Promise) -> AnnouncedModel {
        AnnouncedModel {
            model: self.model.id,
            name: self.model.name.clone(),
            aliases: vec![],
            task: self.model.task,
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
        let item = |model: &ModelInfo| Item {
            model: model.clone(),
            price: options
                .prices
                .get(&model.name)
                .copied()
                .unwrap_or(options.price),
        };
        Ok(Self {
            items: models.iter().map(item).collect(),
        })
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

    /// The item of this manifest.
    pub fn item(&self, model: &ModelId) -> Option<&Item> {
        self.items.iter().find(|item| item.model.id == *model)
    }

    /// The tasks that items do, each once.
    pub fn tasks(&self) -> Vec<Task> {
        let mut tasks: Vec<_> = self.items.iter().map(|item| item.model.task).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// The terms that items are sold on, each once.
    pub fn terms(&self, tab: Option<PaymentTerms>) -> Vec<PaymentTerms> {
        let terms = self.items.iter().filter_map(|item| item.terms(tab));
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
