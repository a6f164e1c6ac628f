//! The events of one client that are under way to the disk. They are answered, and told to others, in the order in
//! which they came.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use futures::FutureExt;
use futures::future::BoxFuture;

/// How many may be under way at a time, and how many bytes these may have: the disk takes them in batches, so that a
/// client that does not wait for each answer needs many to keep it busy.
const MAX_EVENTS: usize = 512;
const MAX_BYTES: usize = 4 << 20;

/// What is under way, and becomes a `T`.
pub struct Pipeline<T> {
    under_way: VecDeque<(Step<T>, usize)>,
    bytes: usize,
}

enum Step<T> {
    Done(T),
    Waiting(BoxFuture<'static, T>),
}

impl<T> Pipeline<T> {
    /// With nothing in it.
    pub fn new() -> Self {
        Self {
            under_way: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether more may come in.
    pub fn has_room(&self) -> bool {
        self.under_way.len() < MAX_EVENTS && self.bytes < MAX_BYTES
    }

    /// Takes something in that has so many bytes and needs nothing more.
    pub fn push_done(&mut self, done: T, bytes: usize) {
        self.bytes += bytes;
        self.under_way.push_back((Step::Done(done), bytes));
    }

    /// Takes something in that has so many bytes and is done when `waiting` is.
    pub fn push(&mut self, waiting: impl Future<Output = T> + Send + 'static, bytes: usize) {
        self.bytes += bytes;
        let step = Step::Waiting(waiting.boxed());
        self.under_way.push_back((step, bytes));
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The next that is done, in the order in which they came in. It waits for ever while there is none, and may be
    /// dropped at any time. Only the first is asked: the others are not behind it for long, and each would wake the
    /// session once more.
    pub async fn next(&mut self) -> T {
        std::future::poll_fn(|context| {
            let Some((Step::Waiting(first), _)) = self.under_way.front_mut() else {
                return std::task::Poll::Ready(());
            };
            Pin::new(first).poll(context).map(|done| {
                if let Some((step, _)) = self.under_way.front_mut() {
                    *step = Step::Done(done);
                }
            })
        })
        .await;
        match self.under_way.pop_front() {
            Some((Step::Done(done), bytes)) => {
                self.bytes -= bytes;
                done
            }
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn they_are_done_in_the_order_in_which_they_came() {
        let mut pipeline = Pipeline::new();
        let (first, waiting_first) = oneshot::channel();
        let (third, waiting_third) = oneshot::channel();
        pipeline.push(async { waiting_first.await.unwrap() }, 10);
        pipeline.push_done(2, 10);
        pipeline.push(async { waiting_third.await.unwrap() }, 10);
        third.send(3).unwrap();
        assert_eq!(
            pipeline.next().now_or_never(),
            None,
            "the first comes first"
        );
        first.send(1).unwrap();
        for number in 1..=3 {
            assert_eq!(pipeline.next().await, number);
        }
        assert!(pipeline.is_empty());
        assert_eq!(pipeline.next().now_or_never(), None);
    }

    #[test]
    fn it_holds_a_bounded_number_and_a_bounded_size() {
        let mut pipeline = Pipeline::new();
        for _ in 0..MAX_EVENTS {
            assert!(pipeline.has_room());
            pipeline.push(std::future::ready(()), 1);
        }
        assert!(!pipeline.has_room());
        pipeline.next().now_or_never().unwrap();
        assert!(pipeline.has_room());
        pipeline.push(std::future::ready(()), MAX_BYTES);
        assert!(!pipeline.has_room());
        pipeline.next().now_or_never().unwrap();
        pipeline.push_done((), MAX_BYTES);
        assert!(!pipeline.has_room(), "also if it only waits for its turn");
        while pipeline.next().now_or_never().is_some() {}
        assert!(pipeline.has_room() && pipeline.bytes == 0);
    }
}
