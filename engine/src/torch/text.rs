//! What it takes to serve a model of text.

use std::sync::Arc;

use tch::Device;

use crate::error::LoadError;
use crate::kernels::InferenceMode;
use crate::loader::on_device;
use crate::memory;
use crate::models::decoder::{BLOCK_TOKENS, Decoder};
use crate::port::Capacity;
use crate::serve::{self, Limits, Needs, Server, Text};
use crate::tokenizer::Tokenizer;

/// Tokens of prompts in a round in which nobody's answer is under way: so many that
/// the products with matrices are as fast as they get, and no more, since a request
/// that comes or is cancelled waits for the round.
const PROMPT_ALONE: usize = 512;

/// Tokens of prompts in a round that answers wait for, on a processor: a pause of about
/// a quarter of a second between two words, with a small model on two cores.
const PROMPT_BESIDE_CPU: usize = 128;

/// The same on a GPU, which computes as many in a few milliseconds.
const PROMPT_BESIDE_CUDA: usize = 1024;

/// How a model is served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    pub(super) device: Device,
    pub(super) threads: u32,
    pub(super) slots: usize,
    pub(super) queue: usize,
    /// Bytes of the cache, if somebody said so.
    pub(super) cache_bytes: Option<u64>,
    /// Bytes of free memory that are spoken for.
    pub(super) reserved: u64,
    pub(super) shares_prefixes: bool,
}

/// Starts to serve a model with a context of so many tokens.
///
/// # Errors
/// When the device has no room for the cache, or the system gives no threads.
pub(super) fn start(
    decoder: Box<Decoder>,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    service: Service,
) -> Result<(Server, Capacity), LoadError> {
    let needs = Needs {
        slots: service.slots,
        context,
        block_bytes: decoder.bytes_per_block(),
    };
    let free = memory::free(service.device);
    let free = free.map(|bytes| bytes.saturating_sub(service.reserved));
    let blocks = serve::blocks(needs, service.cache_bytes, free)
        .map_err(|scarce| LoadError::Device(scarce.to_string()))?;
    let store = decoder.store(blocks as usize).map_err(on_device)?;
    let tokens = blocks as usize * BLOCK_TOKENS;
    let text = Text {
        tokenizer,
        context: context.min(tokens),
    };
    let capacity = Capacity {
        slots: u32::try_from(service.slots).unwrap_or(u32::MAX),
        cache_tokens: tokens as u64,
        cache_bytes: u64::from(blocks) * needs.block_bytes,
    };
    let limits = Limits {
        slots: service.slots,
        blocks,
        prompt_alone: PROMPT_ALONE.max(beside(service.device)),
        prompt_beside: beside(service.device),
        threads: service.threads as usize,
        shares_prefixes: service.shares_prefixes,
    };
    let threads = i32::try_from(service.threads).unwrap_or(i32::MAX);
    let prepare = move || {
        // OpenMP keeps this number for each thread that asks.
        tch::set_num_threads(threads);
        InferenceMode::begin()
    };
    let network = serve::Loaded { decoder, store };
    let server = Server::start(network, text, limits, service.queue, prepare)?;
    Ok((server, capacity))
}

fn beside(device: Device) -> usize {
    match device {
        Device::Cuda(_) => PROMPT_BESIDE_CUDA,
        _ => PROMPT_BESIDE_CPU,
    }
}
