//! Our own kernels for the processor (`shim/`): what a decode step does beside
//! its matrix products costs libtorch many small calls, and attention over a
//! paged store copies of it. Everything here has a plain way through libtorch,
//! which the GPU takes and the tests compare with.

mod table;
#[cfg(test)]
mod tests;

use std::ffi::c_void;

use tch::{Device, Kind, TchError, Tensor};

use crate::models::decoder::Activation;
use table::{Heads, Paged, kernels, vector_bits};

pub(crate) use table::InferenceMode;

/// The widest head that the kernels take.
pub(crate) const MAX_HEAD_WIDTH: i64 = 512;

/// Can tensors in this number format on this device be computed with these
/// kernels?
pub(crate) fn serve_on(device: Device, kind: Kind) -> bool {
    device == Device::Cpu && matches!(kind, Kind::Float | Kind::BFloat16)
}

/// Can this one?
pub(crate) fn serve(tensor: &Tensor) -> bool {
    serve_on(tensor.device(), tensor.kind())
}

/// RMS norm of each row of `input` `[rows, width]`, times `weight` (f32
/// `[width]`).
///
/// # Errors
/// When a tensor is of another shape or number format, or memory is short.
pub(crate) fn rms_norm(input: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor, TchError> {
    // Without anything to add, it is only read.
    norm(input, None, weight, epsilon)
}

/// Adds `more` to `sum`, in place, and gives the norm of that as [`rms_norm`]
/// does.
///
/// # Errors
/// As [`rms_norm`].
pub(crate) fn add_and_norm(
    sum: &mut Tensor,
    more: &Tensor,
    weight: &Tensor,
    epsilon: f64,
) -> Result<Tensor, TchError> {
    norm(sum, Some(more), weight, epsilon)
}

fn norm(
    input: &Tensor,
    added: Option<&Tensor>,
    weight: &Tensor,
    epsilon: f64,
) -> Result<Tensor, TchError> {
    let (half, shape) = (is_half(input)?, input.size2()?);
    let (kind, shape) = (input.kind(), [shape.0, shape.1]);
    let out = like(&shape, kind)?;
    let input = plain(input, &shape, kind)?;
    let added = added.map(|added| plain(added, &shape, kind)).transpose()?;
    let weight = plain(weight, &shape[1..], Kind::Float)?;
    // SAFETY: all are of the shapes and number formats that the kernel takes.
    unsafe {
        (kernels().norm)(
            half,
            input,
            added.unwrap_or(std::ptr::null_mut()),
            weight.cast(),
            out.data_ptr(),
            shape[0],
            shape[1],
            epsilon as f32,
        );
    }
    Ok(out)
}

/// The middle of a gated feed-forward: `[rows, 2 * width]`, gates before what they
/// let through, to `[rows, width]`.
///
/// # Errors
/// As [`rms_norm`].
pub(crate) fn gate(both: &Tensor, activation: Activation) -> Result<Tensor, TchError> {
    let (half, kind, (rows, columns)) = (is_half(both)?, both.kind(), both.size2()?);
    if columns % 2 != 0 {
        return Err(unfit("gates"));
    }
    let out = like(&[rows, columns / 2], kind)?;
    let by_gelu = activation == Activation::GeluTanh;
    let both = plain(both, &[rows, columns], kind)?;
    // SAFETY: as in `norm`.
    unsafe { (kernels().gating)(half, by_gelu, both, out.data_ptr(), rows, columns / 2) }
    Ok(out)
}

/// Norms of queries and of keys, head by head: f32 `[head_width]` each.
pub(crate) struct HeadNorms<'a> {
    pub(crate) query: &'a Tensor,
    pub(crate) key: &'a Tensor,
    pub(crate) epsilon: f64,
}

/// Where keys and values of one layer lie: `[blocks, kv_heads, block_tokens,
/// head_width]` each.
pub(crate) type Cache = [Tensor; 2];

