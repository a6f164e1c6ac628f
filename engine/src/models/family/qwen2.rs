//! Qwen 2 and 2.5 (arXiv:2407.10671): queries, keys and values have biases;
//! upper layers may see a window.

use super::{Architecture, ConfigFile, Family, InGguf, Metadata, Unfit};
use crate::formats::gguf::layout::DECODER;
use crate::models::decoder::Config;

/// From this layer on there may be windows, where the file does not say.
const DEFAULT_FIRST_WINDOW: i64 = 28;
/// The window of files that want one and do not say which.
const DEFAULT_WINDOW: i64 = 4096;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architectures: &[Architecture {
        name: "Qwen2ForCausalLM",
        part: None,
    }],
    from_folder,
    gguf: Some(InGguf {
        architecture: "qwen2",
        layout: DECODER,
        config: from_gguf,
    }),
};

fn from_folder(file: &ConfigFile) -> Result<Config, Unfit> {
    let mut config = Config {
        attention_bias: true,
        ..file.decoder()?
    };
    set_windows(file, &mut config)?;
    Ok(config)
}

fn from_gguf(file: &Metadata<'_>) -> Result<Config, Unfit> {
    file.decoder()
}

/// Gives upper layers their window, where the file wants any.
pub(super) fn set_windows(file: &ConfigFile, config: &mut Config) -> Result<(), Unfit> {
    if !file.use_sliding_window {
        return Ok(());
    }
    let first = file.max_window_layers.unwrap_or(DEFAULT_FIRST_WINDOW);
    let sliding = file.sliding_layers(config.layers.len())?;
    for (number, layer) in config.layers.iter_mut().enumerate() {
        let has_one = match &sliding {
            Some(sliding) => sliding[number],
            None => number as i64 >= first,
        };
        let window = file.sliding_window.unwrap_or(Some(DEFAULT_WINDOW));
        layer.window = window.filter(|_| has_one);
    }
    Ok(())
}
