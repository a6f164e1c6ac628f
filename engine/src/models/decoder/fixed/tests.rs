//! Steps of fixed shapes give what free ones give, for what every family does.

use infernet_protocol::inference::TokenId;

use super::*;
use crate::error::LoadError;
use crate::formats::{MappedFile, Weights};
use crate::linear::Packing;
use crate::models::Placement;
use crate::models::decoder::{Activation, LayerKind, Rope, RopeScaling};

const BLOCKS_IN_STORE: usize = 40;
const VOCABULARY: i64 = 96;

/// Weights that are as good as any, the same for the same name.
struct Invented;

impl Weights for Invented {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        let seed = name.bytes().fold(7, |seed: i64, byte| {
            seed.wrapping_mul(31).wrapping_add(i64::from(byte)) & 0xffff
        });
        let count: i64 = shape.iter().product();
        let numbers = Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed;
        // Spread over -1..1 without order.
        let spread = ((numbers * 12.9898).sin() * 43_758.545_3).frac();
        let size = match shape {
            [_] => 0.2,
            _ => 0.35,
        };
        let offset = if name.ends_with("norm.weight") {
            1.0
        } else {
            0.0
        };
        Ok((spread * size + offset).to_kind(Kind::Float).reshape(shape))
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }

    fn files(&self) -> Vec<MappedFile> {
        Vec::new()
    }
}

fn plain() -> Config {
    Config {
        width: 32,
        feed_forward: 48,
        heads: 4,
        kv_heads: 2,
        head_width: 16,
        vocabulary: VOCABULARY,
        context: 1024,
        norm_epsilon: 1e-5,
        layers: vec![LayerKind::default(); 2],
        ropes: vec![Rope {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        }],
        attention_scale: 0.25,
        attention_bias: false,
        attention_output_bias: false,
        feed_forward_bias: false,
        query_key_norm: false,
        norms_behind: false,
        norm_offset: false,
        activation: Activation::Silu,
        embedding_scale: None,
        tied: false,
    }
}

/// All that families do differently, one at a time and together.
fn families() -> Vec<(&'static str, Config)> {
    let windows = vec![
        LayerKind {
            window: Some(40),
            rope: 1,
        },
        LayerKind::default(),
    ];
    let ropes = vec![
        Rope {
            theta: 10_000.0,
            scaling: RopeScaling::Linear(8.0),
        },
        Rope {
            theta: 100.0,
            scaling: RopeScaling::None,
        },
    ];
    vec![
        ("plain", plain()),
        (
            "every head its own keys",
            Config {
                kv_heads: 4,
                ..plain()
            },
        ),
        (
            "biases",
            Config {
                attention_bias: true,
                attention_output_bias: true,
                feed_forward_bias: true,
                ..plain()
            },
        ),
        (
            "windows",
            Config {
                layers: windows.clone(),
                ropes: ropes.clone(),
                ..plain()
            },
        ),
        (
            "all",
            Config {
                layers: windows,
                ropes,
                query_key_norm: true,
                norms_behind: true,
                norm_offset: true,
                activation: Activation::GeluTanh,
                embedding_scale: Some(5.7),
                tied: true,
                ..plain()
            },
        ),
    ]
}

fn decoder(config: Config, kind: Kind) -> Decoder {
    let placement = Placement {
        device: Device::Cpu,
        kind,
        packing: Packing::None,
    };
    Decoder::load(config, &Invented, placement).unwrap().0
}

/// A store that does fixed steps on the processor, and holds zeros as on a GPU.
fn store_with_steps(decoder: &Decoder) -> Store {
    let mut store = decoder.store(BLOCKS_IN_STORE).unwrap();
    for cache in store.layers().iter_mut().flatten() {
        let _ = cache.zero_();
    }
    store.steps = Some(Steps::new(Device::Cpu, BLOCKS_IN_STORE, None));
    store
}

/// Sequences of different lengths: their tokens, and their blocks, which lie
/// anyhow in the store.
fn sequences() -> Vec<(Vec<TokenId>, Vec<u32>)> {
    let lengths = [1, 31, 32, 33, 64, 100, 290];
    let mut free = (0..BLOCKS_IN_STORE as u32).map(|number| number * 23 % 40);
    let sequence = |(number, length): (usize, usize)| {
        let tokens = (0..length).map(|at| ((at * 17 + number * 5) % 96) as TokenId);
        let blocks = free.by_ref().take(length.div_ceil(BLOCK_TOKENS) + 1);
        (tokens.collect(), blocks.collect())
    };
    lengths.into_iter().enumerate().map(sequence).collect()
}

fn row<'a>(tokens: &'a [TokenId], start: usize, blocks: &'a [u32]) -> Row<'a> {
    Row {
        tokens,
        start,
        blocks,
        draws: true,
        proves: true,
    }
}

/// The largest distance between two predictions, as a share of their size.
fn distance(a: &Prediction, b: &Prediction) -> f32 {
    let numbers = |said: &Prediction| -> Vec<f32> {
        let state = said.state.iter().flatten();
        state.map(|number| number.to_f32()).collect()
    };
    let of_states = apart(&numbers(a), &numbers(b));
    // A state is rounded to bf16: 8 bits.
    (of_states - 1.0 / 256.0).max(apart(&a.logits, &b.logits))
}

/// The largest distance between two rows of numbers, as a share of their size.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    let size = a.iter().fold(0_f32, |size, number| size.max(number.abs()));
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    assert!(size > 0.1 && a.len() == b.len(), "numbers of nothing");
    assert!(a.iter().chain(b).all(|number| number.is_finite()));
    apart.fold(0_f32, f32::max) / size
}

