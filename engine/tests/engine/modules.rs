//! TorchScript modules give what libtorch's Python gives.

use std::fs;

use infernet_engine::{Compute, Engine, Error, ModelSource, TorchEngine};
use infernet_protocol::inference::{Dtype, Prompt, Task};
use infernet_protocol::tensor::{Element, Tensor};
use serde::Deserialize;
use tempfile::TempDir;

use crate::harness::{load, model, options, read, reference_folder, request, wait};

const FOLDER: &str = "tiny-classifier";

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

fn cases() -> Vec<Case> {
    let reference: Reference = read("engine/tests/reference/tiny-classifier.json");
    reference.cases
}

fn classifier() -> TorchEngine {
    load(reference_folder().join(FOLDER), Dtype::F32)
}

fn run(engine: &TorchEngine, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    let model = model(engine);
    wait(engine.compute(Compute { model, inputs })?.wait())
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let (floats, rest) = tensor.data.as_chunks();
    assert!(rest.is_empty());
    floats
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

#[test]
fn a_module_gives_what_python_gives() {
    let engine = classifier();
    let info = &engine.models()[0];
    assert_eq!((info.task, info.dtype), (Task::Tensors, Dtype::F32));
    assert_eq!(info.name, "tiny-classifier");
    assert_eq!(info.parameters, 6 * 9 + 6 + 4 * 96 + 4);
    assert!(info.interface.is_some());
    for case in cases() {
        // In any order.
        let inputs = case.inputs.into_iter().rev().collect();
        let outputs = run(&engine, inputs).unwrap();
        let [probabilities, class] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        assert_eq!(class, &case.outputs[1]);
        assert_eq!(probabilities.shape, case.outputs[0].shape);
        let pairs = floats(probabilities)
            .into_iter()
            .zip(floats(&case.outputs[0]));
        for (got, expected) in pairs {
            assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        }
    }
}

#[test]
fn tensors_that_a_module_does_not_take_are_refused() {
    let engine = classifier();
    let refused = |change: fn(&mut Vec<Tensor>)| {
        let mut inputs = cases().remove(0).inputs;
        change(&mut inputs);
        match run(&engine, inputs) {
            Err(Error::InvalidTensors(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(Vec::clear).contains("images, temperature"));
    assert!(refused(|i| i[0].name = "pictures".into()).contains("images, temperature"));
    assert!(refused(|i| i[0].shape = vec![1, 1, 4, 16]).contains("is to be u8 [-1, 1, 8, 8]"));
    assert!(refused(|i| i[0].dtype = Element::I8).contains("and is i8 [1, 1, 8, 8]"));
    assert!(refused(|i| i[0].data.truncate(5)).contains("shape"));
    assert!(refused(|i| i.push(i[0].clone())).contains("same name"));
    // What is refused, or asked of the wrong model, ends nothing.
    let wrong = engine.generate(request(&engine, Prompt::Text("sea".into())));
    assert!(matches!(wrong, Err(Error::WrongTask { .. })));
    let tokens = engine.count_tokens(&model(&engine), &Prompt::Text("sea".into()));
    assert!(matches!(tokens, Err(Error::WrongTask { .. })));
    assert!(run(&engine, cases().remove(0).inputs).is_ok());
}

/// A copy of the classifier, to be damaged.
fn copy() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["classifier.pt", "module.json"] {
        let file = reference_folder().join(FOLDER).join(name);
        fs::copy(file, folder.path().join(name)).unwrap();
    }
    folder
}

fn refusal(folder: &TempDir) -> String {
    let said = TorchEngine::load(options(vec![ModelSource::new(folder.path())]));
    said.map(drop).unwrap_err().to_string()
}

fn rewrite(folder: &TempDir, from: &str, to: &str) {
    let path = folder.path().join("module.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_is_no_module_is_refused_when_it_is_loaded() {
    for (from, to, word) in [
        ("\"inputs\"", "\"takes\"", "takes"),
        ("[-1, 1, 8, 8]", "[0, 1, 8, 8]", "a dimension is 0"),
        ("[-1, 1, 8, 8]", "[-2, 1, 8, 8]", "negative"),
        ("\"temperature\"", "\"images\"", "same name"),
        ("\"temperature\"", "\"../up\"", "letters"),
        ("\"u8\"", "\"u9\"", "u9"),
    ] {
        let folder = copy();
        rewrite(&folder, from, to);
        let said = refusal(&folder);
        assert!(said.contains(word), "{to}: {said}");
    }
    // Among plain weights, no code is run.
    let folder = copy();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert!(refusal(&folder).contains("architecture"));
    let folder = copy();
    let script = folder.path().join("classifier.pt");
    let bytes = fs::read(&script).unwrap();
    for bytes in [&bytes[..bytes.len() / 2], b"MZ this is a program"] {
        fs::write(&script, bytes).unwrap();
        assert!(refusal(&folder).contains("no TorchScript module"));
    }
    fs::copy(&script, folder.path().join("second.ts")).unwrap();
    assert!(refusal(&folder).contains("several TorchScript files"));
    fs::remove_file(folder.path().join("second.ts")).unwrap();
    fs::remove_file(script).unwrap();
    assert!(refusal(&folder).contains("no .pt or .ts file"));
}

#[test]
fn outputs_that_are_not_what_was_announced_fail_the_request_alone() {
    let folder = copy();
    rewrite(&folder, "\"i64\"", "\"i32\"");
    let engine = load(folder.path(), Dtype::F32);
    for _ in 0..2 {
        let failed = run(&engine, cases().remove(0).inputs).unwrap_err();
        let Error::Computation(why) = failed else {
            panic!("{failed}");
        };
        assert!(why.contains("class is to be i32"), "{why}");
    }
}

#[test]
fn a_module_is_known_by_its_script_and_its_interface() {
    let same = copy();
    rewrite(&same, "classifier", "classifier");
    assert_eq!(
        model(&load(same.path().join("classifier.pt"), Dtype::F32)),
        model(&classifier())
    );
    rewrite(&same, "image-classification", "guessing");
    assert_ne!(model(&load(same.path(), Dtype::F32)), model(&classifier()));
}
