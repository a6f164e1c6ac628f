//! Batches that are paid: what is held, taken and paid back.

use super::*;

fn tokens_of(lines: u64) -> u64 {
    // Four of input and three of output each, as the aggregator counts.
    lines * 7
}

/// What lines cost: a millisatoshi a token, and one in a hundred on that.
fn cost(lines: u64) -> Msat {
    let work = tokens_of(lines);
    Msat(work + work / 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_taken_in_part_and_the_rest_comes_back() {
    let place = Place::paid(Manner::Honest).await;
    place.write(&chats(600));
    let (summary, news) = place.run().await.unwrap();
    let paying = |one: &&News| matches!(one, News::Paying { .. });
    assert_eq!(news.iter().filter(paying).count(), 2, "{news:?}");
    let charged = Msat(cost(512).0 + cost(88).0);
    assert_eq!(summary.totals.cost_msat, charged);
    assert_eq!(summary.credit_msat, Msat::ZERO);
    assert!(place.broker.books().refunded > Msat::ZERO);
    assert_eq!(place.spent().await, charged);
    assert_eq!(place.said(), expected(600));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_aggregator_keeps_for_itself_is_told_all_the_same() {
    let place = Place::paid(Manner::KeepsTheRest).await;
    place.write(&chats(600));
    let (summary, _) = place.run().await.unwrap();
    let charged = summary.totals.cost_msat;
    assert_eq!(charged, Msat(cost(512).0 + cost(88).0));
    assert!(summary.credit_msat > Msat::ZERO);
    assert_eq!(place.spent().await.0, charged.0 + summary.credit_msat.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_paid_over_the_limit_or_for_what_costs_too_much() {
    let place = Place::paid(Manner::Honest).await;
    place.write(&chats(2));
    let plan = Plan {
        max_cost: Some(Msat(10)),
        ..place.plan()
    };
    let error = place.run_as(plan).await.unwrap_err();
    assert!(matches!(error, Error::OverLimit { .. }), "{error}");
    let plan = Plan {
        max_price: Some(Price {
            input_msat: 1,
            output_msat: 1,
        }),
        ..place.plan()
    };
    let error = place.run_as(plan).await.unwrap_err();
    assert!(matches!(error, Error::Quote(_)), "{error}");
    assert!(place.broker.books().orders.is_empty());
}

/// Runs until something of this kind is told, and stops there.
async fn until(place: &Place, is_it: impl Fn(&News) -> bool) {
    let client = place.client().await;
    let mut batch = Batch::open(client.clone(), place.plan()).await.unwrap();
    let quote = batch.quote().await.unwrap();
    batch.order(&quote).await.unwrap();
    let (teller, mut told) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let running = tokio::spawn(batch.run(teller, stop.clone()));
    let heard = async {
        loop {
            match told.recv().await {
                Some(news) if is_it(&news) => return,
                Some(_) => {}
                None => panic!("it ended"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, heard).await.unwrap();
    stop.cancel();
    let ended = running.await.unwrap();
    assert!(matches!(ended, Err(Error::Stopped)));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_for_more_than_was_quoted_is_not_paid() {
    let place = Place::paid(Manner::AsksTooMuch).await;
    place.write(&chats(2));
    until(
        &place,
        |news| matches!(news, News::Unpaid { why, .. } if why.contains("more than the quote")),
    )
    .await;
    assert_eq!(place.spent().await, Msat::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_paid_once() {
    let place = Place::paid(Manner::AsksTwice).await;
    place.write(&chats(100));
    let (_, news) = place.run().await.unwrap();
    let twice = |one: &&News| matches!(one, News::Unpaid { why, .. } if why.contains("twice"));
    assert_eq!(news.iter().filter(twice).count(), 1);
    assert_eq!(place.spent().await, cost(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_charges_more_than_it_quoted_is_named() {
    let place = Place::paid(Manner::Overcharges).await;
    place.write(&chats(2));
    let (summary, _) = place.run().await.unwrap();
    assert_eq!(summary.broken.len(), 1);
    assert!(
        summary.broken[0].contains("charges more"),
        "{:?}",
        summary.broken
    );
    // The answers are paid for, so they are there.
    assert_eq!(place.said(), expected(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wallets_preimage_opens_what_the_aggregator_is_silent_about() {
    let place = Place::paid(Manner::ClaimsAndFallsSilent).await;
    place.write(&chats(2));
    let running = place.run();
    let (summary, _) = running.await.unwrap();
    assert_eq!(summary.totals.done, 2);
    assert_eq!(place.said(), expected(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_open_are_errors_and_a_breach() {
    let place = Place::paid(Manner::DeliversRubbish).await;
    place.write(&chats(2));
    let (summary, _) = place.run().await.unwrap();
    assert_eq!((summary.totals.done, summary.totals.failed), (0, 2));
    assert_eq!(summary.broken.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_for_nothing_comes_back() {
    let place = Place::paid(Manner::Cancels(0)).await;
    place.write(&chats(2));
    let (summary, news) = place.run().await.unwrap();
    assert!(news.iter().any(|one| matches!(one, News::Paying { .. })));
    assert_eq!(summary.totals.failed, 2);
    assert_eq!(place.spent().await, Msat::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_cost_more_than_a_day_allows_is_not_ordered() {
    let place = Place::paid(Manner::Honest).await;
    // Some 60 tokens are guessed for each.
    place.write(&chats(70_000));
    let error = place.run().await.unwrap_err();
    assert!(matches!(error, Error::OverDay { .. }), "{error}");
    assert!(place.broker.books().orders.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_is_counted() {
    let place = Place::paid(Manner::Honest).await;
    place.write(&chats(100));
    place.run().await.unwrap();
    let spending = {
        let books = purse::Books::open(&place.path("books")).await.unwrap();
        let spending = books
            .spending(nostr::Timestamp::from_secs(0))
            .await
            .unwrap();
        books.close().await;
        spending
    };
    assert_eq!(spending.charged_msat, cost(100));
    let came_and_went = spending.paid_msat.0 - spending.refunded_msat.0;
    assert_eq!(came_and_went, cost(100).0);
    assert_eq!(
        spending.providers[0].provider,
        place.broker.keys.public_key()
    );
}
