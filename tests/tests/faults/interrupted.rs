//! A buyer who changes its mind again and again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::books;
use crate::shop::{PATIENCE, Shop, is_left_out, submit, wallets};

/// How often a job is stopped on one tab, and how often where time is short.
const TIMES: usize = 20;
const FEW: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_jobs_are_stopped_on_one_tab_and_the_next_one_is_done() {
    let test = "twenty_jobs_are_stopped_on_one_tab_and_the_next_one_is_done";
    let Some(lightning) = wallets(test).await else {
        return;
    };
    let shop = Shop::open(&lightning, None).await.unwrap();
    let times = if is_left_out(test) { FEW } else { TIMES };
    for time in 0..times {
        stop_one(&shop, time).unwrap();
    }
    shop.buys().unwrap();
    shop.closes_the_tab().unwrap();
    let books = books::agree(&shop, &lightning).await.unwrap();
    assert_eq!(books.apart(), 0, "nobody died: {books:?}");
    println!("{times} jobs were stopped: {books:?}");
}

/// Stops a job after some words: sometimes few, sometimes many.
fn stop_one(shop: &Shop, time: usize) -> Result<()> {
    let words = 1 + 7 * time % 40;
    let mut client = shop.buyer().start(&submit(&[]))?;
    let heard = |said: &str| (said.split_whitespace().count() >= words).then_some(());
    let heard = client.wait_stdout(Duration::from_secs(60), heard);
    heard.with_context(|| format!("job {time}"))?;
    client.signal("INT")?;
    let status = client.ended(PATIENCE)?;
    ensure!(
        status.code() == Some(130),
        "job {time}: {status} {}",
        client.stderr()
    );
    Ok(())
}
