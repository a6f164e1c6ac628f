//! The model that is sold, and the ones that are run in its place.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use infernet_engine::{ModelSource, Options, TorchEngine};
use infernet_protocol::inference::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::{AT_ONCE, Failure};

/// Weights that share their steps in the file that the model comes from.
const GROUP: usize = 32;
/// Steps of its four bits.
const STEPS: f32 = 15.0;
/// How many of its layers another model has.
const LAYERS_LEFT_OUT: u64 = 2;

/// Folders of models.
pub struct Models {
    sold: PathBuf,
    shortened: PathBuf,
}

impl Models {
    /// Makes them of a folder with f32 weights, if they are not there yet.
    ///
    /// The weights come from a file of four bits, so that to pack them into four bits
    /// again would change nothing. A random part of a step is added to each, as if the
    /// model had never been packed.
    pub fn make(plain: &Path, work: &Path) -> Result<Self, Failure> {
        let models = Self {
            sold: work.join("dithered"),
            shortened: work.join("shortened"),
        };
        let weights = models.sold.join("model.safetensors");
        if !weights.exists() {
            copy_settings(plain, &models.sold)?;
            let part = models.sold.join("model.part");
            dither(&plain.join("model.safetensors"), &part)?;
            fs::rename(part, &weights)?;
        }
        copy_settings(plain, &models.shortened)?;
        shorten(&models.shortened.join("config.json"))?;
        let link = models.shortened.join("model.safetensors");
        if !link.exists() {
            fs::hard_link(weights, link)?;
        }
        Ok(models)
    }

    /// The model that is sold, in a number format.
    pub fn load(&self, dtype: Dtype) -> Result<TorchEngine, Failure> {
        load(&self.sold, dtype)
    }

    /// One that says much the same: the last layers are left out.
    pub fn load_shortened(&self) -> Result<TorchEngine, Failure> {
        load(&self.shortened, Dtype::F32)
    }
}

/// Loads a model.
pub fn load(folder: &Path, dtype: Dtype) -> Result<TorchEngine, Failure> {
    Ok(TorchEngine::load(Options {
        models: vec![ModelSource {
            dtype,
            ..ModelSource::new(folder)
        }],
        slots: Some(AT_ONCE),
        cache_mib: Some(512),
        ..Options::default()
    })?)
}

/// Copies all but the weights.
fn copy_settings(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let is_weights = path.extension().is_some_and(|end| end == "safetensors");
        if let Some(name) = path.file_name().filter(|_| !is_weights) {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

fn shorten(config: &Path) -> Result<(), Failure> {
    let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(config)?)?;
    let layers = settings["num_hidden_layers"].as_u64().ok_or("no layers")?;
    settings["num_hidden_layers"] = (layers - LAYERS_LEFT_OUT).into();
    fs::write(config, settings.to_string())?;
    Ok(())
}

/// Adds to each weight of each matrix at most half a step, up or down.
fn dither(from: &Path, to: &Path) -> Result<(), Failure> {
    let bytes = fs::read(from)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (number >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut made: HashMap<String, Vec<u8>> = HashMap::new();
    for (name, tensor) in file.tensors() {
        let mut data = tensor.data().to_vec();
        if tensor.shape().len() == 2 {
            for group in data.chunks_mut(GROUP * size_of::<f32>()) {
                dither_group(group, &mut next);
            }
        }
        made.insert(name, data);
    }
    let mut views = Vec::new();
    for (name, tensor) in file.tensors() {
        let data = made.get(&name).ok_or("a tensor is missing")?;
        let view = TensorView::new(tensor.dtype(), tensor.shape().to_vec(), data)?;
        views.push((name, view));
    }
    safetensors::serialize_to_file(views, None, to)?;
    Ok(())
}

fn dither_group(group: &mut [u8], next: &mut impl FnMut() -> f32) {
    let (weights, _) = group.as_chunks_mut::<4>();
    let all = weights.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let (low, high) = all.fold((f32::MAX, f32::MIN), |(low, high), weight| {
        (low.min(weight), high.max(weight))
    });
    let step = (high - low) / STEPS;
    for bytes in weights {
        *bytes = (f32::from_le_bytes(*bytes) + next() * step).to_le_bytes();
    }
}
