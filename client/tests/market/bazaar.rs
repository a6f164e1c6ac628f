//! A relay, a Lightning network in memory, sellers, and a buyer with a wallet.

use std::path::PathBuf;
use std::time::Duration;

use infernet_client::purse::{self, Limits, TabState};
use infernet_client::{Client, Options, Request, Step};
use infernet_node::clock;
use infernet_payments::rail::PaymentRail;
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::event::{Attestation, Receipt, Signed};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use nostr::{Event, Filter, Keys, Kind, RelayUrl};
use nostr_relay_builder::LocalRelay;
use tempfile::TempDir;

use crate::seller::{Offer, SAT_A_TOKEN, Seller};
use crate::{DEADLINE, Life, PATIENCE, relay_on};

/// A relay, a Lightning network, sellers, and a buyer with a wallet.
pub struct Bazaar {
    _relay: LocalRelay,
    pub url: RelayUrl,
    pub network: Network,
    pub sellers: Vec<Seller>,
    pub wallet: Wallet,
    keys: Keys,
    home: TempDir,
    pub limits: Limits,
}

/// What the buyer begins with.
pub const BEGINS_WITH: Msat = sats(10_000);

impl Bazaar {
    pub async fn of(offers: impl IntoIterator<Item = Offer>) -> Self {
        let relay = relay_on(None).await;
        let url = relay.url().await;
        let network = Network::new(clock::now());
        let mut sellers = Vec::new();
        for offer in offers {
            sellers.push(Seller::start(&url, &network, offer).await);
        }
        Self {
            _relay: relay,
            url,
            sellers,
            wallet: network.wallet("buyer", BEGINS_WITH),
            network,
            keys: Keys::generate(),
            home: tempfile::tempdir().unwrap(),
            limits: Limits::default(),
        }
    }

    pub fn folder(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new([self.url.to_string()]).keys(self.keys.clone());
        options.patience = PATIENCE;
        let mut purse = purse::Options::new(self.wallet.clone(), self.folder());
        purse.limits = self.limits;
        options.purse(purse)
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    pub fn buyer(&self) -> nostr::PublicKey {
        self.keys.public_key()
    }

    /// What the relay has of this kind, once there are so many.
    pub async fn eventually(&self, kind: u16, count: usize) -> Vec<Event> {
        let link = &self.sellers[0].link;
        let filter = Filter::new().kind(Kind::from(kind));
        let enough = async {
            loop {
                let events = link.fetch(vec![filter.clone()], DEADLINE).await.unwrap();
                if events.len() >= count {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, enough)
            .await
            .expect("the relay never got them")
    }

    pub async fn receipts(&self, count: usize) -> Vec<Signed<Receipt>> {
        let events = self.eventually(kinds::RECEIPT, count).await;
        events
            .into_iter()
            .map(|event| Signed::verify(event).unwrap())
            .collect()
    }

    pub async fn attestation(&self) -> Signed<Attestation> {
        let mut events = self.eventually(kinds::ATTESTATION, 1).await;
        Signed::verify(events.remove(0)).unwrap()
    }

    /// The wallet, the ledger and the network agree to the last msat; answers what was paid.
    pub async fn is_even(&self) -> Msat {
        let books = purse::Books::open(&self.folder()).await.unwrap();
        let report = books
            .reconcile(std::sync::Arc::new(self.wallet.clone()))
            .await
            .unwrap();
        assert!(report.is_even(), "{report:?}");
        books.close().await;
        let balance = self.wallet.balance().await.unwrap();
        Msat(BEGINS_WITH.0 - balance.0)
    }
}

/// A job whose input is guessed to have 12 tokens.
pub fn buy() -> Request {
    let request = Request::text("tiny", "Say some words to me, please.");
    request.max_price(SAT_A_TOKEN)
}

pub fn charges(life: &Life) -> Vec<(Msat, Msat, i64)> {
    let charge = |step: &Step| match step {
        Step::Charged {
            amount,
            paid,
            left_msat,
            ..
        } => Some((*amount, *paid, *left_msat)),
        _ => None,
    };
    life.steps.iter().filter_map(charge).collect()
}

pub fn payments(life: &Life) -> usize {
    let paid = |step: &&Step| matches!(step, Step::Paid { .. });
    life.steps.iter().filter(paid).count()
}

pub const fn sats(sats: u64) -> Msat {
    Msat(sats * 1_000)
}

impl Bazaar {
    pub async fn tabs(&self) -> Vec<TabState> {
        let books = purse::Books::open(&self.folder()).await.unwrap();
        let tabs = books.tabs().await.unwrap();
        books.close().await;
        tabs
    }

    /// What the buyer says of a seller.
    pub async fn said_of(&self, seller: usize) -> Option<Signed<Attestation>> {
        let link = &self.sellers[0].link;
        let filter = Filter::new()
            .kind(Kind::from(kinds::ATTESTATION))
            .pubkey(self.sellers[seller].key());
        let events = link.fetch(vec![filter], DEADLINE).await;
        let mut said = events.unwrap().into_iter();
        said.next().map(|event| Signed::verify(event).unwrap())
    }
}
