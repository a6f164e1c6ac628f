//! A model's identity is that of `nips/models.md`, and depends on nothing else.

use std::fs;

use infernet_engine::{Engine, Manifest, ModelSource, TorchEngine};
use infernet_protocol::inference::{Dtype, ModelId};
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{fetched, load, model, options, read, reference_folder, smollm2, tiny};

#[derive(Deserialize)]
struct Examples {
    examples: Vec<Example>,
}

#[derive(Deserialize)]
struct Example {
    manifest: Value,
    canonical: String,
    id: ModelId,
}

fn examples() -> Vec<Example> {
    read::<Examples>("nips/examples/model.json").examples
}

#[test]
fn the_document_s_examples_hold() {
    let examples = examples();
    assert_eq!(examples.len(), 4);
    for example in examples {
        let manifest: Manifest = serde_json::from_value(example.manifest.clone()).unwrap();
        assert_eq!(manifest.canonical_json(), example.canonical);
        assert_eq!(manifest.id(), example.id);
        assert_eq!(serde_json::to_value(&manifest).unwrap(), example.manifest);
    }
}

#[test]
fn order_in_a_manifest_does_not_matter() {
    let example = &examples()[2];
    let mut manifest: Manifest = serde_json::from_value(example.manifest.clone()).unwrap();
    manifest.files.reverse();
    manifest.end_tokens.reverse();
    assert_eq!(manifest.id(), example.id);
}

#[test]
fn the_tiny_llama_has_the_identity_of_its_example() {
    assert_eq!(model(tiny()), examples()[2].id);
}

#[test]
fn the_tiny_classifier_has_the_identity_of_its_example() {
    let classifier = load(reference_folder().join("tiny-classifier"), Dtype::F32);
    assert_eq!(model(&classifier), examples()[3].id);
}

#[test]
fn smollm2_has_the_identity_of_its_example() {
    let test = "smollm2_has_the_identity_of_its_example";
    if let Some(engine) = smollm2(test) {
        assert_eq!(model(engine), examples()[0].id);
    }
}

#[test]
fn minilm_has_the_identity_of_its_example() {
    let test = "minilm_has_the_identity_of_its_example";
    if let Some(folder) = fetched(test, "all-minilm-l6-v2") {
        // In whatever number format it is computed.
        assert_eq!(model(&load(folder, Dtype::Bf16)), examples()[1].id);
    }
}

#[test]
fn neither_name_nor_place_nor_bystanders_matter() {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(reference_folder().join("tiny-llama")).unwrap() {
        let file = entry.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    fs::write(folder.path().join("README.md"), "other words").unwrap();
    let source = ModelSource {
        name: Some("another".into()),
        ..ModelSource::new(folder.path())
    };
    let engine = TorchEngine::load(options(vec![source])).unwrap();
    assert_eq!(engine.models()[0].name, "another");
    assert_eq!(model(&engine), model(tiny()));

    let template = folder.path().join("chat_template.jinja");
    let changed = fs::read_to_string(&template).unwrap() + " ";
    fs::write(template, changed).unwrap();
    assert_ne!(model(&load(folder.path(), Dtype::F32)), model(tiny()));
}
