//! The program itself, paying: with a wallet over NIP-47, killed at any point.

use std::sync::Arc;

use infernet_payments::nip47::{Encryption, Service, ServiceOptions};
use infernet_payments::rail::PaymentRail;
use infernet_protocol::money::Msat;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::DEADLINE;
use crate::bazaar::Bazaar;
use crate::command::{Ran, User};
use crate::seller::{INPUT, Offer, Way, words};

/// A buyer at a terminal, and the wallet's service.
struct Buyer {
    user: User,
    _service: Service,
}

const PROMPT: &str = "Say some words to me, please.";

impl Buyer {
    async fn of(bazaar: &Bazaar) -> Self {
        let options = ServiceOptions {
            relays: vec![bazaar.url.clone()],
            encryption: Encryption::Nip44,
        };
        let wallet = Arc::new(bazaar.wallet.clone());
        let service = Service::start(wallet, options).await.unwrap();
        let mut user = User::at(&bazaar.url);
        let connection = service.connection().to_uri();
        user.environment.push(("INFERNET_WALLET", connection));
        Self {
            user,
            _service: service,
        }
    }

    async fn submit(&self, more: &[&str]) -> Ran {
        let price = "--max-price=1000000000";
        let mut arguments = vec!["submit", "--raw", price, PROMPT];
        arguments.extend(more);
        self.user.run(&arguments).await
    }

    /// The same, dying at this point.
    async fn submit_until(&mut self, point: &str) -> Ran {
        let dies = ("INFERNET_CLIENT_DIES_AT", point.to_owned());
        self.user.environment.push(dies);
        let ran = self.submit(&[]).await;
        self.user.environment.pop();
        ran
    }