/// Fills both stores with the sequences and decodes some tokens of all.
fn compare(name: &str, config: Config, kind: Kind, allowed: f32) {
    let decoder = decoder(config, kind);
    let (mut free, mut fixed) = (
        decoder.store(BLOCKS_IN_STORE).unwrap(),
        store_with_steps(&decoder),
    );
    let mut sequences = sequences();
    let prompts: Vec<_> = sequences
        .iter()
        .map(|(tokens, blocks)| row(tokens, 0, blocks))
        .collect();
    let expected = decoder.forward(&prompts, &mut free).unwrap();
    let mut drawn = decoder.forward(&prompts, &mut fixed).unwrap();
    for (expected, drawn) in expected.iter().zip(&drawn) {
        assert!(distance(expected, drawn) <= allowed, "{name}: prompts");
    }
    for round in 0..4 {
        for ((tokens, _), said) in sequences.iter_mut().zip(&drawn) {
            let logits = &said.logits;
            let most = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            tokens.push(most.unwrap() as TokenId);
        }
        let rows: Vec<_> = sequences
            .iter()
            .map(|(tokens, blocks)| {
                let start = tokens.len() - 1;
                row(&tokens[start..], start, blocks)
            })
            .collect();
        let expected = decoder.forward(&rows, &mut free).unwrap();
        drawn = decoder.forward(&rows, &mut fixed).unwrap();
        assert_eq!(drawn.len(), rows.len());
        for (number, (expected, drawn)) in expected.iter().zip(&drawn).enumerate() {
            let apart = distance(expected, drawn);
            assert!(
                apart <= allowed,
                "{name} {kind:?}: round {round}, row {number} is {apart} apart"
            );
        }
    }
}

#[test]
fn fixed_steps_give_what_free_ones_give() {
    for (name, config) in families() {
        compare(name, config.clone(), Kind::Float, 1e-4);
        compare(name, config, Kind::BFloat16, 0.03);
    }
}

/// Rows of a prompt, rows that do not draw, and rows of one token, in one call.
#[test]
fn a_mixed_batch_keeps_its_order() {
    let decoder = decoder(plain(), Kind::Float);
    let sequences = sequences();
    let mut stores = [
        decoder.store(BLOCKS_IN_STORE).unwrap(),
        store_with_steps(&decoder),
    ];
    let answers = stores.each_mut().map(|store| {
        let prompts: Vec<_> = sequences
            .iter()
            .map(|(tokens, blocks)| row(&tokens[..tokens.len() / 2], 0, blocks))
            .filter(|row| !row.tokens.is_empty())
            .collect();
        decoder.forward(&prompts, store).unwrap();
        let rows = sequences
            .iter()
            .enumerate()
            .map(|(number, (tokens, blocks))| {
                let start = tokens.len() / 2;
                let end = if number % 2 == 0 {
                    start + 1
                } else {
                    tokens.len()
                };
                Row {
                    draws: number != 4,
                    ..row(&tokens[start..end], start, blocks)
                }
            });
        decoder.forward(&rows.collect::<Vec<_>>(), store).unwrap()
    });
    assert_eq!(answers[0].len(), sequences.len() - 1);
    assert_eq!(answers[1].len(), sequences.len() - 1);
    for (expected, drawn) in answers[0].iter().zip(&answers[1]) {
        assert!(distance(expected, drawn) < 1e-4);
    }
}

/// What another sequence left in the store is no number, and changes nothing.
#[test]
fn what_is_no_number_does_not_spread() {
    let decoder = decoder(plain(), Kind::Float);
    let mut store = store_with_steps(&decoder);
    let blocks = [3];
    let poisoned = Tensor::full([1, 2, 16], f64::NAN, (Kind::Float, Device::Cpu));
    let numbers = Tensor::from_slice(&[5_i64, 2, 3, 0, 0, 0, 0, 0, 0, 0]).reshape([1, 10]);
    for cache in store.layers() {
        let batch = Batch::fixed(&decoder, &numbers).unwrap();
        let fixed = batch.fixed.unwrap();
        fixed.put(&cache[0], &poisoned).unwrap();
        fixed.put(&cache[1], &poisoned).unwrap();
    }
    let logits = decoder
        .forward(&[row(&[5], 0, &blocks)], &mut store)
        .unwrap();
    let mut clean = store_with_steps(&decoder);
    let expected = decoder
        .forward(&[row(&[5], 0, &blocks)], &mut clean)
        .unwrap();
    assert_eq!(logits, expected);
}

/// However many shapes come along, the number of steps kept is bounded, and the
/// ones in use stay.
#[test]
fn steps_are_made_once_and_not_without_end() {
    let decoder = decoder(plain(), Kind::Float);
    let mut steps = Steps::new(Device::Cpu, BLOCKS_IN_STORE, None);
    for rows in 1..=2 * MOST_STEPS {
        let often = steps.take(&decoder, 1000, LEAST_BLOCKS).unwrap();
        steps.steps.push(often);
        let step = steps.take(&decoder, rows, LEAST_BLOCKS).unwrap();
        steps.steps.push(step);
    }
    assert_eq!(steps.steps.len(), MOST_STEPS);
    assert!(steps.steps.iter().any(|step| step.rows == 1000));
    let mut store = store_with_steps(&decoder);
    for length in [1_usize, 2, 200, 3] {
        let row = row(&[1], length, &[0, 1, 2, 3, 4, 5, 6]);
        decoder.forward(&[row, row, row], &mut store).unwrap();
    }
    let steps = store.steps.unwrap().steps;
    let shapes: Vec<_> = steps.iter().map(|step| (step.rows, step.blocks)).collect();
    assert_eq!(shapes, [(4, 8)]);
}
