//! The kernels beside libtorch's own functions.

#![allow(clippy::unwrap_used)]

use tch::{Device, IndexOp, Kind, Tensor};

use super::*;

const KINDS: [Kind; 2] = [Kind::Float, Kind::BFloat16];
const BLOCKS: i64 = 16;
const BLOCK_TOKENS: i64 = 32;

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

fn wide(tensor: &Tensor) -> Tensor {
    tensor.to_kind(Kind::Float)
}

/// Equal up to what the number format rounds off.
#[track_caller]
fn check(found: &Tensor, expected: &Tensor) {
    let allowed = match found.kind() {
        Kind::Float => 1e-5,
        _ => 1e-2,
    };
    assert_eq!(found.size(), expected.size());
    let difference = (wide(found) - wide(expected)).norm() / wide(expected).norm();
    let difference = difference.double_value(&[]);
    assert!(difference < allowed, "{difference} of {:?}", found.kind());
}

#[test]
fn norms_are_libtorchs() {
    for kind in KINDS {
        // One row alone, and more than one thread takes; a width of no whole
        // vectors.
        for (rows, width) in [(1, 576), (40, 67)] {
            let (input, more) = (random(&[rows, width], kind), random(&[rows, width], kind));
            let weight = random(&[width], Kind::Float);
            let expected = wide(&input).rms_norm([width], Some(&weight), 1e-5);
            check(&rms_norm(&input, &weight, 1e-5).unwrap(), &expected);
            let mut sum = input.copy();
            let found = add_and_norm(&mut sum, &more, &weight, 1e-5).unwrap();
            assert_eq!(sum, &input + &more);
            check(&found, &wide(&sum).rms_norm([width], Some(&weight), 1e-5));
        }
    }
}

#[test]
fn gates_are_libtorchs() {
    for kind in KINDS {
        let both = random(&[17, 2 * 75], kind) * 4;
        let (gates, up) = (wide(&both.i((.., ..75))), wide(&both.i((.., 75..))));
        for (activation, expected) in [
            (Activation::Silu, gates.silu() * &up),
            (Activation::GeluTanh, gates.gelu("tanh") * &up),
        ] {
            check(&gate(&both, activation).unwrap(), &expected);
        }
    }
}

#[test]
fn gates_bear_large_and_bad_numbers() {
    let numbers = [1e4_f32, -1e4, f32::NAN, 0.0, 1.0, 1.0, 1.0, 1.0];
    for activation in [Activation::Silu, Activation::GeluTanh] {
        let both = Tensor::from_slice(&numbers).view([1, 8]);
        let found = Vec::<f32>::try_from(gate(&both, activation).unwrap().view([4])).unwrap();
        assert_eq!(found[0], 1e4);
        assert!(found[1].abs() < 1e-3);
        assert!(found[2].is_nan());
        assert_eq!(found[3], 0.0);
    }
}

#[test]
fn products_of_few_rows_are_libtorchs() {
    for kind in KINDS {
        for (rows, width) in (1..=8).flat_map(|rows| [(rows, 64), (rows, 75)]) {
            let input = random(&[rows, width], kind);
            let weights = random(&[33, width], kind);
            let bias = random(&[33], kind);
            for bias in [None, Some(&bias)] {
                let wide_bias = bias.map(wide);
                let expected = wide(&input).linear(&wide(&weights), wide_bias.as_ref());
                check(&multiply(&input, &weights, bias).unwrap(), &expected);
            }
        }
    }
    let weights = random(&[4, 8], Kind::Float);
    assert!(multiply(&random(&[9, 8], Kind::Float), &weights, None).is_err());
    assert!(multiply(&random(&[1, 7], Kind::Float), &weights, None).is_err());
}

fn store(kv_heads: i64, width: i64, kind: Kind) -> Cache {
    let shape = [BLOCKS, kv_heads, BLOCK_TOKENS, width];
    [random(&shape, kind), random(&shape, kind)]
}

/// The heads `[tokens, heads, width]`, rotated.
fn rotated(heads: &Tensor, [cosines, sines]: &[Tensor; 2]) -> Tensor {
    let half = heads.size()[2] / 2;
    let turned = Tensor::cat(&[-heads.i((.., .., half..)), heads.i((.., .., ..half))], 2);
    heads * wide(cosines) + turned * wide(sines)
}

#[test]
fn rotation_and_what_is_kept_are_libtorchs() {
    let (heads, kv_heads, width) = (6, 2, 24);
    for (kind, tokens) in KINDS.into_iter().flat_map(|kind| [(kind, 1), (kind, 20)]) {
        let all = random(&[tokens, heads + 2 * kv_heads, width], kind);
        let angles = [(); 2].map(|()| random(&[tokens, 1, width], kind));
        let weights = [(); 2].map(|()| random(&[width], Kind::Float));
        let norms = HeadNorms {
            query: &weights[0],
            key: &weights[1],
            epsilon: 1e-6,
        };
        let slots = Tensor::randperm(BLOCKS * BLOCK_TOKENS, (Kind::Int64, Device::Cpu));
        let slots = slots.narrow(0, 0, tokens).contiguous();
        for norms in [None, Some(&norms)] {
            let mut cache = store(kv_heads, width, kind);
            let found = rotate_and_keep(&all, &angles, norms, &slots, &mut cache).unwrap();
            let norm = |heads: Tensor, weight: &Tensor| match norms {
                Some(_) => wide(&heads).rms_norm([width], Some(weight), 1e-6),
                None => wide(&heads),
            };
            let queries = norm(all.narrow(1, 0, heads), &weights[0]);
            check(&found, &rotated(&queries, &angles));
            // Tokens first, as the slots number them.
            let [keys, values] =
                cache.map(|cache| cache.transpose(1, 2).reshape([-1, kv_heads, width]));
            let expected = norm(all.narrow(1, heads, kv_heads), &weights[1]);
            check(&keys.index_select(0, &slots), &rotated(&expected, &angles));
            let expected = all.narrow(1, heads + kv_heads, kv_heads);
            assert_eq!(values.index_select(0, &slots), expected);
        }
    }
}

