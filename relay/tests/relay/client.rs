//! A Nostr client that says exactly what a test wants said.

use std::future::Future;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use nostr::{Event, Filter, JsonUtil};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long anything may take before its test fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for `future`, but not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("this should have happened by now")
}

pub struct Client<S = MaybeTlsStream<TcpStream>> {
    socket: WebSocketStream<S>,
    /// What the relay wants signed by whom it should know (NIP-42).
    pub challenge: String,
}

impl Client {
    pub async fn connect(url: &str) -> Self {
        Self::ask(url.into_client_request().unwrap()).await
    }

    /// Connects as a proxy on this machine would for somebody at `address`.
    pub async fn connect_for(url: &str, address: &str) -> Self {
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("x-forwarded-for", address.parse().unwrap());
        Self::ask(request).await
    }

    async fn ask(request: Request) -> Self {
        let (socket, _) = soon(connect_async(request)).await.unwrap();
        let mut client = Client::over(socket);
        let greeting = client.hear().await;
        assert_eq!(greeting[0], "AUTH", "{greeting}");
        client.challenge = greeting[1].as_str().unwrap().to_owned();
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Over a websocket of which nothing was read yet.
    pub fn over(socket: WebSocketStream<S>) -> Self {
        Self {
            socket,
            challenge: String::new(),
        }
    }

    /// Sends text as it is. A relay that hung up already is no failure here.
    pub async fn say(&mut self, text: impl Into<String>) {
        self.say_frame(Message::text(text.into())).await;
    }

    /// Sends anything that a websocket can.
    pub async fn say_frame(&mut self, frame: Message) {
        let _ = soon(self.socket.send(frame)).await;
    }

    /// The relay's next message.
    pub async fn hear(&mut self) -> Value {
        loop {
            match soon(self.socket.next()).await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("the relay said {other:?}"),
            }
        }
    }

    /// What the relay says until it hangs up, and the close code that it gives.
    pub async fn hear_out(&mut self) -> (Vec<Value>, Option<CloseCode>) {
        let (mut heard, mut code) = (Vec::new(), None);
        while let Some(Ok(message)) = soon(self.socket.next()).await {
            match message {
                Message::Text(text) => heard.push(serde_json::from_str(&text).unwrap()),
                Message::Close(close) => code = close.map(|close| close.code),
                _ => {}
            }
        }
        (heard, code)
    }

    /// Publishes an event and answers what the relay's OK says.
    pub async fn publish(&mut self, event: &Event) -> (bool, String) {
        self.say(format!(r#"["EVENT",{}]"#, event.as_json())).await;
        let answer = self.hear().await;
        assert_eq!(answer[0], "OK", "{answer}");
        assert_eq!(answer[1], event.id.to_hex(), "{answer}");
        let (taken, why) = (&answer[2], &answer[3]);
        (taken.as_bool().unwrap(), why.as_str().unwrap().to_owned())
    }

    /// Publishes an event that the relay must take.
    pub async fn keep(&mut self, event: &Event) {
        assert_eq!(self.publish(event).await, (true, String::new()));
    }

    /// Publishes an event that the relay must refuse, for a reason that contains `why`.
    pub async fn refused(&mut self, event: &Event, why: &str) {
        let (taken, said) = self.publish(event).await;
        assert!(!taken && said.contains(why), "{taken} {said}");
        let (prefix, _) = said.split_once(": ").expect("a prefix for machines");
        assert!(["blocked", "invalid"].contains(&prefix), "{said}");
    }

    /// Subscribes and answers the stored events; newer ones are [`heard`](Self::hear) from then on.
    pub async fn subscribe(&mut self, filter: &Filter) -> Vec<Event> {
        let request = format!(r#"["REQ","s",{}]"#, filter.as_json());
        self.say(request).await;
        let mut events = Vec::new();
        loop {
            let message = self.hear().await;
            if message[0] == "EOSE" {
                return events;
            }
            events.push(event_of(&message));
        }
    }

    /// The stored events.
    pub async fn stored(&mut self, filter: &Filter) -> Vec<Event> {
        let events = self.subscribe(filter).await;
        self.say(r#"["CLOSE","s"]"#).await;
        events
    }

    /// How many events are stored, as COUNT says.
    pub async fn count(&mut self) -> u64 {
        self.say(json!(["COUNT", "c", {}]).to_string()).await;
        self.hear().await[2]["count"].as_u64().unwrap()
    }
}

/// The event in `["EVENT", id, event]`.
pub fn event_of(message: &Value) -> Event {
    assert_eq!(message[0], "EVENT", "{message}");
    Event::from_json(message[2].to_string()).unwrap()
}
