//! What everybody's books say: both ledgers, both wallets, all receipts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use infernet_payments::PaymentHash;
use infernet_payments::rail::{Direction, Payment, State};
use infernet_protocol::event::{Award, Receipt, ReceiptSide, Signed};
use infernet_protocol::kinds;
use infernet_tests::Lightning;
use infernet_tests::lightning::Comparison;
use nostr::{Event, EventId};
use serde_json::Value;

use crate::shop::{BUYER, CREDIT_MSAT, OUTPUT_MSAT, RISK_SATS, SELLER, Shop};
use crate::wire;

/// How long the books may take to agree: a payment of which the wallet has never heard is given up once its invoice
/// has run out, after three minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How soon is looked again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How far the two ledgers may be apart after a kill, in msat: the last pieces' acknowledgements are on their way.
/// What was acknowledged in the 10 ms before is not on a disk, and the buyer repeats none to a provider that is gone.
const APART_MSAT: i64 = 16 * OUTPUT_MSAT;

/// The largest top-up of these jobs, in msat: a first stretch and its input.
const TOP_UP_MSAT: i64 = 65 * OUTPUT_MSAT;

/// What is too little to be paid back, in msat.
pub const DUST_MSAT: i64 = 1_000;

/// What one side's ledger says about the tab, in msat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// What work cost.
    pub charged: i64,
    /// What was paid for it, and in advance.
    pub paid: i64,
    /// What was paid back.
    pub refunded: i64,
    /// What this side has paid for routing.
    pub fees: i64,
}

impl Side {
    /// What is left on the tab.
    pub const fn left(&self) -> i64 {
        self.paid - self.charged - self.refunded
    }
}

/// What both ledgers say.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    pub buyer: Side,
    pub seller: Side,
}

impl Books {
    /// How much more the buyer has charged than the seller: what was acknowledged in the moment when one of them died,
    /// and the other never heard.
    pub const fn apart(&self) -> i64 {
        self.buyer.charged - self.seller.charged
    }

    /// Reads them.
    ///
    /// # Errors
    /// If a command fails.
    pub fn read(shop: &Shop) -> Result<Self> {
        let spending = shop.buyer().json(&["spending", "--json"])?;
        let earnings = shop.provider_says(&["earnings", "--json"])?;
        Ok(Self {
            buyer: side(&spending, "charged_msat", "paid_msat")?,
            seller: side(&earnings, "earned_msat", "received_msat")?,
        })
    }
}

fn side(value: &Value, charged: &str, paid: &str) -> Result<Side> {
    Ok(Side {
        charged: msat(value, charged)?,
        paid: msat(value, paid)?,
        refunded: msat(value, "refunded_msat")?,
        fees: msat(value, "fees_msat")?,
    })
}

fn msat(value: &Value, name: &str) -> Result<i64> {
    let number = value[name].as_i64();
    number.with_context(|| format!("there is no {name} in {value}"))
}

