//! What the operator sees of a running relay, and says to it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use infernet_node::shutdown::Shutdown;
use infernet_relay::{Options, run};
use nostr::{Event, EventBuilder, Filter, JsonUtil, Keys, Kind, PublicKey, Tag};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Relay;
use crate::client::{Client, soon};
use crate::events::{attestation, from_now, plain, profile};
use crate::http::client;

/// A request that `keys` signed, for `url`.
fn signed(url: &str, keys: &Keys, asked: &Value) -> RequestBuilder {
    let body = asked.to_string();
    let hash = format!("{:x}", Sha256::digest(&body));
    let tags = [["u", url], ["method", "POST"], ["payload", &hash]];
    let event = EventBuilder::new(Kind::Custom(27_235), "")
        .tags(tags.map(|tag| Tag::parse(tag).unwrap()))
        .sign_with_keys(keys)
        .unwrap();
    client()
        .post(url)
        .header("content-type", "application/nostr+json+rpc")
        .header(
            "authorization",
            format!("Nostr {}", STANDARD.encode(event.as_json())),
        )
        .body(body)
}

/// A relay's operator.
struct Operator {
    url: String,
    keys: Keys,
}

impl Operator {
    fn of(relay: &Relay, keys: &Keys) -> Self {
        Self {
            url: relay.page("/"),
            keys: keys.clone(),
        }
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let asked = json!({ "method": method, "params": params });
        let request = signed(&self.url, &self.keys, &asked);
        let response = soon(request.send()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["content-type"],
            "application/nostr+json+rpc"
        );
        soon(response.json()).await.unwrap()
    }

    async fn get(&self, method: &str) -> Value {
        self.ask(method, json!([])).await["result"].clone()
    }

    async fn does(&self, method: &str, params: Value) {
        assert_eq!(
            self.ask(method, params).await,
            json!({ "result": true }),
            "{method}"
        );
    }
}

fn admins(admins: &[PublicKey]) -> impl FnOnce(&mut Options) {
    let admins = admins.to_vec();
    move |options| options.admins = admins
}

async fn information(relay: &Relay) -> Value {
    let asked = client()
        .get(relay.page("/"))
        .header("accept", "application/nostr+json");
    soon(soon(asked.send()).await.unwrap().json())
        .await
        .unwrap()
}

#[tokio::test]
async fn whom_the_operator_bans_is_refused_at_once_and_after_a_restart() {
    let (admin, cheat) = (Keys::generate(), Keys::generate());
    let hex = cheat.public_key().to_hex();
    let relay = Relay::start_with(admins(&[admin.public_key()])).await;
    let operator = Operator::of(&relay, &admin);
    let mut open = relay.client().await;
    open.keep(&profile(&cheat, "before", 10)).await;

    operator.does("banpubkey", json!([hex, "spam"])).await;
    let listed = json!([{ "pubkey": hex, "reason": "spam" }]);
    assert_eq!(operator.get("listbannedpubkeys").await, listed);
    let refused = profile(&cheat, "after", 0);
    open.refused(&refused, "banned").await;
    open.keep(&profile(&Keys::generate(), "another", 0)).await;

    let folder = relay.stop().await;
    let relay = Relay::start_in(folder, admins(&[admin.public_key()])).await;
    let operator = Operator::of(&relay, &admin);
    let mut open = relay.client().await;
    open.refused(&refused, "banned").await;
    operator.does("unbanpubkey", json!([hex])).await;
    open.keep(&refused).await;
    assert_eq!(operator.get("listbannedpubkeys").await, json!([]));
}

#[tokio::test]
async fn an_event_that_the_operator_bans_is_gone_and_does_not_come_back() {
    let admin = Keys::generate();
    let relay = Relay::start_with(|options| options.pubkey = Some(admin.public_key())).await;
    let operator = Operator::of(&relay, &admin);
    let event: Event = attestation(&Keys::generate());
    let id = event.id.to_hex();
    let mut client = relay.client().await;
    client.keep(&event).await;
    operator.does("banevent", json!([id, "libel"])).await;
    assert!(client.stored(&Filter::new().id(event.id)).await.is_empty());
    client.refused(&event, "").await;
    let listed = json!([{ "id": id, "reason": "libel" }]);
    assert_eq!(operator.get("listbannedevents").await, listed);
    operator.does("allowevent", json!([id])).await;
    client.keep(&event).await;
}

