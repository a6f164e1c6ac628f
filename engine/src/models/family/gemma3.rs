//! Gemma 3 (arXiv:2503.19786), the part that writes text: five of six layers see
//! a window and have rotary positions of their own; queries and keys are normed,
//! and so is what attention and feed-forward give; norms multiply by one more
//! than their weight; embeddings are multiplied by the root of the width.

use super::config_file::scale_of;
use super::rope::RopeFile;
use super::{Architecture, ConfigFile, Family, InGguf, Metadata, Part, Unfit};
use crate::formats::gguf::layout::{ATTENTION, DECODER, FEED_FORWARD, FOUR_NORMS, Layout};
use crate::models::decoder::{Activation, Config, LayerKind, Rope};

/// Every sixth layer sees everything, where the file does not say.
const DEFAULT_PATTERN: i64 = 6;
const DEFAULT_WINDOW: i64 = 4096;
const DEFAULT_THETA: f64 = 1_000_000.0;
const DEFAULT_LOCAL_THETA: f64 = 10_000.0;
/// The rope of layers that see everything, and of those that see a window.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;
/// The model of 27 billion parameters has so many layers, and another scale of
/// attention than the others, which GGUF files do not name.
const LAYERS_OF_27B: usize = 62;

pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    architectures: &[
        Architecture {
            name: "Gemma3ForCausalLM",
            part: None,
        },
        Architecture {
            name: "Gemma3ForConditionalGeneration",
            part: Some(Part {
                config: "text_config",
                model: &["language_model.model.", "model.language_model."],
                head: &["language_model.lm_head.", "lm_head."],
            }),
        },
    ],
    from_folder,
    gguf: Some(InGguf {
        architecture: "gemma3",
        layout: Layout {
            inside: &[FOUR_NORMS, ATTENTION, FEED_FORWARD],
            norms_plus_one: true,
            ..DECODER
        },
        config: from_gguf,
    }),
};

/// What all have in common, whatever they are read from.
fn gemma(config: Config) -> Config {
    Config {
        query_key_norm: true,
        norms_behind: true,
        norm_offset: true,
        embedding_scale: Some((config.width as f64).sqrt()),
        ..config
    }
}

fn layer(sliding: bool, window: Option<i64>) -> LayerKind {
    match sliding {
        true => LayerKind {
            window,
            rope: LOCAL,
        },
        false => LayerKind {
            window: None,
            rope: GLOBAL,
        },
    }
}

/// Does a layer see a window only, where one in `pattern` sees everything?
fn is_sliding(number: usize, pattern: i64) -> bool {
    pattern > 0 && (number as i64 + 1) % pattern != 0
}

fn from_folder(file: &ConfigFile) -> Result<Config, Unfit> {
    let file = with_defaults(file);
    if file.use_bidirectional_attention == Some(true) {
        return Err(Unfit::Unsupported("attention in both directions".into()));
    }
    if file
        .attn_logit_softcapping
        .or(file.final_logit_softcapping)
        .is_some()
    {
        return Err(Unfit::Unsupported("logits with a soft cap".into()));
    }
    let without_ropes = ConfigFile {
        rope_parameters: None,
        rope_scaling: None,
        ..file.clone()
    };
    let mut config = gemma(without_ropes.decoder()?);
    config.attention_bias = file.attention_bias;
    config.attention_output_bias = file.attention_bias;
    config.attention_scale = scale_of(file.query_pre_attn_scalar.unwrap_or(256.0));
    config.ropes = ropes(&file)?;
    let named = file.sliding_layers(config.layers.len())?;
    let pattern = file.sliding_window_pattern.unwrap_or(DEFAULT_PATTERN);
    let window = file.sliding_window.unwrap_or(Some(DEFAULT_WINDOW));
    for (number, kind) in config.layers.iter_mut().enumerate() {
        let sliding = match &named {
            Some(named) => named[number],
            None => is_sliding(number, pattern),
        };
        *kind = layer(sliding, window);
    }
    Ok(config)
}

/// Published files leave out what is as in transformers' defaults.
fn with_defaults(file: &ConfigFile) -> ConfigFile {
    ConfigFile {
        num_attention_heads: file.num_attention_heads.or(Some(8)),
        num_key_value_heads: file.num_key_value_heads.or(Some(4)),
        head_dim: file.head_dim.or(Some(256)),
        vocab_size: file.vocab_size.or(Some(262_208)),
        max_position_embeddings: file.max_position_embeddings.or(Some(131_072)),
        rms_norm_eps: file.rms_norm_eps.or(Some(1e-6)),
        tie_word_embeddings: file.tie_word_embeddings.or(Some(true)),
        hidden_activation: file
            .hidden_activation
            .clone()
            .or_else(|| Some("gelu_pytorch_tanh".into())),
        ..file.clone()
    }
}

/// The rotary positions of layers that see everything, then of the others.
fn ropes(file: &ConfigFile) -> Result<Vec<Rope>, Unfit> {
    let theta = file.rope_theta.or(Some(DEFAULT_THETA));
    let local_theta = file.rope_local_base_freq.or(Some(DEFAULT_LOCAL_THETA));
    let (global, local) = match &file.rope_parameters {
        Some(rope) => (
            rope.full_attention.as_ref().or(Some(&rope.all)),
            rope.sliding_attention.as_ref(),
        ),
        None => (file.rope_scaling.as_ref(), None),
    };
    let none = RopeFile::default();
    Ok(vec![
        global.unwrap_or(&none).rope(file, theta)?,
        local.unwrap_or(&none).rope(file, local_theta)?,
    ])
}

fn from_gguf(file: &Metadata<'_>) -> Result<Config, Unfit> {
    if file
        .float("final_logit_softcapping")
        .is_some_and(|cap| cap > 0.0)
    {
        return Err(Unfit::Unsupported("logits with a soft cap".into()));
    }
    let mut config = gemma(file.decoder()?);
    config.activation = Activation::GeluTanh;
    if config.layers.len() == LAYERS_OF_27B {
        config.attention_scale = scale_of(config.width as f64 / config.heads.max(1) as f64);
    }
    let local = file.float("rope.freq_base_swa");
    config
        .ropes
        .push(Rope::plain(local.unwrap_or(DEFAULT_LOCAL_THETA)));
    let pattern = file.size("attention.sliding_window_pattern")?;
    let pattern = pattern.unwrap_or(DEFAULT_PATTERN);
    let window = file.size("attention.sliding_window")?;
    for (number, kind) in config.layers.iter_mut().enumerate() {
        *kind = layer(
            is_sliding(number, pattern),
            window.filter(|window| *window > 0),
        );
    }
    Ok(config)
}
