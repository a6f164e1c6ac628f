//! Drives one attempt: between the machine that decides (`job::provider`), the
//! engine that computes, and the buyer who hears of it.

mod end;
mod pauses;

use std::sync::Arc;
use std::time::Duration;

use infernet_engine::{Error as EngineError, Step};
use infernet_node::mortality;
use infernet_protocol::event::Usage;
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::Millis;
use infernet_protocol::job::provider::{Attempt, Effect, Input};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Decline, News as Telling, Product, Proof, Work};
use infernet_protocol::tab::SignedTotals;
use nostr::{Event, EventId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::pauses::Pauses;
use crate::admission::Admitted;
use crate::lobby::Guest;
use crate::output::public_words;
use crate::promise::{Pace, whole_pace};
use crate::shop::Shop;
use crate::steady::Steady;
use crate::till::{Loan, Seat, Word};
use crate::work::{Made, News, Running};

/// What the loop tells an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A slot is free.
    Begin,
    /// So many run or wait before it.
    Moved(u32),
    /// The buyer misses pieces from this number on.
    Resend(u32),
    /// The buyer agrees to these totals of its tab.
    Acknowledged(SignedTotals),
    /// The buyer wants another invoice, for no more than this.
    Renew(Msat),
    /// The buyer wants no more.
    Stop,
    /// The provider cannot go on, for this reason.
    GiveUp(&'static str),
}

/// What an attempt tells the loop.
#[derive(Debug)]
pub enum Report {
    /// One that waited for money may begin.
    Paid(Box<Guest>),
    /// One that waited for money is not taken on.
    TurnedAway {
        /// Which one.
        admitted: Box<Admitted>,
        /// Why.
        reason: Decline,
        /// In words.
        detail: String,
    },
    /// One that waited for money was stopped by its buyer.
    Left {
        /// Which one.
        admitted: Box<Admitted>,
    },
    /// It needs its slot no more.
    Halted {
        /// Which one.
        award: EventId,
        /// Why it ended; `None` if it never began.
        ended: Option<EndReason>,
        /// What it did.
        usage: Usage,
    },
    /// Nothing more will come of it.
    Forgotten {
        /// Which one.
        award: EventId,
    },
}

/// How an attempt is paid.
#[derive(Debug)]
pub enum Pay {
    /// It is free.
    Nothing,
    /// By a tab, as it goes on.
    Tab(Seat),
    /// After its check.
    Later(Loan),
}

/// One attempt and everything it needs.
struct Driver {
    shop: Arc<Shop>,
    admitted: Admitted,
    clock: Steady,
    machine: Attempt,
    running: Running,
    /// Its place on the buyer's tab, if it is paid by one.
    seat: Option<Seat>,
    /// What is lent for it, if it is paid after its check.
    loan: Option<Loan>,
    /// Tokens that the machine has taken.
    drawn: u64,
    /// A token that is not paid for yet. The step behind it may be the end, so
    /// one is read ahead.
    held: Option<Step>,
    /// When it has waited for its buyer.
    pauses: Pauses,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::Sender<Report>,
    clockwork: Clockwork,
    input_tokens: u64,
    /// Tokens that were drawn of what came whole.
    made_tokens: u64,
    /// What came whole.
    made: Option<Product>,
    /// How its texts were computed, where that was asked for.
    proofs: Vec<Proof>,
    result: Option<Event>,
}

/// When what happened, for the pace.
#[derive(Debug, Clone, Copy)]
struct Clockwork {
    started: Instant,
    first: Option<Instant>,
    last: Instant,
    tokens: u64,
}

/// Takes an award on, and drives its attempt to the end.
///
/// `orders` is unbounded as a channel; what the loop puts in is bounded: it lets
/// a buyer's wishes through at a rate, and its own orders are few.
pub async fn drive(
    shop: Arc<Shop>,
    admitted: Admitted,
    pay: Pay,
    ahead: u32,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::Sender<Report>,
) {
    let award = admitted.award.id();
    let deadline = Millis(admitted.award.deadline.as_secs().saturating_mul(1_000));
    let clock = Steady::start();
    let (machine, effects) = Attempt::accept(clock.now(), &award, ahead, deadline);
    let machine = machine.carrying(shop.max_output_bytes());
    let started = Instant::now();
    let (seat, loan) = match pay {
        Pay::Nothing => (None, None),
        Pay::Tab(seat) => (Some(seat), None),
        Pay::Later(loan) => (None, Some(loan)),
    };
    let driver = Driver {
        input_tokens: admitted.input_tokens.into(),
        shop,
        admitted,
        clock,
        machine,
        running: Running::Nothing,
        seat,
        loan,
        drawn: 0,
        held: None,
        pauses: Pauses::default(),
        orders,
        reports,
        clockwork: Clockwork {
            started,
            first: None,
            last: started,
            tokens: 0,
        },
        made_tokens: 0,
        made: None,
        proofs: vec![],
        result: None,
    };
    driver.run(effects).await;
}

/// Whether there is more to do.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Forget,
}

