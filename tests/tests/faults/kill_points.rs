//! A table of points along a paid job at which a process is killed.
//!
//! Each row: the process dies there, comes back in the same home, and the job ends or fails; another one is done on the
//! same tab, what is left on it is paid back, and all books agree.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use infernet_protocol::kinds;
use infernet_tests::{Lightning, Process};

use crate::books;
use crate::shop::{
    BUYER, CLIENT, OUTPUT_MSAT, PATIENCE, RISK_SATS, SELLER, Shop, answer, submit, wallets,
};
use crate::wire::Wire;

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Provider,
    Client,
    /// The buyer's wallet.
    Purse,
    /// The provider's wallet.
    Till,
    /// When an event of this kind has passed so often.
    Relay(u16, usize),
}

/// Where, and what has to come of the job.
struct Row {
    who: Who,
    /// A name of `node/src/mortality.rs`'s users or `wallet/src/fault.rs`; for the relay, what it has carried last.
    point: &'static str,
    /// Whether `make test` runs it too.
    is_in_spread: bool,
}

const fn row(who: Who, point: &'static str) -> Row {
    Row {
        who,
        point,
        is_in_spread: false,
    }
}

const fn always(who: Who, point: &'static str) -> Row {
    Row {
        who,
        point,
        is_in_spread: true,
    }
}

const OF_PROVIDER: &[Row] = &[
    row(Who::Provider, "award-admitted"),
    row(Who::Provider, "invoice-planned"),
    row(Who::Provider, "invoice-made"),
    row(Who::Provider, "invoice-sent"),
    row(Who::Provider, "top-up-seen"),
    row(Who::Provider, "top-up-booked"),
    row(Who::Provider, "invoice-made:2"),
    row(Who::Provider, "invoice-sent:2"),
    row(Who::Provider, "top-up-seen:2"),
    always(Who::Provider, "top-up-booked:2"),
    row(Who::Provider, "piece-claimed"),
    row(Who::Provider, "piece-claimed:7"),
    row(Who::Provider, "acknowledged"),
    row(Who::Provider, "acknowledged:7"),
    row(Who::Provider, "result-kept"),
    row(Who::Provider, "charged"),
    row(Who::Provider, "receipt-signed"),
    row(Who::Provider, "refund-planned"),
    row(Who::Provider, "refund-paid"),
];

const OF_CLIENT: &[Row] = &[
    row(Who::Client, "awarded"),
    row(Who::Client, "invoice-heard"),
    row(Who::Client, "payment-planned"),
    row(Who::Client, "payment-under-way"),
    row(Who::Client, "wallet-told"),
    row(Who::Client, "payment-booked"),
    row(Who::Client, "invoice-heard:2"),
    always(Who::Client, "wallet-told:2"),
    row(Who::Client, "payment-booked:2"),
    row(Who::Client, "piece-counted"),
    row(Who::Client, "piece-counted:7"),
    row(Who::Client, "acknowledged"),
    row(Who::Client, "acknowledged:7"),
    row(Who::Client, "result-heard"),
    row(Who::Client, "charged"),
    row(Who::Client, "receipt-signed"),
    row(Who::Client, "refund-asked"),
];

const OF_WALLETS: &[Row] = &[
    row(Who::Purse, "pay-recorded"),
    row(Who::Purse, "pay-sent"),
    row(Who::Purse, "pay-succeeded"),
    always(Who::Purse, "paid-recorded"),
    row(Who::Till, "received"),
];

const OF_RELAY: &[Row] = &[
    row(Who::Relay(kinds::AWARD, 1), "the award"),
    row(Who::Relay(kinds::PROGRESS, 1), "the first invoice"),
    always(Who::Relay(kinds::PROGRESS, 12), "some pieces"),
    row(
        Who::Relay(kinds::CONTROL, 1),
        "the first word of the client",
    ),
    row(Who::Relay(kinds::CONTROL, 9), "some acknowledgements"),
    row(Who::Relay(kinds::RESULT, 1), "the result"),
    row(Who::Relay(kinds::RECEIPT, 1), "a receipt"),
    row(Who::Relay(kinds::RECEIPT, 2), "both receipts"),
];

impl Row {
    fn name(&self) -> String {
        let who = match self.who {
            Who::Provider => "provider",
            Who::Client => "client",
            Who::Purse => "buyer's wallet",
            Who::Till => "provider's wallet",
            Who::Relay(..) => "relay",
        };
        format!("{who}/{}", self.point.replace(' ', "-"))
    }

    fn is_wanted(&self) -> bool {
        match std::env::var("INFERNET_FAULTS").as_deref() {
            Ok("all") => true,
            Ok(which) => self.name().starts_with(which),
            Err(_) => self.is_in_spread,
        }
    }
}

