//! What the benchmarks of money share: a buyer with a wallet, the middle of many measurements, and a verdict.
#![allow(dead_code, reason = "each benchmark uses its part")]

pub mod usage;

use infernet_client::{Client, Options, Request, Step, Summary, purse};
use infernet_payments::nip47::{self, Rail};
use infernet_protocol::money::{Msat, Price};
use infernet_tests::{Lightning, Market};
use nostr::Keys;

/// Names of the wallets.
pub const BUYER: &str = "buyer";
pub const SELLER: &str = "alpha";

/// What the buyer may spend on a day of benchmarks; everything else is as it comes.
const DAILY: Msat = Msat(100_000_000);

/// The wallets of a buyer and a seller; none, and a loud word, where no regtest can be had.
pub async fn wallets(bench: &str) -> Option<Lightning> {
    Lightning::start_regtest(bench, &[BUYER, SELLER])
        .await
        .unwrap()
}

/// A wallet as it was given to a role.
pub fn rail(lightning: &Lightning, name: &str) -> Rail {
    let connection = lightning.connection(name).unwrap().parse().unwrap();
    Rail::open(&connection, nip47::Options::default()).unwrap()
}

/// A buyer with a key and books of its own, which pays from this wallet.
pub async fn buyer(market: &Market, name: &str, rail: Rail) -> Client {
    let mut purse = purse::Options::new(rail, market.folder(name));
    purse.limits.daily = DAILY;
    let options = Options::new([market.relay.url.clone()]);
    let options = options.keys(Keys::generate()).purse(purse);
    Client::connect(options).await.unwrap()
}

/// A price as a provider is told it.
pub fn price_flags(price: Price) -> [String; 4] {
    [
        "--price-in".into(),
        price.input_msat.to_string(),
        "--price-out".into(),
        price.output_msat.to_string(),
    ]
}

/// Sees a job to its end, and hands on what happens.
pub async fn see(client: &Client, request: Request, mut on: impl FnMut(&Step)) -> Summary {
    let mut answer = client.submit(request).await.unwrap();
    while let Some(step) = answer.step().await {
        on(&step);
    }
    answer.finish().await.unwrap()
}

/// So many words, a token each for the scripted engine.
pub fn words(count: usize) -> String {
    vec!["a"; count].join(" ")
}

/// The value below which so many hundredths lie.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

/// The one in the middle.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// Whether what was aimed for is met, in words.
pub const fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "NOT MET" }
}
