//! A folder's chat template.

use std::path::Path;

use serde_json::Value;

use super::TextFile;
use crate::chat::ChatTemplate;
use crate::error::LoadError;
use crate::formats::damaged;
use crate::manifest::Digest;

/// A chat template, and what names it in the manifest.
pub(super) struct Template {
    pub(super) template: ChatTemplate,
    pub(super) digest: Digest,
}

/// The chat template: `chat_template.jinja`, or what `tokenizer_config.json`
/// holds.
pub(super) fn find(
    folder: &Path,
    config_file: Option<&TextFile>,
) -> Result<Option<Template>, LoadError> {
    let config: Value = match config_file {
        Some(file) => file.parse()?,
        None => Value::Null,
    };
    let own = TextFile::find(folder.join("chat_template.jinja"))?;
    let (path, text) = match (own, config_file) {
        (Some(file), _) => {
            let text = String::from_utf8(file.bytes)
                .map_err(|_| damaged(&file.path, "it is no UTF-8 text"))?;
            (file.path, text)
        }
        (None, Some(file)) => match named(&config["chat_template"]) {
            Some(text) => (file.path.clone(), text.to_owned()),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let digest = Digest::of(text.as_bytes());
    let (begin, end) = (
        token_text(&config["bos_token"]),
        token_text(&config["eos_token"]),
    );
    let template = ChatTemplate::new(text, begin, end).map_err(|reason| damaged(&path, reason))?;
    Ok(Some(Template { template, digest }))
}

/// The one template, or the one named `default` of several.
fn named(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(several) => several
            .iter()
            .find(|one| one["name"] == "default")
            .and_then(|one| one["template"].as_str()),
        _ => None,
    }
}

/// A special token's text, which files give plainly or inside an object.
fn token_text(value: &Value) -> String {
    let text = value.as_str().or_else(|| value["content"].as_str());
    text.unwrap_or_default().to_owned()
}
