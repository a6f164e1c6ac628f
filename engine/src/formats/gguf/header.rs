//! A GGUF's header: metadata, and where the tensors lie.
//!
//! The file is untrusted: every count and length is compared with what is left
//! of the file before anything is allocated for it.

use std::collections::HashMap;

use crate::formats::quantized::Encoding;

const MAGIC: &[u8; 4] = b"GGUF";
/// Metadata entries: files in use have some dozens.
const MAX_ENTRIES: u64 = 4096;
/// Tensors: the largest models have some thousands.
const MAX_TENSORS: u64 = 1 << 16;
/// Elements of one metadata array: a vocabulary has at most some hundred
/// thousand tokens.
const MAX_ARRAY: u64 = 1 << 22;
/// A tensor's dimensions, as in llama.cpp.
const MAX_DIMENSIONS: u32 = 4;
/// The largest alignment of tensor data; 32 is usual.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// A metadata value. Numbers of every width come as one kind each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    /// An array whose content nobody here needs.
    Other,
}

/// Where a tensor lies in the file.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    /// Rows first, as in torch; GGUF writes the fastest dimension first.
    pub(super) shape: Vec<i64>,
    pub(super) encoding: Encoding,
    /// Which of a model's files it is in.
    pub(super) file: usize,
    /// From the file's beginning, in bytes; known to lie inside it.
    pub(super) start: usize,
    pub(super) bytes: usize,
}

/// Metadata, and where the tensors lie, by their names.
type Parsed = (HashMap<String, Value>, HashMap<String, TensorInfo>);

/// Reads a file's metadata and where its tensors lie.
pub(super) fn parse(file: &[u8]) -> Result<Parsed, String> {
    let mut reader = Reader { rest: file };
    if reader.take(4)? != MAGIC {
        return Err("it is no GGUF file".into());
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!(
            "its GGUF version is {version}, and 2 and 3 are known"
        ));
    }
    let tensor_count = bounded(reader.u64()?, MAX_TENSORS, "tensors")?;
    let entry_count = bounded(reader.u64()?, MAX_ENTRIES, "metadata entries")?;
    let mut entries = HashMap::new();
    for _ in 0..entry_count {
        let key = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind)?;
        entries.insert(key, value);
    }
    let mut infos = Vec::new();
    for _ in 0..tensor_count {
        infos.push(reader.tensor_info()?);
    }
    let alignment = match entries.get("general.alignment") {
        Some(Value::Unsigned(alignment)) => *alignment,
        _ => 32,
    };
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(format!("its alignment is {alignment}"));
    }
    let header = (file.len() - reader.rest.len()) as u64;
    let data = header.next_multiple_of(alignment);
    let mut tensors = HashMap::new();
    for (name, entry) in infos {
        let info = locate(entry, data, file.len()).map_err(|why| format!("tensor {name} {why}"))?;
        if tensors.insert(name.clone(), info).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    no_overlap(&tensors)?;
    Ok((entries, tensors))
}

/// Refuses tensors that share bytes: a small file could claim terabytes.
fn no_overlap(tensors: &HashMap<String, TensorInfo>) -> Result<(), String> {
    let mut places: Vec<_> = tensors
        .iter()
        .filter(|(_, info)| info.bytes > 0)
        .map(|(name, info)| (info.start, info.start + info.bytes, name))
        .collect();
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(format!(
            "its tensors {} and {} overlap",
            pair[0].2, pair[1].2
        )),
        None => Ok(()),
    }
}

/// A tensor as the header describes it, with its place in the data.
struct Entry {
    shape: Vec<i64>,
    encoding: Encoding,
    offset: u64,
}

/// Turns a tensor's place in the data into its place in the file, if it is
/// inside it.
fn locate(entry: Entry, data: u64, length: usize) -> Result<TensorInfo, &'static str> {
    let Entry {
        shape,
        encoding,
        offset,
    } = entry;
    let rows = shape.split_last().map_or(&[][..], |(_, rows)| rows);
    let columns = shape.last().map_or(1, |&size| size as u64);
    let row = encoding
        .bytes_of(columns)
        .ok_or("has rows of no whole blocks")?;
    // Not by its bytes alone: those of an unknown format are 0.
    let elements = shape
        .iter()
        .try_fold(1_u64, |product, &size| product.checked_mul(size as u64));
    let bytes = rows
        .iter()
        .try_fold(row, |product, &size| product.checked_mul(size as u64));
    let start = data.checked_add(offset);
    let end = bytes.and_then(|bytes| start?.checked_add(bytes));
    match (elements, start, end) {
        (Some(_), Some(start), Some(end)) if end <= length as u64 => Ok(TensorInfo {
            shape,
            encoding,
            file: 0,
            start: start as usize,
            bytes: (end - start) as usize,
        }),
        _ => Err("lies beyond the file's end: it is cut off"),
    }
}