/// What a wallet logs when it has lost a channel.
const CLOSED: &str = "a channel is closed";

/// What a row has shown.
struct Shown {
    /// How the job ended.
    outcome: String,
    /// What was charged for it, in msat.
    charged: i64,
    /// Tokens that were charged and never seen, or, below 0, seen and never charged.
    lost: i64,
    /// Whether nothing can be paid over these wallets any more.
    has_lost_channel: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_provider() {
    run("kills_of_the_provider", OF_PROVIDER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_client() {
    run("kills_of_the_client", OF_CLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_a_wallet() {
    run("kills_of_a_wallet", OF_WALLETS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_relay() {
    run("kills_of_the_relay", OF_RELAY).await;
}

/// Runs the rows that are wanted one after the other over the same wallets, and shows the table.
async fn run(test: &str, rows: &[Row]) {
    let rows: Vec<_> = rows.iter().filter(|row| row.is_wanted()).collect();
    if rows.is_empty() {
        return;
    }
    let Some(mut lightning) = wallets(test).await else {
        return;
    };
    let mut failed = Vec::new();
    let mut table = vec![format!(
        "{:<38} {:>8} {:>14} {:>4}  THE JOB",
        "KILLED AT", "CHARGED", "TOKENS LOST", "S"
    )];
    for row in rows {
        let began = Instant::now();
        let shown = run_row(row, &mut lightning).await;
        let is_spoilt = shown.as_ref().map_or(true, |shown| shown.has_lost_channel);
        let line = line(&row.name(), &shown, began.elapsed());
        eprintln!("{line}");
        table.push(line);
        if shown.is_err() {
            failed.push(row.name());
        }
        if is_spoilt {
            // Whatever is left of it is not the next row's.
            lightning = wallets(test).await.expect("there was a regtest before");
        }
    }
    println!("{}", table.join("\n"));
    assert!(
        failed.is_empty(),
        "{}\n{}",
        failed.join(", "),
        table.join("\n")
    );
}

fn line(name: &str, shown: &Result<Shown>, took: Duration) -> String {
    let seconds = took.as_secs();
    match shown {
        Ok(shown) => {
            let charged = format!("{}.{:03}", shown.charged / 1_000, shown.charged % 1_000);
            let lost = match shown.lost {
                0 => "-".into(),
                tokens @ 1.. => format!("{tokens} by buyer"),
                tokens => format!("{} by seller", -tokens),
            };
            let outcome = &shown.outcome;
            format!("{name:<38} {charged:>8} {lost:>14} {seconds:>4}  {outcome}")
        }
        Err(error) => format!(
            "{name:<38} {:>8} {:>14} {seconds:>4}  FAILED: {error:#}",
            "", ""
        ),
    }
}

async fn run_row(row: &Row, lightning: &mut Lightning) -> Result<Shown> {
    let (shop, job) = match row.who {
        Who::Provider if row.point.starts_with("refund") => {
            refund(lightning, Some(row.point), None).await?
        }
        Who::Client if row.point.starts_with("refund") => {
            refund(lightning, None, Some(row.point)).await?
        }
        Who::Provider => provider(row.point, lightning).await?,
        Who::Client => client(row.point, lightning).await?,
        Who::Purse => wallet(BUYER, row.point, lightning).await?,
        Who::Till => wallet(SELLER, row.point, lightning).await?,
        Who::Relay(kind, times) => relay(kind, times, lightning).await?,
    };
    if !job.has_channel {
        let books = books::agree_on_payments(&shop, lightning).await?;
        return Ok(Shown {
            outcome: format!("{}; LDK has closed the channel", job.outcome),
            charged: books.buyer.charged,
            lost: 0,
            has_lost_channel: true,
        });
    }
    let next = shop.buys().context("the next job")?;
    shop.closes_the_tab()?;
    let books = books::agree(&shop, lightning).await?;
    ensure!(
        books.buyer.left() < books::DUST_MSAT,
        "not all was paid back: {books:?}"
    );
    let first = books::all_but(&shop, &next).await?;
    let lost = first.output_tokens - job.seen;
    ensure!(
        lost.abs() * OUTPUT_MSAT <= 1_000 * RISK_SATS,
        "{lost} tokens were charged and not seen"
    );
    Ok(Shown {
        outcome: job.outcome,
        charged: first.charged,
        lost,
        has_lost_channel: false,
    })
}

/// How a job has ended.
struct Job {
    outcome: String,
    /// Tokens of its answer that were seen.
    seen: i64,
    /// Whether anything can still be paid. LDK closes a channel if the process dies after the channel's own record was
    /// written and before the node's was, as it is while a payment is received.
    has_channel: bool,
}

impl Job {
    fn of(client: &Process, status: ExitStatus) -> Result<Self> {
        let (stdout, stderr) = (client.stdout(), client.stderr());
        let seen = stdout.split_whitespace().count();
        let outcome = match (status.code(), status.signal()) {
            (Some(0), _) => {
                ensure!(stdout.trim_end() == answer(), "another answer: {stdout}");
                "done".to_owned()
            }
            (Some(1), _) => match stderr.lines().rfind(|line| line.starts_with("error: ")) {
                Some(why) => why.to_owned(),
                None => bail!("it failed and does not say why: {stderr}"),
            },
            (None, Some(_)) => "killed".to_owned(),
            _ => bail!("{status}: {stderr}"),
        };
        Ok(Self {
            outcome,
            seen: i64::try_from(seen)?,
            has_channel: true,
        })
    }

    fn end(mut client: Process) -> Result<Self> {
        let status = client.ended(PATIENCE).context("the job")?;
        Self::of(&client, status)
    }
}

/// Waits until a process has died by itself.
fn died(process: &mut Process, point: &str) -> Result<ExitStatus> {
    let ended = process.ended(PATIENCE);
    let status = ended.with_context(|| format!("{point} was never reached"))?;
    match status.signal() {
        Some(_) => Ok(status),
        None => bail!("{point} was never reached: {status} {}", process.stderr()),
    }
}

async fn provider(point: &str, lightning: &Lightning) -> Result<(Shop, Job)> {
    let mut shop = Shop::open(lightning, Some(point)).await?;
    let client = shop.buyer().start(&submit(&[]))?;
    died(&mut shop.provider, point)?;
    shop.restart_provider()?;
    Ok((shop, Job::end(client)?))
}

async fn client(point: &str, lightning: &Lightning) -> Result<(Shop, Job)> {
    let shop = Shop::open(lightning, None).await?;
    let mut client = shop.buyer().with(CLIENT, point).start(&submit(&[]))?;
    let status = died(&mut client, point)?;
    let job = Job::of(&client, status)?;
    Ok((shop, job))
}

async fn wallet(name: &str, point: &str, lightning: &mut Lightning) -> Result<(Shop, Job)> {
    lightning.restart_to_die_at(name, point)?;
    lightning.wait_usable()?;
    let shop = Shop::open(lightning, None).await?;
    let client = shop.buyer().start(&submit(&[]))?;
    lightning.wait_dead(name).context(point.to_owned())?;
    lightning.restart(name)?;
    let has_channel = has_channel(name, lightning)?;
    let job = Job::end(client)?;
    Ok((shop, Job { has_channel, ..job }))
}

/// Waits until a wallet that has come back can pay; false if it has lost its channel.
fn has_channel(name: &str, lightning: &mut Lightning) -> Result<bool> {
    let is_lost = |wallets: &mut Lightning| -> Result<bool> {
        Ok(wallets.wallet(name)?.log().contains(CLOSED))
    };
    if is_lost(lightning)? {
        return Ok(false);
    }
    let usable = lightning.wait_usable();
    match is_lost(lightning)? {
        true => Ok(false),
        false => usable.map(|()| true),
    }
}

async fn relay(kind: u16, times: usize, lightning: &Lightning) -> Result<(Shop, Job)> {
    let mut shop = Shop::open(lightning, None).await?;
    let mut wire = Wire::tap(&shop.market.relay.url).await?;
    let client = shop.buyer().start(&submit(&[]))?;
    wire.hear(kind, times).await?;
    shop.market.relay.kill()?;
    shop.market.relay.restart()?;
    Ok((shop, Job::end(client)?))
}

/// Either side dies while what is left is paid back.
async fn refund(
    lightning: &Lightning,
    provider_at: Option<&str>,
    client_at: Option<&str>,
) -> Result<(Shop, Job)> {
    let mut shop = Shop::open(lightning, provider_at).await?;
    let job = Job::end(shop.buyer().start(&submit(&[]))?)?;
    let buyer = client_at.map(|point| shop.buyer().with(CLIENT, point));
    let buyer = buyer.unwrap_or_else(|| shop.buyer());
    let mut closing = buyer.start(&["tab", "close", "all", "--json"])?;
    match (provider_at, client_at) {
        (Some(point), _) => {
            died(&mut shop.provider, point)?;
            shop.restart_provider()?;
            closing.ended(PATIENCE).context("the refund")?;
        }
        (None, point) => drop(died(&mut closing, point.unwrap_or_default())?),
    }
    shop.closes_the_tab()?;
    Ok((shop, job))
}
