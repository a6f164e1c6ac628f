//! Requests that are garbage, stale, foreign, too much.

use std::time::Duration;

use infernet_wallet::nip47::{Cipher, Code, REQUEST};
use nostr::{EventBuilder, Keys, Tag, Timestamp};
use serde_json::json;

use crate::bitcoind::{self, Bitcoind};
use crate::client::Client;
use crate::process::Process;

/// How long silence has to last to count as such.
const SILENCE: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_harms_nobody() {
    let test = "what_makes_no_sense_is_refused_and_harms_nobody";
    let Some(executable) = bitcoind::find(test) else {
        return;
    };
    let bitcoind = Bitcoind::start(&executable);
    let mut wallet = Process::init("alone", &bitcoind, &[]);
    wallet.start();
    let client = Client::new(&wallet.connect(&["--name", "one"])).await;
    refused_with_a_reason(&client).await;
    not_heard(&client).await;
    a_flood_is_bounded(&client).await;
    assert!(client.ask("get_info", json!({})).await.is_ok());
    the_process_is_alone(&wallet);
}

async fn refused_with_a_reason(client: &Client) {
    let cases = [
        ("get_everything", json!({}), Code::NotImplemented),
        ("pay_keysend", json!({ "amount": 1 }), Code::NotImplemented),
        ("make_invoice", json!({}), Code::Other),
        ("make_invoice", json!({ "amount": 0 }), Code::Other),
        ("make_invoice", json!({ "amount": -5 }), Code::Other),
        ("make_invoice", json!({ "amount": "much" }), Code::Other),
        (
            "make_invoice",
            json!({ "amount": 1, "expiry": 1u64 << 40 }),
            Code::Other,
        ),
        (
            "make_invoice",
            json!({ "amount": 1, "description": "x".repeat(640) }),
            Code::Other,
        ),
        (
            "make_invoice",
            json!({ "amount": 1, "description_hash": "zz" }),
            Code::Other,
        ),
        (
            "make_invoice",
            json!({ "amount": 1, "metadata": "x".repeat(5_000) }),
            Code::Other,
        ),
        ("pay_invoice", json!({ "invoice": "lnbc1" }), Code::Other),
        (
            "pay_invoice",
            json!({ "invoice": "x".repeat(20_000) }),
            Code::Other,
        ),
        ("pay_invoice", json!([]), Code::Other),
        ("lookup_invoice", json!({}), Code::Other),
        (
            "lookup_invoice",
            json!({ "payment_hash": "00".repeat(32) }),
            Code::NotFound,
        ),
        (
            "settle_hold_invoice",
            json!({ "preimage": "00".repeat(32) }),
            Code::NotFound,
        ),
        (
            "cancel_hold_invoice",
            json!({ "payment_hash": "00".repeat(32) }),
            Code::NotFound,
        ),
        (
            "list_transactions",
            json!({ "type": "sideways" }),
            Code::Other,
        ),
    ];
    for (method, params, code) in cases {
        let refused = client.ask(method, params.clone()).await;
        assert_eq!(refused.unwrap_err().code, code, "{method} {params}");
    }
    for text in [" ", "{", "[]", "null", "{\"params\":{}}", "\u{0}"] {
        let refused = client.ask_with(&client.sealed(text)).await.unwrap();
        assert_eq!(refused.unwrap_err().code, Code::Other, "{text:?}");
    }
    let own = client
        .ask("make_invoice", json!({ "amount": 1_000 }))
        .await
        .unwrap();
    let paid = client
        .ask("pay_invoice", json!({ "invoice": own["invoice"] }))
        .await;
    assert_eq!(paid.unwrap_err().code, Code::Other);
    let other = foreign_invoice();
    let poor = client
        .ask("pay_invoice", json!({ "invoice": other, "amount": 1_000 }))
        .await;
    assert_eq!(poor.unwrap_err().code, Code::InsufficientBalance);
    let strange = EventBuilder::new(REQUEST, "AAAA").tags([
        Tag::public_key(client.string.service),
        Tag::parse(["encryption", "rot13"]).unwrap(),
    ]);
    let strange = strange.sign_with_keys(&client.string.client).unwrap();
    let refused = client.ask_with(&strange).await.unwrap();
    assert_eq!(refused.unwrap_err().code, Code::UnsupportedEncryption);
}

