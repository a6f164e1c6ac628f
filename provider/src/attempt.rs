//! Drives one attempt: between the machine that decides (`job::provider`), the
//! engine that computes, and the buyer who hears of it.

use std::sync::Arc;
use std::time::Duration;

use infernet_engine::{Embeddings, Error as EngineError, Step};
use infernet_protocol::event::Usage;
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::Millis;
use infernet_protocol::job::provider::{Attempt, Delivery, Effect, Input};
use infernet_protocol::payload::{News as Word, Product, Vector, Work};
use nostr::{Event, EventId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::admission::Admitted;
use crate::delivery;
use crate::output::public_words;
use crate::promise::{Pace, embedding_pace};
use crate::shop::Shop;
use crate::steady::Steady;
use crate::work::{News, Running};

/// What the loop tells an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A slot is free.
    Begin,
    /// So many run or wait before it.
    Moved(u32),
    /// The buyer misses pieces from this number on.
    Resend(u32),
    /// The buyer wants no more.
    Stop,
    /// The provider cannot go on, for this reason.
    GiveUp(&'static str),
}

/// What an attempt tells the loop.
#[derive(Debug)]
pub enum Report {
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

/// One attempt and everything it needs.
struct Driver {
    shop: Arc<Shop>,
    admitted: Admitted,
    clock: Steady,
    machine: Attempt,
    running: Running,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::Sender<Report>,
    clockwork: Clockwork,
    input_tokens: u64,
    vectors: Vec<Vector>,
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
    ahead: u32,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::Sender<Report>,
) {
    let award = admitted.award.id();
    let deadline = Millis(admitted.award.deadline.as_secs().saturating_mul(1_000));
    let clock = Steady::start();
    let (machine, effects) = Attempt::accept(clock.now(), &award, ahead, deadline);
    let started = Instant::now();
    let driver = Driver {
        input_tokens: admitted.input_tokens.into(),
        shop,
        admitted,
        clock,
        machine,
        running: Running::Nothing,
        orders,
        reports,
        clockwork: Clockwork {
            started,
            first: None,
            last: started,
            tokens: 0,
        },
        vectors: vec![],
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
            let input = tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    // The loop has no place for one more that lingers.
                    None if self.machine.has_ended() => break,
                    None => Some(broke("the provider has stopped")),
                },
                news = self.running.next() => self.hear(news),
                () = sleep(Duration::from_millis(wake)) => Some(Input::Tick),
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
        }
    }

    fn begin(&mut self) -> Option<Input> {
        // It may have been stopped a moment ago.
        if self.machine.has_ended() {
            return None;
        }
        let (engine, model) = (&self.shop.engine, self.admitted.item.model.id);
        let speed = self.shop.options.max_speed;
        self.clockwork.started = Instant::now();
        match Running::start(&**engine, model, &self.admitted.work, speed) {
            Ok(running) => {
                // A generation says itself when it begins.
                let begun = matches!(running, Running::Embedding(_)).then_some(Input::Started);
                self.running = running;
                begun
            }
            Err(error) => Some(self.failed(&error)),
        }
    }

    fn hear(&mut self, news: News) -> Option<Input> {
        match news {
            News::Step(step) => Some(self.hear_step(step)),
            News::Embedded(Ok(made)) => Some(self.embedded(made)),
            News::Embedded(Err(error)) => {
                self.running = Running::Nothing;
                Some(self.failed(&error))
            }
            News::Stuck => Some(broke("the engine is stuck")),
        }
    }

    fn hear_step(&mut self, step: Step) -> Input {
        match step {
            Step::Started { input_tokens } => {
                self.input_tokens = input_tokens.into();
                Input::Started
            }
            Step::Token { id, text } => {
                self.clockwork.tick();
                Input::Token { id, text }
            }
            Step::Ended { reason, text } => Input::Finished { reason, text },
            Step::Failed(error) => self.failed(&error),
        }
    }

    fn embedded(&mut self, made: Embeddings) -> Input {
        self.running = Running::Nothing;
        self.input_tokens = made.input_tokens.into();
        let pace = embedding_pace(self.clockwork.started, made.input_tokens);
        self.shop.promises.learn(&self.admitted.item.model.id, pace);
        self.vectors = made.vectors.into_iter().map(Vector).collect();
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
        match self.machine.step(self.clock.now(), input) {
            Ok(effects) => self.perform(effects).await,
            Err(unexpected) => {
                tracing::error!(award = %self.admitted.award.id(), %unexpected, "a mistake in the driver");
                Next::GoOn
            }
        }
    }

    async fn perform(&mut self, effects: Vec<Effect>) -> Next {
        let mut next = Next::GoOn;
        let delivers = |effect: &Effect| matches!(effect, Effect::Deliver(_));
        let has_result = effects.iter().any(delivers);
        for effect in effects {
            match effect {
                Effect::Send(word) => self.tell(word),
                Effect::Halt if has_result => self.running = Running::Nothing,
                Effect::Halt => self.left_the_queue().await,
                Effect::Deliver(delivery) => self.deliver(delivery).await,
                Effect::Redeliver => self.deliver_again(),
                Effect::Forget => next = Next::Forget,
            }
        }
        next
    }

    fn tell(&self, word: Word) {
        self.shop.tell(&self.admitted.address, word);
    }

    /// Stopped before it began: there is nothing to deliver.
    async fn left_the_queue(&mut self) {
        self.running = Running::Nothing;
        let award = self.admitted.award.id();
        if let Err(error) = self.shop.store.end(&award).await {
            tracing::error!(%award, %error, "cannot write that an attempt has ended");
        }
        self.halted(None, Usage::default()).await;
    }

    /// The result is kept before it is published, and its publication is on its
    /// way before the slot is free: a loop that waits for free slots to close
    /// misses none.
    async fn deliver(&mut self, delivery: Delivery) {
        let award = self.admitted.award.id();
        let usage = self.usage(&delivery);
        let ended = delivery.ended;
        self.learn(ended);
        tracing::info!(
            job = %self.admitted.award.job_id(), %award, attempt = self.admitted.award.attempt,
            peer = %self.admitted.award.author(), ?ended, error = delivery.error,
            input_tokens = usage.input_tokens, output_tokens = usage.output_tokens,
            total_ms = delivery.timing.total_ms, "ended"
        );
        let product = self.product(&delivery);
        let event = delivery::result(&self.shop, &self.admitted, delivery, product, usage);
        if let Err(error) = self.shop.store.deliver(&award, &event).await {
            tracing::error!(%award, %error, "cannot keep a result; it is published all the same");
        }
        delivery::publish(&self.shop, vec![event.clone()]);
        self.result = Some(event);
        self.halted(Some(ended), usage).await;
    }

    fn deliver_again(&self) {
        if let Some(event) = &self.result {
            delivery::publish_again(&self.shop, event.clone());
        }
    }

    async fn halted(&mut self, ended: Option<EndReason>, usage: Usage) {
        let report = Report::Halted {
            award: self.admitted.award.id(),
            ended,
            usage,
        };
        // A loop that is gone needs no reports.
        let _ = self.reports.send(report).await;
    }

    fn usage(&self, delivery: &Delivery) -> Usage {
        let prefix = match &self.admitted.work {
            Work::TextGeneration(generate) => generate.prefix.len(),
            Work::Embedding { .. } => 0,
        };
        Usage {
            input_tokens: self.input_tokens,
            prefix_tokens: prefix as u64,
            output_tokens: delivery.tokens.len() as u64,
        }
    }

    fn product(&mut self, delivery: &Delivery) -> Product {
        match &self.admitted.work {
            Work::TextGeneration(_) => Product::TextGeneration {
                text: delivery.text.clone(),
                tokens: delivery.tokens.clone(),
            },
            Work::Embedding { .. } => Product::Embedding {
                vectors: std::mem::take(&mut self.vectors),
            },
        }
    }

    /// A generation that came to its own end says how fast we are.
    fn learn(&self, ended: EndReason) {
        let whole = matches!(ended, EndReason::Stop | EndReason::Length);
        if let (true, Some(pace)) = (whole, self.clockwork.pace()) {
            self.shop.promises.learn(&self.admitted.item.model.id, pace);
        }
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
