//! Products with a model's matrices.

mod embedding;
mod int4;
mod int8;

use tch::{TchError, Tensor};

use crate::error::LoadError;
use crate::kernels;
use crate::loader::{Loader, on_device};
use int4::Int4;
use int8::Int8;

pub(crate) use embedding::Embedding;

/// How a model's matrices are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// In the number format of activations.
    None,
    /// In eight bits, a scale for each row.
    Int8,
    /// In four bits, a scale and a zero for each 32 weights of a row; what is
    /// looked up, and the head, in eight.
    Int4,
}

/// Weights taken into another form at a time, so that what stands between file
/// and packed form stays small beside a model.
const WEIGHTS_AT_A_TIME: i64 = 1 << 24;

/// From so many rows of input on, unpacking the weights for libtorch's dense
/// product is faster than its packed ones.
const ROWS_WORTH_UNPACKING: i64 = 32;

/// A matrix, and what is added after multiplying by it.
#[derive(Debug)]
pub(crate) struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
}

#[derive(Debug)]
enum Matrix {
    /// `[out, in]`.
    Dense(Tensor),
    Int8(Int8),
    Int4(Int4),
}

impl Linear {
    /// Loads `{name}.weight` `[out, in]` and, with `bias`, `{name}.bias` `[out]`.
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        [outputs, inputs]: [i64; 2],
        bias: bool,
    ) -> Result<Self, LoadError> {
        Self::load_stacked(loader, &[(name.to_owned(), outputs)], inputs, bias)
    }

    /// Loads several matrices of the same input as one, their outputs one after
    /// the other: one large product is faster than several small ones.
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub(crate) fn load_stacked(
        loader: &mut Loader<'_>,
        parts: &[(String, i64)],
        inputs: i64,
        bias: bool,
    ) -> Result<Self, LoadError> {
        let matrix = Matrix::load(loader, parts, inputs)?;
        let mut biases = Vec::new();
        if bias {
            for (name, outputs) in parts {
                biases.push(loader.tensor(&format!("{name}.bias"), &[*outputs])?);
            }
        }
        Ok(Self {
            matrix,
            bias: match bias {
                true => Some(stack(biases)?),
                false => None,
            },
        })
    }

    /// Loads a model's last matrix, `{name}.weight` `[vocabulary, width]`: four
    /// bits are too few for it.
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub(crate) fn load_head(
        loader: &mut Loader<'_>,
        name: &str,
        shape: [i64; 2],
    ) -> Result<Self, LoadError> {
        Ok(Embedding::load(loader, name, shape)?.head())
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let product = match &self.matrix {
            Matrix::Dense(weight) if kernels::are_few(input) => {
                let input = input.f_contiguous()?;
                return kernels::multiply(&input, weight, self.bias.as_ref());
            }
            Matrix::Dense(weight) => return input.f_linear(weight, self.bias.as_ref()),
            Matrix::Int8(packed) => by_rows(input, |rows| packed.forward(rows))?,
            Matrix::Int4(packed) => by_rows(input, |rows| packed.forward(rows))?,
        };
        match &self.bias {
            Some(bias) => product.f_add(bias),
            None => Ok(product),
        }
    }
}

impl Matrix {
    fn load(
        loader: &mut Loader<'_>,
        parts: &[(String, i64)],
        inputs: i64,
    ) -> Result<Self, LoadError> {
        let outputs = parts.iter().map(|(_, outputs)| outputs).sum();
        let parts: Vec<_> = parts
            .iter()
            .map(|(name, outputs)| (format!("{name}.weight"), [*outputs, inputs]))
            .collect();
        match loader.packing() {
            Packing::Int4 if Int4::fits([outputs, inputs]) => {
                Int4::load(loader, &parts).map(Self::Int4)
            }
            Packing::Int4 | Packing::Int8 if Int8::fits([outputs, inputs]) => {
                Int8::load(loader, &parts).map(Self::Int8)
            }
            _ => {
                let dense = parts.iter().map(|(name, shape)| loader.tensor(name, shape));
                stack(dense.collect::<Result<_, _>>()?).map(Self::Dense)
            }
        }
    }
}

/// Tensors one after the other; a single one as it is.
fn stack(mut tensors: Vec<Tensor>) -> Result<Tensor, LoadError> {
    match (tensors.pop(), tensors.is_empty()) {
        (Some(only), true) => Ok(only),
        (last, _) => {
            tensors.extend(last);
            Tensor::f_cat(&tensors, 0).map_err(on_device)
        }
    }
}

/// A product with the rows of `[.., in]`, for kernels that take a matrix that
/// lies in one piece.
fn by_rows(
    input: &Tensor,
    product: impl Fn(&Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    let mut shape = input.size();
    if shape.len() == 2 {
        return product(&input.f_contiguous()?);
    }
    let inputs = shape.pop().unwrap_or(1);
    let out = product(&input.f_reshape([-1, inputs])?.f_contiguous()?)?;
    shape.push(-1);
    out.f_view(shape.as_slice())
}

/// Pieces of `[rows, columns]` of whole blocks of 64 rows, each of not many
/// weights: where they begin, and their rows.
fn pieces([rows, columns]: [i64; 2]) -> impl Iterator<Item = (i64, i64)> {
    let most = (WEIGHTS_AT_A_TIME / columns.max(1) / 64).max(1) * 64;
    let starts = (0..rows).step_by(usize::try_from(most).unwrap_or(usize::MAX));
    starts.map(move |start| (start, most.min(rows - start)))
}
