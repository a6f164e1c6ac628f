//! Qwen 3 (arXiv:2505.09388): queries and keys are normed, and heads have a
//! width of their own.

use super::{Architecture, ConfigFile, Family, InGguf, Metadata, Unfit, qwen2};
use crate::formats::gguf::layout::DECODER;
use crate::models::decoder::Config;

/// Of files that do not say.
const DEFAULT_HEAD_WIDTH: i64 = 128;

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architectures: &[Architecture {
        name: "Qwen3ForCausalLM",
        part: None,
    }],
    from_folder,
    gguf: Some(InGguf {
        architecture: "qwen3",
        layout: DECODER,
        config: from_gguf,
    }),
};

fn from_folder(file: &ConfigFile) -> Result<Config, Unfit> {
    let file = ConfigFile {
        head_dim: file.head_dim.or(Some(DEFAULT_HEAD_WIDTH)),
        ..file.clone()
    };
    let mut config = Config {
        attention_bias: file.attention_bias,
        attention_output_bias: file.attention_bias,
        query_key_norm: true,
        ..file.decoder()?
    };
    qwen2::set_windows(&file, &mut config)?;
    Ok(config)
}

fn from_gguf(file: &Metadata<'_>) -> Result<Config, Unfit> {
    Ok(Config {
        query_key_norm: true,
        ..file.decoder()?
    })
}
