//! The books of a buyer, read: what it spent, how its tabs stand, whether wallet and ledger agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use infernet_node::clock;
use infernet_payments::ledger::{Account, Line, Reason, Report, Standing};
use infernet_payments::rail::Direction;
use infernet_payments::{Cashier, Ledger, PaymentHash, PaymentRail};
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};
use serde::Serialize;
use tokio::sync::OnceCell;

use super::Error;
use super::attempts::{Attempts, Moved};

/// What was spent on one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Whom on.
    pub provider: PublicKey,
    /// What it was called last; empty if that is not known.
    pub name: String,
    /// Attempts that were charged.
    pub attempts: u64,
    /// What they cost.
    pub charged_msat: Msat,
    /// What it was paid.
    pub paid_msat: Msat,
    /// What it has paid back.
    pub refunded_msat: Msat,
}

/// What was spent in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spending {
    /// Since when.
    pub since: Timestamp,
    /// What work cost.
    pub charged_msat: Msat,
    /// What was paid to providers.
    pub paid_msat: Msat,
    /// What they have paid back.
    pub refunded_msat: Msat,
    /// What routing cost.
    pub fees_msat: Msat,
    /// By provider, the most expensive first.
    pub providers: Vec<Spent>,
}

/// How the tab with a provider stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TabState {
    /// With whom.
    pub provider: PublicKey,
    /// What it was called last; empty if that is not known.
    pub name: String,
    /// What is left of what was paid, in msat; negative if something is owed.
    pub left_msat: i64,
    /// Payments to it that may be done or not.
    pub under_way_msat: Msat,
    /// A refund that was asked for and has not come.
    pub refund_msat: Msat,
    /// Attempts that run, or that a process left when it died: the next job settles them.
    pub unfinished: u64,
    /// Those of them whose cost is not known, because no relay could be asked: the next job looks.
    pub unclear: u64,
}

/// The books of a buyer. Clones share them.
#[derive(Debug, Clone)]
pub struct Books {
    ledger: Ledger,
    attempts: Attempts,
    chain: Arc<OnceCell<Option<String>>>,
}

