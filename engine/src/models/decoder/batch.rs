//! The tokens that are computed together.

use infernet_protocol::inference::TokenId;
use tch::{TchError, Tensor};

use super::fixed::Fixed;
use super::store::{BLOCK_TOKENS, slot};
use super::{Decoder, rotary};
use crate::kernels::{self, Sight};
use crate::models::Placement;

/// One sequence's share of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    /// The tokens that run now: one when decoding, a piece of the prompt before.
    pub(crate) tokens: &'a [TokenId],
    /// Tokens before them, whose keys and values are in the store.
    pub(crate) start: usize,
    /// The sequence's blocks in the store, in order. They hold
    /// `start + tokens.len()` tokens at least.
    pub(crate) blocks: &'a [u32],
    /// Whether the logits after its last token are wanted.
    pub(crate) draws: bool,
    /// Whether, where it draws, the state is wanted that these logits are made of.
    pub(crate) proves: bool,
}

impl Row<'_> {
    /// Tokens of the sequence when this step is done.
    pub(super) fn end(&self) -> usize {
        self.start + self.tokens.len()
    }
}

/// Rows whose attention is computed together.
pub(super) enum Part<'a> {
    /// One row, and the blocks that hold its tokens, int64 `[blocks]`.
    Alone(&'a Row<'a>, Tensor),
    /// Rows of one token each, for our kernel.
    Singles(Sight),
}

/// Rows, and what all layers need to know of them.
pub(super) struct Batch<'a> {
    pub(super) rows: &'a [Row<'a>],
    /// All rows' tokens one after the other, int64 `[tokens]`.
    pub(super) ids: Tensor,
    /// Where in the store each token's key and value go, int64 `[tokens]`.
    pub(super) slots: Tensor,
    /// For each rope, cosines and sines of the tokens' positions, `[tokens, 1,
    /// head_width]` each.
    pub(super) rotary: Vec<[Tensor; 2]>,
    /// The rows in their order, as attention takes them.
    pub(super) parts: Vec<Part<'a>>,
    /// How its rows of one token find each other's keys and values in a step of
    /// fixed shapes. There are no `rows` and `parts` then.
    pub(super) fixed: Option<Fixed>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(decoder: &Decoder, rows: &'a [Row<'a>]) -> Result<Self, TchError> {
        let device = decoder.placement.device;
        let put = |numbers: &[i64]| Tensor::f_from_slice(numbers)?.f_to_device(device);
        let (mut ids, mut slots, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            ids.extend(row.tokens.iter().map(|&token| i64::from(token)));
            slots.extend((row.start..row.end()).map(|position| slot(row.blocks, position)));
            positions.extend((row.start..row.end()).map(|position| position as i64));
        }
        let positions = put(&positions)?;
        let kind = decoder.placement.kind;
        let rotary = decoder.rotary.iter();
        Ok(Self {
            rows,
            ids: put(&ids)?,
            slots: put(&slots)?,
            rotary: rotary
                .map(|rotary: &rotary::Rotary| rotary.at(&positions, kind))
                .collect::<Result<_, _>>()?,
            parts: parts(decoder, rows)?,
            fixed: None,
        })
    }

    /// Tokens of all rows together.
    pub(super) fn tokens(&self) -> i64 {
        self.ids.numel() as i64
    }

    /// The states `[rows that draw, width]` of the last tokens of the rows that
    /// draw, of all tokens' states `[tokens, width]`. `None` if no row draws.
    pub(super) fn drawing(&self, hidden: &Tensor) -> Result<Option<Tensor>, TchError> {
        let (mut end, mut last) = (0, Vec::new());
        for row in self.rows {
            end += row.tokens.len() as i64;
            if row.draws {
                last.push(end - 1);
            }
        }
        if last.is_empty() {
            return Ok(None);
        }
        let last = Tensor::f_from_slice(&last)?.f_to_device(hidden.device())?;
        hidden.f_index_select(0, &last).map(Some)
    }
}

/// Neighbouring rows of one token together where our kernel serves the decoder, the
/// others one by one.
fn parts<'a>(decoder: &Decoder, rows: &'a [Row<'a>]) -> Result<Vec<Part<'a>>, TchError> {
    let Placement { device, kind, .. } = decoder.placement;
    let by_kernel =
        kernels::serve_on(device, kind) && decoder.config.head_width <= kernels::MAX_HEAD_WIDTH;
    let is_single = |row: &Row<'_>| by_kernel && row.tokens.len() == 1;
    let mut parts = Vec::new();
    for run in rows.chunk_by(|a, b| is_single(a) && is_single(b)) {
        parts.push(match run {
            [row] if !is_single(row) => {
                Part::Alone(row, Tensor::f_from_slice(&table(row))?.f_to_device(device)?)
            }
            _ => Part::Singles(sight(run)),
        });
    }
    Ok(parts)
}

/// The blocks that hold a row's tokens.
fn table(row: &Row<'_>) -> Vec<i64> {
    let used = &row.blocks[..row.end().div_ceil(BLOCK_TOKENS)];
    used.iter().map(|&block| i64::from(block)).collect()
}

fn sight(rows: &[Row<'_>]) -> Sight {
    let tables: Vec<_> = rows.iter().map(table).collect();
    let blocks_each = tables.iter().map(Vec::len).max().unwrap_or(0);
    Sight {
        tables: tables
            .into_iter()
            .flat_map(|mut table| {
                table.resize(blocks_each, 0); // beyond its length
                table
            })
            .collect(),
        blocks_each,
        lengths: rows.iter().map(|row| row.end() as i64).collect(),
    }
}
