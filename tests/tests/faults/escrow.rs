//! A table of points along a batch at which its aggregator, its buyer or a provider is killed.
//!
//! Each row: the process dies there, comes back in the same home, and the batch is done; every line has its answer
//! once, nobody is paid twice, the buyer has paid for what it got and no more, nothing is held, and all books agree
//! with all wallets. On play money all rows; those that are marked on real Lightning too.

mod bazaar;
mod verdict;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use infernet_tests::{Lightning, Process};

use self::bazaar::{Bazaar, Dies, PATIENCE, PROVIDERS, SLOW, SPEED, WALLETS};
use self::verdict::Shown;

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Aggregator,
    Client,
    Provider,
}

/// Where.
struct Row {
    who: Who,
    /// A name of `node/src/mortality.rs`'s users.
    point: &'static str,
    /// Whether `make test` runs it too.
    is_in_spread: bool,
    /// Whether it is tried on real Lightning as well.
    is_real: bool,
}

const fn row(who: Who, point: &'static str) -> Row {
    Row {
        who,
        point,
        is_in_spread: false,
        is_real: false,
    }
}

const fn always(row: Row) -> Row {
    Row {
        is_in_spread: true,
        ..row
    }
}

const fn real(row: Row) -> Row {
    Row {
        is_real: true,
        ..row
    }
}

const ROWS: &[Row] = &[
    real(row(Who::Nobody, "nowhere")),
    row(Who::Aggregator, "hold-planned"),
    row(Who::Aggregator, "hold-invoiced"),
    always(real(row(Who::Aggregator, "hold-seen"))),
    row(Who::Aggregator, "group-working"),
    row(Who::Aggregator, "shard-placed"),
    always(row(Who::Aggregator, "shard-accepted")),
    row(Who::Aggregator, "shard-judged"),
    row(Who::Aggregator, "group-delivering"),
    real(row(Who::Aggregator, "group-delivered")),
    row(Who::Aggregator, "group-claiming"),
    row(Who::Aggregator, "claim-begun"),
    always(real(row(Who::Aggregator, "claimed"))),
    row(Who::Aggregator, "settled-seen"),
    real(row(Who::Aggregator, "group-charged")),
    row(Who::Aggregator, "group-settled"),
    row(Who::Aggregator, "payout-begun"),
    row(Who::Aggregator, "payout-asked"),
    row(Who::Aggregator, "payout-planned"),
    real(row(Who::Aggregator, "payout-paid")),
    row(Who::Aggregator, "payout-booked"),
    row(Who::Aggregator, "refund-asked"),
    row(Who::Aggregator, "credit-planned"),
    row(Who::Aggregator, "credit-paid"),
    row(Who::Aggregator, "credit-booked"),
    row(Who::Client, "hold-payment-planned"),
    real(row(Who::Client, "hold-wallet-told")),
    row(Who::Client, "hold-payment-booked"),
    row(Who::Provider, "result-kept"),
    row(Who::Provider, "invoice-made"),
];

impl Row {
    fn name(&self) -> String {
        let who = match self.who {
            Who::Nobody => "nobody",
            Who::Aggregator => "aggregator",
            Who::Client => "client",
            Who::Provider => "provider",
        };
        format!("batch-{who}/{}", self.point)
    }

    fn is_wanted(&self) -> bool {
        match std::env::var("INFERNET_FAULTS").as_deref() {
            Ok("all") => true,
            Ok(which) => self.name().starts_with(which),
            Err(_) => self.is_in_spread,
        }
    }

