//! The memory that files of more and more lines take.

use std::thread::sleep;
use std::time::{Duration, Instant};

use infernet_tests::Market;

use super::{Usage, batch, chats};

/// How long one file is worked on, done or not: what grows with a file would show by then.
const AT_MOST: Duration = Duration::from_secs(60);

/// Providers whose engines need little time for a shard, but some.
const PROVIDERS: usize = 4;

/// Memory of client and aggregator.
pub fn measure(numbers: &[usize]) {
    for &lines in numbers {
        run(lines);
    }
}

fn run(lines: usize) {
    let market = Market::open().unwrap();
    let script = [
        "--scripted-text",
        "a b c d",
        "--scripted-speed",
        "100",
        "--slots",
        "2",
    ];
    let providers =
        (0..PROVIDERS).map(|n| market.scripted_provider(&format!("provider-{n}"), &script));
    let _running: Vec<_> = providers.map(Result::unwrap).collect();
    let aggregator = market.aggregator("aggregator", &[]).unwrap();
    let folder = market.folder("files");
    let input = chats(&folder, lines, 8);
    let size = input.metadata().unwrap().len() >> 20;
    let arguments = batch(&input, &folder.join("output.jsonl"));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut client = market.client("buyer").start(&arguments).unwrap();
    let (began, mut seen) = (Instant::now(), Usage::default());
    let ended = loop {
        // A process that has ended has no figures any more.
        seen = Usage::of(client.id()).unwrap_or(seen);
        if let Ok(status) = client.ended(Duration::from_millis(200)) {
            break Some(status);
        }
        if began.elapsed() > AT_MOST {
            break None;
        }
        sleep(Duration::from_millis(100));
    };
    let took = began.elapsed().as_secs_f64();
    let broker = Usage::of(aggregator.process.id()).unwrap_or_default();
    let status = aggregator.ask("status").unwrap();
    let done = &status["orders"][0]["standing"]["progress"]["done"];
    println!(
        "{lines} lines ({size} MiB): client {:.0} MiB, aggregator {:.0} MiB at most; {} after {took:.0} s",
        seen.peak_mib,
        broker.peak_mib,
        match ended {
            Some(status) if status.success() => "all done".to_owned(),
            Some(status) => format!("{status}: {}", client.stderr()),
            None => format!("{done} done"),
        }
    );
}
