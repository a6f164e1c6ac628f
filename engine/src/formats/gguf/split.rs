//! A model in several GGUF files: `name-00001-of-00003.gguf` and so on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Files that a model may be split into.
const MOST_FILES: usize = 1024;

/// All files of the model that this one is a part of, in their order; `None` if
/// its name is none of a part.
pub(crate) fn parts(path: &Path) -> Option<Vec<PathBuf>> {
    let (beginning, _, count) = part(path.file_name()?)?;
    let name = |number| format!("{beginning}-{number:05}-of-{count:05}.gguf");
    let parts = (1..=count).map(|number| path.with_file_name(name(number)));
    Some(parts.collect())
}

/// The first of these files, if they are the parts of one model and no others.
pub(crate) fn first_of(files: &[PathBuf]) -> Option<PathBuf> {
    let parts = parts(files.first()?)?;
    let same = files.len() == parts.len() && files.iter().all(|file| parts.contains(file));
    same.then(|| parts.into_iter().next())?
}

/// What stands before the numbers in a part's name, the part's number and the
/// number of parts.
pub(crate) fn part(name: &OsStr) -> Option<(&str, usize, usize)> {
    let stem = name.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (beginning, number) = rest.rsplit_once('-')?;
    let (number, count) = (digits(number)?, digits(count)?);
    ((1..=count).contains(&number) && count <= MOST_FILES).then_some((beginning, number, count))
}

/// A number of exactly five digits.
fn digits(text: &str) -> Option<usize> {
    let sound = text.len() == 5 && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        let name = |name| part(OsStr::new(name));
        assert_eq!(name("a-b-00002-of-00003.gguf"), Some(("a-b", 2, 3)));
        for other in [
            "a.gguf",
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-1-of-3.gguf",
            "a-00001-of-99999.gguf",
            "a-+0001-of-00003.gguf",
            "a-00001-of-00003.safetensors",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn a_folder_may_hold_one_model_in_parts() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let (one, two) = ("m/a-00001-of-00002.gguf", "m/a-00002-of-00002.gguf");
        assert_eq!(first_of(&files(&[two, one])), Some(PathBuf::from(one)));
        assert_eq!(first_of(&files(&[two])), None);
        assert_eq!(first_of(&files(&[one, "m/b.gguf"])), None);
    }
}