/// Rotates queries and keys of `all` `[tokens, heads + 2 * kv_heads,
/// head_width]` by cosines and sines `[tokens, .., head_width]` of their
/// positions, after norming them where there are norms; puts keys and values
/// into the store's slots (int64 `[tokens]`, numbered over all blocks), and gives
/// the queries `[tokens, heads, head_width]`.
///
/// # Errors
/// As [`rms_norm`]; also when a slot is outside of the store or a head too wide.
pub(crate) fn rotate_and_keep(
    all: &Tensor,
    [cosines, sines]: &[Tensor; 2],
    norms: Option<&HeadNorms<'_>>,
    slots: &Tensor,
    [keys, values]: &mut Cache,
) -> Result<Tensor, TchError> {
    let (half, kind) = (is_half(all)?, all.kind());
    let (tokens, all_heads, width) = all.size3()?;
    let (blocks, kv_heads, block_tokens, _) = keys.size4()?;
    let heads = all_heads - 2 * kv_heads;
    let store = [blocks, kv_heads, block_tokens, width];
    let norm = |norm: Option<&Tensor>| match norm {
        Some(norm) => {
            plain(norm, &[width], Kind::Float).map(|norm| norm.cast::<f32>().cast_const())
        }
        None => Ok(std::ptr::null()),
    };
    let shape = Heads {
        tokens,
        heads,
        kv_heads,
        width,
        block_tokens,
        query_norm: norm(norms.map(|norms| norms.query))?,
        key_norm: norm(norms.map(|norms| norms.key))?,
        epsilon: norms.map_or(0.0, |norms| norms.epsilon as f32),
    };
    if tokens < 1 || heads < 1 || kv_heads < 1 || width > MAX_HEAD_WIDTH {
        return Err(unfit("heads"));
    }
    let slots_at = plain(slots, &[tokens], Kind::Int64)?.cast::<i64>();
    // SAFETY: `plain` says that so many lie there.
    let numbers = unsafe { std::slice::from_raw_parts(slots_at, tokens as usize) };
    let room = 0..blocks * block_tokens;
    if numbers.iter().any(|slot| !room.contains(slot)) {
        return Err(unfit("slots"));
    }
    let queries = like(&[tokens, heads, width], kind)?;
    let angles = [tokens, width];
    // SAFETY: as in `norm`, and every slot is one of the store's.
    unsafe {
        (kernels().rotate)(
            half,
            &shape,
            plain(all, &[tokens, all_heads, width], kind)?,
            plain(&cosines.f_view(angles)?, &angles, kind)?,
            plain(&sines.f_view(angles)?, &angles, kind)?,
            slots_at,
            queries.data_ptr(),
            plain(keys, &store, kind)?,
            plain(values, &store, kind)?,
        );
    }
    Ok(queries)
}

/// What single tokens of several sequences look at.
pub(crate) struct Sight {
    /// The blocks of each row, in order, one row after the other, each row
    /// `blocks_each` long.
    pub(crate) tables: Vec<i64>,
    pub(crate) blocks_each: usize,
    /// How many tokens each row sees, its own the last.
    pub(crate) lengths: Vec<i64>,
}

/// Attention of `queries` `[rows, heads, head_width]`, each the last token of its
/// row, over the store: `[rows, heads * head_width]`. With a `window`, a row sees
/// its last tokens alone.
///
/// # Errors
/// As [`rotate_and_keep`].
pub(crate) fn attend(
    queries: &Tensor,
    [keys, values]: &Cache,
    sight: &Sight,
    window: Option<i64>,
    scale: f64,
) -> Result<Tensor, TchError> {
    let (half, kind) = (is_half(queries)?, queries.kind());
    let (rows, heads, width) = queries.size3()?;
    let (blocks, kv_heads, block_tokens, _) = keys.size4()?;
    let store = [blocks, kv_heads, block_tokens, width];
    let shape = Paged {
        rows,
        heads,
        kv_heads,
        width,
        block_tokens,
        tables: sight.tables.as_ptr(),
        table_width: sight.blocks_each as i64,
        lengths: sight.lengths.as_ptr(),
        window: window.unwrap_or(0),
        scale: scale as f32,
    };
    let share = heads >= 1 && kv_heads >= 1 && heads % kv_heads == 0;
    if !share || !sight.is_within(&shape, blocks) {
        return Err(unfit("heads or block tables"));
    }
    let out = like(&[rows, heads * width], kind)?;
    // SAFETY: as in `norm`, and every block that is looked at is one of the
    // store's.
    unsafe {
        (kernels().attention)(
            half,
            &shape,
            plain(queries, &[rows, heads, width], kind)?,
            plain(keys, &store, kind)?,
            plain(values, &store, kind)?,
            out.data_ptr(),
        );
    }
    Ok(out)
}

impl Sight {
    /// Are there tables for every row, of blocks that the store has?
    fn is_within(&self, shape: &Paged, blocks: i64) -> bool {
        /// As in shim/kernels/attention.h.
        const MAX_BLOCK_TOKENS: i64 = 64;
        let longest = self.blocks_each as i64 * shape.block_tokens;
        shape.width <= MAX_HEAD_WIDTH
            && (1..=MAX_BLOCK_TOKENS).contains(&shape.block_tokens)
            && self.lengths.len() as i64 == shape.rows
            && self.tables.len() == self.lengths.len() * self.blocks_each
            && self
                .lengths
                .iter()
                .all(|length| (1..=longest).contains(length))
            && self.tables.iter().all(|block| (0..blocks).contains(block))
    }
}