impl Driver {
    async fn run(mut self, effects: Vec<Effect>) {
        let mut next = self.perform(effects).await;
        while next == Next::GoOn {
            let wake = self.machine.next_deadline().since(self.clock.now());
            let is_paused = self.held.is_some();
            let pause = self.pauses.left(Instant::now());
            let pause = pause.filter(|_| !self.machine.has_ended());
            let input = tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    // The loop has no place for one more that lingers.
                    None if self.machine.has_ended() => break,
                    None => Some(broke("the provider has stopped")),
                },
                word = next_word(&mut self.seat, is_paused) => self.heed(word),
                news = self.running.next(), if !is_paused => self.hear(news),
                () = sleep(Duration::from_millis(wake)) => Some(Input::Tick),
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    Some(broke("it has waited too long in all for its buyer"))
                }
            };
            if let Some(input) = input {
                next = self.step(input).await;
            }
        }
        let award = self.admitted.award.id();
        // A loop that is gone needs no reports.
        let _ = self.reports.send(Report::Forgotten { award }).await;
    }

    fn obey(&mut self, order: Order) -> Option<Input> {
        match order {
            Order::Begin => self.begin(),
            Order::Moved(ahead) => Some(Input::Moved { ahead }),
            Order::Resend(from) => Some(Input::Resend { from }),
            Order::Stop => Some(Input::Stop),
            Order::GiveUp(why) => Some(broke(why)),
            Order::Acknowledged(said) => {
                if let Some(seat) = &self.seat {
                    seat.acknowledges(&said);
                }
                None
            }
            Order::Renew(most) => {
                if let Some(seat) = &self.seat {
                    seat.renews(most);
                }
                None
            }
        }
    }

    /// What the till says.
    fn heed(&mut self, word: Word) -> Option<Input> {
        match word {
            Word::Allowed => self.go_on(),
            Word::Due(invoice) => {
                let invoice = Some(invoice.as_str().to_owned());
                self.tell(Telling::Due { invoice });
                mortality::point("invoice-sent");
                None
            }
            Word::Stop(why) => Some(broke(&why)),
            // It goes on with what is paid; the till asks again.
            Word::CannotAsk(_) => None,
        }
    }

    /// Takes up the token that was held, if it is paid for now.
    fn go_on(&mut self) -> Option<Input> {
        if !self.may_draw() {
            return None;
        }
        self.pauses.end(Instant::now());
        self.running.resume();
        self.held.take().map(|step| self.hear_step(step))
    }

    fn may_draw(&self) -> bool {
        let allowed = self.seat.as_ref().map(|seat| seat.allowance().unwrap_or(0));
        allowed.is_none_or(|allowed| self.drawn < allowed)
    }

    fn begin(&mut self) -> Option<Input> {
        // It may have been stopped a moment ago.
        if self.machine.has_ended() {
            return None;
        }
        self.clockwork.started = Instant::now();
        match Running::start(&self.shop, &mut self.admitted) {
            Ok(running) => {
                // A generation says itself when it begins.
                let begun = matches!(running, Running::Whole(_)).then_some(Input::Started);
                self.running = running;
                begun
            }
            Err(error) => Some(self.failed(&error)),
        }
    }

    fn hear(&mut self, news: News) -> Option<Input> {
        match news {
            News::Step(step @ Step::Token { .. }) if !self.may_draw() => {
                self.held = Some(step);
                self.pauses.begin(Instant::now());
                None
            }
            News::Step(step) => Some(self.hear_step(step)),
            News::Made(Ok(made)) => Some(self.made(made)),
            News::Made(Err(error)) => {
                self.running = Running::Nothing;
                Some(self.failed(&error))
            }
            News::Stuck => Some(broke("the engine is stuck")),
        }
    }

    fn hear_step(&mut self, step: Step) -> Input {
        match step {
            Step::Started { input_tokens } => {
                // A tab goes by what was counted when it was opened.
                if self.seat.is_none() {
                    self.input_tokens = input_tokens.into();
                }
                Input::Started
            }
            Step::Token { id, text } => {
                self.clockwork.tick();
                Input::Token { id, text }
            }
            Step::Ended {
                reason,
                text,
                proof,
            } => {
                self.proofs = proof.into_iter().collect();
                Input::Finished { reason, text }
            }
            Step::Failed(error) => self.failed(&error),
        }
    }

    fn made(&mut self, made: Made) -> Input {
        self.running = Running::Nothing;
        if self.seat.is_none() {
            self.input_tokens = made.input_tokens;
        }
        // What comes of a shard or a check says little of how fast one text is.
        if matches!(
            self.admitted.work,
            Work::Embedding { .. } | Work::Tensors { .. }
        ) {
            let pace = whole_pace(self.clockwork.started, made.input_tokens);
            self.shop.promises.learn(&self.admitted.item.model.id, pace);
        }
        self.made_tokens = made.output_tokens;
        self.made = Some(made.product);
        self.proofs = made.proofs;
        Input::Finished {
            reason: EndReason::Stop,
            text: String::new(),
        }
    }

    fn failed(&self, error: &EngineError) -> Input {
        let award = self.admitted.award.id();
        match error {
            // A template's words may quote the prompt.
            EngineError::ChatTemplate(_) => tracing::warn!(%award, "the chat template fails"),
            error => tracing::warn!(%award, %error, "the engine failed"),
        }
        broke(&public_words(error))
    }

    async fn step(&mut self, input: Input) -> Next {
        let is_token = matches!(input, Input::Token { .. });
        match self.machine.step(self.clock.now(), input) {
            Ok(effects) => {
                self.draw(is_token, &effects);
                self.perform(effects).await
            }
            Err(unexpected) => {
                tracing::error!(award = %self.admitted.award.id(), %unexpected, "a mistake in the driver");
                Next::GoOn
            }
        }
    }

    /// Tells the tab what the machine has taken, before any of it is sent. An
    /// answer that has become too long ends without its last token.
    fn draw(&mut self, is_token: bool, effects: &[Effect]) {
        let delivered = effects.iter().find_map(|effect| match effect {
            Effect::Deliver(delivery) => Some(delivery.tokens.len() as u64),
            _ => None,
        });
        let drawn = delivered.unwrap_or(self.drawn + u64::from(is_token));
        if drawn == self.drawn || (delivered.is_none() && self.machine.has_ended()) {
            return;
        }
        self.drawn = drawn;
        if let Some(seat) = &self.seat {
            seat.draws(drawn);
        }
    }

    async fn perform(&mut self, effects: Vec<Effect>) -> Next {
        let mut next = Next::GoOn;
        let delivers = |effect: &Effect| matches!(effect, Effect::Deliver(_));
        let has_result = effects.iter().any(delivers);
        for effect in effects {
            match effect {
                Effect::Send(telling) => self.tell(telling),
                Effect::Halt if has_result => self.running = Running::Nothing,
                Effect::Halt => self.left_the_queue().await,
                Effect::Deliver(delivery) => self.deliver(delivery).await,
                Effect::Redeliver => self.deliver_again(),
                Effect::Forget => next = Next::Forget,
            }
        }
        next
    }

    fn tell(&self, telling: Telling) {
        let is_piece = matches!(telling, Telling::Piece(_));
        let totals = self.seat.as_ref().and_then(Seat::totals);
        if is_piece && totals.is_some() {
            mortality::point("piece-claimed");
        }
        self.shop.tell(&self.admitted.address, telling, totals);
    }
}

/// What the till says next; nothing ever where there is no tab.
async fn next_word(seat: &mut Option<Seat>, is_paused: bool) -> Word {
    match seat {
        Some(seat) => seat.next(is_paused).await,
        None => std::future::pending().await,
    }
}

impl Clockwork {
    fn tick(&mut self) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        self.tokens += 1;
    }

    fn pace(&self) -> Option<Pace> {
        let first = self.first?;
        Some(Pace::of(self.started, first, self.last, self.tokens))
    }
}

fn broke(why: &str) -> Input {
    Input::Broke {
        error: why.to_owned(),
    }
}
