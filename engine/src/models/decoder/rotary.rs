//! Rotary positions (<https://arxiv.org/abs/2104.09864>).

use std::f64::consts::TAU;

use tch::{Device, Kind, TchError, Tensor};

use super::{Rope, RopeScaling};

/// The frequencies of one kind of rotary positions.
#[derive(Debug)]
pub(super) struct Rotary {
    /// f32 `[head_width / 2]`.
    frequencies: Tensor,
}

impl Rotary {
    pub(super) fn new(rope: &Rope, head_width: i64, device: Device) -> Result<Self, TchError> {
        // In f32 and by libtorch, since others do so and results must agree.
        let options = (Kind::Float, Device::Cpu);
        let exponents =
            Tensor::f_arange_start_step(0, head_width, 2, options)?.f_div_scalar(head_width)?;
        let theta = Tensor::f_full([1], rope.theta, options)?;
        let frequencies = theta.f_pow(&exponents)?.f_reciprocal()?;
        Ok(Self {
            frequencies: scale(&frequencies, &rope.scaling)?.f_to_device(device)?,
        })
    }

    /// Cosines and sines of positions (int64 `[tokens]`): `[tokens, 1,
    /// head_width]` each, both halves of the width alike.
    pub(super) fn at(&self, positions: &Tensor, kind: Kind) -> Result<[Tensor; 2], TchError> {
        let angles = positions
            .f_to_kind(Kind::Float)?
            .f_outer(&self.frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], 1)?.f_unsqueeze(1)?;
        Ok([
            angles.f_cos()?.f_to_kind(kind)?,
            angles.f_sin()?.f_to_kind(kind)?,
        ])
    }
}

/// Stretches frequencies (f32 `[head_width / 2]`).
fn scale(frequencies: &Tensor, scaling: &RopeScaling) -> Result<Tensor, TchError> {
    match scaling {
        RopeScaling::None => Ok(frequencies.shallow_clone()),
        RopeScaling::Linear(factor) => frequencies.f_div_scalar(*factor),
        RopeScaling::Factors(factors) => frequencies.f_div(&Tensor::f_from_slice(factors)?),
        RopeScaling::Llama3 {
            factor,
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_context,
        } => {
            // How often each turns within the original context, from 0 (stretch
            // it) to 1 (leave it).
            let turns = frequencies.f_mul_scalar(*original_context / TAU)?;
            let left = turns.f_sub_scalar(*low)?.f_div_scalar(high - low)?;
            let left = left.f_clamp(0.0, 1.0)?;
            let stretched = frequencies.f_div_scalar(*factor)?;
            stretched.f_lerp_tensor(frequencies, &left)
        }
    }
}

/// Rotates heads `[tokens, heads, head_width]` by their positions.
pub(super) fn rotate(input: &Tensor, [cosines, sines]: &[Tensor; 2]) -> Result<Tensor, TchError> {
    let half = input.size()[2] / 2;
    let first = input.f_narrow(2, 0, half)?;
    let second = input.f_narrow(2, half, half)?;
    let turned = Tensor::f_cat(&[&second.f_neg()?, &first], 2)?;
    input.f_mul(cosines)?.f_add(&turned.f_mul(sines)?)
}
