//! Throughput over more and more providers of a fixed speed.

use std::time::Instant;

use infernet_tests::Market;

use super::{batch, chats};
use crate::measure::{verdict, words};

/// Tokens of one answer.
const TOKENS: usize = 32;
/// Tokens a second of one answer; a scripted engine with two slots speaks six at a time.
const SPEED: f64 = 32.0;
/// Answers that one provider speaks at a time.
const AT_A_TIME: f64 = 6.0;
/// Seconds of work for each provider.
const WORK_S: f64 = 40.0;

/// As many lines for each provider, whatever their number: throughput should grow as they do.
pub fn measure(numbers: &[usize]) {
    let rate = SPEED * AT_A_TIME;
    let lines_each = (rate * WORK_S / TOKENS as f64) as usize;
    println!(
        "a provider speaks {rate} tokens a second; {lines_each} lines of {TOKENS} tokens for each"
    );
    let mut one = None;
    for &number in numbers {
        let throughput = run(number, lines_each * number);
        let one = *one.get_or_insert(throughput / number as f64);
        let of_linear = throughput / number as f64 / one;
        let of_engines = throughput / number as f64 / rate;
        println!(
            "{number} providers: {throughput:.1} tokens a second, {:.0} % of linear, {:.0} % of what the engines can{}",
            100.0 * of_linear,
            100.0 * of_engines,
            match number {
                8 => format!("; at least 90 % of linear: {}", verdict(of_linear >= 0.9)),
                _ => String::new(),
            }
        );
    }
}

/// Tokens a second, from the start of the client to its end.
fn run(providers: usize, lines: usize) -> f64 {
    let market = Market::open().unwrap();
    let (text, speed) = (words(TOKENS), SPEED.to_string());
    let script = [
        "--scripted-text",
        &text,
        "--scripted-speed",
        &speed,
        "--slots",
        "2",
    ];
    let _running: Vec<_> = (0..providers)
        .map(|n| {
            market
                .scripted_provider(&format!("provider-{n}"), &script)
                .unwrap()
        })
        .collect();
    let _aggregator = market.aggregator("aggregator", &[]).unwrap();
    let folder = market.folder("files");
    let input = chats(&folder, lines, TOKENS);
    let arguments = batch(&input, &folder.join("output.jsonl"));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let began = Instant::now();
    let run = market.client("buyer").run(&arguments).unwrap();
    assert!(run.status.success(), "{}", run.stderr);
    (lines * TOKENS) as f64 / began.elapsed().as_secs_f64()
}
