//! GGUF, llama.cpp's format: metadata, then tensors, in one file.

mod header;
mod tokenizer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::{MappedFile, Weights, damaged, map, unsupported};
use crate::error::LoadError;
use header::{TensorInfo, Value};

/// A GGUF file that was found to be whole.
#[derive(Debug)]
pub(crate) struct Gguf {
    path: PathBuf,
    file: MappedFile,
    entries: HashMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
}

impl Gguf {
    /// Opens a file, and checks that all its tensors lie inside it.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let file = map(path)?;
        let (entries, tensors) = header::parse(&file).map_err(|reason| damaged(path, reason))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            entries,
            tensors,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.file
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

    /// Number of query heads and of key-value heads, for the rows to unpermute.
    fn heads(&self) -> Result<[i64; 2], LoadError> {
        let heads = self.require("llama.attention.head_count")?;
        let kv_heads = self
            .unsigned("llama.attention.head_count_kv")
            .unwrap_or(heads);
        Ok([heads as i64, kv_heads as i64])
    }
}

impl Weights for Gguf {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        let name = gguf_name(name);
        let info = self
            .tensors
            .get(&name)
            .ok_or_else(|| damaged(&self.path, format!("it has no tensor {name}")))?;
        if info.shape != shape {
            let reason = format!("{name} has shape {:?} and not {shape:?}", info.shape);
            return Err(damaged(&self.path, reason));
        }
        let bytes = &self.file[info.start..info.start + info.bytes];
        let Some(numbers) = info.encoding.decode(bytes) else {
            let what = format!("{name}'s number format {:?}", info.encoding);
            return Err(unsupported(&self.path, what));
        };
        let tensor = Tensor::f_from_slice(&numbers).and_then(|tensor| tensor.f_reshape(shape));
        let failed = |error: tch::TchError| damaged(&self.path, format!("{name}: {error}"));
        let tensor = tensor.map_err(failed)?;
        let [heads, kv_heads] = self.heads()?;
        // Weights and biases alike.
        if name.contains(".attn_q.") {
            unpermute(&tensor, heads).map_err(failed)
        } else if name.contains(".attn_k.") {
            unpermute(&tensor, kv_heads).map_err(failed)
        } else {
            Ok(tensor)
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(&gguf_name(name))
    }

    fn files(&self) -> Vec<MappedFile> {
        Vec::new() // every tensor is a copy
    }
}

/// Llama files interleave the two halves of each head's rows, for another way
/// of computing rotary positions than transformers'. This puts them back.
fn unpermute(tensor: &Tensor, heads: i64) -> Result<Tensor, tch::TchError> {
    let shape = tensor.size();
    let half = shape[0] / heads.max(1) / 2;
    tensor
        .f_reshape([heads, half, 2, -1])?
        .f_transpose(1, 2)?
        .f_reshape(shape)
}

/// The name that llama.cpp gives to a tensor of a Llama model.
fn gguf_name(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    if let Some((layer, part)) = name
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
    {
        let part = part
            .replace("self_attn.q_proj", "attn_q")
            .replace("self_attn.k_proj", "attn_k")
            .replace("self_attn.v_proj", "attn_v")
            .replace("self_attn.o_proj", "attn_output")
            .replace("mlp.gate_proj", "ffn_gate")
            .replace("mlp.up_proj", "ffn_up")
            .replace("mlp.down_proj", "ffn_down")
            .replace("post_attention_layernorm", "ffn_norm")
            .replace("input_layernorm", "attn_norm");
        return format!("blk.{layer}.{part}");
    }
    match name {
        "embed_tokens.weight" => "token_embd.weight".into(),
        "norm.weight" => "output_norm.weight".into(),
        "lm_head.weight" => "output.weight".into(),
        other => other.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use tch::Tensor;

    use super::{Gguf, Weights, gguf_name};

    /// A Llama with one head of four, whose queries have a bias.
    fn with_bias() -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        let text = |text: &str, file: &mut Vec<u8>| {
            file.extend((text.len() as u64).to_le_bytes());
            file.extend(text.bytes());
        };
        file.extend([1_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat());
        text("llama.attention.head_count", &mut file);
        file.extend([4_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        text("blk.0.attn_q.bias", &mut file);
        file.extend(1_u32.to_le_bytes());
        file.extend(4_u64.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend([0.0_f32, 2.0, 1.0, 3.0].map(f32::to_le_bytes).concat());
        file
    }

    #[test]
    fn biases_are_put_back_as_their_weights_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, with_bias()).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let bias = gguf
            .tensor("model.layers.0.self_attn.q_proj.bias", &[4])
            .unwrap();
        assert_eq!(bias, Tensor::from_slice(&[0.0_f32, 1.0, 2.0, 3.0]));
    }

    #[test]
    fn knows_the_names_of_both_worlds() {
        assert_eq!(gguf_name("model.embed_tokens.weight"), "token_embd.weight");
        assert_eq!(
            gguf_name("model.layers.12.self_attn.k_proj.weight"),
            "blk.12.attn_k.weight"
        );
        assert_eq!(
            gguf_name("model.layers.0.post_attention_layernorm.weight"),
            "blk.0.ffn_norm.weight"
        );
        assert_eq!(gguf_name("lm_head.weight"), "output.weight");
    }
}
