//! Mistral (arXiv:2310.06825): a Llama whose layers see a window, in its first
//! version. Its GGUFs call themselves Llamas.

use super::{Architecture, ConfigFile, Family, Unfit};
use crate::models::decoder::Config;

/// What transformers takes where the file has no such field; null means none.
const DEFAULT_WINDOW: i64 = 4096;

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    architectures: &[Architecture {
        name: "MistralForCausalLM",
        part: None,
    }],
    from_folder,
    gguf: None,
};

fn from_folder(file: &ConfigFile) -> Result<Config, Unfit> {
    let mut config = file.decoder()?;
    for layer in &mut config.layers {
        layer.window = file.sliding_window.unwrap_or(Some(DEFAULT_WINDOW));
    }
    Ok(config)
}
