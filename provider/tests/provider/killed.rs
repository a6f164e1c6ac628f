//! A provider that is killed while money moves, and the next one in the same
//! home. Its wallet is a process's away, over NIP-47.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use infernet_payments::nip47::{Encryption, Service, ServiceOptions};
use infernet_payments::rail::{Ask, PaymentRail};
use infernet_payments::test_rail::Wallet;
use infernet_protocol::event::{Award, Signed};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Wish;
use nostr::{Filter, Kind};
use tempfile::TempDir;

use super::buyer::{Buyer, generate};
use super::house::{PURSE, Relay, play_money};
use super::paying::{Lived, PRICE, earned, paid};
use super::process::{Process, program, said};

/// A market whose provider can be killed.
pub struct Market {
    relay: Relay,
    pub home: TempDir,
    till: Wallet,
    pub purse: Wallet,
    service: Service,
    pub buyer: Buyer,
}

impl Market {
    pub async fn open() -> Self {
        let relay = Relay::start().await;
        let (_, till, purse) = play_money();
        let options = ServiceOptions {
            relays: vec![relay.url()],
            encryption: Encryption::Nip44,
        };
        let service = Service::start(Arc::new(till.clone()), options)
            .await
            .unwrap();
        let buyer = Buyer::connect(&[&relay]).await;
        Self {
            relay,
            home: tempfile::tempdir().unwrap(),
            till,
            purse,
            service,
            buyer,
        }
    }

    fn start(&self, dies_at: Option<&str>) -> Process {
        self.start_with(dies_at, &[])
    }

    pub fn start_with(&self, dies_at: Option<&str>, more: &[&str]) -> Process {
        let wallet = self.service.connection().to_uri();
        Process::start_with(self.home.path(), &self.relay, |command| {
            let output = PRICE.output_msat.to_string();
            let input = PRICE.input_msat.to_string();
            command
                .args(["--scripted-speed", "200", "--scripted-text", TEXT])
                .args(["--price-in", &input, "--price-out", &output])
                .args(more)
                .env("INFERNET_WALLET", wallet)
                .envs(dies_at.map(|point| ("INFERNET_PROVIDER_DIES_AT", point)))
        })
    }

    async fn award(&mut self, provider: &Process) -> Signed<Award> {
        let word = self.buyer.online(provider.npub).await;
        let draft = paid(&self.buyer, &word, generate("Count for me", 60));
        self.buyer.place(draft).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.home.path());
        command
            .args(arguments)
            .env("INFERNET_WALLET", self.service.connection().to_uri());
        command
    }

    /// How many receipts the provider has published over an award.
    async fn receipts(&self, award: &Signed<Award>) -> usize {
        let receipts = Filter::new()
            .kind(Kind::from(8604))
            .author(award.provider)
            .event(award.id());
        self.buyer.fetch(receipts).await.len()
    }

    /// Whatever happened: the books are right, and nobody has lost anything.
    pub async fn check(&self, point: &str) {
        let earned = earned(self.home.path()).await;
        let gone = PURSE.0 - self.purse.balance().await.unwrap().0;
        let come = self.till.balance().await.unwrap().0 - PURSE.0;
        assert_eq!(gone, come, "{point}: no routing costs here");
        let received = earned.received_msat.0 - earned.refunded_msat.0;
        assert_eq!(received, come, "{point}: all that came is in the ledger");
        let left: i64 = earned.tabs.iter().map(|tab| tab.left_msat).sum();
        let owed: u64 = earned.escrows.iter().map(|one| one.owed_msat.0).sum();
        let kept = i64::try_from(earned.earned_msat.0 - owed).unwrap();
        assert_eq!(left + kept, i64::try_from(come).unwrap(), "{point}");
        let (ok, told, error) = said(&mut self.command(&["reconcile"]));
        assert!(ok, "{point}: {told}{error}");
    }
}

/// 50 tokens: a top-up and a half would be 15 sat, so one suffices.
const TEXT: &str = "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w";

/// Buys until the provider dies or delivers.
async fn buy(market: &mut Market, award: &Signed<Award>, provider: &mut Process) -> Option<Lived> {
    let purse = market.purse.clone();
    tokio::select! {
        lived = market.buyer.live(award, &purse) => Some(lived),
        () = provider.has_ended() => None,
    }
}

/// Kills a provider at a point of a paid job, starts it again, and buys once more.
async fn dies_at(point: &str) {
    let mut market = Market::open().await;
    let mut provider = market.start(Some(point));
    let award = market.award(&provider).await;
    let lived = buy(&mut market, &award, &mut provider).await;
    provider.has_ended().await;
    // Somebody else goes on with the job.
    market.buyer.cancel(&award).await;
    let mut again = market.start(None);
    let next = market.award(&again).await;
    let second = buy(&mut market, &next, &mut again).await;
    let second = second.unwrap_or_else(|| panic!("{point}: it dies again"));
    let due = Msat(30 + 5_000);
    assert_eq!(second.result.due_msat, due, "{point}");
    let receipt = market.buyer.receipt(next.id()).await;
    let tab = receipt.tab.unwrap();
    let gone = PURSE.0 - market.purse.balance().await.unwrap().0;
    assert_eq!(
        tab.paid_msat,
        Msat(gone),
        "{point}: nothing that was paid is lost"
    );
    let first = tab.due_msat.0 - due.0;
    match lived {
        Some(lived) => assert_eq!(Msat(first), lived.result.due_msat, "{point}"),
        None => assert!(first <= due.0, "{point}: {first}"),
    }
    if first > 0 || gone > second.invoices.iter().map(|one| one.amount().0).sum() {
        market.buyer.receipt(award.id()).await;
        assert_eq!(market.receipts(&award).await, 1, "{point}");
    }
    market.check(point).await;
}

