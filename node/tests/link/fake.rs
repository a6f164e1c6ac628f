//! A relay of a few lines that says whatever a test wants it to.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use nostr::message::{ClientMessage, RelayMessage};
use nostr::{Event, JsonUtil, RelayUrl, SubscriptionId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// What the relay answers to a message.
type Script = dyn Fn(&ClientMessage<'static>) -> Vec<String> + Send + Sync;

pub struct FakeRelay {
    pub url: RelayUrl,
    /// What clients have said, in order.
    pub heard: mpsc::UnboundedReceiver<ClientMessage<'static>>,
    say: broadcast::Sender<Message>,
}

impl FakeRelay {
    pub async fn start(
        script: impl Fn(&ClientMessage<'static>) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        Self::greeting(Vec::new, script).await
    }

    /// A relay that says `greeting` to whoever connects.
    pub async fn greeting(
        greeting: impl Fn() -> Vec<String> + Send + Sync + 'static,
        script: impl Fn(&ClientMessage<'static>) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (hear, heard) = mpsc::unbounded_channel();
        let (say, _) = broadcast::channel(64);
        let script: Arc<Script> = Arc::new(script);
        let said = say.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(
                    stream,
                    greeting(),
                    script.clone(),
                    hear.clone(),
                    said.subscribe(),
                ));
            }
        });
        Self {
            url: RelayUrl::parse(&url).unwrap(),
            heard,
            say,
        }
    }

    /// Says something to every client.
    pub fn say(&self, text: String) {
        let said = self.say.send(Message::text(text));
        said.expect("nobody is connected");
    }

    /// Closes every connection, and says why.
    pub fn close(&self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        let said = self.say.send(Message::Close(Some(frame)));
        said.expect("nobody is connected");
    }
}

async fn serve(
    stream: TcpStream,
    greeting: Vec<String>,
    script: Arc<Script>,
    hear: mpsc::UnboundedSender<ClientMessage<'static>>,
    mut say: broadcast::Receiver<Message>,
) {
    let Ok(mut socket) = accept_async(stream).await else {
        return;
    };
    let mut answers: Vec<Message> = greeting.into_iter().map(Message::text).collect();
    loop {
        for answer in answers {
            let ends = answer.is_close();
            if socket.send(answer).await.is_err() || ends {
                return;
            }
        }
        answers = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let message = ClientMessage::from_json(text.as_str()).unwrap();
                    let answers = script(&message);
                    // Nobody may be interested in what is heard.
                    let _ = hear.send(message);
                    answers.into_iter().map(Message::text).collect()
                }
                Some(Ok(_)) => Vec::new(),
                _ => return,
            },
            Ok(said) = say.recv() => vec![said],
        };
    }
}

/// The id of the subscription that a `REQ` asks for.
pub fn requested(message: &ClientMessage<'static>) -> Option<SubscriptionId> {
    match message {
        ClientMessage::Req {
            subscription_id, ..
        } => Some(subscription_id.clone().into_owned()),
        _ => None,
    }
}

pub fn event(id: &SubscriptionId, event: &Event) -> String {
    RelayMessage::event(id.clone(), event.clone()).as_json()
}

pub fn end_of_stored(id: &SubscriptionId) -> String {
    RelayMessage::eose(id.clone()).as_json()
}

/// Answers every request with `events`, whatever it asks for, and no event at all.
pub fn serving(events: Vec<Event>) -> impl Fn(&ClientMessage<'static>) -> Vec<String> {
    move |message| {
        let Some(id) = requested(message) else {
            return Vec::new();
        };
        let served = events.iter().map(|one| event(&id, one));
        served.chain([end_of_stored(&id)]).collect()
    }
}