#[test]
fn slots_beyond_the_store_are_refused() {
    let all = random(&[1, 3, 8], Kind::Float);
    let angles = [(); 2].map(|()| random(&[1, 1, 8], Kind::Float));
    for slot in [-1, BLOCKS * BLOCK_TOKENS] {
        let slots = Tensor::from_slice(&[slot]);
        let mut cache = store(1, 8, Kind::Float);
        assert!(rotate_and_keep(&all, &angles, None, &slots, &mut cache).is_err());
    }
}

/// The kernels divide by them.
#[test]
fn heads_that_are_none_are_refused() {
    let sight = sight(1);
    for (heads, kv_heads) in [(0, 1), (1, 0), (0, 0), (3, 2)] {
        let queries = random(&[1, heads, 8], Kind::Float);
        let cache = store(kv_heads, 8, Kind::Float);
        assert!(attend(&queries, &cache, &sight, None, 1.0).is_err());
    }
    let angles = [(); 2].map(|()| random(&[0, 1, 8], Kind::Float));
    let (all, slots) = (
        random(&[0, 3, 8], Kind::Float),
        Tensor::zeros([0], (Kind::Int64, Device::Cpu)),
    );
    let mut cache = store(1, 8, Kind::Float);
    assert!(rotate_and_keep(&all, &angles, None, &slots, &mut cache).is_err());
}

/// Rows of different lengths, whose blocks lie anywhere.
fn sight(rows: usize) -> Sight {
    let blocks_each = 5;
    let blocks = 0..(rows * blocks_each) as i64;
    let lengths = (0..rows as i64).map(|row| 1 + row * 53 % (blocks_each as i64 * BLOCK_TOKENS));
    Sight {
        tables: blocks.map(|number| number * 7 % BLOCKS).collect(),
        blocks_each,
        lengths: lengths.collect(),
    }
}

/// The same for one row by libtorch: `[1, heads * width]`.
fn attended(
    queries: &Tensor,
    [keys, values]: &Cache,
    sight: &Sight,
    row: usize,
    window: Option<i64>,
) -> Tensor {
    let (_, heads, width) = queries.size3().unwrap();
    let table = &sight.tables[row * sight.blocks_each..][..sight.blocks_each];
    let table = Tensor::from_slice(table);
    let length = sight.lengths[row];
    let first = window.map_or(0, |window| (length - window).max(0));
    let gather = |cache: &Tensor| {
        let kv_heads = cache.size()[1];
        let all = wide(cache).index_select(0, &table).transpose(0, 1);
        let all = all.reshape([kv_heads, -1, width]);
        let seen = all.narrow(1, first, length - first);
        seen.repeat_interleave_self_int(heads / kv_heads, 0, None)
    };
    let query = wide(queries).i(row as i64).unsqueeze(1);
    let weights = (query.matmul(&gather(keys).transpose(1, 2)) * 0.3).softmax(-1, Kind::Float);
    weights.matmul(&gather(values)).view([1, heads * width])
}

#[test]
fn attention_is_libtorchs() {
    for kind in KINDS {
        // Few rows and heads, which threads share one by one; many, which they
        // take in groups; more heads to a group than are taken together.
        for (rows, heads, kv_heads) in [(1, 9, 3), (40, 4, 2), (3, 18, 1)] {
            let cache = store(kv_heads, 24, kind);
            let queries = random(&[rows as i64, heads, 24], kind);
            let sight = sight(rows);
            for window in [None, Some(1), Some(40), Some(1_000)] {
                let found = attend(&queries, &cache, &sight, window, 0.3).unwrap();
                let expected: Vec<_> = (0..rows)
                    .map(|row| attended(&queries, &cache, &sight, row, window))
                    .collect();
                check(&found, &Tensor::cat(&expected, 0));
            }
        }
    }
}

#[test]
fn attention_shows_what_is_no_number() {
    let mut cache = store(1, 8, Kind::Float);
    let _ = cache[0].i((0, 0, 3)).fill_(f64::NAN);
    let sight = Sight {
        tables: vec![0],
        blocks_each: 1,
        lengths: vec![10],
    };
    let queries = random(&[1, 1, 8], Kind::Float);
    let found = attend(&queries, &cache, &sight, None, 1.0).unwrap();
    assert!(bool::try_from(found.isnan().all()).unwrap());
    cache[0] = random(&[BLOCKS, 1, BLOCK_TOKENS, 8], Kind::Float);
    let found = attend(&queries, &cache, &sight, None, 1.0).unwrap();
    assert!(!bool::try_from(found.isnan().any()).unwrap());
}

#[test]
fn tables_beyond_the_store_are_refused() {
    let cache = store(1, 8, Kind::Float);
    let queries = random(&[1, 1, 8], Kind::Float);
    for (block, length) in [(BLOCKS, 1), (-1, 1), (0, 0), (0, BLOCK_TOKENS + 1)] {
        let sight = Sight {
            tables: vec![block],
            blocks_each: 1,
            lengths: vec![length],
        };
        assert!(attend(&queries, &cache, &sight, None, 1.0).is_err());
    }
}

#[test]
fn other_number_formats_are_refused() {
    let input = random(&[2, 8], Kind::Double);
    assert!(gate(&input, Activation::Silu).is_err());
}
