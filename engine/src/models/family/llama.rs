//! Llama 2 and 3, and what is built like them, as SmolLM2 (arXiv:2307.09288).
//! In GGUF, Mistral's models are Llamas too.

use super::{Architecture, ConfigFile, Family, InGguf, Metadata, Unfit};
use crate::formats::gguf::layout::{DECODER, Layout};
use crate::models::decoder::Config;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    architectures: &[Architecture {
        name: "LlamaForCausalLM",
        part: None,
    }],
    from_folder,
    gguf: Some(InGguf {
        architecture: "llama",
        layout: Layout {
            interleaved: true,
            ..DECODER
        },
        config: from_gguf,
    }),
};

fn from_folder(file: &ConfigFile) -> Result<Config, Unfit> {
    Ok(Config {
        attention_bias: file.attention_bias,
        attention_output_bias: file.attention_bias,
        feed_forward_bias: file.mlp_bias,
        ..file.decoder()?
    })
}

fn from_gguf(file: &Metadata<'_>) -> Result<Config, Unfit> {
    let mut config = file.decoder()?;
    // Mistral's; files that do not name it are run without, as llama.cpp does.
    let window = file.size("attention.sliding_window")?;
    for layer in &mut config.layers {
        layer.window = window.filter(|window| *window > 0);
    }
    Ok(config)
}
