//! Weights of four bits, in the form that libtorch's kernel for them takes.

use tch::{Kind, TchError, Tensor};

use super::{ROWS_WORTH_UNPACKING, pieces, stack};
use crate::error::LoadError;
use crate::formats::quantized::FourBit;
use crate::kernels;
use crate::loader::{Loader, on_device};

/// Weights of a row that share a scale and a zero.
const GROUP: i64 = 32;

/// A matrix of four-bit weights: weight = (quant - 8) * scale + zero.
#[derive(Debug)]
pub(super) struct Int4 {
    /// Quants in libtorch's own order, uint8 `[out, in / 2]`.
    packed: Tensor,
    /// bf16 `[in / GROUP, out, 2]`.
    scales_and_zeros: Tensor,
}

/// The same, before it is packed.
struct Quantised {
    /// 0 to 15, uint8 `[out, in]`.
    quants: Tensor,
    /// bf16 `[out, in / GROUP, 2]`.
    scales_and_zeros: Tensor,
}

impl Int4 {
    /// Does libtorch's kernel take matrices of this shape `[out, in]`?
    pub(super) fn fits([outputs, inputs]: [i64; 2]) -> bool {
        outputs % 16 == 0 && inputs % GROUP == 0
    }

    /// Loads matrices of the same input as one. What has four bits already keeps
    /// them.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        parts: &[(String, [i64; 2])],
    ) -> Result<Self, LoadError> {
        let (mut quants, mut scales_and_zeros) = (Vec::new(), Vec::new());
        for (name, shape) in parts {
            let quantised = match loader.four_bit(name, shape)? {
                Some(own) => Quantised::of_file(&own, *shape).map_err(on_device)?,
                None => Quantised::of_dense(&loader.dense(name, shape)?, *shape)?,
            };
            quants.push(quantised.quants);
            scales_and_zeros.push(quantised.scales_and_zeros);
        }
        Self::pack(&Quantised {
            quants: stack(quants)?,
            scales_and_zeros: stack(scales_and_zeros)?,
        })
    }

    fn pack(quantised: &Quantised) -> Result<Self, LoadError> {
        let quants = &quantised.quants;
        let shape = quants.size2().map_err(on_device)?;
        let packed = pieces(shape.into()).map(|(start, rows)| {
            // The number only matters on GPUs.
            let piece = quants.f_narrow(0, start, rows)?.f_to_kind(Kind::Int)?;
            piece.f_internal_convert_weight_to_int4pack_for_cpu(2)
        });
        let packed = packed.collect::<Result<_, _>>().map_err(on_device)?;
        let turned = quantised.scales_and_zeros.f_transpose(0, 1);
        Ok(Self {
            packed: stack(packed)?,
            scales_and_zeros: turned
                .and_then(|turned| turned.f_contiguous())
                .map_err(on_device)?,
        })
    }

    /// bf16 `[rows, in]`, in one piece, to `[rows, out]`.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        if input.size()[0] < ROWS_WORTH_UNPACKING {
            return input.f_internal_weight_int4pack_mm_for_cpu(
                &self.packed,
                GROUP,
                &self.scales_and_zeros,
            );
        }
        input.f_matmul(&kernels::unpack_four_bit(
            &self.packed,
            &self.scales_and_zeros,
        )?)
    }
}

impl Quantised {
    /// As a file has it: weight = quant * scale + least.
    fn of_file(own: &FourBit, [outputs, inputs]: [i64; 2]) -> Result<Self, TchError> {
        let groups = [outputs, inputs / GROUP];
        let scales = Tensor::f_from_slice(&own.scales)?.f_view(groups)?;
        let leasts = Tensor::f_from_slice(&own.leasts)?.f_view(groups)?;
        let zeros = leasts.f_add(&scales.f_mul_scalar(8)?)?;
        Ok(Self {
            quants: Tensor::f_from_slice(&own.quants)?.f_view([outputs, inputs])?,
            scales_and_zeros: pairs(&scales, &zeros)?,
        })
    }

    fn of_dense(weights: &Tensor, shape: [i64; 2]) -> Result<Self, LoadError> {
        let (mut quants, mut scales_and_zeros) = (Vec::new(), Vec::new());
        for (start, rows) in pieces(shape) {
            let piece = weights.f_narrow(0, start, rows);
            let piece = piece.and_then(|piece| Self::of_piece(&piece));
            let piece = piece.map_err(on_device)?;
            quants.push(piece.quants);
            scales_and_zeros.push(piece.scales_and_zeros);
        }
        Ok(Self {
            quants: stack(quants)?,
            scales_and_zeros: stack(scales_and_zeros)?,
        })
    }

