//! How fast a paid answer streams beside a free one: the same engine at the same speed behind two providers, one with
//! a price, everything else as it comes. Free and paid jobs take turns in one run.
//!
//! `cargo bench -p infernet-tests --bench stream [-- 5,000]`, where only cases are wanted whose name begins so; figures
//! belong into docs/benchmarks.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod measure;

use std::time::Instant;

use infernet_client::{Client, Request, Route, Step};
use infernet_protocol::money::Price;
use infernet_tests::{Lightning, Market, Provider, WALLET, model};

use self::measure::{BUYER, SELLER, median, verdict};

/// Of each kind, after one that is not counted.
const ROUNDS: usize = 7;
/// What a paid stream is to keep of a free one's speed.
const AIM: f64 = 0.95;

/// An engine, how long its answers are, and what they cost.
struct Case {
    what: &'static str,
    engine: Vec<String>,
    tokens: u32,
    price: Price,
}

/// Prices of a million tokens of output in msat: a small model's, the dearest ones' (ten dollars, where a bitcoin is
/// worth 100,000), and the demo's, whose top-ups of 10 sat last for 50 tokens.
const SMALL: u64 = 500_000;
const DEAR: u64 = 10_000_000;
const DEMO: u64 = 200_000_000;

#[tokio::main]
async fn main() {
    let Some(lightning) = measure::wallets("stream").await else {
        return;
    };
    println!(
        "tokens a second after the first, medians of {ROUNDS} rounds in turn; the ratio, at least {AIM}; top-ups in a \
         paid job"
    );
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let is_wanted = |case: &Case| {
        wanted
            .as_ref()
            .is_none_or(|what| case.what.starts_with(what))
    };
    for case in cases().into_iter().filter(is_wanted) {
        let market = Market::open().unwrap();
        compare(&market, &lightning, &case).await;
    }
}

fn cases() -> Vec<Case> {
    let speeds = [
        ("500 a second", "500", 1_000, [DEAR, DEMO]),
        ("5,000 a second", "5000", 4_000, [SMALL, DEAR]),
        ("no limit", "1000000000", 4_000, [SMALL, DEAR]),
    ];
    let scripted = speeds.iter().flat_map(|(what, speed, tokens, prices)| {
        prices.iter().map(|price| Case {
            what,
            engine: scripted(speed, *tokens),
            tokens: *tokens,
            price: of_output(*price),
        })
    });
    scripted.chain(torch()).collect()
}

const fn of_output(output_msat: u64) -> Price {
    Price {
        input_msat: output_msat / 4,
        output_msat,
    }
}

fn scripted(speed: &str, tokens: u32) -> Vec<String> {
    let text = measure::words(tokens as usize);
    let flags = [
        "--engine",
        "scripted",
        "--scripted-speed",
        speed,
        "--scripted-text",
        &text,
    ];
    flags.map(str::to_owned).into()
}

/// A real model at the demo's price.
fn torch() -> Option<Case> {
    let path = model("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf")?;
    Some(Case {
        what: "SmolLM2-135M",
        engine: vec!["--model".into(), path.display().to_string()],
        tokens: 160,
        price: of_output(DEMO),
    })
}

async fn compare(market: &Market, lightning: &Lightning, case: &Case) {
    let free = provider(market, &[], "free", case, Price::FREE);
    let wallet = lightning.connection(SELLER).unwrap();
    let paid = provider(market, &[(WALLET, wallet)], "paid", case, case.price);
    let buyer = measure::buyer(market, BUYER, measure::rail(lightning, BUYER)).await;
    let (mut of_free, mut of_paid, mut top_ups) = (Vec::new(), Vec::new(), 0);
    for round in 0..=ROUNDS {
        let (at_free, (at_price, paid)) = match round % 2 {
            0 => {
                let (first, _) = stream(&buyer, &free, case).await;
                (first, stream(&buyer, &paid, case).await)
            }
            _ => {
                let first = stream(&buyer, &paid, case).await;
                (stream(&buyer, &free, case).await.0, first)
            }
        };
        // The first pays ahead, and nothing is warm.
        if round > 0 {
            of_free.push(at_free);
            of_paid.push(at_price);
            top_ups += paid;
        }
    }
    buyer.close().await;
    report(case, &of_free, &of_paid, top_ups);
}

fn report(case: &Case, of_free: &[f64], of_paid: &[f64], top_ups: usize) {
    let (free, paid) = (median(of_free), median(of_paid));
    let kept = paid / free;
    println!(
        "  {:16} {:5.1} msat a token  free {free:9.1}  paid {paid:9.1}  {kept:.3} ({})  {:.1} top-ups",
        case.what,
        case.price.output_msat as f64 / 1e6,
        verdict(kept >= AIM),
        top_ups as f64 / of_paid.len() as f64,
    );
}

fn provider(
    market: &Market,
    environment: &[(&str, &str)],
    name: &str,
    case: &Case,
    price: Price,
) -> Provider {
    let prices = measure::price_flags(price);
    let arguments: Vec<&str> = case
        .engine
        .iter()
        .chain(&prices)
        .map(String::as_str)
        .collect();
    market.provider_with(environment, name, &arguments).unwrap()
}

/// One answer: tokens a second after the first, and how often it was paid for while it ran.
async fn stream(client: &Client, of: &Provider, case: &Case) -> (f64, usize) {
    let mut request = Request::generate(None, prompt())
        .max_tokens(case.tokens)
        .max_price(case.price);
    request.route = Route::To {
        provider: of.name.clone(),
        only: true,
    };
    let (mut first, mut last, mut top_ups) = (None, Instant::now(), 0);
    let summary = measure::see(client, request, |step| match step {
        Step::Text(_) => {
            last = Instant::now();
            first.get_or_insert(last);
        }
        Step::Paid { .. } => top_ups += 1,
        _ => {}
    })
    .await;
    let first = first.expect("every answer has text");
    let passed = last.duration_since(first).as_secs_f64();
    ((summary.output_tokens - 1) as f64 / passed, top_ups)
}

fn prompt() -> infernet_protocol::inference::Prompt {
    infernet_protocol::inference::Prompt::Text("Once upon a time there was a sea, and".into())
}