    async fn reconcile(&self) -> Value {
        self.user.json(&["reconcile", "--json"]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_answer_is_shown_listed_audited_and_reconciled() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let buyer = Buyer::of(&bazaar).await;
    let user = &buyer.user;
    let ran = buyer.submit(&[]).await;
    assert_eq!(
        (ran.code, ran.out),
        (Some(0), format!("{}\n", words(30))),
        "{}",
        ran.err
    );
    let said = |what: &str| assert!(ran.err.contains(what), "no {what:?} in {}", ran.err);
    said("Paid 14 sat to ada; ");
    said("Cost 40 sat; ");
    assert!(!ran.err.contains("charged"), "said twice: {}", ran.err);
    bazaar.receipts(2).await;

    let again = buyer.submit(&["--json"]).await;
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(again["charged_msat"], 40_000);
    bazaar.receipts(4).await;

    let paid: u64 = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
    let spending = user.json(&["spending", "--json"]).await;
    assert_eq!(
        (&spending["charged_msat"], &spending["paid_msat"]),
        (&80_000.into(), &paid.into())
    );
    assert_eq!(spending["providers"][0]["name"], "ada");
    let table = user.run(&["spending", "--since", "1"]).await;
    assert!(table.out.contains("Work cost 80 sat."), "{}", table.out);

    let tabs = user.json(&["tab", "list", "--json"]).await;
    assert_eq!(tabs[0]["left_msat"], paid - 80_000);
    assert_eq!(tabs[0]["unfinished"], 0);
    let jobs = user.json(&["jobs", "--json"]).await;
    assert_eq!(jobs[0]["charged_msat"], 40_000);
    let listed = user.run(&["jobs"]).await;
    assert!(
        listed.out.contains("COST") && listed.out.contains("40 sat"),
        "{}",
        listed.out
    );

    let job = jobs[0]["id"].as_str().unwrap();
    let shown = user.run(&["show", job]).await;
    assert_eq!(
        shown.out.matches("40 sat charged").count(),
        2,
        "{}",
        shown.out
    );
    let audit = user.json(&["audit", job, "--json"]).await;
    let checks = audit["checks"].as_array().unwrap();
    for about in ["receipts", "charge", "payments", "tab", "paid"] {
        let found: Vec<_> = checks.iter().filter(|c| c["about"] == about).collect();
        assert!(!found.is_empty(), "nothing about {about}: {audit:#}");
        assert!(found.iter().all(|c| c["finding"] == "proven"), "{audit:#}");
    }

    let report = buyer.reconcile().await;
    assert_eq!(report["unexplained_msat"], 0);
    assert_eq!(report["differences"], Value::Array(vec![]));

    let closed = user.run(&["tab", "close", "ada"]).await;
    let left = Msat(paid - 80_000);
    assert_eq!(
        (closed.code, closed.out),
        (Some(0), format!("ada paid back {left}.\n")),
        "{}",
        closed.err
    );
    let tabs = user.run(&["tab", "list"]).await;
    assert!(
        tabs.err.contains("Nothing is left on any tab."),
        "{}{}",
        tabs.out,
        tabs.err
    );
    assert_eq!(buyer.reconcile().await["differences"], Value::Array(vec![]));
    let balance = bazaar.wallet.balance().await.unwrap();
    assert_eq!(balance, Msat(10_000_000 - 80_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_is_none_is_said_before_anything_is_asked() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let mut user = User::at(&bazaar.url);
    let ran = user.run(&["submit", "--raw", PROMPT]).await;
    assert!(
        ran.code == Some(1) && ran.err.contains("INFERNET_WALLET"),
        "{}",
        ran.err
    );
    for command in [&["reconcile"][..], &["tab", "close", "all"]] {
        let ran = user.run(command).await;
        assert!(
            ran.code == Some(1) && ran.err.contains("INFERNET_WALLET"),
            "{}",
            ran.err
        );
    }
    let secret = "nostr+walletconnect://secret";
    user.environment.push(("INFERNET_WALLET", secret.into()));
    let ran = user.run(&["submit", "--raw", PROMPT]).await;
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err.contains("INFERNET_WALLET: ") && !ran.err.contains(secret),
        "{}",
        ran.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_in_a_file_that_others_can_read_is_warned_of() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let mut buyer = Buyer::of(&bazaar).await;
    let (_, connection) = buyer.user.environment.pop().unwrap();
    let folder = buyer.user.home().join("client");
    std::fs::create_dir_all(&folder).unwrap();
    let settings = folder.join("client.toml");
    std::fs::write(&settings, format!("wallet = \"{connection}\"\n")).unwrap();
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&settings, permissions).unwrap();
    };
    mode(0o644);
    let ran = buyer.submit(&[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("chmod 600"), "{}", ran.err);
    mode(0o600);
    let ran = buyer.submit(&[]).await;
    assert!(
        ran.code == Some(0) && !ran.err.contains("chmod"),
        "{}",
        ran.err
    );
}

/// Killed at each point, the next command ends what was left: nothing is paid twice, no msat is missing, and both
/// sides' books agree, but for what was on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_anywhere_goes_on_from_its_books() {
    let points = [
        "awarded",
        "invoice-heard",
        "payment-planned",
        "payment-under-way",
        "wallet-told",
        "payment-booked",
        "piece-counted",
        "acknowledged",
        "result-heard",
        "charged",
        "receipt-signed",
    ];
    let trials = points.map(|point| tokio::spawn(is_killed_at(point)));
    for trial in trials {
        trial.await.unwrap();
    }
}

async fn is_killed_at(point: &'static str) {
    let mut offer = Offer::new("ada", Way::Honest);
    offer.terms.patience_ms = 3_000;
    let bazaar = Bazaar::of([offer]).await;
    let mut buyer = Buyer::of(&bazaar).await;
    let killed = buyer.submit_until(point).await;
    assert_eq!(killed.code, None, "{point}: {}", killed.err);

    let ran = buyer.submit(&[]).await;
    assert_eq!(ran.code, Some(0), "{point}: {}", ran.err);
    assert_eq!(ran.out, format!("{}\n", words(30)), "{point}");

    let paid: u64 = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
    let spending = buyer.user.json(&["spending", "--json"]).await;
    assert_eq!(spending["paid_msat"], paid, "{point}");
    let charged = spending["charged_msat"].as_u64().unwrap();
    let theirs: u64 = bazaar.sellers[0]
        .books()
        .charged
        .values()
        .map(|c| c.0)
        .sum();
    assert_eq!(
        charged, theirs,
        "{point}: whatever had come, there was a result to charge by"
    );
    let report = buyer.reconcile().await;
    assert_eq!(report["unexplained_msat"], 0, "{point}: {report}");
    let balance = bazaar.wallet.balance().await.unwrap();
    assert_eq!(balance, Msat(10_000_000 - paid), "{point}");
    let differences = report["differences"].as_array().unwrap();
    let is_under_way = match point {
        "payment-under-way" => true,
        // The next top-up may have been on its way beside them.
        "wallet-told" | "payment-booked" | "piece-counted" | "acknowledged" | "result-heard"
        | "charged" | "receipt-signed" => !differences.is_empty(),
        _ => false,
    };
    assert_eq!(
        differences.len(),
        usize::from(is_under_way),
        "{point}: {report}"
    );
    if is_under_way {
        // Nobody can say whether the wallet was told: it stays so until the invoice has run out.
        let difference = differences[0].as_str().unwrap();
        assert!(difference.contains("on its way out"), "{difference}");
        return;
    }
    let settled = async {
        loop {
            let tabs = buyer.user.json(&["tab", "list", "--json"]).await;
            if tabs[0]["unfinished"] == 0 {
                return;
            }
            buyer.submit(&["--max-tokens", "2"]).await;
        }
    };
    tokio::time::timeout(DEADLINE, settled).await.expect(point);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_while_it_asks_for_a_refund_has_it_once() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let mut buyer = Buyer::of(&bazaar).await;
    assert_eq!(buyer.submit(&[]).await.code, Some(0));
    bazaar.receipts(2).await;
    let dies = ("INFERNET_CLIENT_DIES_AT", "refund-asked".to_owned());
    buyer.user.environment.push(dies);
    assert_eq!(buyer.user.run(&["tab", "close", "all"]).await.code, None);
    buyer.user.environment.pop();
    let closed = buyer.user.run(&["tab", "close", "all"]).await;
    assert_eq!(closed.code, Some(0), "{}{}", closed.out, closed.err);
    let report = buyer.reconcile().await;
    assert_eq!(report["differences"], Value::Array(vec![]), "{report}");
    let balance = bazaar.wallet.balance().await.unwrap();
    assert_eq!(balance, Msat(10_000_000 - 40_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_leaves_the_rest_on_the_tab() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Slow)]).await;
    let buyer = Buyer::of(&bazaar).await;
    let price = "--max-price=1000000000";
    let mut child = buyer.user.start(&["submit", "--raw", price, PROMPT]);
    let mut out = child.stdout.take().unwrap();
    let mut first = [0];
    let reading = tokio::time::timeout(DEADLINE, out.read_exact(&mut first));
    reading.await.unwrap().unwrap();
    let pid = child.id().unwrap().to_string();
    let mut kill = Command::new("sh");
    let sent = kill.args(["-c", "kill -INT \"$0\"", &pid]);
    assert!(sent.status().await.unwrap().success());
    let status = tokio::time::timeout(DEADLINE, child.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(130));
    bazaar.receipts(2).await;
    let tabs = buyer.user.json(&["tab", "list", "--json"]).await;
    let books = bazaar.sellers[0].books();
    let paid: u64 = books.paid.iter().map(|p| p.0).sum();
    let charged: u64 = books.charged.values().map(|c| c.0).sum();
    assert!(charged >= 1_000 * (INPUT + 1));
    assert_eq!(tabs[0]["left_msat"], paid - charged);
}

/// Two at a time on one tab, again and again: each waits for the other, and their payments are on one tab.
#[tokio::test(flavor = "multi_thread")]
async fn programs_over_one_home_take_turns_on_a_tab() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let buyer = Buyer::of(&bazaar).await;
    let submit = || buyer.submit(&[]);
    let runs: [Ran; 4] = tokio::join!(submit(), submit(), submit(), submit()).into();
    for ran in &runs {
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(ran.out, format!("{}\n", words(30)));
    }
    let waited = runs.iter().filter(|ran| ran.err.contains("has the tab"));
    assert!(waited.count() > 0, "{}", runs[0].err);
    let carried = {
        let books = bazaar.sellers[0].books();
        books.charged.values().map(|c| c.0).sum::<u64>()
    };
    assert_eq!(carried, 4 * 40_000);
    let paid: u64 = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
    assert!(
        paid - carried <= bazaar.limits.risk.0,
        "{paid} for {carried}"
    );
    let report = buyer.reconcile().await;
    assert_eq!(report["unexplained_msat"], 0, "{report}");
    assert_eq!(report["differences"], Value::Array(vec![]));
}

