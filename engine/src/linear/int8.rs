//! Weights of eight bits.

use tch::{Kind, TchError, Tensor};

use super::{ROWS_WORTH_UNPACKING, pieces, stack};
use crate::error::LoadError;
use crate::loader::{Loader, on_device};

/// A matrix of eight-bit weights: weight = quant * scale.
#[derive(Debug)]
pub(super) struct Int8 {
    /// int8 `[out, in]`.
    quants: Tensor,
    /// bf16 `[out]`.
    scales: Tensor,
}

impl Int8 {
    /// Does libtorch's kernel take matrices of this shape `[out, in]`?
    pub(super) fn fits([_, inputs]: [i64; 2]) -> bool {
        inputs % 16 == 0
    }

    /// Loads matrices of the same input as one.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        parts: &[(String, [i64; 2])],
    ) -> Result<Self, LoadError> {
        let (mut quants, mut scales) = (Vec::new(), Vec::new());
        for (name, shape) in parts {
            let weights = loader.dense(name, shape)?;
            for (start, rows) in pieces(*shape) {
                let piece = weights.f_narrow(0, start, rows);
                let quantised = piece
                    .and_then(|piece| quantise(&piece))
                    .map_err(on_device)?;
                quants.push(quantised.0);
                scales.push(quantised.1);
            }
        }
        Ok(Self {
            quants: stack(quants)?,
            scales: stack(scales)?,
        })
    }

    /// bf16 `[rows, in]`, in one piece, to `[rows, out]`.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        if input.size()[0] < ROWS_WORTH_UNPACKING {
            return input.f_internal_weight_int8pack_mm(&self.quants, &self.scales);
        }
        // Eight bits are exact in bf16; the scales are left for the products.
        let weights = self.quants.f_to_kind(Kind::BFloat16)?;
        input
            .f_linear::<&Tensor>(&weights, None)?
            .f_mul_(&self.scales)
    }

    /// Rows by their numbers (int64 `[n]`), as bf16 `[n, in]`.
    pub(super) fn rows(&self, numbers: &Tensor) -> Result<Tensor, TchError> {
        let scales = self.scales.f_index_select(0, numbers)?.f_unsqueeze(1)?;
        let quants = self.quants.f_index_select(0, numbers)?;
        quants.f_to_kind(Kind::BFloat16)?.f_mul_(&scales)
    }

    pub(super) fn shallow_clone(&self) -> Self {
        Self {
            quants: self.quants.shallow_clone(),
            scales: self.scales.shallow_clone(),
        }
    }
}

/// Rounds each row of a matrix to eight bits, its greatest to 127.
fn quantise(weights: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let weights = weights.f_to_kind(Kind::Float)?;
    let greatest = weights.f_abs()?.f_amax([1], true)?;
    let scales = greatest.f_div_scalar(127)?.f_to_kind(Kind::BFloat16)?;
    // Rounded to what the scale will be; a row of zeros has any.
    let divisors = scales.f_to_kind(Kind::Float)?.f_clamp_min(1e-30)?;
    let quants = weights.f_div(&divisors)?.f_round_()?.f_clamp_(-127, 127)?;
    Ok((quants.f_to_kind(Kind::Int8)?, scales.f_squeeze_dim(1)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::linear::Packing;
    use crate::loader::testing::Made;

    #[test]
    fn both_ways_give_the_products() {
        let made = Made::new(
            Packing::Int8,
            [("a.weight", [48, 64]), ("b.weight", [16, 64])],
        );
        let parts = [("a.weight".into(), [48, 64]), ("b.weight".into(), [16, 64])];
        let packed = Int8::load(&mut made.loader(), &parts).unwrap();
        let dense = made.stacked();
        for rows in [1, 5, ROWS_WORTH_UNPACKING + 1] {
            let input = made.input([rows, 64]);
            let expected = input.linear::<&Tensor>(&dense, None);
            let found = packed.forward(&input.to_kind(Kind::BFloat16)).unwrap();
            let difference = (found.to_kind(Kind::Float) - &expected).norm() / expected.norm();
            assert!(difference.double_value(&[]) < 0.01, "{rows}: {difference}");
        }
    }

    #[test]
    fn rows_are_those_of_the_matrix() {
        let made = Made::new(Packing::Int8, [("a.weight", [48, 64])]);
        let packed = Int8::load(&mut made.loader(), &[("a.weight".into(), [48, 64])]).unwrap();
        let numbers = Tensor::from_slice(&[47_i64, 0, 3]);
        let expected = made.stacked().index_select(0, &numbers);
        let found = packed.rows(&numbers).unwrap().to_kind(Kind::Float);
        let difference = (found - &expected).norm() / expected.norm();
        assert!(difference.double_value(&[]) < 0.01, "{difference}");
    }
}
