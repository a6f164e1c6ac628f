//! The decode step in fixed shapes, for GPUs.
//!
//! A decode step is a thousand small pieces of work, and telling a GPU of each
//! takes longer than most of them. So a step is recorded once and then started
//! with one call (a CUDA graph). What is recorded has the same shapes and the
//! same memory every time: rows and blocks are filled up to the next size that
//! there is a recording of, and all that differs from step to step lies in one
//! small tensor of whole numbers. Nothing inside waits for the GPU.
//!
//! Attention copies each row's blocks together and hides what is not the row's
//! to see: libtorch 2.11 has no attention over pages of this size.

use tch::{Device, Kind, TchError, Tensor};

use super::batch::{Batch, Row};
use super::store::{BLOCK_TOKENS, Store};
use super::{Config, Decoder, Prediction, predictions};
use crate::cuda::{Graph, Recorder};

/// The fewest blocks of a row that a step is made for: a recording for less
/// would save nothing.
const LEAST_BLOCKS: usize = 8;

/// The most recordings that are kept. Each takes some megabytes; this is enough
/// for seven numbers of rows with seven lengths.
const MOST_STEPS: usize = 49;

/// What comes before the blocks in a row of a step's numbers.
const TOKEN: i64 = 0;
const POSITION: i64 = 1;
const BLOCKS: i64 = 2;

/// The steps that were made so far, for one store.
#[derive(Debug)]
pub(super) struct Steps {
    /// What was used last is last.
    steps: Vec<Step>,
    /// `None` where there are no recordings: each step is told piece by piece.
    recorder: Option<Recorder>,
    device: Device,
    /// The block of rows that only fill up.
    spare: i64,
}

/// What steps of so many rows give.
#[derive(Debug)]
struct Given {
    /// f32 `[rows, vocabulary]`.
    logits: Tensor,
    /// Where the processor reads them.
    read: Tensor,
    /// What the logits are made of, `[rows, width]`; seldom read.
    states: Tensor,
}

/// A step for so many rows of so many blocks.
#[derive(Debug)]
struct Step {
    rows: usize,
    blocks: usize,
    /// Token, position and blocks of each row, int64 `[rows, 2 + blocks]`.
    numbers: Tensor,
    /// Steps of as many rows share it.
    given: Given,
    graph: Option<Graph>,
}

impl Steps {
    /// None so far; `None` on the processor, which gains nothing by them.
    pub(super) fn on(device: Device, spare: usize) -> Option<Self> {
        match device {
            Device::Cuda(number) => Some(Self::new(device, spare, Recorder::on(number))),
            _ => None,
        }
    }

    fn new(device: Device, spare: usize, recorder: Option<Recorder>) -> Self {
        Self {
            steps: Vec::new(),
            recorder,
            device,
            spare: spare as i64,
        }
    }