#[tokio::test]
async fn the_operator_chooses_kinds() {
    let admin = Keys::generate();
    let relay = Relay::start_with(admins(&[admin.public_key()])).await;
    let operator = Operator::of(&relay, &admin);
    let mut client = relay.client().await;
    let note = plain(&Keys::generate(), 1, "hello", [], from_now(0));
    client.refused(&note, "kind 1").await;
    operator.does("allowkind", json!([1])).await;
    client.keep(&note).await;
    operator.does("disallowkind", json!([0])).await;
    client
        .refused(&profile(&Keys::generate(), "me", 0), "kind 0")
        .await;
    let kinds = operator.get("listallowedkinds").await;
    let kinds = kinds.as_array().unwrap();
    for (kind, is_allowed) in [(0, false), (1, true), (2, false), (5, true), (8602, true)] {
        assert_eq!(kinds.contains(&json!(kind)), is_allowed, "{kind}");
    }
}

#[tokio::test]
async fn the_relay_is_called_as_its_operator_says() {
    let admin = Keys::generate();
    let relay = Relay::start_with(admins(&[admin.public_key()])).await;
    let operator = Operator::of(&relay, &admin);
    for (method, value) in [
        ("changerelayname", "Elsewhere"),
        ("changerelaydescription", "Not <here>"),
        ("changerelayicon", "https://relay.example/icon.png"),
    ] {
        operator.does(method, json!([value])).await;
    }
    let document = information(&relay).await;
    assert_eq!(document["name"], "Elsewhere");
    assert_eq!(document["description"], "Not <here>");
    assert_eq!(document["icon"], "https://relay.example/icon.png");
    let page = soon(client().get(relay.page("/")).send()).await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("Elsewhere") && page.contains("Not &lt;here&gt;"));
    let refused = operator
        .ask("changerelayname", json!(["x".repeat(501)]))
        .await;
    assert_eq!(
        refused,
        json!({ "error": "a text has 501 bytes, more than 500" })
    );
}