macro_rules! points {
    ($($name:ident: $point:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                dies_at($point).await;
            }
        )*
    };
}

points! {
    before_the_tab_is_opened: "award-admitted",
    before_the_wallet_makes_the_invoice: "invoice-planned",
    before_the_invoice_is_written_down: "invoice-made",
    after_the_invoice_was_sent: "invoice-sent",
    before_the_top_up_is_booked: "top-up-seen",
    after_the_top_up_was_booked: "top-up-booked",
    before_the_first_piece_is_sent: "piece-claimed",
    after_an_acknowledgement: "acknowledged",
    before_the_result_is_charged: "result-kept",
    before_the_receipt_is_signed: "charged",
    before_the_receipt_is_published: "receipt-signed",
}

/// Kills a provider at a point of a refund; the buyer asks again.
async fn dies_refunding_at(point: &str) {
    let mut market = Market::open().await;
    let mut provider = market.start(Some(point));
    let award = market.award(&provider).await;
    buy(&mut market, &award, &mut provider).await.unwrap();
    market.buyer.receipt(award.id()).await;
    let ask = Ask {
        amount: Msat(10_000 - 5_030),
        description: "what is left".to_owned(),
        expiry: std::time::Duration::from_secs(600),
    };
    let invoice = market.purse.make_invoice(&ask).await.unwrap();
    let text = invoice.as_str().to_owned();
    market.buyer.wish(&award, Wish::Refund { invoice: text });
    provider.has_ended().await;
    let again = market.start(None);
    market.buyer.online(again.npub).await;
    market.buyer.refunding(&award, &invoice).await;
    super::process::until("the refund is booked", || {
        let (_, told, _) = said(&mut market.command(&["earnings", "--json"]));
        told.contains("\"refunded_msat\": 4970")
    })
    .await;
    assert_eq!(market.till.tries(&invoice.hash()), 1, "{point}");
    market.check(point).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_a_refund_is_paid() {
    dies_refunding_at("refund-planned").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_refund_was_paid() {
    dies_refunding_at("refund-paid").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_are_read_while_it_runs() {
    let mut market = Market::open().await;
    let (ok, told, _) = said(&mut market.command(&["earnings"]));
    assert!(ok && told.contains("earned 0 sat with 0 jobs"), "{told}");
    let mut provider = market.start(None);
    let award = market.award(&provider).await;
    let lived = buy(&mut market, &award, &mut provider).await.unwrap();
    market.buyer.receipt(award.id()).await;
    let (ok, told, error) = said(&mut market.command(&["earnings", "--since", "1"]));
    assert!(ok, "{error}");
    assert!(told.contains("earned 5.03 sat with 1 job\n"), "{told}");
    assert!(told.contains("scripted: 5.03 sat"), "{told}");
    assert!(told.contains("has 4.97 sat left"), "{told}");
    super::process::until("the wallet's balance is shown", || {
        let (_, status, _) = said(&mut market.command(&["status"]));
        status.contains("wallet: 1010 sat in it")
    })
    .await;
    let (ok, told, _) = said(&mut market.command(&["reconcile"]));
    assert!(ok && told.contains("They agree"), "{told}");
    // Somebody uses the wallet besides.
    let ask = Ask {
        amount: Msat(7_000),
        description: "a coffee".to_owned(),
        expiry: std::time::Duration::from_secs(600),
    };
    let foreign = market.till.make_invoice(&ask).await.unwrap();
    super::paying::pay(&market.purse, &foreign).await;
    let (ok, told, _) = said(&mut market.command(&["reconcile"]));
    assert!(ok && told.contains("not of our doing"), "{told}");
    let (ok, told, _) = said(&mut market.command(&["reconcile", "--adopt"]));
    assert!(ok && told.contains("They agree"), "{told}");
    let (ok, told, _) = said(&mut market.command(&["reconcile", "--json"]));
    assert!(ok && told.contains("\"explained\": true"), "{told}");
    // A wallet that denies what the ledger has.
    market.till.forget(lived.invoices[0].hash());
    let (ok, told, error) = said(&mut market.command(&["reconcile"]));
    assert!(
        !ok && told.contains("unknown to the wallet"),
        "{told}{error}"
    );
    assert!(error.contains("do not agree"), "{error}");
}

#[test]
fn without_a_wallet_it_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let priced = ["start", "--engine", "scripted", "--price-out", "5"];
    let (ok, _, error) = said(program(home.path()).args(priced));
    assert!(
        !ok && error.contains("set INFERNET_WALLET, or the price to 0"),
        "{error}"
    );
    let (ok, _, error) = said(program(home.path()).arg("reconcile"));
    assert!(!ok && error.contains("set INFERNET_WALLET"), "{error}");
    let settings = home.path().join("provider.toml");
    let connection = "nostr+walletconnect://b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4\
                      ?relay=ws%3A%2F%2F127.0.0.1%3A1&secret=71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";
    std::fs::write(&settings, format!("wallet = \"{connection}\"\n")).unwrap();
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, _, error) = said(program(home.path()).arg("reconcile"));
    assert!(
        error.contains("chmod 600") && !error.contains("71a8"),
        "{error}"
    );
    std::fs::remove_file(&settings).unwrap();
    let wrong = program(home.path())
        .args(priced)
        .env("INFERNET_WALLET", "secret-thing")
        .output();
    let error = String::from_utf8(wrong.unwrap().stderr).unwrap();
    assert!(
        error.contains("INFERNET_WALLET") && !error.contains("secret-thing"),
        "{error}"
    );
}