/// An invoice of a node that is not there.
fn foreign_invoice() -> String {
    use ldk_node::bitcoin::hashes::{Hash, sha256};
    use ldk_node::bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
    use ldk_node::lightning::types::payment::PaymentSecret;
    use ldk_node::lightning_invoice::{Currency, InvoiceBuilder};
    let key = SecretKey::from_slice(&[9; 32]).unwrap();
    let invoice = InvoiceBuilder::new(Currency::Regtest)
        .description(String::new())
        .payment_hash(sha256::Hash::hash(&[9]))
        .payment_secret(PaymentSecret([9; 32]))
        .current_timestamp()
        .min_final_cltv_expiry_delta(42)
        .build_signed(|hash: &Message| Secp256k1::new().sign_ecdsa_recoverable(hash, &key));
    invoice.unwrap().to_string()
}

async fn not_heard(client: &Client) {
    let text = json!({ "method": "get_info", "params": {} }).to_string();
    let past = Timestamp::from_secs(Timestamp::now().as_secs() - 10);
    let expired = client.envelope().request(&text, Some(past)).unwrap();
    assert!(
        client.ask_within(&expired, SILENCE).await.is_none(),
        "an expired request was answered"
    );
    // A stranger who knows the wallet's key, and garbage under the right key.
    let stranger = Client {
        string: std::sync::Arc::new(infernet_wallet::nip47::ConnectionString {
            client: Keys::generate(),
            ..(*client.string).clone()
        }),
        ..client.clone()
    };
    let asked = stranger.request("get_info", json!({}));
    assert!(
        stranger.ask_within(&asked, SILENCE).await.is_none(),
        "a stranger was answered"
    );
    let garbage = EventBuilder::new(REQUEST, "AAAA").tag(Tag::public_key(client.string.service));
    let garbage = garbage.sign_with_keys(&client.string.client).unwrap();
    assert!(client.ask_within(&garbage, SILENCE).await.is_none());
    let old = Cipher::Nip44;
    let stale = nostr::nips::nip44::encrypt(
        client.string.client.secret_key(),
        &client.string.service,
        &text,
        nostr::nips::nip44::Version::V2,
    );
    let stale = EventBuilder::new(REQUEST, stale.unwrap())
        .tags([
            Tag::public_key(client.string.service),
            Tag::parse(["encryption", old.name()]).unwrap(),
        ])
        .custom_created_at(Timestamp::from_secs(Timestamp::now().as_secs() - 7_200))
        .sign_with_keys(&client.string.client)
        .unwrap();
    assert!(
        client.ask_within(&stale, SILENCE).await.is_none(),
        "a stale request was answered"
    );
    // The wallet's relay serves nobody else.
    let foreign = EventBuilder::text_note("hello")
        .sign_with_keys(&Keys::generate())
        .unwrap();
    assert!(client.link.publish(&foreign).await.is_err());
}

async fn a_flood_is_bounded(client: &Client) {
    let asks = (0..1_005).map(|_| client.ask("make_invoice", json!({ "amount": 1_000 })));
    let mut codes = std::collections::BTreeMap::new();
    for chunk in chunks(asks.collect(), 20) {
        for answer in futures::future::join_all(chunk).await {
            let code = answer
                .err()
                .map_or("made".to_owned(), |refusal| format!("{:?}", refusal.code));
            *codes.entry(code).or_insert(0) += 1;
        }
    }
    assert!(codes["RateLimited"] >= 5, "{codes:?}");
}

fn chunks<T>(mut all: Vec<T>, size: usize) -> Vec<Vec<T>> {
    let mut chunks = Vec::new();
    while !all.is_empty() {
        let rest = all.split_off(size.min(all.len()));
        chunks.push(std::mem::replace(&mut all, rest));
    }
    chunks
}

fn the_process_is_alone(wallet: &Process) {
    use std::os::unix::fs::PermissionsExt;
    let said = wallet.try_cli(&["start"]).unwrap_err();
    assert!(said.contains("is running already"), "{said}");
    let said = wallet
        .try_cli(&[
            "init",
            "--network",
            "regtest",
            "--bitcoind",
            "http://a:b@localhost:1",
        ])
        .unwrap_err();
    assert!(said.contains("there is a wallet here already"), "{said}");
    let mode = |name: &str| {
        std::fs::metadata(wallet.home.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        [
            mode(""),
            mode("ldk"),
            mode("seed-words"),
            mode("wallet.toml"),
            mode("control"),
            mode("records.sqlite-wal")
        ],
        [0o700, 0o700, 0o600, 0o600, 0o600, 0o600]
    );
    let said = wallet
        .try_cli(&["channel", "buy", "--sats", "1000"])
        .unwrap_err();
    assert!(said.contains("LSPS2"), "{said}");
    let said = wallet
        .try_cli(&["channel", "open", "nobody", "--sats", "1000"])
        .unwrap_err();
    assert!(said.contains("<node id>@<host>:<port>"), "{said}");
}
