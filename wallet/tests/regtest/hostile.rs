//! Requests that are garbage, stale, foreign, too much.

use std::time::Duration;

use infernet_wallet::nip47::{Cipher, Code, REQUEST};
use ldk_node::lightning_invoice::Bolt11Invoice;
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
    let chain = tempfile::tempdir().unwrap();
    let bitcoind = Bitcoind::start(&executable, chain.path()).unwrap();
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
    let other = foreign_invoice(Duration::from_secs(3_600)).to_string();
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
pub fn foreign_invoice(expiry: Duration) -> Bolt11Invoice {
    use ldk_node::bitcoin::hashes::{Hash, sha256};
    use ldk_node::bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
    use ldk_node::lightning::types::payment::PaymentSecret;
    use ldk_node::lightning_invoice::{Currency, InvoiceBuilder};
    let key = SecretKey::from_slice(&[9; 32]).unwrap();
    InvoiceBuilder::new(Currency::Regtest)
        .description(String::new())
        .payment_hash(sha256::Hash::hash(&[9]))
        .payment_secret(PaymentSecret([9; 32]))
        .current_timestamp()
        .expiry_time(expiry)
        .min_final_cltv_expiry_delta(42)
        .build_signed(|hash: &Message| Secp256k1::new().sign_ecdsa_recoverable(hash, &key))
        .unwrap()
}

async fn not_heard(client: &Client) {
    let text = json!({ "method": "get_info", "params": {} }).to_string();
    let past = Timestamp::from_secs(Timestamp::now().as_secs() - 10);
    let expired = client.envelope().request(&text, Some(past)).unwrap();
    assert!(
        client.ask_within(&expired, SILENCE).await.is_none(),
        "an expired request was answered"
    );
    let sealed = client.sealed(&text);
    let odd = EventBuilder::new(REQUEST, sealed.content.clone())
        .tags(sealed.tags.clone())
        .tag(Tag::parse(["expiration", "soon"]).unwrap());
    let odd = odd.sign_with_keys(&client.string.client).unwrap();
    assert!(
        client.ask_within(&odd, SILENCE).await.is_none(),
        "a request that expires at no known time was answered"
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
    assert!(
        client.link.publish(&asked).await.is_err(),
        "the wallet's relay passes on what strangers say"
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

/// What `init` says in that folder, and whether it made a wallet.
fn init(folder: &std::path::Path, more: &[&str]) -> (bool, String) {
    let chain = ["--bitcoind", "http://a:b@localhost:1"];
    let output = std::process::Command::new(crate::process::EXECUTABLE)
        .arg("--home")
        .arg(folder)
        .args(["init", "--network", "regtest"])
        .args([&chain, more].concat())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_wallet_is_made_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("wallet");
    for wrong in [
        ["--lsp", "nobody"],
        ["--lsp", "nobody@localhost:1"],
        ["--relay", "nowhere"],
        ["--listen", "nowhere"],
        ["--no-reserve-for", "nobody"],
        ["--alias", "a name that is longer than thirty-two bytes"],
    ] {
        let (made, said) = init(&home, &wrong);
        assert!(!made && said.contains("error: "), "{wrong:?}: {said}");
        assert!(!home.join("seed-words").exists(), "{wrong:?} left a seed");
    }
    assert!(init(&home, &[]).0);
    let words = std::fs::read(home.join("seed-words")).unwrap();
    assert!(!init(&home, &[]).0, "a wallet was made over another");
    // Interrupted before it wrote the settings, or given the words of an old wallet.
    std::fs::remove_file(home.join("wallet.toml")).unwrap();
    let (made, said) = init(&home, &["--real-money"]);
    assert!(made && said.contains("the words that were in"), "{said}");
    assert!(
        !said.contains("real bitcoin"),
        "regtest is not real: {said}"
    );
    assert_eq!(std::fs::read(home.join("seed-words")).unwrap(), words);
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
        std::fs::metadata(wallet.home.join(name))
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