/// At two providers at once, so that no tab makes them take turns: the day's budget is one all the same, and the
/// ledger, which is new, begins once.
#[tokio::test(flavor = "multi_thread")]
async fn programs_over_one_home_share_the_days_budget() {
    let names = ["ada", "bob", "cyd"];
    let bazaar = Bazaar::of(names.map(|name| Offer::new(name, Way::Honest))).await;
    let buyer = Buyer::of(&bazaar).await;
    let folder = buyer.user.home().join("client");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("client.toml"), "daily_sats = 70\n").unwrap();
    let submit = |name| {
        let buyer = &buyer;
        async move { buyer.submit(&["--provider", name, "--only"]).await }
    };
    let [ada, bob, cyd] = names;
    let runs: [Ran; 3] = tokio::join!(submit(ada), submit(bob), submit(cyd)).into();
    let refused = |ran: &&Ran| ran.err.contains("daily_sats in client.toml");
    assert!(runs.iter().filter(refused).count() > 0, "{}", runs[0].err);
    let paid: u64 = bazaar
        .sellers
        .iter()
        .flat_map(|seller| seller.books().paid.clone())
        .map(|paid| paid.0)
        .sum();
    assert!(paid > 0 && paid <= 70_000, "{paid}");
    for seller in 0..names.len() {
        assert!(bazaar.said_of(seller).await.is_none_or(|said| {
            said.experience == infernet_protocol::event::Experience::Completed
        }));
    }
    let report = buyer.reconcile().await;
    assert_eq!(report["unexplained_msat"], 0, "{report}");
}

/// Each makes the folder's key, its databases and its ledger, if no other does.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_start_together_for_the_first_time_share_a_home() {
    let bazaar = Bazaar::of(["ada", "bob"].map(|name| Offer::new(name, Way::Honest))).await;
    for _ in 0..3 {
        let buyer = Buyer::of(&bazaar).await;
        let submit = |name| {
            let buyer = &buyer;
            async move {
                buyer
                    .submit(&["--max-tokens", "2", "--provider", name])
                    .await
            }
        };
        let (ada, bob, jobs, tabs) = tokio::join!(
            submit("ada"),
            submit("bob"),
            buyer.user.run(&["jobs"]),
            buyer.user.run(&["tab", "list"]),
        );
        for ran in [ada, bob, jobs, tabs] {
            assert_eq!(ran.code, Some(0), "{}", ran.err);
        }
        let report = buyer.reconcile().await;
        assert_eq!(report["unexplained_msat"], 0, "{report}");
    }
}
