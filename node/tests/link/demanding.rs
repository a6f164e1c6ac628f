//! Relays that ask for proof of work, for an identity, or for patience.

use std::sync::{Arc, Mutex};

use nostr::message::{ClientMessage, RelayMessage};
use nostr::{EventId, JsonUtil, SubscriptionId, TagKind};
use tokio::time::Instant;

use super::*;

/// A relay that takes an event only from who has shown its work.
#[derive(Default)]
struct Demanding {
    /// Bits of work; with none, an answer to its challenge is enough.
    bits: u8,
    /// How many events it takes for one work.
    worth: Option<usize>,
    left: usize,
    is_known: bool,
    answers: Vec<Event>,
    taken: Vec<String>,
}

impl Demanding {
    fn of(bits: u8) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            bits,
            ..Self::default()
        }))
    }

    fn hear(&mut self, message: &ClientMessage<'static>) -> Vec<String> {
        let said = match message {
            ClientMessage::Auth(answer) => {
                let answer = answer.clone().into_owned();
                let id = answer.id;
                self.judge(answer);
                RelayMessage::ok(id, true, "")
            }
            ClientMessage::Event(event) => match self.takes() {
                Ok(()) => {
                    self.taken.push(event.content.clone());
                    RelayMessage::ok(event.id, true, "")
                }
                Err(words) => RelayMessage::ok(event.id, false, words),
            },
            ClientMessage::Req {
                subscription_id, ..
            } => match self.takes() {
                Ok(()) => RelayMessage::eose(subscription_id.clone().into_owned()),
                Err(words) => RelayMessage::closed(subscription_id.clone().into_owned(), words),
            },
            _ => return vec![],
        };
        vec![said.as_json()]
    }

    fn judge(&mut self, answer: Event) {
        answer.verify().unwrap();
        assert_eq!(answer.tags.challenge(), Some("riddle"));
        let committed = answer.tags.find(TagKind::Nonce);
        let committed = committed.map_or(0, |tag| tag.as_slice()[2].parse().unwrap());
        assert!(committed == 0 || answer.check_pow(committed));
        let is_new = self.answers.iter().all(|other| other.id != answer.id);
        assert!(committed == 0 || is_new, "work counts once");
        if committed >= self.bits {
            self.is_known = true;
            self.left = self.worth.unwrap_or(usize::MAX);
        }
        self.answers.push(answer);
    }

    fn takes(&mut self) -> Result<(), String> {
        if self.is_known && self.left > 0 {
            self.left -= 1;
            return Ok(());
        }
        Err(match self.bits {
            0 => "auth-required: who is there?".to_owned(),
            bits => format!("pow: {bits} bits of work needed"),
        })
    }

    fn worked(&self) -> usize {
        let worked = |answer: &&Event| answer.tags.find(TagKind::Nonce).is_some();
        self.answers.iter().filter(worked).count()
    }
}

fn challenge() -> Vec<String> {
    vec![RelayMessage::auth("riddle").as_json()]
}

async fn demanding(state: &Arc<Mutex<Demanding>>) -> fake::FakeRelay {
    let state = state.clone();
    fake::FakeRelay::greeting(challenge, move |message| {
        state.lock().unwrap().hear(message)
    })
    .await
}

#[tokio::test]
async fn work_is_shown_once_for_all_that_waits_for_it() {
    let state = Demanding::of(12);
    let relay = demanding(&state).await;
    let link = link([relay.url.clone()]).await;
    let events = ["one", "two", "three"].map(|content| event(STORED, content));
    let published = events.iter().map(|event| link.publish(event));
    for published in futures::future::join_all(published).await {
        assert_eq!(
            published.unwrap().accepted,
            std::slice::from_ref(&relay.url)
        );
    }
    link.publish(&event(STORED, "four")).await.unwrap();
    let state = state.lock().unwrap();
    assert_eq!(state.taken, ["one", "two", "three", "four"]);
    assert_eq!(state.worked(), 1);
    assert_eq!(link.relays()[0].trouble, None);
}