/// Are these rows (`[rows, in]`) so few that [`multiply`] is faster than libtorch?
pub(crate) fn are_few(input: &Tensor) -> bool {
    // Measured; with more, libtorch makes more of its vectors.
    let most = match input.kind() {
        Kind::Float => 8,
        _ => 4,
    };
    serve(input) && input.dim() == 2 && (1..=most).contains(&input.size()[0])
}

/// The product of few rows `[rows, in]` with a matrix `[out, in]`, and a bias `[out]`
/// added: `[rows, out]`.
///
/// # Errors
/// As [`rms_norm`]; also for more than eight rows.
pub(crate) fn multiply(
    input: &Tensor,
    weights: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    /// As in shim/kernels/multiply.h.
    const MAX_ROWS: i64 = 8;
    let (half, kind) = (is_half(input)?, input.kind());
    let ((rows, inputs), (outputs, _)) = (input.size2()?, weights.size2()?);
    if !(1..=MAX_ROWS).contains(&rows) {
        return Err(unfit("the number of rows"));
    }
    let out = like(&[rows, outputs], kind)?;
    let input = plain(input, &[rows, inputs], kind)?;
    let weights = plain(weights, &[outputs, inputs], kind)?;
    let bias = bias.map(|bias| plain(bias, &[outputs], kind)).transpose()?;
    // SAFETY: as in `norm`.
    unsafe {
        (kernels().product)(
            half,
            input,
            weights,
            bias.unwrap_or(std::ptr::null_mut()),
            out.data_ptr(),
            rows,
            outputs,
            inputs,
        );
    }
    Ok(out)
}

/// Four-bit weights out of libtorch's packed form (uint8 `[rows, columns / 2]`,
/// with bf16 scales and zeros `[columns / group, rows, 2]`) as bf16 `[columns,
/// rows]`: the matrix on its side.
///
/// # Errors
/// As [`rms_norm`].
pub(crate) fn unpack_four_bit(
    packed: &Tensor,
    scales_and_zeros: &Tensor,
) -> Result<Tensor, TchError> {
    let (rows, half) = packed.size2()?;
    let (groups, columns) = (scales_and_zeros.size3()?.0, half * 2);
    if groups < 1 || columns % groups != 0 || rows % 2 != 0 {
        return Err(unfit("groups of four-bit weights"));
    }
    let out = like(&[columns, rows], Kind::BFloat16)?;
    let (block_rows, halves) = packed_layout();
    // SAFETY: as in `norm`.
    unsafe {
        (kernels().unpacking)(
            plain(packed, &[rows, half], Kind::Uint8)?.cast(),
            plain(scales_and_zeros, &[groups, rows, 2], Kind::BFloat16)?,
            out.data_ptr(),
            rows,
            columns,
            columns / groups,
            block_rows,
            halves,
        );
    }
    Ok(out)
}

/// How libtorch packs four-bit weights on this machine: the rows of a block, and
/// whether a byte's two are half a block apart.
fn packed_layout() -> (i64, bool) {
    match vector_bits() {
        512 => (64, true),
        256 => (32, true),
        _ => (32, false),
    }
}

/// bf16 rather than f32?
fn is_half(tensor: &Tensor) -> Result<bool, TchError> {
    match tensor.kind() {
        Kind::BFloat16 => Ok(true),
        Kind::Float => Ok(false),
        _ => Err(unfit("the number format")),
    }
}

/// An empty tensor for what a kernel gives.
fn like(shape: &[i64], kind: Kind) -> Result<Tensor, TchError> {
    Tensor::f_empty(shape, (kind, Device::Cpu))
}

/// Where a tensor's numbers lie, if they lie in the processor's memory, one after
/// the other, and are of this shape and number format.
fn plain(tensor: &Tensor, shape: &[i64], kind: Kind) -> Result<*mut c_void, TchError> {
    let fits = tensor.device() == Device::Cpu
        && tensor.kind() == kind
        && tensor.size() == shape
        && tensor.is_contiguous();
    match fits {
        true => Ok(tensor.data_ptr()),
        false => Err(unfit("a tensor")),
    }
}

fn unfit(what: &str) -> TchError {
    TchError::Shape(format!("{what} of a kernel's input does not fit"))
}