#[tokio::test]
async fn nobody_else_manages_the_relay() {
    let admin = Keys::generate();
    let relay = Relay::start_with(admins(&[admin.public_key()])).await;
    let url = relay.page("/");
    let asked = json!({ "method": "listbannedpubkeys", "params": [] });
    let status = async |request: RequestBuilder| soon(request.send()).await.unwrap().status();

    let right = signed(&url, &admin, &asked);
    assert_eq!(status(right.try_clone().unwrap()).await, StatusCode::OK);
    let again = status(right).await;
    assert_eq!(
        again,
        StatusCode::UNAUTHORIZED,
        "the same request once more"
    );
    let stranger = signed(&url, &Keys::generate(), &asked);
    assert_eq!(status(stranger).await, StatusCode::FORBIDDEN);
    let unsigned = client()
        .post(&url)
        .header("content-type", "application/nostr+json+rpc")
        .body(asked.to_string());
    assert_eq!(status(unsigned).await, StatusCode::UNAUTHORIZED);
    let other = signed(&url, &admin, &asked).body(r#"{"method":"banpubkey"}"#);
    assert_eq!(
        status(other).await,
        StatusCode::UNAUTHORIZED,
        "another body"
    );
    let long = signed(&url, &admin, &asked).body("x".repeat(70_000));
    assert_eq!(status(long).await, StatusCode::PAYLOAD_TOO_LARGE);
    let nonsense = signed(&url, &admin, &json!(7));
    assert_eq!(status(nonsense).await, StatusCode::BAD_REQUEST);

    let own = admin.public_key().to_hex();
    let operator = Operator::of(&relay, &admin);
    let said = operator.ask("banpubkey", json!([own])).await;
    assert!(
        said["error"].as_str().unwrap().contains("manages"),
        "{said}"
    );
    let methods = operator.get("supportedmethods").await;
    assert!(methods.as_array().unwrap().contains(&json!("blockip")));
}

#[tokio::test]
async fn an_address_that_is_blocked_is_not_talked_to() {
    let admin = Keys::generate();
    let relay = Relay::start_with(|options| {
        options.admins = vec![admin.public_key()];
        options.proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let operator = Operator::of(&relay, &admin);
    let url = relay.handle.url();
    let mut open = Client::connect_for(&url, "198.51.100.7").await;
    let mut other = Client::connect_for(&url, "198.51.100.8").await;
    operator
        .does("blockip", json!(["198.51.100.7", "flood"]))
        .await;
    let (heard, _) = open.hear_out().await;
    assert!(
        heard
            .iter()
            .any(|said| said.to_string().contains("blocked")),
        "{heard:?}"
    );
    other
        .keep(&profile(&Keys::generate(), "neighbour", 0))
        .await;
    let from = async |address: &str| {
        let request = client()
            .get(relay.page("/health"))
            .header("x-forwarded-for", address);
        soon(request.send()).await.unwrap().status()
    };
    assert_eq!(from("198.51.100.7").await, StatusCode::FORBIDDEN);
    assert_eq!(from("1.1.1.1, 198.51.100.7").await, StatusCode::FORBIDDEN);
    assert_eq!(from("198.51.100.7, 1.1.1.1").await, StatusCode::OK);
    assert_eq!(from("198.51.100.8").await, StatusCode::OK);
    let listed = json!([{ "ip": "198.51.100.7", "reason": "flood" }]);
    assert_eq!(operator.get("listblockedips").await, listed);
    operator.does("unblockip", json!(["198.51.100.7"])).await;
    assert_eq!(from("198.51.100.7").await, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_another_site_may_manage_the_relay() {
    let relay = Relay::start().await;
    let asked = client().request(reqwest::Method::OPTIONS, relay.page("/"));
    let response = soon(asked.send()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let allowed = response.headers()["access-control-allow-headers"].to_str();
    assert!(allowed.unwrap().contains("Authorization"));
    let unsigned = client()
        .post(relay.page("/"))
        .header("content-type", "application/nostr+json+rpc")
        .body("{}");
    let response = soon(unsigned.send()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let said: Value = response.json().await.unwrap();
    assert_eq!(said, json!({ "error": "sign the request (NIP-98)" }));
}

#[tokio::test]
async fn metrics_are_this_machines_own_unless_they_are_public() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    client.keep(&profile(&Keys::generate(), "me", 0)).await;
    let response = scrape(&relay, None).await;
    assert_eq!(response.status(), StatusCode::OK);
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = response.text().await.unwrap();
    for line in [
        "infernet_relay_connections 1",
        "infernet_relay_events_admitted_total{source=\"client\"} 1",
        "infernet_relay_messages_total{type=\"EVENT\"} 1",
    ] {
        assert!(text.lines().any(|said| said == line), "{line} in\n{text}");
    }
    let through = scrape(&relay, Some("192.0.2.1")).await;
    assert_eq!(through.status(), StatusCode::NOT_FOUND);

    let public = Relay::start_with(|options| options.public_metrics = true).await;
    let through = scrape(&public, Some("192.0.2.1")).await;
    assert_eq!(through.status(), StatusCode::OK);
}

#[tokio::test]
async fn metrics_may_have_a_port_of_their_own() {
    let relay = Relay::start_with(|options| options.metrics = Some("127.0.0.1:0".to_owned())).await;
    let address = relay.handle.metrics_address().unwrap();
    let get = async |path: &str| {
        let request = client().get(format!("http://{address}{path}"));
        soon(request.header("x-forwarded-for", "192.0.2.1").send())
            .await
            .unwrap()
    };
    let text = get("/metrics").await.text().await.unwrap();
    assert!(text.contains("infernet_relay_connections 0"), "{text}");
    assert_eq!(get("/").await.status(), StatusCode::NOT_FOUND);
    let taken = Options {
        listen: "127.0.0.1:0".to_owned(),
        metrics: Some(address.to_string()),
        ..Options::new(tempfile::tempdir().unwrap().path())
    };
    let refused = run(taken, Shutdown::new()).await.unwrap_err().to_string();
    assert!(refused.contains("--metrics"), "{refused}");
}

async fn scrape(relay: &Relay, through_a_proxy_from: Option<&str>) -> reqwest::Response {
    let mut request = client().get(relay.page("/metrics"));
    if let Some(address) = through_a_proxy_from {
        request = request.header("x-forwarded-for", address);
    }
    soon(request.send()).await.unwrap()
}

#[tokio::test]
async fn what_the_operator_decided_is_a_file_of_its_own() {
    let (admin, friend) = (Keys::generate(), Keys::generate());
    let relay = Relay::start_with(admins(&[admin.public_key()])).await;
    let hex = friend.public_key().to_hex();
    let operator = Operator::of(&relay, &admin);
    operator.does("allowpubkey", json!([hex])).await;
    let folder = relay.stop().await;
    let file = |folder: &Path| std::fs::read_to_string(folder.join("lists.jsonl")).unwrap();
    assert_eq!(
        file(folder.path()),
        format!("{{\"allow_key\":[\"{hex}\",\"\"]}}\n")
    );
}
