//! Payments between two bare ldk-node nodes, one for each line of standard input: what a top-up of the market is held
//! against.
//!
//! Says `ready`, and then, for each line, two numbers: microseconds from asking for the invoice until the payment had
//! come, and from the order to pay. Ends with its input.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../benches/bare/mod.rs"]
mod bare;

use infernet_regtest::Bitcoind;

fn main() {
    let executable = infernet_regtest::find().expect("a bitcoind");
    let folder = tempfile::tempdir().unwrap();
    let bitcoind = Bitcoind::start(&executable, folder.path()).unwrap();
    let mut nodes = bare::Nodes::start(&bitcoind);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("ready");
    for line in std::io::stdin().lines() {
        line.unwrap();
        let round = runtime.block_on(nodes.round());
        println!("{} {}", round.top_up.as_micros(), round.payment.as_micros());
    }
    nodes.stop();
}
