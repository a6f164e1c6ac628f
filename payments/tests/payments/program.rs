//! The program with play money, as a demonstration uses it.

use std::process::Stdio;

use infernet_payments::nip47::{Connection, Rail};
use infernet_payments::rail::{PaymentRail, State};
use infernet_protocol::money::Msat;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::benches::{DEADLINE, ask, order, patience, relay};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_wallets_of_the_program_pay_each_other() {
    let (_relay, url) = relay().await;
    let mut program = Command::new(env!("CARGO_BIN_EXE_infernet-test-wallets"))
        .args([
            "--relay",
            url.as_str(),
            "--routing-msat",
            "7",
            "alice=1000",
            "bob=0",
        ])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut rails = Vec::new();
    for name in ["alice", "bob"] {
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap();
        let line = line.unwrap().unwrap();
        let connection: Connection = line.strip_prefix(name).unwrap().parse().unwrap();
        rails.push(Rail::open(&connection, patience()).unwrap());
    }
    let ready = timeout(DEADLINE, lines.next_line()).await.unwrap();
    assert_eq!(ready.unwrap().as_deref(), Some("ready"));
    let invoice = rails[1].make_invoice(&ask(10_000)).await.unwrap();
    let paid = rails[0].pay(&order(&invoice)).await.unwrap();
    assert!(matches!(paid.state, State::Settled { .. }), "{paid:?}");
    assert_eq!(rails[0].balance().await.unwrap(), Msat(989_993));
    assert_eq!(rails[1].balance().await.unwrap(), Msat(10_000));
}
