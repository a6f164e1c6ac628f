//! Rotary positions (<https://arxiv.org/abs/2104.09864>).

use std::f64::consts::TAU;

use tch::{Device, Kind, TchError, Tensor};

use super::{Rope, RopeScaling, Yarn};

/// The frequencies of one kind of rotary positions.
#[derive(Debug)]
pub(super) struct Rotary {
    /// f32 `[head_width / 2]`.
    frequencies: Tensor,
    /// What cosines and sines are multiplied by.
    amplitude: f64,
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
            frequencies: scale(&frequencies, rope)?.f_to_device(device)?,
            amplitude: match &rope.scaling {
                RopeScaling::Yarn(yarn) => yarn.amplitude,
                _ => 1.0,
            },
        })
    }

    /// Cosines and sines of positions (int64 `[tokens]`): `[tokens, 1,
    /// head_width]` each, both halves of the width alike.
    pub(super) fn at(&self, positions: &Tensor, kind: Kind) -> Result<[Tensor; 2], TchError> {
        let angles = positions
            .f_to_kind(Kind::Float)?
            .f_outer(&self.frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], 1)?.f_unsqueeze(1)?;
        let finish = |numbers: Tensor| match self.amplitude {
            1.0 => numbers.f_to_kind(kind),
            amplitude => numbers.f_mul_scalar(amplitude)?.f_to_kind(kind),
        };
        Ok([finish(angles.f_cos()?)?, finish(angles.f_sin()?)?])
    }
}

/// Stretches frequencies (f32 `[head_width / 2]`).
fn scale(frequencies: &Tensor, rope: &Rope) -> Result<Tensor, TchError> {
    match &rope.scaling {
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
        RopeScaling::Yarn(yarn) => {
            let left = left_by_yarn(frequencies, rope.theta, yarn)?;
            let stretched = frequencies.f_div_scalar(yarn.factor)?;
            stretched.f_lerp_tensor(frequencies, &left)
        }
    }
}

/// How much of each frequency is left as it is, from 0 to 1.
fn left_by_yarn(frequencies: &Tensor, theta: f64, yarn: &Yarn) -> Result<Tensor, TchError> {
    let count = frequencies.size1()?;
    let width = (2 * count) as f64;
    // Where the frequency would be that turns so often in the original context.
    let place =
        |turns: f64| width * (yarn.original_context / (turns * TAU)).ln() / (2.0 * theta.ln());
    let (mut first, mut last) = (place(yarn.most_turns), place(yarn.least_turns));
    if yarn.whole {
        (first, last) = (first.floor(), last.ceil());
    }
    let (first, last) = (first.max(0.0), last.min(width - 1.0));
    let places = Tensor::f_arange(count, (Kind::Float, frequencies.device()))?;
    let stretched = places
        .f_sub_scalar(first)?
        .f_div_scalar((last - first).max(0.001))?;
    stretched.f_clamp(0.0, 1.0)?.f_neg()?.f_add_scalar(1.0)
}

/// Rotates heads `[tokens, heads, head_width]` by their positions.
pub(super) fn rotate(input: &Tensor, [cosines, sines]: &[Tensor; 2]) -> Result<Tensor, TchError> {
    let half = input.size()[2] / 2;
    let first = input.f_narrow(2, 0, half)?;
    let second = input.f_narrow(2, half, half)?;
    let turned = Tensor::f_cat(&[&second.f_neg()?, &first], 2)?;
    input.f_mul(cosines)?.f_add(&turned.f_mul(sines)?)
}
