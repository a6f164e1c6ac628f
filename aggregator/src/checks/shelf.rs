//! What models' work is judged by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use infernet_node::clock;
use infernet_protocol::event::{Body as _, ModelThresholds};
use infernet_protocol::inference::{Dtype, ModelId};
use infernet_protocol::verification::Thresholds;
use nostr::{Event, Keys};

/// What is known of some models: each file is the content of an event of kind 38502.
/// These are all of `nips/thresholds`.
const BUNDLED: &[&str] = include!(concat!(env!("OUT_DIR"), "/thresholds.rs"));

/// Why there are no thresholds.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file, or the folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file does not hold thresholds.
    #[error("{} does not hold thresholds: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The thresholds that an aggregator judges by, and publishes.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    of: HashMap<(ModelId, Dtype), ModelThresholds>,
}

impl Shelf {
    /// Those that come with the program, and over them those of the files in a folder,
    /// as `infernet-provider calibrate` writes them.
    ///
    /// # Errors
    /// The first file that is none. A folder that is not there is empty.
    pub fn open(folder: &Path) -> Result<Self, ShelfError> {
        let mut shelf = Self::bundled();
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| ShelfError::Unreadable { path, source }
        };
        if !folder.exists() {
            return Ok(shelf);
        }
        for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
            let path = entry.map_err(unreadable(folder))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
                let thresholds = parse(&text).map_err(|why| ShelfError::Invalid { path, why })?;
                shelf.put(thresholds);
            }
        }
        Ok(shelf)
    }

    /// Those that come with the program.
    pub fn bundled() -> Self {
        let mut shelf = Self::default();
        for text in BUNDLED {
            // A test reads them all.
            if let Ok(thresholds) = parse(text) {
                shelf.put(thresholds);
            }
        }
        shelf
    }

    /// Puts thresholds in the place of what was there for their model and format.
    pub fn put(&mut self, thresholds: ModelThresholds) {
        let key = (thresholds.model, thresholds.dtype);
        self.of.insert(key, thresholds);
    }

    /// What to judge work of this model by, whose provider says that it computes in
    /// this format. What fits bf16 fits f32 too: who says that nobody has measured gets
    /// nothing wider.
    pub fn of(&self, model: &ModelId, dtype: Dtype) -> Thresholds {
        let known = |dtype| self.of.get(&(*model, dtype));
        let coarser = || match dtype {
            Dtype::F32 | Dtype::Scripted => known(Dtype::Bf16),
            Dtype::Bf16 | Dtype::Int8 | Dtype::Int4 => None,
        };
        let known = known(dtype).or_else(coarser);
        known.map_or(Thresholds::unmeasured(dtype), |known| known.thresholds)
    }

    /// Whether work in this format can be judged: eight and four bits only where they
    /// were measured. What fits any of them lets other models through.
    pub fn can_judge(&self, model: &ModelId, dtype: Dtype) -> bool {
        !dtype.is_quantised() || self.of.contains_key(&(*model, dtype))
    }

    /// All of them as events, to be published.
    pub fn events(&self, keys: &Keys) -> Vec<Event> {
        let sign = |thresholds: &ModelThresholds| {
            let unsigned = thresholds.to_unsigned(keys.public_key(), clock::now());
            unsigned.sign_with_keys(keys).ok()
        };
        self.of.values().filter_map(sign).collect()
    }
}

/// Thresholds, if they are such as may be published.
fn parse(text: &str) -> Result<ModelThresholds, String> {
    let thresholds: ModelThresholds = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let nobody = Keys::generate().public_key();
    thresholds
        .validate(&nobody, clock::now())
        .map_err(|refusal| refusal.to_string())?;
    Ok(thresholds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::event::{Signed, V1};

    use super::*;

    fn thresholds() -> ModelThresholds {
        let model = ModelId::from_bytes([4; 32]);
        ModelThresholds {
            v: V1,
            id: ModelThresholds::id_of(&model, Dtype::Int8),
            model,
            name: "tiny".into(),
            dtype: Dtype::Int8,
            engine: "test 1".into(),
            thresholds: Thresholds {
                least_cosine: 0.5,
                ..Thresholds::WIDE
            },
            measured: [].into(),
        }
    }

    #[test]
    fn what_comes_with_the_program_is_in_order() {
        for text in BUNDLED {
            parse(text).unwrap();
        }
        assert_eq!(Shelf::bundled().of.len(), BUNDLED.len());
    }

    #[test]
    fn files_in_the_folder_are_read_published_and_judged_by() {
        let folder = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&thresholds()).unwrap();
        fs::write(folder.path().join("tiny.json"), text).unwrap();
        fs::write(folder.path().join("notes.txt"), "not read").unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        let model = thresholds().model;
        assert_eq!(shelf.of(&model, Dtype::Int8), thresholds().thresholds);
        assert_eq!(shelf.of(&model, Dtype::F32), Thresholds::WIDE);
        let judged = [Dtype::F32, Dtype::Int8, Dtype::Int4].map(|d| shelf.can_judge(&model, d));
        assert_eq!(judged, [true, true, false]);
        let events = shelf.events(&Keys::generate());
        let read = |event| Signed::<ModelThresholds>::verify(event).unwrap();
        let mut published = events.into_iter().map(read);
        assert!(published.any(|event| *event == thresholds()));
    }

    #[test]
    fn who_says_what_nobody_has_measured_gets_nothing_wider() {
        let mut shelf = Shelf::default();
        let bf16 = ModelThresholds {
            dtype: Dtype::Bf16,
            ..thresholds()
        };
        let strict = bf16.thresholds;
        shelf.put(bf16);
        let of = |dtype| shelf.of(&thresholds().model, dtype);
        assert_eq!([of(Dtype::F32), of(Dtype::Scripted)], [strict, strict]);
        assert_eq!(of(Dtype::Int4), Thresholds::QUANTISED);
    }

    #[test]
    fn a_bad_file_is_named_and_no_folder_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut wrong = thresholds();
        wrong.thresholds.sampled.pooled = 0.0;
        let text = serde_json::to_string(&wrong).unwrap();
        fs::write(folder.path().join("wrong.json"), text).unwrap();
        let error = Shelf::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("wrong.json") && error.contains("pooled"),
            "{error}"
        );
        Shelf::open(&folder.path().join("nowhere")).unwrap();
    }
}
