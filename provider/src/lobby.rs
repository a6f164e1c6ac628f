//! Where an award waits until it is paid for: outside the queue, so that a flood
//! of awards which nobody pays costs nobody a place.
//!
//! It holds a seat on its buyer's tab, hands out the invoice, and says that it is
//! alive. Nothing of it is promised, and nothing of it reaches a relay's store, but
//! for a cancel if the provider was restarted over an invoice that was out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use infernet_node::mortality;
use infernet_protocol::job::Millis;
use infernet_protocol::job::provider::ALIVE_EVERY_MS;
use infernet_protocol::payload::{Decline, News};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep};

use crate::admission::Admitted;
use crate::attempt::{Order, Report};
use crate::shop::Shop;
use crate::steady::wall;
use crate::till::{NoSeat, Seat, Till, Word};

/// Awards that may wait here in all; each says that it is alive every second.
pub const MAX_GUESTS: usize = 1_024;

/// An award that may begin.
#[derive(Debug)]
pub struct Guest {
    /// The award.
    pub admitted: Admitted,
    /// Its seat on the tab.
    pub seat: Seat,
    /// What the loop tells it.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// Whether it was asked for money, and so has paid.
    pub has_paid: bool,
}

/// What becomes of one that waits.
enum Fate {
    Enters,
    TurnedAway(Decline, String),
    Left,
}

struct Waiting {
    shop: Arc<Shop>,
    admitted: Admitted,
    orders: mpsc::UnboundedReceiver<Order>,
    seat: Option<Seat>,
    has_asked: bool,
}

/// Waits until an award is paid for, and reports what became of it.
pub async fn wait(
    shop: Arc<Shop>,
    till: Till,
    admitted: Admitted,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::Sender<Report>,
) {
    let waiting = Waiting {
        shop,
        admitted,
        orders,
        seat: None,
        has_asked: false,
    };
    // A loop that is gone needs no reports.
    let _ = reports.send(waiting.report(till).await).await;
}

impl Waiting {
    async fn report(mut self, till: Till) -> Report {
        let fate = self.wait(till).await;
        let admitted = self.admitted;
        match (fate, self.seat) {
            (Fate::Enters, Some(mut seat)) => {
                seat.begins();
                Report::Paid(Box::new(Guest {
                    admitted,
                    seat,
                    orders: self.orders,
                    has_paid: self.has_asked,
                }))
            }
            (Fate::TurnedAway(reason, detail), _) => Report::TurnedAway {
                admitted: Box::new(admitted),
                reason,
                detail,
            },
            (Fate::Left | Fate::Enters, _) => Report::Left {
                admitted: Box::new(admitted),
            },
        }
    }

    async fn wait(&mut self, till: Till) -> Fate {
        let ticket = self.admitted.ticket(infernet_node::clock::now());
        let (price, to_draw) = (self.admitted.award.price, self.admitted.to_draw());
        let mut opening = pin!(till.seat(ticket, price, to_draw.into()));
        let every = Duration::from_millis(ALIVE_EVERY_MS);
        let mut alive = interval_at(Instant::now() + every, every);
        let mut deadline = pin!(sleep(self.time_left()));
        loop {
            let fate = tokio::select! {
                opened = &mut opening, if self.seat.is_none() => self.opened(opened),
                word = next_word(&mut self.seat) => self.heed(word),
                order = self.orders.recv() => self.obey(order),
                _ = alive.tick() => {
                    self.tell(News::Alive { ahead: 0 });
                    None
                }
                () = &mut deadline => Some(unpaid()),
            };
            if let Some(fate) = fate {
                return fate;
            }
        }
    }

    fn may_begin(&self) -> bool {
        let seat = self.seat.as_ref();
        seat.is_some_and(|seat| seat.allowance().is_some())
    }

    fn time_left(&self) -> Duration {
        let deadline = self.admitted.award.deadline.as_secs();
        let deadline = Millis(deadline.saturating_mul(1_000));
        Duration::from_millis(deadline.since(wall()))
    }

    fn opened(&mut self, opened: Result<Seat, NoSeat>) -> Option<Fate> {
        match opened {
            Ok(seat) => {
                self.seat = Some(seat);
                self.may_begin().then_some(Fate::Enters)
            }
            Err(no @ NoSeat::Senseless(_)) => {
                Some(Fate::TurnedAway(Decline::Terms, no.to_string()))
            }
            Err(no @ (NoSeat::Wallet | NoSeat::Ledger | NoSeat::Crowded)) => {
                Some(Fate::TurnedAway(Decline::Busy, no.to_string()))
            }
        }
    }

    fn heed(&mut self, word: Word) -> Option<Fate> {
        match word {
            Word::Allowed => Some(Fate::Enters),
            Word::Due(invoice) => {
                self.has_asked = true;
                let invoice = Some(invoice.as_str().to_owned());
                self.tell(News::Due { invoice });
                mortality::point("invoice-sent");
                None
            }
            Word::Stop(why) => Some(Fate::TurnedAway(Decline::Terms, why)),
            // What it needs may have come in the same moment.
            Word::CannotAsk(_) if self.may_begin() => Some(Fate::Enters),
            Word::CannotAsk(why) => Some(Fate::TurnedAway(Decline::Busy, why)),
        }
    }

    fn obey(&self, order: Option<Order>) -> Option<Fate> {
        match order {
            // The loop has forgotten it.
            None | Some(Order::Stop) => Some(Fate::Left),
            Some(Order::GiveUp(why)) => Some(Fate::TurnedAway(Decline::Closing, why.to_owned())),
            Some(Order::Renew(most)) => {
                if let Some(seat) = &self.seat {
                    seat.renews(most);
                }
                None
            }
            Some(Order::Acknowledged(said)) => {
                if let Some(seat) = &self.seat {
                    seat.acknowledges(&said);
                }
                None
            }
            Some(Order::Begin | Order::Moved(_) | Order::Resend(_)) => None,
        }
    }

    fn tell(&self, news: News) {
        let totals = self.seat.as_ref().and_then(Seat::totals);
        self.shop.tell(&self.admitted.address, news, totals);
    }
}

fn unpaid() -> Fate {
    Fate::TurnedAway(Decline::Terms, "not paid in time".to_owned())
}

async fn next_word(seat: &mut Option<Seat>) -> Word {
    match seat {
        Some(seat) => seat.next(true).await,
        None => std::future::pending().await,
    }
}
