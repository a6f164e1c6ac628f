//! What came of lines, as files: one for each shard, and all of a group merged.
//!
//! A group's folder is `work/<order>/<group>`. It holds the lines as they came
//! (`lines.json`) and, of each shard that is done, what came of its lines
//! (`shard-<number>.json`). A file appears under its name whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use infernet_protocol::batch::{Done, LineOutcome, Lines};
use infernet_protocol::bounds::MAX_REASON_BYTES;
use infernet_protocol::payload::{Generated, Payload, Product, Vector, Work};
use nostr::EventId;
use serde::de::DeserializeOwned;

use crate::home::make_folder;
use crate::shards::texts;

/// What came of a shard's lines, in their order. None for a line that is tried again
/// in another shard.
pub type Outcomes = Vec<Option<LineOutcome>>;

/// The folder of one group. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of this group below the folder of all work.
    pub fn of(work: &Path, order: &EventId, group: u32) -> Self {
        Self(work.join(order.to_hex()).join(group.to_string()))
    }

    /// Keeps the lines.
    ///
    /// # Errors
    /// A disk that refuses.
    pub fn keep_lines(&self, json: &[u8]) -> io::Result<()> {
        make_folder(&self.0)?;
        self.write("lines.json", json)
    }

    /// The lines, if they are here.
    pub fn lines(&self) -> Option<Lines> {
        let bytes = fs::read(self.0.join("lines.json")).ok()?;
        Lines::from_bytes(&bytes).ok()
    }

    /// Keeps what came of a shard.
    ///
    /// # Errors
    /// A disk that refuses.
    pub fn keep_shard(&self, shard: u32, outcomes: &Outcomes) -> io::Result<()> {
        self.write(&shard_file(shard), &serde_json::to_vec(outcomes)?)
    }

    /// What came of a shard.
    ///
    /// # Errors
    /// A file that is not there, or damaged.
    pub fn shard(&self, shard: u32) -> io::Result<Outcomes> {
        self.read(&shard_file(shard))
    }

    /// Removes the folder, and the order's if it was the last in it.
    pub fn remove(&self) {
        let removed = fs::remove_dir_all(&self.0);
        if removed.is_ok()
            && let Some(order) = self.0.parent()
        {
            // There may be others in it.
            let _ = fs::remove_dir(order);
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        let bytes = fs::read(self.0.join(name))?;
        // What is wrong is said without quoting it: it may be an answer.
        let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "the file is damaged");
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.0.join(format!("{name}.draft"));
        let mut file = private(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, self.0.join(name))?;
        fs::File::open(&self.0)?.sync_all()
    }
}

fn private(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn shard_file(shard: u32) -> String {
    format!("shard-{shard}.json")
}

/// A line that failed, with a reason that is short and harmless on a terminal.
pub fn failed(reason: &str) -> LineOutcome {
    let plain: String = reason.chars().filter(|c| !c.is_control()).collect();
    let end = plain.floor_char_boundary(MAX_REASON_BYTES);
    LineOutcome::Failed {
        reason: plain[..end].to_owned(),
    }
}

/// What a provider's product says of the shard's lines.
pub fn of_product(
    product: Product,
    lines: &[Work],
    numbers: &[u32],
    input_tokens: u64,
) -> Outcomes {
    match product {
        Product::Shard { answers } => answers.into_iter().map(of_text).map(Some).collect(),
        Product::Embedding { vectors } => {
            let of_shard = numbers.iter().filter_map(|n| lines.get(*n as usize));
            of_vectors(vectors, of_shard, input_tokens)
        }
        Product::TextGeneration { .. } | Product::Tensors { .. } | Product::Verify { .. } => vec![],
    }
}

fn of_text(answer: Generated) -> LineOutcome {
    match &answer.error {
        Some(error) => failed(error),
        None => LineOutcome::Text(answer),
    }
}

/// Deals the vectors out to the lines, and the tokens by the length of their texts.
fn of_vectors<'a>(
    vectors: Vec<Vector>,
    lines: impl Iterator<Item = &'a Work>,
    input_tokens: u64,
) -> Outcomes {
    let lines: Vec<&[String]> = lines.map(texts).collect();
    let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>() as u64;
    let all = lines.iter().map(|texts| bytes(texts)).sum::<u64>().max(1);
    let mut vectors = vectors.into_iter();
    let (mut read, mut dealt) = (0_u64, 0_u64);
    let mut of_line = |texts: &&[String]| {
        read += bytes(texts);
        let until = u128::from(input_tokens) * u128::from(read) / u128::from(all);
        let until = u64::try_from(until).unwrap_or(input_tokens);
        let tokens = until - std::mem::replace(&mut dealt, until);
        Some(LineOutcome::Vectors {
            vectors: vectors.by_ref().take(texts.len()).collect(),
            input_tokens: tokens,
        })
    };
    lines.iter().map(&mut of_line).collect()
}