impl Books {
    /// Opens the books in this folder, and makes them if they are not there.
    ///
    /// # Errors
    /// A folder or files that cannot be used.
    pub async fn open(folder: &Path) -> Result<Self, Error> {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Error::Folder {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            ledger: Ledger::open(&folder.join("ledger.sqlite")).await?,
            attempts: Attempts::open(&folder.join("attempts.sqlite")).await?,
            chain: Arc::default(),
        })
    }

    pub(super) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) const fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// The chain that the wallet is on, if it shows it; asked for until the wallet has answered, and not for each
    /// invoice that a provider sends.
    pub(super) async fn chain<E, F: Future<Output = Result<Option<String>, E>>>(
        &self,
        ask: impl FnOnce() -> F,
    ) -> Option<String> {
        let asked = self.chain.get_or_try_init(ask).await;
        asked.ok().cloned().flatten()
    }

    /// What was spent since then.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn spending(&self, since: Timestamp) -> Result<Spending, Error> {
        let names = self.attempts.names().await?;
        let mut providers = BTreeMap::new();
        let charged = self.ledger.lines(&Account::Spending, since).await?;
        for line in &charged {
            if let Some(spent) = of(line, &mut providers, &names) {
                spent.attempts += 1;
                add(&mut spent.charged_msat, line.amount_msat);
            }
        }
        for provider in self.everybody().await? {
            for line in self.ledger.lines(&Account::Tab(provider), since).await? {
                let Some(spent) = of(&line, &mut providers, &names) else {
                    continue;
                };
                match line.reason.as_str() {
                    "top-up" => add(&mut spent.paid_msat, line.amount_msat),
                    "refund" => add(&mut spent.refunded_msat, -line.amount_msat),
                    _ => {}
                }
            }
        }
        let aggregators: Vec<_> = providers.keys().copied().collect();
        for aggregator in aggregators {
            for line in self
                .ledger
                .lines(&Account::Credit(aggregator), since)
                .await?
            {
                let Some(spent) = of(&line, &mut providers, &names) else {
                    continue;
                };
                match line.reason.as_str() {
                    "hold" => add(&mut spent.paid_msat, line.amount_msat),
                    "credit" => add(&mut spent.refunded_msat, -line.amount_msat),
                    _ => {}
                }
            }
        }
        let fees = self.ledger.change_since(&Account::Fees, since).await?;
        let mut providers: Vec<Spent> = providers.into_values().collect();
        providers.sort_by_key(|spent| std::cmp::Reverse((spent.charged_msat, spent.paid_msat)));
        let total = |of: fn(&Spent) -> Msat| Msat(providers.iter().map(|one| of(one).0).sum());
        Ok(Spending {
            since,
            charged_msat: total(|spent| spent.charged_msat),
            paid_msat: total(|spent| spent.paid_msat),
            refunded_msat: total(|spent| spent.refunded_msat),
            fees_msat: Msat(unsigned(fees)),
            providers,
        })
    }

    /// All with whom there was ever a tab.
    async fn everybody(&self) -> Result<BTreeSet<PublicKey>, Error> {
        let mut all: BTreeSet<_> = self.attempts.names().await?.into_keys().collect();
        all.extend(self.ledger.tabs().await?.into_iter().map(|(key, _)| key));
        Ok(all)
    }

    /// The tabs that are not even, or on which something is going on.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn tabs(&self) -> Result<Vec<TabState>, Error> {
        let names = self.attempts.names().await?;
        let mut tabs = BTreeMap::new();
        let mut tab = |provider: PublicKey, change: &dyn Fn(&mut TabState)| {
            change(tabs.entry(provider).or_insert_with(|| TabState {
                provider,
                name: names.get(&provider).cloned().unwrap_or_default(),
                left_msat: 0,
                under_way_msat: Msat::ZERO,
                refund_msat: Msat::ZERO,
                unfinished: 0,
                unclear: 0,
            }));
        };
        for (provider, left_msat) in self.ledger.tabs().await? {
            tab(provider, &|tab| tab.left_msat = left_msat);
        }
        for intent in self.ledger.open_intents().await? {
            let amount = intent.amount.0;
            match (intent.direction, intent.reason, intent.standing) {
                (Direction::Outgoing, Reason::TopUp, _) => {
                    tab(intent.counterparty, &|tab| tab.under_way_msat.0 += amount);
                }
                (Direction::Incoming, Reason::Refund, Standing::UnderWay) => {
                    tab(intent.counterparty, &|tab| tab.refund_msat.0 += amount);
                }
                _ => {}
            }
        }
        for provider in self.attempts.unfinished_at().await? {
            let unfinished = self.attempts.unfinished(&provider).await?.len() as u64;
            tab(provider, &|tab| tab.unfinished = unfinished);
        }
        for (provider, unclear) in self.attempts.unclear().await? {
            tab(provider, &|tab| tab.unclear = unclear);
        }
        Ok(tabs.into_values().collect())
    }

    /// How many attempts there are whose cost is not known yet.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn unclear(&self) -> Result<u64, Error> {
        Ok(self.attempts.unclear().await?.values().sum())
    }

    /// What each job has moved, where anything was moved.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn moved(&self) -> Result<HashMap<EventId, Moved>, Error> {
        self.attempts.moved().await
    }

    /// What the providers were called when they were awarded last.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn names(&self) -> Result<HashMap<PublicKey, String>, Error> {
        self.attempts.names().await
    }

    /// The payments that were made during an award, by our own ledger.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn payments(&self, award: &EventId) -> Result<Vec<(PaymentHash, Msat)>, Error> {
        let intents = self.ledger.intents_about(award).await?;
        let settled = intents.into_iter().filter(|intent| {
            intent.direction == Direction::Outgoing && intent.standing == Standing::Settled
        });
        let payments = settled.filter_map(|intent| Some((intent.hash()?, intent.amount)));
        Ok(payments.collect())
    }

    /// Compares the ledger with the wallet, after booking what is done.
    ///
    /// # Errors
    /// A wallet that cannot be asked; files that cannot be used.
    pub async fn reconcile(&self, rail: Arc<dyn PaymentRail>) -> Result<Report, Error> {
        let cashier = Cashier::new(rail, self.ledger.clone());
        Ok(cashier.reconcile(clock::now()).await?)
    }

    /// The same, after posting what is not of our doing as come from, or gone, elsewhere.
    ///
    /// # Errors
    /// A wallet that cannot be asked; files that cannot be used.
    pub async fn adopt(&self, rail: Arc<dyn PaymentRail>) -> Result<Report, Error> {
        let cashier = Cashier::new(rail, self.ledger.clone());
        Ok(cashier.adopt(clock::now()).await?)
    }

    /// Writes what is pending, and closes the files.
    pub async fn close(self) {
        self.ledger.close().await;
        self.attempts.close().await;
    }
}

/// What was spent on the provider of a line.
fn of<'a>(
    line: &Line,
    providers: &'a mut BTreeMap<PublicKey, Spent>,
    names: &HashMap<PublicKey, String>,
) -> Option<&'a mut Spent> {
    let provider = line.counterparty?;
    Some(providers.entry(provider).or_insert_with(|| Spent {
        provider,
        name: names.get(&provider).cloned().unwrap_or_default(),
        attempts: 0,
        charged_msat: Msat::ZERO,
        paid_msat: Msat::ZERO,
        refunded_msat: Msat::ZERO,
    }))
}

fn add(sum: &mut Msat, amount_msat: i64) {
    sum.0 = sum.0.saturating_add(unsigned(amount_msat));
}

fn unsigned(amount_msat: i64) -> u64 {
    u64::try_from(amount_msat).unwrap_or(0)
}
