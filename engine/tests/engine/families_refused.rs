//! Models that no family here can compute are refused with a word that names
//! what is missing, and damaged ones with what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use infernet_engine::{ModelSource, TorchEngine};
use tempfile::TempDir;

use crate::harness::{options, reference_folder};

fn refusal(path: &Path) -> String {
    match TorchEngine::load(options(vec![ModelSource::new(path)])) {
        Ok(_) => panic!("{} was loaded", path.display()),
        Err(error) => error.to_string(),
    }
}

/// A copy of a family's folder with another text in its `config.json`.
fn changed(family: &str, from: &str, to: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(reference_folder().join("families").join(family)).unwrap() {
        let file = entry.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let config = copy.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{from} is not in {family}");
    fs::write(config, text.replacen(from, to, 1)).unwrap();
    copy
}

#[test]
fn folders_that_want_what_is_not_there() {
    for (family, from, to, said) in [
        (
            "llama2",
            "LlamaForCausalLM",
            "MixtralForCausalLM",
            "the architecture MixtralForCausalLM (there are LlamaForCausalLM, MistralForCausalLM,",
        ),
        (
            "llama2",
            "\"hidden_act\": \"silu\"",
            "\"hidden_act\": \"relu2\"",
            "the activation relu2 (there are silu and gelu_pytorch_tanh) is not supported",
        ),
        (
            "llama3",
            "\"rope_type\": \"llama3\"",
            "\"rope_type\": \"longrope\"",
            "rope scaling of type longrope (there are linear, llama3 and yarn)",
        ),
        (
            "llama3",
            "\"vocab_size\"",
            "\"num_local_experts\": 8, \"vocab_size\"",
            "a mixture of experts",
        ),
        (
            "llama3",
            "\"vocab_size\"",
            "\"quantization_config\": {\"quant_method\": \"gptq\"}, \"vocab_size\"",
            "weights quantised by gptq",
        ),
        (
            "qwen3",
            "\"vocab_size\"",
            "\"partial_rotary_factor\": 0.5, \"vocab_size\"",
            "a part of each head",
        ),
        (
            "gemma3",
            "\"final_logit_softcapping\": null",
            "\"final_logit_softcapping\": 30.0",
            "a soft cap",
        ),
        (
            "gemma3",
            "\"use_bidirectional_attention\": false",
            "\"use_bidirectional_attention\": true",
            "both directions",
        ),
        (
            "gemma3-multimodal",
            "\"full_attention\"\n",
            "\"chunked_attention\"\n",
            "a layer of type chunked_attention",
        ),
    ] {
        let word = refusal(changed(family, from, to).path());
        assert!(word.contains(said), "{to}: {word}");
        assert!(word.contains("config.json cannot be run"), "{to}: {word}");
    }
}

#[test]
fn folders_whose_config_is_damaged() {
    for (family, from, to, said) in [
        (
            "llama3",
            "\"factor\": 8.0,",
            "",
            "its rope scaling has no factor",
        ),
        ("llama3", "\"factor\": 8.0", "\"factor\": 0", "rope theta"),
        (
            "llama3",
            "\"rope_theta\": 3000.0",
            "\"rope_theta\": -1",
            "rope theta",
        ),
        (
            "mistral",
            "\"sliding_window\": 40",
            "\"sliding_window\": 0",
            "its sliding window cannot be 0",
        ),
        (
            "mistral",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1000000000",
            "its layers cannot be 1000000000",
        ),
        (
            "mistral",
            "\"head_dim\": 16",
            "\"head_dim\": 15",
            "its head width 15 is odd",
        ),
        (
            "mistral",
            "\"hidden_size\": 32,",
            "",
            "it has no hidden_size",
        ),
        (
            "qwen3",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": \"two\"",
            "invalid type",
        ),
        (
            "gemma3-multimodal",
            "\"text_config\"",
            "\"other_config\"",
            "it has no text_config",
        ),
        (
            "gemma3-multimodal",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "3 layers, and 2 layer_types",
        ),
    ] {
        let word = refusal(changed(family, from, to).path());
        assert!(word.contains(said), "{to}: {word}");
        assert!(word.contains("config.json is damaged"), "{to}: {word}");
    }
}

/// A value of a GGUF's metadata.
#[derive(Clone, Copy)]
enum Entry {
    Text(&'static str),
    Number(u32),
    Float(f32),
}

use Entry::{Float, Number, Text};

/// A GGUF with no tensors, whose metadata is a Llama's but for `changes`, which
/// replace entries or add them; `None` takes one away.
fn gguf(folder: &Path, changes: &[(&'static str, Option<Entry>)]) -> PathBuf {
    let mut entries = vec![
        ("general.architecture", Text("llama")),
        ("llama.block_count", Number(1)),
        ("llama.context_length", Number(64)),
        ("llama.embedding_length", Number(32)),
        ("llama.feed_forward_length", Number(32)),
        ("llama.attention.head_count", Number(4)),
        ("llama.attention.layer_norm_rms_epsilon", Float(1e-5)),
    ];
    for (key, change) in changes {
        entries.retain(|(other, _)| other != key);
        entries.extend(change.map(|entry| (*key, entry)));
    }
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    let text = |text: &str, bytes: &mut Vec<u8>| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.bytes());
    };
    for (key, entry) in entries {
        text(key, &mut bytes);
        match entry {
            Number(number) => bytes.extend([4, number].map(u32::to_le_bytes).concat()),
            Float(number) => {
                bytes.extend(6_u32.to_le_bytes());
                bytes.extend(number.to_le_bytes());
            }
            Text(value) => {
                bytes.extend(8_u32.to_le_bytes());
                text(value, &mut bytes);
            }
        }
    }
    let path = folder.join("model.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn ggufs_that_cannot_be_run() {
    let folder = tempfile::tempdir().unwrap();
    for (key, entry, said) in [
        (
            "general.architecture",
            Text("mamba"),
            "the architecture mamba (there are llama, qwen2, qwen3, gemma3) is not supported",
        ),
        ("llama.expert_count", Number(8), "a mixture of experts"),
        (
            "llama.attention.value_length",
            Number(4),
            "values of another width than keys",
        ),
        (
            "llama.rope.dimension_count",
            Number(4),
            "rotary positions on a part of each head",
        ),
        (
            "llama.rope.scaling.type",
            Text("longrope"),
            "rope scaling of type longrope",
        ),
        (
            "llama.rope.scaling.type",
            Text("linear"),
            "it has no llama.rope.scaling.factor",
        ),
        ("llama.block_count", Number(0), "its layers cannot be 0"),
        (
            "llama.block_count",
            Number(u32::MAX),
            "its layers cannot be 4294967295",
        ),
        (
            "llama.block_count",
            Text("one"),
            "its llama.block_count is no number that can be",
        ),
    ] {
        let word = refusal(&gguf(folder.path(), &[(key, Some(entry))]));
        assert!(word.contains(said), "{key}: {word}");
    }
    for key in [
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
    ] {
        let word = refusal(&gguf(folder.path(), &[(key, None)]));
        assert!(word.contains(&format!("it has no number {key}")), "{word}");
    }
    let word = refusal(&gguf(folder.path(), &[("general.architecture", None)]));
    assert!(word.contains("the architecture (none)"), "{word}");
}
