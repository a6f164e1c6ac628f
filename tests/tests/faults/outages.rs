//! What a paid job needs is taken away for a while, or for good.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use infernet_protocol::event::{Attestation, Experience, Signed};
use infernet_protocol::kinds;
use infernet_tests::{Lightning, Process};
use tokio::time::sleep;

use crate::books::{self, Books};
use crate::shop::{
    BUYER, OUTPUT_MSAT, PATIENCE, RISK_SATS, SELLER, Shop, is_left_out, submit, wallets,
};
use crate::wire::{self, Wire};

/// Waits until some of the answer has come.
fn streams(client: &Process) {
    let some = |said: &str| (said.len() > 40).then_some(());
    client.wait_stdout(Duration::from_secs(60), some).unwrap();
}

/// The next job is done, and all books agree at the end.
async fn goes_on(shop: &Shop, lightning: &Lightning) -> Books {
    shop.buys().unwrap();
    shop.closes_the_tab().unwrap();
    books::agree(shop, lightning).await.unwrap()
}

/// That a job has ended, well or not, and says why.
fn ends(client: &mut Process) -> Result<String> {
    let status = client.ended(PATIENCE)?;
    let said = client.stderr();
    ensure!(
        status.success() || said.contains("error: "),
        "it does not say why: {said}"
    );
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_is_away_while_a_job_streams() {
    let test = "the_relay_is_away_while_a_job_streams";
    if is_left_out(test) {
        return;
    }
    let Some(lightning) = wallets(test).await else {
        return;
    };
    let mut shop = Shop::open(&lightning, None).await.unwrap();
    let mut client = shop.buyer().start(&submit(&[])).unwrap();
    streams(&client);
    shop.market.relay.kill().unwrap();
    // Longer than a silent provider is waited for, and than the answer takes.
    ends(&mut client).unwrap();
    shop.market.relay.restart().unwrap();
    goes_on(&shop, &lightning).await;
}

/// Where a wallet is taken away, and what becomes of the job.
async fn is_away(test: &str, whose: &str) {
    let Some(mut lightning) = wallets(test).await else {
        return;
    };
    let shop = Shop::open(&lightning, None).await.unwrap();
    // Stopped properly: a killed one is in the table of kill points.
    lightning.wallet(whose).unwrap().stop().unwrap();
    let mut client = shop.buyer().start(&submit(&["--deadline", "20"])).unwrap();
    let said = ends(&mut client).unwrap();
    let is_said = said.contains("wallet") || said.contains("deadline");
    assert!(is_said, "{said}");
    assert_eq!(Books::read(&shop).unwrap().buyer.paid, 0);
    lightning.restart(whose).unwrap();
    lightning.wait_usable().unwrap();
    goes_on(&shop, &lightning).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buyers_wallet_is_away() {
    is_away("the_buyers_wallet_is_away", BUYER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_wallet_is_away() {
    let test = "the_providers_wallet_is_away";
    if !is_left_out(test) {
        is_away(test, SELLER).await;
    }
}

/// A wallet's process, held still: what is sent to it stays on its way.
struct Held(String);

impl Held {
    fn hold(lightning: &mut Lightning, name: &str) -> Result<Self> {
        let id = lightning.wallet(name)?.id().context("it does not run")?;
        let held = Self(id.to_string());
        held.signal("STOP")?;
        Ok(held)
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill")
            .args(["-s", signal, &self.0])
            .status()?;
        ensure!(status.success(), "the wallet takes no {signal}");
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.signal("CONT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_stays_pending_until_its_job_is_over() {
    let test = "a_payment_stays_pending_until_its_job_is_over";
    let Some(mut lightning) = wallets(test).await else {
        return;
    };
    let shop = Shop::open(&lightning, None).await.unwrap();
    let mut wire = Wire::tap(&shop.market.relay.url).await.unwrap();
    let mut client = shop.buyer().start(&submit(&["--deadline", "15"])).unwrap();
    // The invoice is on its way to the buyer: its money meets a node that does not answer.
    wire.hear(kinds::PROGRESS, 1).await.unwrap();
    let held = Held::hold(&mut lightning, SELLER).unwrap();
    ends(&mut client).unwrap();
    drop(held);
    arrived(&shop).await.unwrap();
    let books = goes_on(&shop, &lightning).await;
    assert!(books.buyer.paid > 0);
}

/// Waits until nothing is on its way to the tab any more.
async fn arrived(shop: &Shop) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        shop.buyer().run(&["reconcile"])?;
        let tabs = shop.buyer().json(&["tab", "list", "--json"])?;
        let under_way = |tab: &serde_json::Value| tab["under_way_msat"] != 0;
        if !tabs
            .as_array()
            .is_some_and(|tabs| tabs.iter().any(under_way))
        {
            return Ok(());
        }
        ensure!(Instant::now() < until, "it is still on its way: {tabs}");
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_takes_the_money_and_stops() {
    let test = "a_provider_takes_the_money_and_stops";
    let Some(lightning) = wallets(test).await else {
        return;
    };
    let stalls = ["--scripted-speed", "80", "--scripted-stall-after", "70"];
    let shop = Shop::open_with(&lightning, None, &stalls).await.unwrap();
    let mut client = shop.buyer().start(&submit(&[])).unwrap();
    let status = client.ended(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1), "{}", client.stderr());
    let seen = client.stdout().split_whitespace().count();
    let books = Books::read(&shop).unwrap();
    let lost = books.buyer.left();
    assert!(
        (1..=1_000 * RISK_SATS).contains(&lost),
        "the buyer has {lost} msat there"
    );
    let got = OUTPUT_MSAT * i64::try_from(seen).unwrap();
    assert!(books.buyer.charged <= got + 1_000, "{books:?}");
    let said = attestation(&shop).await.unwrap();
    assert!(
        matches!(said.experience, Experience::Silent | Experience::Failed),
        "{said:?}"
    );
    assert_eq!(i64::try_from(said.paid_msat.0).unwrap(), books.buyer.paid);
    assert!(said.receipt.is_some());
}

async fn attestation(shop: &Shop) -> Result<Signed<Attestation>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let events = wire::fetch(&shop.market.relay.url, &[kinds::ATTESTATION]).await?;
        if let Some(event) = events.into_iter().next() {
            return Ok(Signed::verify(event)?);
        }
        ensure!(Instant::now() < until, "the buyer says nothing of it");
        sleep(Duration::from_millis(300)).await;
    }
}
