//! What being paid costs a stream: `cargo test --release -p infernet-provider
//! --test provider speed -- --ignored --nocapture`.

use infernet_protocol::money::Price;
use infernet_protocol::payload::News;
use tokio::time::Instant;

use super::buyer::{Heard, generate};
use super::paid::long;
use super::paying::{Market, paid};

/// As many as a result can carry.
const TOKENS: u32 = 3_000;

/// Faster than any model that one reads along with.
const TOKENS_PER_S: f64 = 2_000.0;

/// A fiftieth of a satoshi for a token: sixty satoshis for the answer, six
/// top-ups.
const PRICE: Price = Price {
    input_msat: 1_000_000,
    output_msat: 20_000_000,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_paid_stream_beside_a_free_one() {
    let script = || long(TOKENS as usize, TOKENS_PER_S);
    let mut free = Market::open(Price::FREE, script(), |_| {}).await;
    let mut sold = Market::open(PRICE, script(), |_| {}).await;
    let (mut without, mut with) = (vec![], vec![]);
    for _ in 0..7 {
        without.push(speed(&mut free, false).await);
        with.push(speed(&mut sold, true).await);
    }
    let median = |speeds: &mut Vec<f64>| {
        speeds.sort_by(f64::total_cmp);
        speeds[speeds.len() / 2]
    };
    let (without, with) = (median(&mut without), median(&mut with));
    println!(
        "free {without:.0} tokens/s, paid {with:.0}: {:.1} %",
        100.0 * with / without
    );
}

/// Tokens a second from the first piece to the last, as the buyer has them.
async fn speed(market: &mut Market, is_paid: bool) -> f64 {
    let work = generate("Count for me", TOKENS);
    let mut draft = match is_paid {
        true => paid(&market.buyer, &market.word, work),
        false => market.buyer.draft(&market.word, work),
    };
    draft.body.limits.output_tokens = TOKENS;
    let award = market.buyer.place(draft).await;
    let (mut first, mut tokens, mut top_ups) = (None, 0, 0);
    let id = award.id();
    loop {
        let heard = market.buyer.wait(|heard| match heard {
            Heard::Progress(about, news, tab) if *about == id => Some(Some((news.clone(), *tab))),
            Heard::Result(result) if result.award == id => Some(None),
            _ => None,
        });
        let Some((news, tab)) = heard.await else {
            break;
        };
        match news {
            News::Due { invoice } => {
                let invoice = super::paying::checked(&award, &invoice.unwrap());
                super::paying::pay(&market.purse, &invoice).await;
                top_ups += 1;
            }
            News::Piece(piece) => {
                if let Some(tab) = tab {
                    let totals = super::paying::verified(&award, &tab);
                    market.buyer.acknowledge(&award, totals);
                }
                if first.is_some() {
                    tokens += piece.tokens.len();
                }
                first.get_or_insert_with(Instant::now);
            }
            _ => {}
        }
    }
    let seconds = first.unwrap().elapsed().as_secs_f64();
    println!("{tokens} tokens in {seconds:.3} s, {top_ups} top-ups");
    tokens as f64 / seconds
}