/// Waits until all books agree to the last msat, and nobody has more at stake than it may.
///
/// # Errors
/// With the last thing that was wrong, if they have not in time.
pub async fn agree(shop: &Shop, lightning: &Lightning) -> Result<Books> {
    let until = Instant::now() + PATIENCE;
    loop {
        let wrong = match compare(shop, lightning).await {
            Ok(books) => return Ok(books),
            Err(wrong) => wrong,
        };
        // Whoever uses the tab next ends what is not over.
        shop.buyer().run(&["tab", "close", "all"])?;
        if Instant::now() >= until {
            let said = shop.provider.stderr();
            return Err(wrong.context(format!(
                "the books do not agree; the provider says:\n{said}"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn compare(shop: &Shop, lightning: &Lightning) -> Result<Books> {
    let books = Books::read(shop)?;
    let (buyer, seller) = (books.buyer, books.seller);
    ensure!(
        books.apart().abs() <= APART_MSAT,
        "the buyer has charged {} msat, the seller {}",
        buyer.charged,
        seller.charged
    );
    ensure!(
        (buyer.paid, buyer.refunded) == (seller.paid, seller.refunded),
        "payments differ: {books:?}"
    );
    reconciled("the buyer", &shop.buyer().json(&["reconcile", "--json"])?)?;
    reconciled("the seller", &shop.provider_says(&["reconcile", "--json"])?)?;
    nothing_is_open(shop)?;
    wallets_say_the_same(shop, lightning, &books).await?;
    receipts_agree(shop, &books).await?;
    Ok(books)
}

/// Waits until each ledger has what its wallet has paid or been paid, where no channel is left: nothing was paid twice,
/// and the two sides differ by one top-up at most, which no blockchain is asked about for its size.
///
/// # Errors
/// With the last thing that was wrong, if that is not so in time.
pub async fn agree_on_payments(shop: &Shop, lightning: &Lightning) -> Result<Books> {
    let until = Instant::now() + PATIENCE;
    loop {
        let wrong = match compare_payments(shop, lightning).await {
            Ok(books) => return Ok(books),
            Err(wrong) => wrong,
        };
        if Instant::now() >= until {
            return Err(wrong);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn compare_payments(shop: &Shop, lightning: &Lightning) -> Result<Books> {
    let books = Books::read(shop)?;
    let (buyer, seller) = (books.buyer, books.seller);
    let settled = |payments: Vec<Payment>| -> Vec<Payment> {
        let is_settled = |one: &Payment| matches!(one.state, State::Settled { .. });
        payments.into_iter().filter(is_settled).collect()
    };
    let buyers = Moved::of(shop, &settled(lightning.payments(BUYER).await?))?;
    let sellers = Moved::of(shop, &settled(lightning.payments(SELLER).await?))?;
    ensure!(buyer.paid == sum(&buyers.out), "{buyer:?} {buyers:?}");
    ensure!(seller.paid == sum(&sellers.come), "{seller:?} {sellers:?}");
    let apart = (buyer.paid - seller.paid).abs();
    ensure!(apart <= TOP_UP_MSAT, "{books:?}");
    Ok(books)
}

/// No payment under way, no attempt that is not over.
fn nothing_is_open(shop: &Shop) -> Result<()> {
    let tabs = shop.buyer().json(&["tab", "list", "--json"])?;
    for tab in tabs.as_array().context("a list of tabs")? {
        for open in ["under_way_msat", "refund_msat", "unfinished"] {
            ensure!(
                tab[open].as_u64() == Some(0),
                "{open} is not 0 on the tab: {tab}"
            );
        }
    }
    Ok(())
}

fn reconciled(whose: &str, report: &Value) -> Result<()> {
    let is_even = report["unexplained_msat"] == 0
        && report["differences"].as_array().is_some_and(Vec::is_empty);
    ensure!(is_even, "{whose} ledger and wallet: {report}");
    Ok(())
}

/// Each hash moved once, all that moved is in the ledgers, and the balances say so too.
async fn wallets_say_the_same(shop: &Shop, lightning: &Lightning, books: &Books) -> Result<()> {
    let buyers = Moved::of(shop, &lightning.payments(BUYER).await?)?;
    let sellers = Moved::of(shop, &lightning.payments(SELLER).await?)?;
    ensure!(
        buyers.out == sellers.come && sellers.out == buyers.come,
        "the wallets differ: {buyers:?} {sellers:?}"
    );
    let Books { buyer, seller } = books;
    let ledgers = (buyer.paid, buyer.refunded, buyer.fees, seller.fees);
    let wallets = (
        sum(&buyers.out),
        sum(&sellers.out),
        buyers.fees,
        sellers.fees,
    );
    ensure!(
        ledgers == wallets,
        "ledgers {ledgers:?}, wallets {wallets:?}"
    );
    let balances = Comparison::of(&shop.before, &lightning.balances().await?)?;
    let change = |n: usize| balances.lines[n].after - balances.lines[n].before;
    let owned = |paid: i64, fees: i64| -i128::from(paid) - i128::from(fees);
    let expected = [
        owned(buyer.paid - buyer.refunded, buyer.fees),
        owned(seller.refunded - seller.paid, seller.fees),
    ];
    ensure!(
        [change(0), change(1)] == expected,
        "what was paid and the balances differ:\n{balances}"
    );
    Ok(())
}

/// What has gone out of a wallet and come into it, by hash, in msat.
#[derive(Debug)]
struct Moved {
    out: BTreeMap<PaymentHash, i64>,
    come: BTreeMap<PaymentHash, i64>,
    fees: i64,
}

impl Moved {
    fn of(shop: &Shop, payments: &[Payment]) -> Result<Self> {
        let mut moved = Self {
            out: BTreeMap::new(),
            come: BTreeMap::new(),
            fees: 0,
        };
        for payment in payments.iter().filter(|one| !shop.old.contains(&one.hash)) {
            let fee = match (payment.state, payment.direction) {
                (State::Settled { fee, .. }, _) => fee,
                (State::Pending | State::Held, Direction::Outgoing) => {
                    bail!("{} is on its way", payment.hash)
                }
                _ => continue,
            };
            let by_hash = match payment.direction {
                Direction::Outgoing => &mut moved.out,
                Direction::Incoming => &mut moved.come,
            };
            let before = by_hash.insert(payment.hash, i64::try_from(payment.amount.0)?);
            ensure!(before.is_none(), "{} has moved twice", payment.hash);
            if payment.direction == Direction::Outgoing {
                moved.fees += i64::try_from(fee.0)?;
            }
        }
        Ok(moved)
    }
}

fn sum(moved: &BTreeMap<PaymentHash, i64>) -> i64 {
    moved.values().sum()
}

/// What receipts say, of one job or several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receipts {
    /// What it cost, in msat.
    pub charged: i64,
    /// What was paid while it ran, in msat.
    pub paid: i64,
    /// Tokens of output that were charged.
    pub output_tokens: i64,
}

impl Receipts {
    const fn add(&mut self, one: Self) {
        self.charged += one.charged;
        self.paid += one.paid;
        self.output_tokens += one.output_tokens;
    }
}

/// What the receipts of all jobs but this one say.
///
/// # Errors
/// If they do not agree.
pub async fn all_but(shop: &Shop, last: &EventId) -> Result<Receipts> {
    let events = evidence(shop).await?;
    let mut all = Receipts::default();
    for job in jobs(&events)?.iter().filter(|job| *job != last) {
        all.add(receipts(&events, job)?);
    }
    Ok(all)
}

/// Both sides have signed the same of each attempt, nothing in any job's events is wrong, and the receipts together
/// say what the ledgers say.
async fn receipts_agree(shop: &Shop, books: &Books) -> Result<()> {
    let events = evidence(shop).await?;
    let mut all = Receipts::default();
    for job in jobs(&events)? {
        let audited = shop.buyer().run(&["audit", "--json", &job.to_hex()])?;
        ensure!(
            audited.status.success(),
            "job {job}: {}{}",
            audited.stdout,
            audited.stderr
        );
        all.add(receipts(&events, &job)?);
    }
    // What arrives after the receipts were signed is in none.
    let is_all = all.charged == books.buyer.charged && all.paid <= books.buyer.paid;
    ensure!(is_all, "receipts say {all:?}, ledgers {books:?}");
    Ok(())
}

/// All evidence on the relay.
async fn evidence(shop: &Shop) -> Result<Vec<Event>> {
    wire::fetch(&shop.market.relay.url, &[kinds::AWARD, kinds::RECEIPT]).await
}

/// All jobs.
fn jobs(events: &[Event]) -> Result<Vec<EventId>> {
    let mut jobs = Vec::new();
    for award in of_kind(events, kinds::AWARD) {
        let job = Signed::<Award>::verify(award)?.job_id();
        if !jobs.contains(&job) {
            jobs.push(job);
        }
    }
    Ok(jobs)
}

fn receipts(events: &[Event], job: &EventId) -> Result<Receipts> {
    let mut all = Receipts::default();
    for award in of_kind(events, kinds::AWARD) {
        let award = Signed::<Award>::verify(award)?;
        if award.job_id() != *job {
            continue;
        }
        if let Some(receipt) = both_sides(events, award.id())? {
            all.charged += i64::try_from(receipt.due_msat.0)?;
            all.paid += i64::try_from(receipt.paid_msat.0)?;
            all.output_tokens += i64::try_from(receipt.usage.output_tokens)?;
        }
    }
    Ok(all)
}

fn of_kind(events: &[Event], kind: u16) -> impl Iterator<Item = Event> {
    events
        .iter()
        .filter(move |event| event.kind.as_u16() == kind)
        .cloned()
}

/// The receipt of an attempt, on which both sides have to agree; none if no money was in it.
fn both_sides(events: &[Event], award: EventId) -> Result<Option<Signed<Receipt>>> {
    let mut sides: BTreeMap<&str, Signed<Receipt>> = BTreeMap::new();
    for event in of_kind(events, kinds::RECEIPT) {
        let receipt = Signed::<Receipt>::verify(event)?;
        if receipt.award != award {
            continue;
        }
        let side = match receipt.side {
            ReceiptSide::Buyer => "buyer",
            ReceiptSide::Provider => "seller",
        };
        let before = sides.insert(side, receipt);
        ensure!(
            before.is_none(),
            "the {side} has signed two receipts of {award}"
        );
    }
    match (sides.remove("buyer"), sides.remove("seller")) {
        (Some(buyer), Some(seller)) => {
            are_alike(&buyer, &seller)?;
            Ok(Some(buyer))
        }
        (None, None) => Ok(None),
        // What came so late that the other side had closed an attempt in which no money was.
        (Some(one), None) | (None, Some(one))
            if one.due_msat.0 == 0 && i64::try_from(one.paid_msat.0)? <= TOP_UP_MSAT =>
        {
            Ok(Some(one))
        }
        (one, other) => bail!("only one side has signed a receipt of {award}: {one:?} {other:?}"),
    }
}

/// The same cost but for the last pieces of what was cut off, and no more at stake than either
/// side has agreed to.
fn are_alike(buyer: &Receipt, seller: &Receipt) -> Result<()> {
    let differ = || format!("the receipts differ: {buyer:?} {seller:?}");
    // One that was under way at the end.
    let late = buyer.paid_msat.0.abs_diff(seller.paid_msat.0);
    ensure!(i64::try_from(late)? <= TOP_UP_MSAT, differ());
    let apart = due(buyer)? - due(seller)?;
    let is_whole = buyer.result.is_some() && seller.result.is_some();
    ensure!(
        apart.abs() <= if is_whole { 0 } else { APART_MSAT },
        differ()
    );
    for receipt in [buyer, seller] {
        let tab = receipt.tab.context("a receipt says how the tab stands")?;
        let left = i64::try_from(tab.paid_msat.0)? - i64::try_from(tab.due_msat.0)?;
        ensure!(left <= 1_000 * RISK_SATS, "{left} msat are paid ahead");
        ensure!(left >= -CREDIT_MSAT, "the buyer owes {} msat", -left);
    }
    Ok(())
}

fn due(receipt: &Receipt) -> Result<i64> {
    Ok(i64::try_from(receipt.due_msat.0)?)
}