fn bounded(count: u64, limit: u64, what: &str) -> Result<u64, String> {
    match count <= limit {
        true => Ok(count),
        false => Err(format!("it claims {count} {what}, and {limit} are allowed")),
    }
}

/// What is left to read of a file.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or("it is cut off in its header")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).map_err(|_| "a text is too long")?;
        // Tokens of some vocabularies are no UTF-8; they are never looked up.
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// A value of one of GGUF's thirteen kinds.
    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => self.array_value()?,
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("it has a value of unknown kind {kind}")),
        })
    }

    fn array_value(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        let length = bounded(self.u64()?, MAX_ARRAY, "elements of an array")?;
        match kind {
            8 => (0..length)
                .map(|_| self.text())
                .collect::<Result<_, _>>()
                .map(Value::Texts),
            4 | 5 => (0..length)
                .map(|_| match kind {
                    4 => self.u32().map(i64::from),
                    _ => self.array().map(i32::from_le_bytes).map(i64::from),
                })
                .collect::<Result<_, _>>()
                .map(Value::Integers),
            6 => (0..length)
                .map(|_| self.array().map(f32::from_le_bytes))
                .collect::<Result<_, _>>()
                .map(Value::Floats),
            9 => Err("it has an array of arrays".into()),
            _ => {
                for _ in 0..length {
                    self.value(kind)?;
                }
                Ok(Value::Other)
            }
        }
    }

    /// A tensor's name, shape, number format and place in the data.
    fn tensor_info(&mut self) -> Result<(String, Entry), String> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(format!("tensor {name} has {dimensions} dimensions"));
        }
        let mut shape = (0..dimensions)
            .map(|_| i64::try_from(self.u64()?).map_err(|_| format!("tensor {name} is too large")))
            .collect::<Result<Vec<_>, String>>()?;
        shape.reverse();
        let encoding = Encoding::from_gguf(self.u32()?);
        let offset = self.u64()?;
        Ok((
            name,
            Entry {
                shape,
                encoding,
                offset,
            },
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small file that is whole: one entry, one tensor of two f32.
    fn whole() -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        let number = |n: u64, file: &mut Vec<u8>| file.extend(n.to_le_bytes());
        number(1, &mut file);
        number(1, &mut file);
        number(1, &mut file);
        file.extend(b"k\x04\0\0\0\x07\0\0\0");
        number(1, &mut file);
        file.extend(b"t\x01\0\0\0");
        number(2, &mut file);
        file.extend(0_u32.to_le_bytes());
        number(0, &mut file);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend([1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
        file
    }

    #[test]
    fn reads_a_whole_file() {
        let (entries, tensors) = parse(&whole()).unwrap();
        assert_eq!(entries["k"], Value::Unsigned(7));
        assert_eq!(tensors["t"].shape, [2]);
        assert_eq!(tensors["t"].bytes, 8);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = whole();
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn absurd_counts_are_refused_before_they_are_believed() {
        for place in [8, 16, 24] {
            let mut file = whole();
            file[place..place + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(parse(&file).is_err(), "count at {place}");
        }
    }

    #[test]
    fn tensors_that_share_bytes_are_refused() {
        let (whole, at) = (whole(), 8);
        let tensor = whole
            .windows(9)
            .position(|bytes| bytes == b"\x01\0\0\0\0\0\0\0t");
        let tensor = tensor.unwrap();
        let entry = tensor..tensor + 9 + 4 + 8 + 4 + 8;
        let mut twice = whole[..entry.end].to_vec();
        twice[at] = 2;
        twice.extend(&whole[entry]);
        let name = twice.len() - 25;
        twice[name] = b'u';
        twice.resize(twice.len().next_multiple_of(32) + 8, 0);
        let refusal = parse(&twice).unwrap_err();
        assert!(refusal.contains("overlap"), "{refusal}");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn random_bytes_behind_a_true_beginning_never_panic(
            counts: [u8; 2],
            bytes: Vec<u8>,
        ) {
            let mut file = b"GGUF\x03\0\0\0".to_vec();
            for count in counts {
                file.extend(u64::from(count).to_le_bytes());
            }
            file.extend(bytes);
            let _ = parse(&file);
        }

        #[test]
        fn a_damaged_byte_never_panics(place: prop::sample::Index, byte: u8) {
            let mut file = whole();
            let place = place.index(file.len());
            file[place] = byte;
            let _ = parse(&file);
        }
    }
}
