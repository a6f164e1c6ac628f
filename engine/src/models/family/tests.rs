//! Configs as published models have them.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{ConfigFile, Family, Unfit};
use crate::models::decoder::{Activation, Config, RopeScaling};

fn read(architecture: &str, file: Value) -> Result<Config, Unfit> {
    let (family, _) = Family::in_folder(architecture).unwrap();
    let file: ConfigFile = serde_json::from_value(file).unwrap();
    let config = (family.from_folder)(&file)?;
    config.validate().map_err(Unfit::Damaged)?;
    Ok(config)
}

/// Sizes that all of these have, and `more`.
fn small(more: Value) -> Value {
    let mut file = json!({
        "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128,
        "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
    });
    let fields = file.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    file
}

fn windows(config: &Config) -> Vec<Option<i64>> {
    config.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn every_architecture_is_one_family_s() {
    for name in Family::all_in_folders() {
        assert!(Family::in_folder(name).is_some());
        let same = Family::all_in_folders().filter(|other| *other == name);
        assert_eq!(same.count(), 1, "{name}");
    }
    for name in Family::all_in_gguf() {
        let (family, _) = Family::in_gguf(name).unwrap();
        assert_eq!(family.name, name);
    }
}

#[test]
fn a_gemma_names_only_what_differs_from_the_defaults() {
    let config = read(
        "Gemma3ForConditionalGeneration",
        json!({
            "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        }),
    )
    .unwrap();
    assert_eq!(
        (config.heads, config.kv_heads, config.head_width),
        (8, 4, 256)
    );
    assert_eq!((config.vocabulary, config.context), (262_208, 131_072));
    assert_eq!(config.attention_scale, 1.0 / 16.0);
    assert_eq!(config.activation, Activation::GeluTanh);
    assert_eq!(config.embedding_scale, Some(2560_f64.sqrt()));
    assert!(config.tied && config.norm_offset && config.norms_behind);
    for (number, layer) in config.layers.iter().enumerate() {
        match number % 6 {
            5 => assert_eq!((layer.window, layer.rope), (None, 0)),
            _ => assert_eq!((layer.window, layer.rope), (Some(1024), 1)),
        }
    }
    let ropes: Vec<_> = config.ropes.iter().map(|rope| rope.theta).collect();
    assert_eq!(ropes, [1_000_000.0, 10_000.0]);
    assert_eq!(config.ropes[0].scaling, RopeScaling::Linear(8.0));
    assert_eq!(config.ropes[1].scaling, RopeScaling::None);
}

#[test]
fn a_mistral_without_a_window_says_so() {
    for (more, window) in [
        (json!({}), Some(4096)),
        (json!({"sliding_window": null}), None),
        (json!({"sliding_window": 8}), Some(8)),
    ] {
        let config = read("MistralForCausalLM", small(more)).unwrap();
        assert_eq!(windows(&config), [window; 4]);
    }
}

#[test]
fn a_qwen_has_windows_only_if_it_uses_them() {
    let named = json!([
        "full_attention",
        "sliding_attention",
        "full_attention",
        "full_attention"
    ]);
    for (more, expected) in [
        (
            json!({"sliding_window": 8, "max_window_layers": 2}),
            [None; 4],
        ),
        (
            json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2}),
            [None, None, Some(8), Some(8)],
        ),
        (
            json!({"use_sliding_window": true, "sliding_window": 8, "layer_types": named}),
            [None, Some(8), None, None],
        ),
    ] {
        for architecture in ["Qwen2ForCausalLM", "Qwen3ForCausalLM"] {
            let config = read(architecture, small(more.clone())).unwrap();
            assert_eq!(windows(&config), expected);
            let biased = architecture == "Qwen2ForCausalLM";
            assert_eq!(config.attention_bias, biased);
            assert!(!config.attention_output_bias);
            assert_eq!(config.query_key_norm, !biased);
        }
    }
}

#[test]
fn heads_have_the_width_that_is_named_or_their_share() {
    for (architecture, more, width) in [
        ("LlamaForCausalLM", json!({}), 16),
        ("MistralForCausalLM", json!({"head_dim": 32}), 32),
        ("LlamaForCausalLM", json!({"head_dim": null}), 16),
        ("Qwen3ForCausalLM", json!({}), 128),
    ] {
        let config = read(architecture, small(more)).unwrap();
        assert_eq!(config.head_width, width);
        assert_eq!(config.attention_scale, 1.0 / (width as f64).sqrt());
        assert_eq!(config.kv_heads, 4);
    }
}

#[test]
fn yarn_is_read_from_old_files_and_new() {
    let old = json!({"rope_theta": 1e6, "rope_scaling": {
        "type": "yarn", "rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 1024,
    }});
    let new = json!({"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
        "original_max_position_embeddings": 1024,
    }});
    let [old, new] = [old, new].map(|more| read("Qwen2ForCausalLM", small(more)).unwrap());
    assert_eq!(old, new);
    let RopeScaling::Yarn(yarn) = &old.ropes[0].scaling else {
        panic!("{:?}", old.ropes);
    };
    assert_eq!((yarn.factor, yarn.original_context), (4.0, 1024.0));
    assert_eq!(yarn.amplitude, 0.1 * 4_f64.ln() + 1.0);
    let silent = json!({"rope_scaling": {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024,
        "mscale": 1.0, "mscale_all_dim": 1.0,
    }});
    let config = read("Qwen2ForCausalLM", small(silent)).unwrap();
    let RopeScaling::Yarn(yarn) = &config.ropes[0].scaling else {
        panic!("{:?}", config.ropes);
    };
    assert_eq!(yarn.amplitude, 1.0);
}

#[test]
fn rotary_positions_by_type_of_layer_are_gemma_s_alone() {
    let each = json!({"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }});
    let config = read("Gemma3ForCausalLM", small(each.clone())).unwrap();
    assert_eq!(config.ropes[0].scaling, RopeScaling::Linear(4.0));
    assert_eq!((config.ropes[0].theta, config.ropes[1].theta), (5e5, 2e4));
    let refused = read("LlamaForCausalLM", small(each));
    assert!(matches!(refused, Err(Unfit::Unsupported(_))), "{refused:?}");
}
