//! What sentence-transformers lays beside an encoder: how long texts may be, and
//! how one vector comes of all.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::TextFile;
use crate::error::LoadError;
use crate::formats::{damaged, unsupported};
use crate::manifest::{File, FileRole};
use crate::models::encoder::{Pooling, Summary};

/// `sentence_bert_config.json`.
#[derive(Deserialize)]
struct SentenceFile {
    max_seq_length: Option<i64>,
    #[serde(default)]
    do_lower_case: bool,
}

/// One module of `modules.json`.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The longest text, in tokens: what `sentence_bert_config.json` says, and no
/// more than there are positions.
pub(super) fn context(folder: &Path, positions: i64) -> Result<u32, LoadError> {
    let path = folder.join("sentence_bert_config.json");
    let sentence = TextFile::find(path.clone())?;
    let sentence: Option<SentenceFile> = sentence.map(|file| file.parse()).transpose()?;
    if sentence.as_ref().is_some_and(|file| file.do_lower_case) {
        return Err(unsupported(&path, "lower case before the tokenizer"));
    }
    let longest = sentence.and_then(|file| file.max_seq_length);
    match u32::try_from(longest.unwrap_or(positions).min(positions)) {
        Ok(context @ 1..) => Ok(context),
        _ => Err(damaged(&path, "its texts can have no token")),
    }
}

/// What follows the last layer, and the files that say so: `modules.json`, or
/// the mean of length 1 where there is none.
pub(super) fn summary(folder: &Path) -> Result<(Summary, Vec<File>), LoadError> {
    let mut summary = Summary {
        pooling: Pooling::Mean,
        normalize: true,
    };
    let Some(modules_file) = TextFile::find(folder.join("modules.json"))? else {
        return Ok((summary, vec![]));
    };
    summary.normalize = false;
    let mut files = vec![modules_file.as_file(FileRole::Modules)];
    for module in modules_file.parse::<Vec<Module>>()? {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => summary.normalize = true,
            "Pooling" if module.path == "1_Pooling" => {
                let file = TextFile::require(folder.join("1_Pooling").join("config.json"))?;
                summary.pooling = pooling(&file)?;
                files.push(file.as_file(FileRole::Pooling));
            }
            _ => {
                let what = format!("the module {}", module.kind);
                return Err(unsupported(&modules_file.path, what));
            }
        }
    }
    Ok((summary, files))
}

/// The one way of pooling that a file switches on, among flags by the name of
/// `pooling_mode_…`; newer ones name it as `pooling_mode`.
fn pooling(file: &TextFile) -> Result<Pooling, LoadError> {
    let fields: Map<String, Value> = file.parse()?;
    let mut modes: Vec<&str> = fields
        .iter()
        .filter(|(_, value)| **value == Value::Bool(true))
        .filter_map(|(name, _)| name.strip_prefix("pooling_mode_"))
        .collect();
    modes.extend(fields.get("pooling_mode").and_then(Value::as_str));
    match modes.as_slice() {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::First),
        [] => Err(damaged(&file.path, "it names no way of pooling")),
        others => {
            let what = format!("pooling by {}", others.join(" and "));
            Err(unsupported(&file.path, what))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_text_has_a_token_and_no_more_than_there_are_positions() {
        let folder = tempfile::tempdir().unwrap();
        let with = |text: &str| {
            std::fs::write(folder.path().join("sentence_bert_config.json"), text).unwrap();
            context(folder.path(), 512)
        };
        assert_eq!(with(r#"{"max_seq_length": 256}"#).unwrap(), 256);
        assert_eq!(with(r#"{"max_seq_length": 1000}"#).unwrap(), 512);
        assert_eq!(with("{}").unwrap(), 512);
        for length in [0, -1] {
            let refused = with(&format!(r#"{{"max_seq_length": {length}}}"#));
            assert!(matches!(refused, Err(LoadError::Damaged { .. })));
        }
        let refused = with(r#"{"do_lower_case": true}"#);
        assert!(matches!(refused, Err(LoadError::Unsupported { .. })));
    }

    fn pooled(text: &str) -> Result<Pooling, String> {
        let file = TextFile {
            path: "config.json".into(),
            bytes: text.into(),
        };
        pooling(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn pooling_is_one_that_is_known() {
        let mean = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false}"#;
        assert_eq!(pooled(mean), Ok(Pooling::Mean));
        assert_eq!(
            pooled(r#"{"pooling_mode_cls_token": true}"#),
            Ok(Pooling::First)
        );
        assert_eq!(pooled(r#"{"pooling_mode": "cls"}"#), Ok(Pooling::First));
        for (text, word) in [
            (r#"{"pooling_mode_max_tokens": true}"#, "max_tokens"),
            (
                r#"{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": true}"#,
                "lasttoken and mean_tokens",
            ),
            (r#"{"pooling_mode": "weightedmean"}"#, "weightedmean"),
            ("{}", "no way"),
        ] {
            assert!(pooled(text).unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn a_layer_behind_the_pooling_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dense = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#;
        std::fs::write(folder.path().join("modules.json"), dense).unwrap();
        let said = summary(folder.path()).unwrap_err().to_string();
        assert!(said.contains("the module sentence_transformers.models.Dense is not supported"));
    }
}