    fn dies(&self) -> Dies {
        let at = |who| (self.who == who).then_some(self.point);
        Dies {
            aggregator: at(Who::Aggregator),
            client: at(Who::Client),
            provider: at(Who::Provider),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_along_a_batch() {
    let rows: Vec<_> = ROWS.iter().filter(|row| row.is_wanted()).collect();
    if rows.is_empty() {
        return;
    }
    let lightning = Lightning::start_play(&WALLETS).await;
    run(&rows, &lightning.expect("play money does not start")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_along_a_batch_on_lightning() {
    let test = "kills_along_a_batch_on_lightning";
    if crate::shop::is_left_out(test) {
        return;
    }
    let started = Lightning::start_regtest(test, &WALLETS).await;
    let Some(lightning) = started.expect("the wallets do not start") else {
        return;
    };
    let rows: Vec<_> = ROWS.iter().filter(|row| row.is_real).collect();
    run(&rows, &lightning).await;
}

/// Runs rows one after the other over the same wallets, and shows the table.
async fn run(rows: &[&Row], lightning: &Lightning) {
    let mut failed = Vec::new();
    let mut table = vec![format!(
        "{:<36} {:>8} {:>8} {:>8} {:>8} {:>4}",
        "KILLED AT", "CHARGED", "FEE", "PAID", "CREDIT", "S"
    )];
    for row in rows {
        let began = Instant::now();
        let shown = run_row(row, lightning).await;
        let line = line(&row.name(), &shown, began.elapsed().as_secs());
        eprintln!("{line}");
        table.push(line);
        if shown.is_err() {
            failed.push(row.name());
        }
    }
    println!("{}", table.join("\n"));
    let table = table.join("\n");
    assert!(failed.is_empty(), "{}\n{table}", failed.join(", "));
}

fn line(name: &str, shown: &Result<Shown>, seconds: u64) -> String {
    match shown {
        Ok(shown) => {
            let Shown {
                charged,
                fee,
                paid_to_providers,
                credit,
            } = shown;
            format!(
                "{name:<36} {charged:>8} {fee:>8} {paid_to_providers:>8} {credit:>8} {seconds:>4}"
            )
        }
        Err(error) => format!("{name:<36} {seconds:>4}  FAILED: {error:#}"),
    }
}

async fn run_row(row: &Row, lightning: &Lightning) -> Result<Shown> {
    let dies = row.dies();
    let mut bazaar = Bazaar::open(lightning, dies).await?;
    let mut client = bazaar.batch(dies.client)?;
    match row.who {
        Who::Nobody => {}
        Who::Aggregator => {
            died(&mut bazaar.aggregator, row.point)?;
            bazaar.restart_aggregator()?;
        }
        Who::Provider => {
            died(&mut bazaar.providers[0].process, row.point)?;
            bazaar.restart_provider()?;
        }
        Who::Client => {
            died(&mut client, row.point)?;
            client = bazaar.batch(None)?;
        }
    }
    ends(&mut client)?;
    verdict::all_lines(&bazaar)?;
    let shown = verdict::agree(&bazaar, lightning).await?;
    verdict::something_moved(&bazaar).await?;
    Ok(shown)
}

/// A shard is at a slow provider when its aggregator dies. The next process buys it of another; what the slow one
/// brings when the batch is long done is paid all the same, and once.
#[tokio::test(flavor = "multi_thread")]
async fn late_work_is_paid_once() {
    let lightning = Lightning::start_play(&WALLETS).await;
    let lightning = lightning.expect("play money does not start");
    late_work(&lightning).await.unwrap();
}

async fn late_work(lightning: &Lightning) -> Result<()> {
    let dies = row(Who::Aggregator, "shard-accepted");
    let mut bazaar = Bazaar::open_without_providers(lightning, dies.dies()).await?;
    let [slow, fast] = PROVIDERS;
    bazaar.add_provider(slow, None, SLOW)?;
    let mut client = bazaar.batch(None)?;
    died(&mut bazaar.aggregator, dies.point)?;
    bazaar.add_provider(fast, None, SPEED)?;
    bazaar.restart_aggregator()?;
    ends(&mut client)?;
    verdict::all_lines(&bazaar)?;
    let until = Instant::now() + PATIENCE;
    loop {
        // The slow one may still be at work: then nobody is owed anything either.
        let shown = verdict::agree(&bazaar, lightning).await?;
        let charged = shown.charged - i64::try_from(shown.fee)?;
        if shown.paid_to_providers > charged {
            return Ok(());
        }
        ensure!(Instant::now() < until, "nothing came late: {shown:?}");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Waits until a process has died by itself.
fn died(process: &mut Process, point: &str) -> Result<()> {
    let ended = process.ended(PATIENCE);
    let status = ended.with_context(|| format!("{point} was never reached"))?;
    match status.signal() {
        Some(_) => Ok(()),
        None => bail!("{point} was never reached: {status} {}", process.stderr()),
    }
}

fn ends(client: &mut Process) -> Result<()> {
    let status = client.ended(2 * PATIENCE).context("the batch")?;
    let said = (client.stdout(), client.stderr());
    ensure!(status.success(), "the batch: {status} {}{}", said.0, said.1);
    Ok(())
}
