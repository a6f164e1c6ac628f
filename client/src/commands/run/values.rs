//! Tensors as people write them: numbers in brackets.

use anyhow::{Context, bail, ensure};
use half::{bf16, f16};
use infernet_protocol::tensor::{Element, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

/// A tensor as JSON, when its number format is said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    dtype: Element,
    values: Value,
}

/// The tensor in a file's bytes, without a name: `[[1, 2], [3, 4]]`, which is
/// f32, or `{"dtype": "u8", "values": [[1, 2], [3, 4]]}`.
///
/// # Errors
/// It is neither, its rows differ in length, or a number does not fit.
pub fn from_json(bytes: &[u8]) -> anyhow::Result<Tensor> {
    let value: Value = serde_json::from_slice(bytes).context("it is not JSON")?;
    let Typed { dtype, values } = match value {
        Value::Object(_) => serde_json::from_value(value)?,
        values => Typed {
            dtype: Element::F32,
            values,
        },
    };
    let shape = shape(&values);
    let mut data = Vec::new();
    collect(&values, &shape, dtype, &mut data)?;
    Ok(Tensor {
        name: String::new(),
        dtype,
        shape,
        data,
    })
}

/// The shape that the first elements have.
fn shape(values: &Value) -> Vec<u64> {
    let mut shape = Vec::new();
    let mut values = values;
    while let Value::Array(items) = values {
        shape.push(items.len() as u64);
        let Some(first) = items.first() else { break };
        values = first;
    }
    shape
}

fn collect(
    values: &Value,
    shape: &[u64],
    dtype: Element,
    data: &mut Vec<u8>,
) -> anyhow::Result<()> {
    match (values, shape) {
        (Value::Array(items), [length, inner @ ..]) => {
            ensure!(
                items.len() as u64 == *length,
                "its rows are of different lengths"
            );
            let mut items = items.iter();
            items.try_for_each(|item| collect(item, inner, dtype, data))
        }
        (number, []) => {
            let bytes = element(number, dtype);
            data.extend(bytes.with_context(|| format!("{number} is no {dtype}"))?);
            Ok(())
        }
        _ => bail!("its rows are of different depths"),
    }
}

/// A number's little-endian bytes; none if it does not fit.
fn element(number: &Value, dtype: Element) -> Option<Vec<u8>> {
    let float = || number.as_f64();
    let integer = || number.as_i64();
    Some(match dtype {
        Element::F32 => (float()? as f32).to_le_bytes().to_vec(),
        Element::F64 => float()?.to_le_bytes().to_vec(),
        Element::F16 => f16::from_f64(float()?).to_le_bytes().to_vec(),
        Element::Bf16 => bf16::from_f64(float()?).to_le_bytes().to_vec(),
        Element::U8 => vec![u8::try_from(integer()?).ok()?],
        Element::I8 => i8::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        Element::I16 => i16::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        Element::I32 => i32::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        Element::I64 => integer()?.to_le_bytes().to_vec(),
        Element::Bool => vec![u8::from(number.as_bool()?)],
    })
}

/// A tensor as JSON, in which infinities and what is no number are null.
pub fn to_json(tensor: &Tensor) -> Value {
    let mut numbers = tensor
        .data
        .chunks_exact(tensor.dtype.bytes())
        .map(|bytes| number(bytes, tensor.dtype));
    json!({
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "values": nested(&tensor.shape, &mut numbers),
    })
}

fn nested(shape: &[u64], numbers: &mut impl Iterator<Item = Value>) -> Value {
    match shape {
        [] => numbers.next().unwrap_or_default(),
        // Of an empty tensor, there are no numbers to fill rows with.
        [length, inner @ ..] if !inner.contains(&0) => {
            (0..*length).map(|_| nested(inner, numbers)).collect()
        }
        _ => json!([]),
    }
}

fn number(bytes: &[u8], dtype: Element) -> Value {
    let number = match dtype {
        Element::F32 => bytes.try_into().map(|b| json!(f32::from_le_bytes(b))),
        Element::F64 => bytes.try_into().map(|b| json!(f64::from_le_bytes(b))),
        Element::F16 => bytes
            .try_into()
            .map(|b| json!(f16::from_le_bytes(b).to_f32())),
        Element::Bf16 => bytes
            .try_into()
            .map(|b| json!(bf16::from_le_bytes(b).to_f32())),
        Element::U8 => bytes.try_into().map(|b| json!(u8::from_le_bytes(b))),
        Element::I8 => bytes.try_into().map(|b| json!(i8::from_le_bytes(b))),
        Element::I16 => bytes.try_into().map(|b| json!(i16::from_le_bytes(b))),
        Element::I32 => bytes.try_into().map(|b| json!(i32::from_le_bytes(b))),
        Element::I64 => bytes.try_into().map(|b| json!(i64::from_le_bytes(b))),
        Element::Bool => bytes.try_into().map(|[b]: [u8; 1]| json!(b != 0)),
    };
    // Chunks have an element's size.
    number.unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Tensor> {
        from_json(text.as_bytes())
    }

    #[test]
    fn numbers_in_brackets_are_a_tensor() {
        let tensor = read("[[1, 2.5], [3, 4]]").unwrap();
        assert_eq!((tensor.dtype, &*tensor.shape), (Element::F32, &[2, 2][..]));
        assert_eq!(to_json(&tensor)["values"], json!([[1.0, 2.5], [3.0, 4.0]]));
        assert_eq!(read("7").unwrap().shape, Vec::<u64>::new());
        assert_eq!(read("[[], []]").unwrap().shape, [2, 0]);
    }

    #[test]
    fn every_format_is_read_as_it_is_written() {
        for dtype in ["f32", "f64", "f16", "bf16", "i8", "i16", "i32", "i64"] {
            let value = json!({"dtype": dtype, "values": [[-1, 2, 3]]});
            let tensor = read(&value.to_string()).unwrap();
            tensor.dtype.to_string().eq(dtype).then_some(()).unwrap();
            let written = to_json(&tensor)["values"].to_string().replace(".0", "");
            assert_eq!(written, "[[-1,2,3]]", "{dtype}");
        }
        let bools = read(r#"{"dtype": "bool", "values": [true, false]}"#).unwrap();
        assert_eq!(bools.data, [1, 0]);
        assert_eq!(to_json(&bools)["values"], json!([true, false]));
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        for (text, word) in [
            ("[[1, 2], [3]]", "lengths"),
            ("[[1, 2], 3]", "depths"),
            ("[1, [2]]", "no f32"),
            ("[1, \"x\"]", "no f32"),
            (r#"{"dtype": "u8", "values": [256]}"#, "256 is no u8"),
            (r#"{"dtype": "u9", "values": []}"#, "u9"),
            ("{", "JSON"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(word), "{text}: {said}");
        }
    }
}
