//! NumPy's files of one array (format 1.0 to 3.0 of `numpy.lib.format`).

use anyhow::{Context, bail, ensure};
use infernet_protocol::tensor::{Element, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";
/// The data begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// NumPy's names of the number formats that both know.
const FORMATS: [(&str, Element); 9] = [
    ("<f4", Element::F32),
    ("<f8", Element::F64),
    ("<f2", Element::F16),
    ("|u1", Element::U8),
    ("|i1", Element::I8),
    ("<i2", Element::I16),
    ("<i4", Element::I32),
    ("<i8", Element::I64),
    ("|b1", Element::Bool),
];

/// The array in a file's bytes, without a name.
///
/// # Errors
/// It is no such file, or its array is of a kind that no tensor is.
pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Tensor> {
    let damaged = "it is no .npy file, or is cut off";
    let rest = bytes.strip_prefix(MAGIC).context(damaged)?;
    let (version, rest) = rest.split_first_chunk::<2>().context(damaged)?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk().context(damaged)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk().context(damaged)?;
            (usize::try_from(u32::from_le_bytes(*length))?, rest)
        }
        other => bail!("it is of version {other} of the .npy format, which is not known"),
    };
    let (header, data) = rest.split_at_checked(length).context(damaged)?;
    let header = std::str::from_utf8(header).context(damaged)?;
    let dtype = value(header, "descr").context(damaged)?;
    let dtype = dtype.trim_matches(['\'', '"']);
    let Some((_, dtype)) = FORMATS.iter().find(|(name, _)| *name == dtype) else {
        bail!("its numbers are of type {dtype}, which modules do not take");
    };
    ensure!(
        value(header, "fortran_order").context(damaged)? == "False",
        "its array is in Fortran's order: save numpy.ascontiguousarray of it"
    );
    Ok(Tensor {
        name: String::new(),
        dtype: *dtype,
        shape: shape(header).context(damaged)?,
        data: data.to_vec(),
    })
}

/// What stands behind a name in a header, which is a Python dictionary, up to
/// the next comma.
fn value<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}':"))?;
    rest.split([',', '}']).next().map(str::trim)
}

fn shape(header: &str) -> Option<Vec<u64>> {
    let (_, rest) = header.split_once("'shape':")?;
    let (_, rest) = rest.split_once('(')?;
    let (numbers, _) = rest.split_once(')')?;
    let numbers = numbers.split(',').map(str::trim);
    let numbers = numbers.filter(|number| !number.is_empty());
    numbers.map(|number| number.parse().ok()).collect()
}

/// A file's bytes. NumPy has no bf16: such a tensor becomes one of f32.
pub fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    let known = FORMATS.iter().find(|(_, dtype)| *dtype == tensor.dtype);
    let (format, data) = match known {
        Some((format, _)) => (*format, tensor.data.clone()),
        None => ("<f4", widened(&tensor.data)),
    };
    let lengths = tensor.shape.iter().map(|length| format!("{length},"));
    let lengths: String = lengths.collect();
    let header = format!("{{'descr': '{format}', 'fortran_order': False, 'shape': ({lengths}), }}");
    let start = MAGIC.len() + 4;
    let end = (start + header.len() + 1).next_multiple_of(ALIGNMENT);
    // At most eight lengths of twenty digits: far below what 16 bits count.
    let length = u16::try_from(end - start).unwrap_or(u16::MAX);
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(end - 1, b' ');
    bytes.push(b'\n');
    bytes.extend(data);
    bytes
}

/// bf16 is the upper half of f32.
fn widened(data: &[u8]) -> Vec<u8> {
    let (halves, _) = data.as_chunks::<2>();
    halves.iter().flat_map(|&[a, b]| [0, 0, a, b]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// numpy.save of numpy.arange(6, dtype="<i2").reshape(2, 3), by NumPy 2.4.
    fn from_numpy() -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00v\x00".to_vec();
        bytes.extend(b"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }");
        bytes.resize(127, b' ');
        bytes.push(b'\n');
        bytes.extend((0..6_i16).flat_map(i16::to_le_bytes));
        bytes
    }

    #[test]
    fn reads_what_numpy_writes() {
        let tensor = from_bytes(&from_numpy()).unwrap();
        assert_eq!((tensor.dtype, &*tensor.shape), (Element::I16, &[2, 3][..]));
        assert_eq!(tensor.data[2..6], [1, 0, 2, 0]);
    }

    #[test]
    fn reads_what_it_writes() {
        for (_, dtype) in FORMATS {
            for shape in [vec![], vec![3], vec![2, 0], vec![2, 1, 2]] {
                let elements: u64 = shape.iter().product();
                let tensor = Tensor {
                    name: String::new(),
                    dtype,
                    data: vec![1; elements as usize * dtype.bytes()],
                    shape,
                };
                let bytes = to_bytes(&tensor);
                assert_eq!(bytes.len() - tensor.data.len(), ALIGNMENT * 2);
                assert_eq!(from_bytes(&bytes).unwrap(), tensor);
            }
        }
    }

    #[test]
    fn bf16_becomes_f32() {
        let tensor = Tensor {
            name: String::new(),
            dtype: Element::Bf16,
            shape: vec![1],
            data: vec![0x80, 0x3f],
        };
        let read = from_bytes(&to_bytes(&tensor)).unwrap();
        assert_eq!(read.data, 1_f32.to_le_bytes());
    }

    #[test]
    fn refuses_what_is_no_array() {
        let whole = from_numpy();
        for length in [0, 5, 7, 9, 60, 127] {
            assert!(from_bytes(&whole[..length]).is_err(), "{length}");
        }
        for (from, to, word) in [("<i2", ">i2", ">i2"), ("False", "True ", "Fortran")] {
            let text = String::from_utf8_lossy(&whole[10..]).replace(from, to);
            let changed = [&whole[..10], text.as_bytes()].concat();
            let said = from_bytes(&changed).unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        }
    }
}
