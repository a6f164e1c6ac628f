//! A model that cannot be run ends the program with a word that says why, before
//! anything is announced.

use std::fs;
use std::path::{Path, PathBuf};

use infernet_protocol::kinds;
use nostr::{Filter, Kind};

use super::buyer::Buyer;
use super::house::Relay;
use super::process::program;

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/reference")
}

/// A copy of the tiny Llama with another text in its `config.json`.
fn changed(folder: &Path, from: &str, to: &str) {
    for entry in fs::read_dir(reference().join("tiny-llama")).unwrap() {
        let file = entry.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let config = folder.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(config, text.replace(from, to)).unwrap();
}

/// Offers a model; gives the exit code and what was said.
fn offer(model: &Path, relay: &Relay) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = program(home.path());
    command.args(["start", "--relay", relay.url().as_str(), "--model"]);
    let output = command.arg(model).output().unwrap();
    assert!(output.stdout.is_empty(), "it said that it is ready");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_run_is_never_announced() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.gguf");
    let whole = fs::read(reference().join("tiny-llama.gguf")).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let (code, said) = offer(&cut, &relay);
    assert_eq!(code, Some(1));
    assert!(said.contains("cut.gguf is damaged"), "{said}");
    for (from, to, word) in [
        (
            "LlamaForCausalLM",
            "FutureForCausalLM",
            "the architecture FutureForCausalLM (there are LlamaForCausalLM,",
        ),
        (
            "\"rope_type\": \"default\"",
            "\"rope_type\": \"longrope\"",
            "rope scaling of type longrope",
        ),
        ("\"silu\"", "\"relu\"", "the activation relu"),
        ("\"hidden_size\": 64", "\"hidden_size\": 63", "is damaged: "),
    ] {
        changed(folder.path(), from, to);
        let (code, said) = offer(folder.path(), &relay);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(word), "{said}");
    }
    let buyer = Buyer::connect(&[&relay]).await;
    let announced = Filter::new().kind(Kind::from(kinds::ANNOUNCEMENT));
    assert!(buyer.fetch(announced).await.is_empty());
}
