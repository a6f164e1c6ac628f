//! Damaged and hostile model files are errors that say what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use infernet_engine::{LoadError, ModelSource, TorchEngine};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::harness::{options, reference_folder};

fn load(path: impl Into<PathBuf>) -> Result<TorchEngine, LoadError> {
    TorchEngine::load(options(vec![ModelSource::new(path)]))
}

fn refusal(path: impl Into<PathBuf>) -> String {
    match load(path) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error.to_string(),
    }
}

/// A copy of the tiny Llama's folder, to be damaged.
fn copy() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(reference_folder().join("tiny-llama")).unwrap() {
        let file = entry.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

fn replace(file: PathBuf, from: &str, to: &str) {
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

fn gguf() -> Vec<u8> {
    fs::read(reference_folder().join("tiny-llama.gguf")).unwrap()
}

fn write(folder: &Path, bytes: &[u8]) -> PathBuf {
    let file = folder.join("model.gguf");
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_gguf_that_is_cut_off() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), gguf());
    for length in [0, 3, 4, 20, 1000, 9000, whole.len() / 2, whole.len() - 1] {
        let file = write(folder.path(), &whole[..length]);
        assert!(matches!(
            load(file),
            Err(LoadError::Damaged { .. } | LoadError::Unreadable { .. })
        ));
    }
}

#[test]
fn something_that_is_no_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), b"MZ this is a program");
    assert!(refusal(file).contains("no GGUF"));
}

#[test]
fn safetensors_that_are_cut_off() {
    let folder = copy();
    let shard = folder.path().join("model-00002-of-00003.safetensors");
    let bytes = fs::read(&shard).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        fs::write(&shard, &bytes[..length]).unwrap();
        assert!(load(folder.path()).is_err(), "cut at {length}");
    }
    fs::remove_file(&shard).unwrap();
    assert!(refusal(folder.path()).contains("model-00002"));
}

#[test]
fn an_index_that_points_elsewhere() {
    let folder = copy();
    let index = folder.path().join("model.safetensors.index.json");
    replace(index, "model-00001-of", "../model-00001-of");
    assert!(refusal(folder.path()).contains("elsewhere"));
}

#[test]
fn a_config_that_does_not_fit_the_weights() {
    for (from, to, word) in [
        ("\"hidden_size\": 64", "\"hidden_size\": 63", "shape"),
        ("\"hidden_size\": 64", "\"hidden_size\": -1", "width"),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "layers.2",
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 3",
            "heads",
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 0",
            "heads",
        ),
        ("\"vocab_size\": 320", "\"vocab_size\": 300", "tokens"),
        (
            "\"vocab_size\": 320",
            "\"vocab_size\": 9223372036854775807",
            "vocabulary",
        ),
        (
            "\"rope_type\": \"default\"",
            "\"rope_type\": \"longrope\"",
            "rope scaling of type longrope",
        ),
        ("\"silu\"", "\"relu\"", "relu"),
        ("LlamaForCausalLM", "FutureForCausalLM", "FutureForCausalLM"),
        ("\"rms_norm_eps\": 1e-06,", "", "rms_norm_eps"),
        ("{", "[", "damaged"),
    ] {
        let folder = copy();
        replace(folder.path().join("config.json"), from, to);
        let said = refusal(folder.path());
        assert!(said.contains(word), "{to}: {said}");
    }
}

#[test]
fn a_tokenizer_or_template_that_is_broken() {
    let folder = copy();
    fs::write(folder.path().join("chat_template.jinja"), "{% for %}").unwrap();
    assert!(refusal(folder.path()).contains("Jinja"));
    let folder = copy();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(refusal(folder.path()).contains("tokenizer.json is damaged"));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(refusal(folder.path()).contains("cannot read"));
}

#[test]
fn a_path_that_holds_no_model() {
    assert!(refusal("/no/such/model").contains("cannot read /no/such/model"));
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(folder.path()).contains("neither config.json nor a GGUF"));
}

#[test]
fn the_same_model_twice() {
    let source = ModelSource::new(reference_folder().join("tiny-llama"));
    let said = TorchEngine::load(options(vec![source.clone(), source]));
    assert!(matches!(said, Err(LoadError::Models(_))));
    assert!(TorchEngine::load(options(vec![])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Bytes changed in the header of a real file: loaded or refused, never a
    /// crash. The first kilobytes are metadata and tensor places.
    #[test]
    fn a_gguf_with_changed_bytes_never_panics(
        changes in prop::collection::vec((0_usize..12_000, any::<u8>()), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = gguf();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        let _ = load(write(folder.path(), &bytes));
    }
}