/// Tokens of a line that has an answer: of its prompt, and drawn.
pub fn tokens(outcome: &LineOutcome) -> (u64, u64) {
    match outcome {
        LineOutcome::Text(text) => (text.input_tokens.into(), text.tokens.len() as u64),
        LineOutcome::Vectors { input_tokens, .. } => (*input_tokens, 0),
        LineOutcome::Failed { .. } => (0, 0),
    }
}

/// Puts what came of shards in the order of the lines. `why` says why a line is in
/// none of them.
pub fn merge(
    lines: usize,
    shards: impl IntoIterator<Item = (Vec<u32>, Outcomes)>,
    why: impl Fn(u32) -> String,
) -> Done {
    let mut merged: Vec<Option<LineOutcome>> = vec![None; lines];
    for (numbers, outcomes) in shards {
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            if let (Some(place), Some(outcome)) = (merged.get_mut(number as usize), outcome) {
                *place = Some(outcome);
            }
        }
    }
    let whole = (0_u32..).zip(merged);
    whole
        .map(|(number, outcome)| outcome.unwrap_or_else(|| failed(&why(number))))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use infernet_protocol::inference::EndReason;

    use super::*;

    fn text(text: &str, error: Option<&str>) -> Generated {
        Generated {
            text: text.into(),
            tokens: vec![1, 2],
            input_tokens: 3,
            ended: match error {
                Some(_) => EndReason::Failed,
                None => EndReason::Stop,
            },
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn lines_come_back_in_their_order_each_with_an_answer_or_a_reason() {
        let product = Product::Shard {
            answers: vec![text("c", None), text("", Some("too\nlong"))],
        };
        let second = of_product(product, &[], &[2, 0], 6);
        let first = vec![None, Some(LineOutcome::Text(text("d", None)))];
        let shards = [(vec![1, 3], first), (vec![2, 0], second)];
        let done = merge(5, shards, |line| format!("line {line} was not done"));
        let say = |outcome: &LineOutcome| match outcome {
            LineOutcome::Text(text) => text.text.clone(),
            LineOutcome::Failed { reason } => reason.clone(),
            LineOutcome::Vectors { .. } => String::new(),
        };
        let said: Vec<String> = done.iter().map(say).collect();
        let expected = [
            "toolong",
            "line 1 was not done",
            "c",
            "d",
            "line 4 was not done",
        ];
        assert_eq!(said, expected);
        done.validate().unwrap();
    }

    #[test]
    fn vectors_and_tokens_are_dealt_out() {
        let line = |texts: &[&str]| Work::Embedding {
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        };
        let lines = [line(&["aaaa"]), line(&["b", "cc"]), line(&["d"])];
        let vectors = (0..3_u8).map(|i| Vector(vec![f32::from(i)])).collect();
        let outcomes = of_product(Product::Embedding { vectors }, &lines, &[1, 2], 11);
        let dealt: Vec<(usize, u64)> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Some(LineOutcome::Vectors {
                    vectors,
                    input_tokens,
                }) => (vectors.len(), *input_tokens),
                _ => (0, 0),
            })
            .collect();
        assert_eq!(dealt, [(2, 8), (1, 3)]);
    }

    #[test]
    fn files_are_their_owners_alone_and_damage_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::of(home.path(), &EventId::all_zeros(), 3);
        folder.keep_lines(b"[]").unwrap();
        assert!(folder.lines().is_none(), "no line is no group");
        let outcomes = vec![None, Some(failed("x"))];
        folder.keep_shard(7, &outcomes).unwrap();
        assert_eq!(folder.shard(7).unwrap().len(), 2);
        let path = folder.0.join("shard-7.json");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "[nu").unwrap();
        folder.shard(7).unwrap_err();
        folder.remove();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_long_reason_is_cut_where_a_character_ends() {
        let LineOutcome::Failed { reason } = failed(&"é".repeat(300)) else {
            panic!("it failed");
        };
        assert!(reason.len() <= MAX_REASON_BYTES);
    }
}