#[tokio::test]
async fn a_stream_that_is_refused_for_want_of_work_goes_on_in_order() {
    let state = Demanding::of(14);
    let relay = demanding(&state).await;
    let link = link([relay.url.clone()]).await;
    let pieces: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for piece in &pieces {
        link.send(&event(EPHEMERAL, piece)).unwrap();
        tokio::task::yield_now().await;
    }
    link.publish(&event(STORED, "end")).await.unwrap();
    let state = state.lock().unwrap();
    assert_eq!(state.taken[..100], pieces);
    assert_eq!(state.taken[100..], ["end"]);
}

#[tokio::test]
async fn work_that_is_used_up_is_done_again() {
    let state = Demanding::of(8);
    state.lock().unwrap().worth = Some(3);
    let relay = demanding(&state).await;
    let link = link([relay.url.clone()]).await;
    for n in 0..10 {
        link.publish(&event(STORED, &n.to_string())).await.unwrap();
    }
    let state = state.lock().unwrap();
    assert_eq!(state.taken.len(), 10);
    assert_eq!(state.worked(), 4);
}

#[tokio::test]
async fn a_relay_that_wanted_work_is_shown_it_unasked_when_it_comes_back() {
    let state = Demanding::of(10);
    let relay = demanding(&state).await;
    let link = link([relay.url.clone()]).await;
    link.publish(&event(STORED, "before")).await.unwrap();
    state.lock().unwrap().is_known = false;
    relay.close(1001, "back soon");
    let mut changes = link.changes();
    let back = changes.wait_for(|relays| relays[0].sessions == 2 && relays[0].connected);
    timeout(DEADLINE, back).await.unwrap().unwrap();
    let begun = Instant::now();
    while !state.lock().unwrap().is_known {
        assert!(begun.elapsed() < DEADLINE, "nothing was shown");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(state.lock().unwrap().worked(), 2);
}

#[tokio::test]
async fn one_relay_that_wants_work_delays_no_other_and_has_the_event_in_the_end() {
    let state = Demanding::of(16);
    let (_open, open) = relay(None).await;
    let slow = demanding(&state).await;
    let link = link([open.clone(), slow.url.clone()]).await;
    let published = link.publish(&event(STORED, "early")).await.unwrap();
    assert!(published.accepted.contains(&open));
    assert_eq!(published.refused, []);
    let begun = Instant::now();
    while state.lock().unwrap().taken != ["early"] {
        assert!(begun.elapsed() < DEADLINE, "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn more_work_than_is_reasonable_is_refused_clearly() {
    let state = Demanding::of(60);
    let relay = demanding(&state).await;
    let link = link([relay.url.clone()]).await;
    let by = Instant::now() + DEADLINE;
    let error = link.publish_until(&event(STORED, ""), by).await;
    assert!(Instant::now() < by, "it is not tried again and again");
    let error = error.unwrap_err();
    assert!(!error.is_temporary());
    let said = error.to_string();
    assert!(said.contains(relay.url.as_str()), "{said}");
    assert!(
        said.contains("60 bits") && said.contains("more than is done"),
        "{said}"
    );
    let status = link.relays()[0].trouble.clone().unwrap();
    assert!(status.contains("60 bits of proof of work"), "{status}");
    assert!(link.relays()[0].connected);
}

#[tokio::test]
async fn a_relay_that_is_never_content_is_given_up() {
    let mut relay = fake::FakeRelay::greeting(challenge, |message| match message {
        ClientMessage::Auth(answer) => vec![RelayMessage::ok(answer.id, true, "").as_json()],
        ClientMessage::Event(event) => {
            vec![RelayMessage::ok(event.id, false, "pow: 9 bits").as_json()]
        }
        _ => vec![],
    })
    .await;
    let link = link([relay.url.clone()]).await;
    for _ in 0..3 {
        let error = link.publish(&event(STORED, "")).await.unwrap_err();
        assert!(!error.is_temporary());
        assert!(error.to_string().contains("to no avail"), "{error}");
    }
    drop(link);
    let mut answers = 0;
    while let Ok(Some(message)) = timeout(Duration::from_millis(200), relay.heard.recv()).await {
        answers += usize::from(matches!(message, ClientMessage::Auth(_)));
    }
    assert_eq!(answers, 2, "one that says who we are, and one with work");
}

#[tokio::test]
async fn a_relay_that_asks_only_after_it_has_refused_is_answered() {
    let state = Demanding::of(9);
    let relay = {
        let state = state.clone();
        fake::FakeRelay::start(move |message| {
            let mut said = state.lock().unwrap().hear(message);
            if matches!(message, ClientMessage::Event(_)) {
                said.extend(challenge());
            }
            said
        })
        .await
    };
    let link = link([relay.url.clone()]).await;
    link.publish(&event(STORED, "late")).await.unwrap();
    assert_eq!(state.lock().unwrap().taken, ["late"]);
}

#[tokio::test]
async fn a_relay_that_never_asks_who_we_are_is_not_waited_for_for_ever() {
    let state = Demanding::of(9);
    let relay = {
        let state = state.clone();
        fake::FakeRelay::start(move |message| state.lock().unwrap().hear(message)).await
    };
    let mut options = options([relay.url.clone()]);
    options.answer_timeout = Duration::from_millis(200);
    let link = Link::connect(options).await.unwrap();
    let by = Instant::now() + DEADLINE;
    let error = link
        .publish_until(&event(STORED, ""), by)
        .await
        .unwrap_err();
    assert!(Instant::now() < by && !error.is_temporary());
    assert!(error.to_string().contains("no way to show it"), "{error}");
}

#[tokio::test]
async fn a_relay_for_members_is_told_who_we_are_before_it_is_asked_anything_twice() {
    let state = Demanding::of(0);
    let relay = demanding(&state).await;
    let link = link([relay.url.clone()]).await;
    // The first thing that it hears of us may be the question.
    let fetched = link.fetch(of(STORED), DEADLINE).await;
    assert_eq!(fetched.unwrap(), []);
    link.publish(&event(STORED, "mine")).await.unwrap();
    assert_eq!(state.lock().unwrap().answers.len(), 1);
}

#[tokio::test]
async fn an_event_is_sent_again_once_the_relay_knows_us() {
    let state = Demanding::of(0);
    let relay = {
        let state = state.clone();
        fake::FakeRelay::start(move |message| {
            let mut said = state.lock().unwrap().hear(message);
            if matches!(message, ClientMessage::Event(_) | ClientMessage::Req { .. }) {
                said.extend(challenge());
            }
            said
        })
        .await
    };
    let link = link([relay.url.clone()]).await;
    let (published, fetched) = (event(STORED, "mine"), of(STORED));
    let (published, fetched) =
        tokio::join!(link.publish(&published), link.fetch(fetched, DEADLINE));
    published.unwrap();
    assert_eq!(fetched.unwrap(), []);
}

#[tokio::test]
async fn a_relay_that_does_not_want_us_says_so_for_good() {
    let relay = fake::FakeRelay::greeting(challenge, |message| match message {
        ClientMessage::Auth(answer) => {
            let words = "restricted: not on the list";
            vec![RelayMessage::ok(answer.id, false, words).as_json()]
        }
        ClientMessage::Event(event) => {
            let words = "auth-required: members only";
            vec![RelayMessage::ok(event.id, false, words).as_json()]
        }
        _ => vec![],
    })
    .await;
    let link = link([relay.url.clone()]).await;
    let by = Instant::now() + DEADLINE;
    let refused = link.publish_until(&event(STORED, ""), by).await;
    let refused = refused.unwrap_err();
    assert!(Instant::now() < by && !refused.is_temporary());
    assert!(refused.to_string().contains("not on the list"), "{refused}");
    let status = link.relays()[0].trouble.clone().unwrap();
    assert!(status.contains("who we are"), "{status}");
    assert!(status.contains("not on the list"), "{status}");
}

/// A relay that refuses the first `times` events with `words`.
async fn impatient(times: usize, words: &'static str) -> fake::FakeRelay {
    let left = Mutex::new(times);
    let answer = move |id: EventId| {
        let mut left = left.lock().unwrap();
        let refuses = *left > 0;
        *left = left.saturating_sub(1);
        RelayMessage::ok(id, !refuses, if refuses { words } else { "" }).as_json()
    };
    fake::FakeRelay::start(move |message| match message {
        ClientMessage::Event(event) => vec![answer(event.id)],
        _ => vec![],
    })
    .await
}

#[tokio::test]
async fn a_relay_that_asks_us_to_slow_down_is_tried_again_when_it_says() {
    let relay = impatient(2, "rate-limited: too many events; try again in 1 s").await;
    let link = link([relay.url.clone()]).await;
    let begun = Instant::now();
    link.publish(&event(STORED, "")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_stream_that_is_too_fast_is_slowed_and_keeps_nothing_else_out() {
    const A_SECOND: usize = 40;
    let window = Mutex::new((Instant::now(), 0));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (heard, sent) = (taken.clone(), 100);
    let relay = fake::FakeRelay::start(move |message| {
        let ClientMessage::Event(event) = message else {
            return vec![];
        };
        let mut window = window.lock().unwrap();
        if window.0.elapsed() >= Duration::from_secs(1) {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        if window.1 > A_SECOND {
            let words = "rate-limited: too many events; again in 1 s";
            return vec![RelayMessage::ok(event.id, false, words).as_json()];
        }
        heard.lock().unwrap().push(event.content.clone());
        vec![RelayMessage::ok(event.id, true, "").as_json()]
    });
    let link = link([relay.await.url]).await;
    let pieces: Vec<String> = (0..sent).map(|n| n.to_string()).collect();
    for piece in &pieces {
        link.send(&event(EPHEMERAL, piece)).unwrap();
    }
    link.publish(&event(STORED, "result")).await.unwrap();
    let taken = taken.lock().unwrap();
    assert_eq!(taken[..sent], pieces, "in order, and nothing is lost");
    assert_eq!(taken[sent..], ["result"]);
}

#[tokio::test]
async fn nobody_waits_longer_than_it_wants_to_for_a_relay_that_is_busy() {
    let relay = impatient(usize::MAX, "rate-limited: try again in 60 s").await;
    let link = link([relay.url.clone()]).await;
    let begun = Instant::now();
    let error = link.publish(&event(STORED, "")).await.unwrap_err();
    assert!(error.is_temporary());
    assert!(begun.elapsed() < Duration::from_secs(5));
    let by = Instant::now() + Duration::from_millis(300);
    let error = link.publish_until(&event(STORED, ""), by).await;
    assert!(error.unwrap_err().to_string().contains("rate-limited"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_subscription_that_is_refused_for_the_moment_is_asked_for_when_the_relay_says() {
    let left = Mutex::new(1);
    let answer = move |id: SubscriptionId| {
        let refuses = std::mem::replace(&mut *left.lock().unwrap(), 0) > 0;
        match refuses {
            true => RelayMessage::closed(id, "rate-limited: again in 1 s").as_json(),
            false => fake::end_of_stored(&id),
        }
    };
    let relay = fake::FakeRelay::start(move |message| {
        fake::requested(message).map(&answer).into_iter().collect()
    });
    let link = link([relay.await.url]).await;
    let begun = Instant::now();
    let mut offers = link.subscribe(of(STORED)).unwrap();
    wait_for(&mut offers, Delivery::EndOfStored).await;
    assert!((1..10).contains(&begun.elapsed().as_secs()));
}

#[tokio::test]
async fn who_was_too_slow_for_a_relay_comes_back_and_knows_of_the_gap() {
    let stored = event(STORED, "stored");
    let relay = fake::FakeRelay::start(fake::serving(vec![stored.clone()])).await;
    let link = link([relay.url.clone()]).await;
    let mut offers = link.subscribe(of(STORED)).unwrap();
    assert_eq!(next_event(&mut offers).await, stored);
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);
    relay.say(RelayMessage::notice("you read too slowly").as_json());
    relay.close(1013, "you read too slowly");
    assert_eq!(next(&mut offers).await, Delivery::Gap);
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);
    assert_eq!(link.relays()[0].sessions, 2);
}