    /// Rounds each group to sixteen steps from its least weight to its greatest.
    fn of_piece(weights: &Tensor) -> Result<Self, TchError> {
        let (rows, inputs) = weights.size2()?;
        let grouped = [rows, inputs / GROUP, GROUP];
        let weights = weights.f_to_kind(Kind::Float)?.f_reshape(grouped)?;
        let (least, greatest) = (weights.f_amin([2], true)?, weights.f_amax([2], true)?);
        // Rounded to what they will be, so that quants fit them.
        let rounded = |tensor: Tensor| tensor.f_to_kind(Kind::BFloat16)?.f_to_kind(Kind::Float);
        let scales = rounded(greatest.f_sub(&least)?.f_div_scalar(15)?)?;
        let zeros = rounded(least.f_add(&scales.f_mul_scalar(8)?)?)?;
        // A group of equal weights has any scale.
        let mut steps = weights.f_sub(&zeros)?.f_div_(&scales.f_clamp_min(1e-30)?)?;
        let quants = steps.f_add_scalar_(8)?.f_round_()?.f_clamp_(0, 15)?;
        Ok(Self {
            quants: quants.f_to_kind(Kind::Uint8)?.f_view([rows, inputs])?,
            scales_and_zeros: pairs(&scales.f_squeeze_dim(2)?, &zeros.f_squeeze_dim(2)?)?,
        })
    }
}

/// Scales and zeros `[out, groups]` side by side, bf16.
fn pairs(scales: &Tensor, zeros: &Tensor) -> Result<Tensor, TchError> {
    Tensor::f_stack(&[scales, zeros], 2)?.f_to_kind(Kind::BFloat16)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::linear::Packing;
    use crate::loader::testing::Made;

    /// The matrix by the definition of its form.
    fn weights(quantised: &Quantised) -> Tensor {
        let size = quantised.quants.size();
        let factors = quantised.scales_and_zeros.to_kind(Kind::Float);
        let grouped = quantised
            .quants
            .to_kind(Kind::Float)
            .view([size[0], -1, GROUP]);
        let (scales, zeros) = (factors.narrow(2, 0, 1), factors.narrow(2, 1, 1));
        ((grouped - 8) * scales + zeros).view([size[0], size[1]])
    }

    #[test]
    fn both_ways_give_the_products_of_the_quantised_weights() {
        // Whole blocks of the packed layout, and what is left over.
        for outputs in [16, 32, 48, 64, 112, 208] {
            let made = Made::new(Packing::Int4, [("a.weight", [outputs, 96])]);
            let quantised = Quantised::of_dense(&made.stacked(), [outputs, 96]).unwrap();
            let packed = Int4::pack(&quantised).unwrap();
            for rows in [1, 5, ROWS_WORTH_UNPACKING + 1] {
                let input = made.input([rows, 96]).to_kind(Kind::BFloat16);
                let expected = input
                    .to_kind(Kind::Float)
                    .linear::<&Tensor>(&weights(&quantised), None);
                let found = packed.forward(&input).unwrap().to_kind(Kind::Float);
                let difference = (found - &expected).norm() / expected.norm();
                assert!(
                    difference.double_value(&[]) < 0.01,
                    "{outputs} {rows}: {difference}"
                );
            }
        }
    }

    #[test]
    fn rounding_errs_by_half_a_step_at_most() {
        let made = Made::new(Packing::Int4, [("a.weight", [64, 64])]);
        let dense = made.stacked();
        let quantised = Quantised::of_dense(&dense, [64, 64]).unwrap();
        let grouped = dense.view([64, 2, 32]);
        let steps = (grouped.amax([2], true) - grouped.amin([2], true)) / 15;
        let errors = (weights(&quantised) - &dense).abs().view([64, 2, 32]);
        // And what the rounding of scales and zeros to bf16 adds.
        let most = (errors / steps).max().double_value(&[]);
        assert!(most < 0.6, "{most}");
    }

    #[test]
    fn weights_of_a_file_keep_their_quants() {
        let own = FourBit {
            quants: (0..16 * 32).map(|number| number as u8 % 16).collect(),
            scales: vec![0.5; 16],
            leasts: vec![-4.0; 16],
        };
        let quantised = Quantised::of_file(&own, [16, 32]).unwrap();
        let expected: Vec<f32> = own
            .quants
            .iter()
            .map(|&quant| f32::from(quant) * 0.5 - 4.0)
            .collect();
        let expected = Tensor::from_slice(&expected).view([16, 32]);
        assert_eq!(weights(&quantised), expected);
    }
}
