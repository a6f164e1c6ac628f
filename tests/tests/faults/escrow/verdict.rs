//! What has to be true whatever was killed: nobody is paid twice, the buyer pays for what it got, nothing is held.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use infernet_payments::ledger::{Account, Sums};
use infernet_payments::rail::Direction;
use infernet_tests::Lightning;
use nostr::Timestamp;

use super::bazaar::{AGGREGATOR, BUYER, Bazaar, LINES, PATIENCE, PROVIDERS, WALLETS};

/// What a row has shown, in msat.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub charged: i64,
    pub fee: u64,
    pub paid_to_providers: i64,
    pub credit: i64,
}

/// Waits until the books agree.
///
/// # Errors
/// With the last thing that was wrong, if they have not in time.
pub async fn agree(bazaar: &Bazaar, lightning: &Lightning) -> Result<Shown> {
    let until = Instant::now() + 2 * PATIENCE;
    loop {
        match compare(bazaar, lightning).await {
            Ok(shown) => return Ok(shown),
            Err(wrong) if Instant::now() >= until => {
                return Err(wrong.context(bazaar.aggregator.stderr()));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_secs(2)).await,
        }
    }
}

async fn compare(bazaar: &Bazaar, lightning: &Lightning) -> Result<Shown> {
    nothing_is_open(lightning).await?;
    let sums = bazaar.ledger(AGGREGATOR).await?.sums().await?;
    ensure!(sums.held.0 == 0, "something is held: {sums:?}");
    ensure!(
        sums.bonds.is_empty(),
        "nothing is checked, and a bond is held: {sums:?}"
    );
    ensure!(
        sums.payouts.is_empty(),
        "providers are still owed: {sums:?}"
    );
    let buyers = bazaar.ledger(BUYER).await?;
    let charged = buyers.balance(&Account::Spending).await?;
    let fee = i64::try_from(sums.fees_earned.0)?;
    let income = i64::try_from(sums.charged.0)? + fee;
    ensure!(
        charged == income,
        "the buyer was charged {charged}: {sums:?}"
    );
    let credit = credits(&sums);
    let wallets = Wallets::read(bazaar, lightning).await?;
    ensure!(
        wallets.lost(BUYER)? == charged + credit,
        "the buyer has paid {}, of {charged} charged and {credit} left",
        wallets.lost(BUYER)?
    );
    let mut paid = 0;
    for name in PROVIDERS {
        let got = -wallets.lost(name)?;
        let (booked, owed) = earned(bazaar, name).await?;
        ensure!(got == booked, "{name} got {got} and booked {booked}");
        ensure!(owed == 0, "{name} is still owed {owed}");
        paid += got;
    }
    let spent = i64::try_from(sums.spent.0)?;
    ensure!(paid == spent, "{paid} was paid: {sums:?}");
    ensure!(
        sums.charged <= sums.spent,
        "charged work is not paid: {sums:?}"
    );
    for name in WALLETS {
        bazaar.reconciles(name)?;
    }
    Ok(Shown {
        charged,
        fee: sums.fees_earned.0,
        paid_to_providers: paid,
        credit,
    })
}

/// No payment is on its way or held in any wallet, but for invoices that nobody pays.
async fn nothing_is_open(lightning: &Lightning) -> Result<()> {
    use infernet_payments::rail::State;
    for name in WALLETS {
        for payment in lightning.payments(name).await? {
            let is_open = match payment.direction {
                Direction::Outgoing => !payment.state.is_final(),
                Direction::Incoming => payment.state == State::Held,
            };
            ensure!(!is_open, "{name}: {payment:?} is open");
        }
    }
    Ok(())
}

fn credits(sums: &Sums) -> i64 {
    sums.credits.iter().map(|(_, msat)| msat).sum()
}

/// What a provider was paid by its books, and what it is still owed.
async fn earned(bazaar: &Bazaar, name: &str) -> Result<(i64, i64)> {
    let escrows = bazaar.ledger(name).await?.escrows().await?;
    let (mut paid, mut owed) = (0, 0);
    for (_, escrow) in escrows {
        paid += i64::try_from(escrow.paid.0)?;
        owed += i64::try_from(escrow.owed.0)?;
    }
    Ok((paid, owed))
}

/// What each wallet has lost, routing aside.
struct Wallets(Vec<(String, i64)>);

impl Wallets {
    async fn read(bazaar: &Bazaar, lightning: &Lightning) -> Result<Self> {
        let after = lightning.balances().await?;
        let lines = bazaar.before.iter().zip(&after).map(|(before, after)| {
            let routing = after.fees_msat - before.fees_msat;
            let lost = before.total_msat() - after.total_msat() - i128::from(routing);
            Ok((after.name.clone(), i64::try_from(lost)?))
        });
        Ok(Self(lines.collect::<Result<_>>()?))
    }

    fn lost(&self, name: &str) -> Result<i64> {
        let named = self.0.iter().find(|(of, _)| of == name);
        Ok(named.context("there is no such wallet")?.1)
    }
}

/// Every line has its answer, once, in its place.
///
/// # Errors
/// If one has not.
pub fn all_lines(bazaar: &Bazaar) -> Result<()> {
    let text = std::fs::read_to_string(bazaar.output()).context("there is no output")?;
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.len() == LINES, "{} lines: {text}", lines.len());
    for (number, line) in lines.iter().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        ensure!(line["custom_id"] == format!("line-{number}"), "{line}");
        let said = &line["response"]["body"]["choices"][0]["message"]["content"];
        match said.as_str() {
            Some(said) if said.starts_with("one two") => {}
            _ => bail!("line {number} has no answer: {line}"),
        }
    }
    Ok(())
}

/// The ledger has moved something since it was opened.
///
/// # Errors
/// If it has not.
pub async fn something_moved(bazaar: &Bazaar) -> Result<()> {
    let ledger = bazaar.ledger(AGGREGATOR).await?;
    let lines = ledger
        .lines(&Account::Wallet, Timestamp::from_secs(0))
        .await?;
    ensure!(lines.iter().any(|line| line.reason == "hold"), "{lines:?}");
    Ok(())
}
