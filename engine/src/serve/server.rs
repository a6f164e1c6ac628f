//! The threads that serve a model, and the way in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use infernet_protocol::inference::{EndReason, TokenId};
use infernet_protocol::verification::TextFigures;
use tokio::sync::oneshot;

use crate::check;
use crate::error::{Error, LoadError};
use crate::port::{CheckText, Generate, Score, Step, Steps};

use super::{Limits, Network, Round, Scheduler, Sequence, Text};

/// How often it looks whether a reader has caught up, when all are behind.
const GLANCE: Duration = Duration::from_millis(1);

/// The threads that serve one model. Dropping it fails what runs and waits for them.
pub(crate) struct Server {
    /// How many requests may wait for their turn.
    places: usize,
    waiting: Arc<AtomicUsize>,
    requests: Option<Sender<Request>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A request that came in, and where its answer goes.
struct Request {
    work: Work,
    steps: Steps,
    place: Place,
}

/// What is asked for.
enum Work {
    Generate(Generate),
    Score(Score, oneshot::Sender<Vec<f32>>),
    Check(Box<CheckText>, oneshot::Sender<TextFigures>),
}

/// A request whose prompt was understood.
struct Arrival {
    request: Request,
    /// Empty where a text is scored.
    prompt: Vec<TokenId>,
}

/// One of the places in which requests wait for their turn.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    /// Serves a model; `places` requests may wait. `prepare` runs on the thread that
    /// computes before anything else, and what it gives stays until the end.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn start<N: Network + 'static, G>(
        network: N,
        text: Text,
        limits: Limits,
        places: usize,
        prepare: impl FnOnce() -> G + Send + 'static,
    ) -> Result<Self, LoadError> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (requests, incoming) = channel();
        let (arrivals, arriving) = channel();
        let (reader, seen) = (text.clone(), Arc::clone(&stopping));
        let understands = move || understand(&reader, &incoming, &arrivals);
        let computes = move || {
            let _prepared = prepare();
            serve(Scheduler::new(network, text, limits), &arriving, &seen);
        };
        Ok(Self {
            places,
            waiting: Arc::default(),
            requests: Some(requests),
            stopping,
            threads: vec![
                spawn("infernet-tokens", understands)?,
                spawn("infernet-text", computes)?,
            ],
        })
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait.
    pub(crate) fn submit(&self, generate: Generate, steps: Steps) -> Result<(), Error> {
        self.send(Work::Generate(generate), steps)
    }

    /// Takes a text in to be scored.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait.
    pub(crate) fn score(
        &self,
        score: Score,
        result: oneshot::Sender<Vec<f32>>,
        steps: Steps,
    ) -> Result<(), Error> {
        self.send(Work::Score(score, result), steps)
    }

    /// Takes an answer in to be checked.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait.
    pub(crate) fn check(
        &self,
        check: CheckText,
        result: oneshot::Sender<TextFigures>,
        steps: Steps,
    ) -> Result<(), Error> {
        self.send(Work::Check(Box::new(check), result), steps)
    }

    fn send(&self, work: Work, steps: Steps) -> Result<(), Error> {
        let place = Place(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= self.places {
            return Err(Error::Busy); // dropping the place gives it back
        }
        let requests = self.requests.as_ref().ok_or(Error::Stopped)?;
        let request = Request { work, steps, place };
        requests.send(request).map_err(|_| Error::Stopped)
    }
}

impl Drop for Server {
    /// A process that ends while libtorch computes may crash on its way out.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.requests = None;
        for thread in self.threads.drain(..) {
            // They catch panics themselves, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LoadError> {
    let thread = Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| LoadError::Device(format!("no thread could be started: {error}")))
}

/// Turns prompts into tokens, so that a long one holds nobody up. It ends when the
/// server has gone.
fn understand(text: &Text, requests: &Receiver<Request>, arrivals: &Sender<Arrival>) {
    while let Ok(request) = requests.recv() {
        if request.steps.is_abandoned() {
            continue;
        }
        let encode = AssertUnwindSafe(|| encode(text, &request.work));
        let understood = catch_unwind(encode)
            .unwrap_or_else(|_| Err(Error::Computation("its tokens cannot be told".into())));
        match understood {
            // The other thread goes only after this one was told to.
            Ok(Understood::ToCompute(prompt)) => drop(arrivals.send(Arrival { request, prompt })),
            Ok(Understood::Found(figures)) => tell(request, figures),
            Err(error) => request.steps.send(Step::Failed(error)),
        }
    }
}

/// What was understood of a request.
enum Understood {
    /// It is to be computed; its prompt's tokens.
    ToCompute(Vec<TokenId>),
    /// It is a check, and this is all that there is to find.
    Found(TextFigures),
}

fn encode(text: &Text, work: &Work) -> Result<Understood, Error> {
    let tokenizer = &*text.tokenizer;
    let check = match work {
        Work::Generate(generate) => {
            let prompt = tokenizer.encode_prompt(&generate.prompt)?;
            return Ok(Understood::ToCompute(prompt));
        }
        Work::Score(..) => return Ok(Understood::ToCompute(Vec::new())),
        Work::Check(check, _) => check,
    };
    let prompt = tokenizer.encode_prompt(&check.prompt)?;
    let skip_space = tokenizer.adds_first_space();
    let fault = check::find_fault(check, tokenizer, skip_space, prompt.len(), text.context)?;
    match fault.is_some() || check.answer.tokens.is_empty() {
        true => Ok(Understood::Found(check::only(check, fault))),
        false => Ok(Understood::ToCompute(prompt)),
    }
}

/// Ends a check.
fn tell(request: Request, figures: TextFigures) {
    if let Work::Check(_, result) = request.work {
        // Whoever asked may have gone.
        let _ = result.send(figures);
    }
    request.steps.send(Step::Ended {
        reason: EndReason::Length,
        text: String::new(),
        proof: None,
    });
}

/// Does rounds until it is told to stop.
fn serve<N: Network>(
    mut scheduler: Scheduler<N>,
    arrivals: &Receiver<Arrival>,
    stopping: &AtomicBool,
) {
    let mut last = Round::Idle;
    while !stopping.load(Ordering::Relaxed) {
        let first = match last {
            Round::Idle => arrivals.recv().map_err(|_| TryRecvError::Disconnected),
            Round::Waits => arrivals.recv_timeout(GLANCE).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
            Round::Worked => arrivals.try_recv(),
        };
        match first {
            Ok(arrival) => arrive(&mut scheduler, arrival),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        while let Ok(arrival) = arrivals.try_recv() {
            arrive(&mut scheduler, arrival);
        }
        last = scheduler.round();
    }
    scheduler.stop();
}

fn arrive<N: Network>(scheduler: &mut Scheduler<N>, arrival: Arrival) {
    let Arrival { request, prompt } = arrival;
    let has = |token| scheduler.network().has(token);
    let Request { work, steps, place } = request;
    let text = scheduler.text();
    let begin = AssertUnwindSafe(|| match work {
        Work::Generate(generate) => Sequence::new(text, has, generate, prompt, steps),
        Work::Score(score, result) => Sequence::to_score(text, has, score, result, steps),
        Work::Check(check, result) => Sequence::to_check(text, has, *check, prompt, result, steps),
    });
    // One that makes a library panic must not end the others; its reader hears that the
    // engine has stopped.
    let Ok(sequence) = catch_unwind(begin) else {
        return;
    };
    match sequence {
        Ok(sequence) => scheduler.take(sequence.holding(place)),
        Err((steps, error)) => steps.send(Step::Failed(error)),
    }
}
