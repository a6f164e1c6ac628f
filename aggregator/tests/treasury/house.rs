//! An aggregator's treasury among buyers and providers with wallets of a test network.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use infernet_aggregator::treasury::{
    Bill, HoldDue, HoldStanding, NotPayable, Payees, Treasury, Work,
};
use infernet_payments::Cashier;
use infernet_payments::Invoice;
use infernet_payments::ledger::Ledger;
use infernet_payments::rail::{Ask, Order, OrderKey, PaymentRail};
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::batch::Charge;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Payout, payout_description};
use nostr::{EventId, Keys, PublicKey, Timestamp};

/// What is in each wallet.
pub const FUNDS: Msat = Msat(1_000_000_000);

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// One who pays or is paid.
#[derive(Debug, Clone)]
pub struct Party {
    pub key: PublicKey,
    pub wallet: Wallet,
}

impl Party {
    fn new(network: &Network, name: &str) -> Self {
        Self {
            key: Keys::generate().public_key(),
            wallet: network.wallet(name, FUNDS),
        }
    }

    pub async fn balance(&self) -> u64 {
        self.wallet.balance().await.unwrap().0
    }
}

/// What a provider makes of being asked for its invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Honest,
    Silent,
    /// Asks for more than it is told.
    Greedy,
    /// Names other work.
    Confused,
}

/// Providers, as the treasury reaches them.
#[derive(Clone)]
pub struct Providers {
    all: Arc<Vec<Party>>,
    mood: Arc<Mutex<Mood>>,
    /// All that they were told.
    pub told: Arc<Mutex<Vec<(PublicKey, Payout)>>>,
}

#[async_trait]
impl Payees for Providers {
    async fn invoice(
        &self,
        provider: PublicKey,
        award: EventId,
        payout: &Payout,
    ) -> Result<Invoice, NotPayable> {
        let mood = *self.mood.lock().unwrap();
        self.told.lock().unwrap().push((provider, payout.clone()));
        let one = self.all.iter().find(|one| one.key == provider).unwrap();
        let (amount, about) = match mood {
            Mood::Honest => (payout.pay_msat, award),
            Mood::Silent => return Err(NotPayable("it is silent".into())),
            Mood::Greedy => (Msat(payout.pay_msat.0 * 2), award),
            Mood::Confused => (payout.pay_msat, EventId::all_zeros()),
        };
        let ask = Ask {
            amount,
            description: payout_description(&about),
            expiry: Duration::from_secs(600),
        };
        let made = one.wallet.make_invoice(&ask).await;
        made.map_err(|error| NotPayable(error.to_string()))
    }
}

/// The house, its customers and its suppliers.
pub struct House {
    pub network: Network,
    pub wallet: Wallet,
    pub buyers: Vec<Party>,
    pub providers: Vec<Party>,
    pub payees: Providers,
    folder: tempfile::TempDir,
}

impl House {
    pub fn new() -> Self {
        let network = Network::new(START);
        let wallet = network.wallet("house", FUNDS);
        let party = |name| Party::new(&network, name);
        let buyers = ["ada", "bob"].map(party).to_vec();
        let providers = ["pia", "quin"].map(party).to_vec();
        let payees = Providers {
            all: Arc::new(providers.clone()),
            mood: Arc::default(),
            told: Arc::default(),
        };
        Self {
            network,
            wallet,
            buyers,
            providers,
            payees,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn mood(&self, mood: Mood) {
        *self.payees.mood.lock().unwrap() = mood;
    }

    /// A process of the aggregator, without what goes on by itself.
    pub async fn start(&self) -> Treasury {
        let network = self.network.clone();
        let rail: Arc<dyn PaymentRail> = Arc::new(self.wallet.clone());
        let clock = Arc::new(move || network.now());
        let payees = Arc::new(self.payees.clone());
        let opened = Treasury::open(self.folder.path(), Some(rail), payees, clock);
        opened.await.unwrap()
    }

    /// What it was opened with is in the books.
    pub async fn open_books(&self) {
        let cashier = self.cashier().await;
        cashier.open_books(self.network.now()).await.unwrap();
        cashier.ledger().clone().close().await;
    }

    /// The ledger, read beside the process.
    pub async fn cashier(&self) -> Cashier {
        Cashier::new(Arc::new(self.wallet.clone()), self.ledger().await)
    }

    pub async fn ledger(&self) -> Ledger {
        Ledger::open(&self.path()).await.unwrap()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.sqlite")
    }

    /// What a buyer is to have held for its group.
    pub fn due(&self, buyer: usize, group: u32, most: u64) -> HoldDue {
        HoldDue {
            order: order(buyer),
            group,
            buyer: self.buyers[buyer].key,
            most: Msat(most),
            until: self.network.now() + 7_200_u64,
        }
    }

    /// Has a buyer pay the invoice of its group, if there is one.
    pub async fn pay(&self, treasury: &Treasury, buyer: usize, group: u32) {
        let standing = treasury.standing(&order(buyer), group).await.unwrap();
        let HoldStanding::Invoiced(invoice) = standing else {
            return;
        };
        self.pay_invoice(buyer, *invoice).await;
    }

    pub async fn pay_invoice(&self, buyer: usize, invoice: Invoice) {
        let order = Order {
            key: OrderKey::random(),
            invoice,
            max_fee: Msat(1_000),
        };
        // It may be under way already, or have run out.
        let _ = self.buyers[buyer].wallet.pay(&order).await;
    }

    /// A provider's work.
    pub fn work(&self, provider: usize, number: u32, cost: u64, chance_ppm: u32) -> Work {
        Work {
            award: award(number),
            provider: self.providers[provider].key,
            cost: Msat(cost),
            chance_ppm,
            checked: chance_ppm == 1_000_000,
        }
    }

    /// An invoice of a buyer's for its credit.
    pub async fn wish(&self, buyer: usize, amount: u64) -> Invoice {
        self.try_wish(buyer, amount).await.unwrap()
    }

    /// The same of a wallet that may be down; there is none for nothing.
    pub async fn try_wish(&self, buyer: usize, amount: u64) -> Option<Invoice> {
        let ask = Ask {
            amount: Msat(amount),
            description: "what is left".into(),
            expiry: Duration::from_secs(600),
        };
        self.buyers[buyer].wallet.make_invoice(&ask).await.ok()
    }

    /// Lets some time pass, and the treasury do what is to be done.
    pub async fn pass(&self, treasury: &Treasury, seconds: u64) {
        self.network.advance(Duration::from_secs(seconds));
        treasury.round().await.unwrap();
    }
}

/// A bill for these works, with so much of a fee.
pub fn bill(works: Vec<Work>, fee: u64) -> Bill {
    let work_msat = Msat(works.iter().map(|work| work.cost.0).sum());
    Bill {
        charge: Charge {
            work_msat,
            checking_msat: Msat::ZERO,
            fee_msat: Msat(fee),
        },
        works,
    }
}

/// The order of a buyer.
pub fn order(buyer: usize) -> EventId {
    EventId::from_byte_array([1 + buyer as u8; 32])
}

pub fn award(number: u32) -> EventId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    EventId::from_byte_array(bytes)
}