    /// As [`Decoder::forward`], for rows of one token.
    fn forward(
        &mut self,
        decoder: &Decoder,
        rows: &[Row<'_>],
        store: &mut Store,
    ) -> Result<Vec<Prediction>, TchError> {
        let used = rows
            .iter()
            .map(|row| row.end().div_ceil(BLOCK_TOKENS))
            .max();
        let blocks = used.unwrap_or(0).next_power_of_two().max(LEAST_BLOCKS);
        let mut step = self.take(decoder, rows.len().next_power_of_two(), blocks)?;
        step.fill(rows, self.spare)?;
        if step.graph.is_none() {
            self.record(&mut step, decoder, store);
        }
        match &step.graph {
            Some(graph) => graph.replay()?,
            None => step.compute(decoder, store)?,
        }
        let predictions = step.read(rows);
        self.steps.push(step);
        predictions
    }

    /// The step of this size, off the list.
    fn take(&mut self, decoder: &Decoder, rows: usize, blocks: usize) -> Result<Step, TchError> {
        let same = |step: &Step| (step.rows, step.blocks) == (rows, blocks);
        if let Some(place) = self.steps.iter().position(same) {
            return Ok(self.steps.remove(place));
        }
        if self.steps.len() == MOST_STEPS {
            self.steps.remove(0);
        }
        let beside = self.steps.iter().find(|step| step.rows == rows);
        let shape_of_numbers = [rows as i64, BLOCKS + blocks as i64];
        Ok(Step {
            rows,
            blocks,
            numbers: Tensor::f_zeros(shape_of_numbers, (Kind::Int64, self.device))?,
            given: match beside {
                Some(step) => step.given.shared(),
                None => self.given(decoder, rows as i64)?,
            },
            graph: None,
        })
    }

    fn given(&self, decoder: &Decoder, rows: i64) -> Result<Given, TchError> {
        let (width, vocabulary) = (decoder.config.width, decoder.config.vocabulary);
        let states = (decoder.placement.kind, self.device);
        Ok(Given {
            logits: Tensor::f_zeros([rows, vocabulary], (Kind::Float, self.device))?,
            read: match &self.recorder {
                Some(recorder) => recorder.pinned(rows, vocabulary)?,
                None => Tensor::f_zeros([rows, vocabulary], (Kind::Float, Device::Cpu))?,
            },
            states: Tensor::f_zeros([rows, width], states)?,
        })
    }

    /// Records a step. If it cannot be, that is said once, and no other is tried.
    fn record(&mut self, step: &mut Step, decoder: &Decoder, store: &mut Store) {
        let Some(recorder) = &self.recorder else {
            return;
        };
        match recorder.record(|| step.compute(decoder, store)) {
            Ok(graph) => step.graph = Some(graph),
            Err(error) => {
                tracing::warn!(%error, "decode steps cannot be recorded: they will be slower");
                self.recorder = None;
            }
        }
    }
}

impl Step {
    /// Puts the rows into its numbers. Rows that fill up compute the first token
    /// of a sequence in the spare block.
    fn fill(&mut self, rows: &[Row<'_>], spare: i64) -> Result<(), TchError> {
        let width = BLOCKS as usize + self.blocks;
        let mut numbers = vec![spare; self.rows * width];
        for (number, into) in numbers.chunks_mut(width).enumerate() {
            let (token, position, blocks): (_, _, &[u32]) = match rows.get(number) {
                Some(row) => (row.tokens[0], row.start, row.blocks),
                None => (0, 0, &[]),
            };
            into[TOKEN as usize] = i64::from(token);
            into[POSITION as usize] = position as i64;
            // A sequence may have more than it has filled.
            for (into, block) in into[BLOCKS as usize..].iter_mut().zip(blocks) {
                *into = i64::from(*block);
            }
        }
        let numbers = Tensor::f_from_slice(&numbers)?.f_reshape(self.numbers.size())?;
        self.numbers.f_copy_(&numbers)
    }

    /// The work itself, from `numbers` to what is `given`.
    fn compute(&self, decoder: &Decoder, store: &mut Store) -> Result<(), TchError> {
        let batch = Batch::fixed(decoder, &self.numbers)?;
        let hidden = decoder.hidden(&batch, store)?;
        let states = decoder.norm.forward(&hidden)?;
        self.given.states.shallow_clone().f_copy_(&states)?;
        let logits = decoder.head.forward(&states)?;
        self.given.logits.shallow_clone().f_copy_(&logits)
    }

    /// Waits for what it says to the rows that draw.
    fn read(&self, rows: &[Row<'_>]) -> Result<Vec<Prediction>, TchError> {
        let used = |given: &Tensor| given.f_narrow(0, 0, rows.len() as i64);
        let mut read = used(&self.given.read)?;
        read.f_copy_(&used(&self.given.logits)?)?;
        let states = used(&self.given.states)?;
        let predictions = predictions(&read, &states, |row| rows[row].proves)?;
        let drawn = predictions
            .into_iter()
            .zip(rows)
            .filter(|(_, row)| row.draws);
        Ok(drawn.map(|(prediction, _)| prediction).collect())
    }
}

impl Given {
    fn shared(&self) -> Self {
        Self {
            logits: self.logits.shallow_clone(),
            read: self.read.shallow_clone(),
            states: self.states.shallow_clone(),
        }
    }
}

/// As [`Decoder::forward`]: rows of one token in a step of a fixed shape, and the
/// others after them.
pub(super) fn forward(
    decoder: &Decoder,
    rows: &[Row<'_>],
    store: &mut Store,
    steps: &mut Steps,
) -> Result<Vec<Prediction>, TchError> {
    let (decoding, filling): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.tokens.len() == 1);
    let mut decoded = match decoding.is_empty() {
        true => Vec::new(),
        false => steps.forward(decoder, &decoding, store)?,
    }
    .into_iter();
    let mut filled = match filling.is_empty() {
        true => Vec::new(),
        false => decoder.forward_freely(&filling, store)?,
    }
    .into_iter();
    let drawing = rows.iter().filter(|row| row.draws);
    let in_order = drawing.filter_map(|row| match row.tokens.len() {
        1 => decoded.next(),
        _ => filled.next(),
    });
    Ok(in_order.collect())
}

/// What attention needs in a step of a fixed shape, the same for all layers.
pub(super) struct Fixed {
    /// Where each row's key and value go: its block and the place in it, int64
    /// `[rows]` each.
    place: [Tensor; 2],
    /// For each row and key head its pieces of blocks, among all of a layer's:
    /// int64 `[rows * kv_heads * blocks]`.
    pieces: Tensor,
    /// What is added to the scores, `[rows, 1, 1, blocks * BLOCK_TOKENS]`, for
    /// each width of window that there is.
    masks: Vec<(Option<i64>, Tensor)>,
}

impl Batch<'_> {
    /// Of a step's numbers.
    fn fixed(decoder: &Decoder, numbers: &Tensor) -> Result<Self, TchError> {
        let positions = numbers.f_select(1, POSITION)?;
        let kind = decoder.placement.kind;
        let rotary = decoder.rotary.iter();
        let blocks = numbers.size()[1] - BLOCKS;
        let table = numbers.f_narrow(1, BLOCKS, blocks)?;
        let fixed = Fixed::new(&decoder.config, &positions, &table, kind)?;
        let [block, place] = &fixed.place;
        Ok(Batch {
            rows: &[],
            ids: numbers.f_select(1, TOKEN)?,
            slots: block.f_mul_scalar(BLOCK_TOKENS as i64)?.f_add(place)?,
            rotary: rotary
                .map(|rotary| rotary.at(&positions, kind))
                .collect::<Result<_, _>>()?,
            parts: Vec::new(),
            fixed: Some(fixed),
        })
    }
}

impl Fixed {
    /// Of positions `[rows]` and blocks `[rows, blocks]`.
    fn new(
        config: &Config,
        positions: &Tensor,
        table: &Tensor,
        kind: Kind,
    ) -> Result<Self, TchError> {
        let whole = (Kind::Int64, table.device());
        let positions = positions.f_unsqueeze(1)?;
        let block = positions.f_floor_divide_scalar(BLOCK_TOKENS as i64)?;
        let inside = positions.f_remainder(BLOCK_TOKENS as i64)?;
        let heads = Tensor::f_arange(config.kv_heads, whole)?.f_unsqueeze(1)?;
        let pieces = table.f_unsqueeze(1)?.f_mul_scalar(config.kv_heads)?;
        let tokens = table.size()[1] * BLOCK_TOKENS as i64;
        let all = Tensor::f_arange(tokens, whole)?;
        let mut windows: Vec<_> = config.layers.iter().map(|kind| kind.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let masks = windows.into_iter().map(|window| {
            let mut hidden = all.f_gt_tensor(&positions)?;
            if let Some(window) = window {
                let left = all.f_le_tensor(&positions.f_sub_scalar(window)?)?;
                hidden = hidden.f_logical_or(&left)?;
            }
            let mask = Tensor::f_zeros(hidden.size(), (kind, table.device()))?
                .f_masked_fill(&hidden, f64::NEG_INFINITY)?;
            Ok((window, mask.f_unsqueeze(1)?.f_unsqueeze(1)?))
        });
        Ok(Self {
            place: [
                table.f_gather(1, &block, false)?.f_squeeze_dim(1)?,
                inside.f_squeeze_dim(1)?,
            ],
            pieces: pieces.f_add(&heads)?.f_flatten(0, -1)?,
            masks: masks.collect::<Result<_, TchError>>()?,
        })
    }

    /// Keeps the rows' keys and values `[rows, kv_heads, head_width]`, and gives
    /// what their queries `[rows, heads, head_width]` find: `[rows, heads *
    /// head_width]`.
    pub(super) fn attend(
        &self,
        [queries, keys, values]: [&Tensor; 3],
        cache: &[Tensor; 2],
        scale: f64,
        window: Option<i64>,
    ) -> Result<Tensor, TchError> {
        let (rows, heads, width) = queries.size3()?;
        let kv_heads = keys.size()[1];
        self.put(&cache[0], keys)?;
        self.put(&cache[1], values)?;
        let mask = self.masks.iter().find(|(of, _)| *of == window);
        // The query heads that share a key head are its rows.
        let found = Tensor::f_scaled_dot_product_attention(
            &queries.f_reshape([rows, kv_heads, heads / kv_heads, width])?,
            &self.gather(&cache[0], rows)?,
            &self.gather(&cache[1], rows)?,
            mask.map(|(_, mask)| mask),
            0.0,
            false,
            Some(scale),
            false,
        )?;
        found.f_reshape([rows, heads * width])
    }

    fn put(&self, cache: &Tensor, new: &Tensor) -> Result<(), TchError> {
        let place = self.place.each_ref().map(Some);
        let mut by_token = cache.f_transpose(1, 2)?;
        by_token
            .f_index_put_(&place, &finite(new)?, false)
            .map(drop)
    }

    /// All keys or values of the rows' blocks, `[rows, kv_heads, tokens,
    /// head_width]`.
    fn gather(&self, cache: &Tensor, rows: i64) -> Result<Tensor, TchError> {
        let (_, kv_heads, tokens, width) = cache.size4()?;
        cache
            .f_view([-1, tokens * width])?
            .f_index_select(0, &self.pieces)?
            .f_view([rows, kv_heads, -1, width])
    }
}

/// With zeros for what is no number. Steps of fixed shapes read what other
/// sequences left in a block, times zero: it must be numbers.
pub(super) fn finite(new: &Tensor) -> Result<Tensor, TchError> {
    new.f_nan_to_num(0.0, 0.0, 0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
