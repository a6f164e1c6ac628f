//! GGUF, llama.cpp's format: metadata, then tensors, in one file.

mod header;
pub(crate) mod layout;
#[cfg(test)]
mod made;
pub(crate) mod split;
mod tokenizer;
mod weights;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{MappedFile, damaged, map, mistaken, unsupported};
use crate::error::LoadError;
use header::{TensorInfo, Value};

/// A model in GGUF, in one file or several, that was found to be whole.
#[derive(Debug)]
pub(crate) struct Gguf {
    /// Of the first file, which has the metadata.
    path: PathBuf,
    files: Vec<MappedFile>,
    entries: HashMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
}

impl Gguf {
    /// Opens a file, or all parts of a model of which it is one, and checks that
    /// all tensors lie inside them.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let paths = split::parts(path).unwrap_or_else(|| vec![path.to_owned()]);
        let mut parts = paths.iter().enumerate();
        let Some((_, first)) = parts.next() else {
            return Err(damaged(path, "it has no parts"));
        };
        let mut gguf = Self::open_one(first)?;
        gguf.check_count(paths.len())?;
        for (number, path) in parts {
            gguf.add(number, Self::open_one(path)?)?;
        }
        gguf.check_tensors()?;
        Ok(gguf)
    }

    fn open_one(path: &Path) -> Result<Self, LoadError> {
        let file = map(path)?;
        if let Some(what) = mistaken::what_it_is(&file) {
            return Err(unsupported(path, what));
        }
        let (entries, tensors) = header::parse(&file).map_err(|reason| damaged(path, reason))?;
        Ok(Self {
            path: path.to_owned(),
            files: vec![file],
            entries,
            tensors,
        })
    }

    /// Refuses a first file that speaks of another number of files.
    fn check_count(&self, count: usize) -> Result<(), LoadError> {
        let own = self.unsigned("split.count").unwrap_or(0).max(1);
        match own == count as u64 {
            true => Ok(()),
            false => Err(damaged(
                &self.path,
                format!(
                    "its model is in {own} files, and by their names (like model-00001-of-00003.gguf) there are {count}"
                ),
            )),
        }
    }

    /// Takes in the tensors of part `number` (from 0).
    fn add(&mut self, number: usize, part: Self) -> Result<(), LoadError> {
        if part.unsigned("split.no") != Some(number as u64) {
            let reason = "it is another part of its model than its name says";
            return Err(damaged(&part.path, reason));
        }
        for (name, info) in part.tensors {
            let info = TensorInfo {
                file: number,
                ..info
            };
            if self.tensors.insert(name.clone(), info).is_some() {
                let reason = format!("its tensor {name} is in another part too");
                return Err(damaged(&part.path, reason));
            }
        }
        self.files.extend(part.files);
        Ok(())
    }

    /// Refuses a split model that lacks tensors.
    fn check_tensors(&self) -> Result<(), LoadError> {
        let found = self.tensors.len() as u64;
        match self.unsigned("split.tensors.count") {
            Some(count) if count != found => Err(damaged(
                &self.path,
                format!("its model has {count} tensors, and there are {found}"),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files, whole.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|file| &file[..])
    }

    /// Is there a tensor of this name, which is GGUF's own?
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The name of the architecture, which begins the keys that are its own.
    pub(crate) fn architecture(&self) -> &str {
        self.text("general.architecture").unwrap_or("(none)")
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Option<&[String]> {
        match self.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    pub(crate) fn integers(&self, key: &str) -> Option<&[i64]> {
        match self.get(key)? {
            Value::Integers(integers) => Some(integers),
            _ => None,
        }
    }

    pub(crate) fn floats(&self, key: &str) -> Option<&[f32]> {
        match self.get(key)? {
            Value::Floats(floats) => Some(floats),
            _ => None,
        }
    }

    pub(crate) fn unsigned(&self, key: &str) -> Option<u64> {
        match *self.get(key)? {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    pub(crate) fn float(&self, key: &str) -> Option<f64> {
        match *self.get(key)? {
            Value::Float(number) => Some(number),
            _ => None,
        }
    }

    /// A number that the model cannot do without.
    pub(crate) fn require(&self, key: &str) -> Result<u64, LoadError> {
        self.unsigned(key)
            .ok_or_else(|| damaged(&self.path, format!("it has no number {key}")))
    }

    /// A number under one of the architecture's own keys.
    pub(crate) fn unsigned_own(&self, key: &str) -> Option<u64> {
        self.unsigned(&format!("{}.{key}", self.architecture()))
    }

    /// The same, which the model cannot do without.
    pub(crate) fn require_own(&self, key: &str) -> Result<u64, LoadError> {
        self.require(&format!("{}.{key}", self.architecture()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use half::f16;
    use proptest::prelude::*;
    use tch::{Kind, Tensor};
    use tempfile::TempDir;

    use super::Gguf;
    use super::layout::{DECODER, Layout};
    use super::made::Made;
    use crate::error::LoadError;
    use crate::formats::Weights;

    const LLAMA: Layout = Layout {
        interleaved: true,
        ..DECODER
    };
    const GEMMA: Layout = Layout {
        norms_plus_one: true,
        ..DECODER
    };

    fn open(files: &[(&str, Vec<u8>)]) -> (TempDir, Result<Gguf, LoadError>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let gguf = Gguf::open(&folder.path().join(files[0].0));
        (folder, gguf)
    }

    fn opened(made: &Made) -> (TempDir, Gguf) {
        let (folder, gguf) = open(&[("model.gguf", made.bytes())]);
        (folder, gguf.unwrap())
    }

    fn refusal(files: &[(&str, Vec<u8>)]) -> String {
        open(files).1.unwrap_err().to_string()
    }

    #[test]
    fn biases_are_put_back_as_their_weights_are() {
        let made = Made::default()
            .text("general.architecture", "llama")
            .number("llama.attention.head_count", 1)
            .floats("blk.0.attn_q.bias", &[4], &[0.0, 2.0, 1.0, 3.0]);
        let (_folder, gguf) = opened(&made);
        let name = "model.layers.0.self_attn.q_proj.bias";
        let bias = gguf.laid_out(&LLAMA).tensor(name, &[4]).unwrap();
        assert_eq!(bias, Tensor::from_slice(&[0.0_f32, 1.0, 2.0, 3.0]));
        let bias = gguf.laid_out(&DECODER).tensor(name, &[4]).unwrap();
        assert_eq!(bias, Tensor::from_slice(&[0.0_f32, 2.0, 1.0, 3.0]));
    }

    #[test]
    fn norms_are_one_less_where_the_architecture_says_so() {
        let made = Made::default()
            .floats("output_norm.weight", &[2], &[1.5, 0.75])
            .floats("token_embd.weight", &[1, 2], &[1.5, 0.75]);
        let (_folder, gguf) = opened(&made);
        let gemma = gguf.laid_out(&GEMMA);
        let norm = gemma.tensor("model.norm.weight", &[2]).unwrap();
        assert_eq!(norm, Tensor::from_slice(&[0.5_f32, -0.25]));
        let norm = gemma.tensor_as("model.norm.weight", &[2], Kind::BFloat16);
        assert_eq!(
            norm.unwrap().to_kind(Kind::Float),
            Tensor::from_slice(&[0.5_f32, -0.25])
        );
        let embedding = gemma.tensor("model.embed_tokens.weight", &[1, 2]).unwrap();
        assert_eq!(embedding.view(-1), Tensor::from_slice(&[1.5_f32, 0.75]));
    }

    #[test]
    fn plain_numbers_stay_in_the_file() {
        let halves: Vec<u8> = [1.0_f32, -2.0]
            .iter()
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect();
        let made = Made::default().tensor("output.weight", &[1, 2], 1, &halves);
        let (_folder, gguf) = opened(&made);
        let weights = gguf.laid_out(&DECODER);
        let tensor = weights.tensor("lm_head.weight", &[1, 2]).unwrap();
        assert_eq!(tensor.kind(), Kind::Half);
        let file = gguf.bytes().next().unwrap().as_ptr_range();
        assert!(file.contains(&tensor.data_ptr().cast::<u8>().cast_const()));
        let tensor = weights
            .tensor_as("lm_head.weight", &[1, 2], Kind::BFloat16)
            .unwrap();
        assert_eq!(tensor.kind(), Kind::BFloat16);
        assert_eq!(
            tensor.to_kind(Kind::Float).view(-1),
            Tensor::from_slice(&[1.0_f32, -2.0])
        );
        assert_eq!(weights.four_bit("lm_head.weight", &[1, 2]).unwrap(), None);
        assert!(weights.tensor("lm_head.weight", &[2, 1]).is_err());
    }

    #[test]
    fn a_type_that_is_not_decoded_is_named() {
        let made = Made::default().tensor("output.weight", &[1, 256], 23, &[0; 136]);
        let (_folder, gguf) = opened(&made);
        let weights = gguf.laid_out(&DECODER);
        let said = weights
            .tensor("lm_head.weight", &[1, 256])
            .unwrap_err()
            .to_string();
        assert!(said.contains("IQ4_XS") && said.contains("Q4_K"), "{said}");
    }

    fn part(number: u8, tensor: &str) -> Made {
        Made::default()
            .entry("split.no", 2, &[number, 0])
            .entry("split.count", 2, &[2, 0])
            .entry("split.tensors.count", 5, &2_u32.to_le_bytes())
            .floats(tensor, &[1], &[number.into()])
    }

    #[test]
    fn a_split_model_is_one() {
        let first = part(0, "output.weight").text("general.architecture", "llama");
        let files = [
            ("m-00001-of-00002.gguf", first.bytes()),
            (
                "m-00002-of-00002.gguf",
                part(1, "output_norm.weight").bytes(),
            ),
        ];
        let (folder, gguf) = open(&files);
        let gguf = gguf.unwrap();
        assert_eq!(gguf.architecture(), "llama");
        assert_eq!(gguf.bytes().count(), 2);
        let norm = gguf
            .laid_out(&DECODER)
            .tensor("model.norm.weight", &[1])
            .unwrap();
        assert_eq!(norm, Tensor::from_slice(&[1.0_f32]));
        // Whichever part is named.
        let other = Gguf::open(&folder.path().join(files[1].0)).unwrap();
        assert_eq!(other.architecture(), "llama");
    }

    #[test]
    fn a_split_model_that_is_not_whole_is_refused() {
        let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        let first = || (names[0], part(0, "output.weight").bytes());
        let said = refusal(&[first()]);
        assert!(said.contains(names[1]), "{said}");
        let said = refusal(&[first(), (names[1], part(0, "output_norm.weight").bytes())]);
        assert!(said.contains("another part"), "{said}");
        let said = refusal(&[first(), (names[1], part(1, "output.weight").bytes())]);
        assert!(said.contains("in another part too"), "{said}");
        let said = refusal(&[
            first(),
            (names[1], part(1, "a").floats("b", &[1], &[0.0]).bytes()),
        ]);
        assert!(said.contains("2 tensors, and there are 3"), "{said}");
        let said = refusal(&[("model.gguf", part(0, "output.weight").bytes())]);
        assert!(said.contains("in 2 files"), "{said}");
    }

    #[test]
    fn what_is_something_else_is_named() {
        for (bytes, word) in [
            (&b"PK\x03\x04archive"[..], "pickle"),
            (b"\x80\x02}q", "pickle"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":1}", "folder it is in"),
            (b"something", "no GGUF"),
        ] {
            let said = refusal(&[("model.gguf", bytes.to_vec())]);
            assert!(said.contains(word), "{said}");
        }
    }

    /// A file of many kinds of things, with 8 rows of each format of 32.
    fn motley() -> Made {
        let made = Made::default()
            .text("general.architecture", "llama")
            .number("llama.attention.head_count", 2)
            .entry(
                "texts",
                9,
                &[
                    &8_u32.to_le_bytes()[..],
                    &1_u64.to_le_bytes(),
                    &1_u64.to_le_bytes(),
                    b"x",
                ]
                .concat(),
            )
            .entry(
                "scores",
                9,
                &[
                    &6_u32.to_le_bytes()[..],
                    &1_u64.to_le_bytes(),
                    &1.0_f32.to_le_bytes(),
                ]
                .concat(),
            );
        [(2, 18), (3, 20), (6, 22), (7, 24), (8, 34)]
            .into_iter()
            .fold(made, |made, (kind, bytes)| {
                let name = format!("blk.{kind}.attn_q.weight");
                made.tensor(&name, &[8, 32], kind, &vec![1; 8 * bytes])
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever bytes are changed, every tensor is given or refused.
        #[test]
        fn a_changed_file_never_panics(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = motley().bytes();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let (_folder, gguf) = open(&[("model.gguf", bytes)]);
            if let Ok(gguf) = gguf {
                let weights = gguf.laid_out(&LLAMA);
                for kind in [2, 3, 6, 7, 8] {
                    let name = format!("model.layers.{kind}.self_attn.q_proj.weight");
                    let _ = weights.tensor_as(&name, &[8, 32], Kind::BFloat16);
                    let _ = weights.four_bit(&name, &[8, 32]);
                }
            }
        }
    }

    #[test]
    fn the_motley_file_is_sound() {
        let (_folder, gguf) = opened(&motley());
        let weights = gguf.laid_out(&LLAMA);
        for kind in [2, 3, 6, 7, 8] {
            let name = format!("model.layers.{kind}.self_attn.q_proj.weight");
            assert!(weights.tensor(&name, &[8, 32]).is_ok());
            let four_bit = weights.four_bit(&name, &[8, 32]).unwrap();
            assert_eq!(four_bit.is_some(), kind < 4);
        }
    }
}
