//! Attention over kept keys and values.

use super::{
    super::{
        Attend, BLOCKS_PER_CHUNK, CHUNK, Cached, HeadShape, Isa, Keep, Kept, LANES, MAX_HEAD_DIM,
        POSITIONS_PER_BLOCK, Query, Scratch,
    },
    assert_close, noise,
};
use crate::{backend::cpu::view::View, model::KeyBits};
use std::cell::RefCell;

/// What is asked for may lie anywhere, or nowhere.
const AHEAD: usize = usize::MAX / 3;

/// Keys and values of one head, kept position by position.
struct Kv<E> {
    blocks: Vec<E>,
    shape: HeadShape,
    chunk_stride: usize,
    /// With what the queries before have left.
    scratch: RefCell<Scratch>,
}

impl<E: Kept> Kv<E> {
    fn new(head_dim: usize, positions: usize, bits: KeyBits) -> Self {
        let shape = HeadShape::new(head_dim, bits);
        // Between chunks lies what is not theirs.
        let chunk_stride = (BLOCKS_PER_CHUNK + 1) * shape.block_len::<E>();
        let len = positions.div_ceil(CHUNK) * chunk_stride;
        Self { blocks: vec![E::default(); len], shape, chunk_stride, scratch: Scratch::new().into() }
    }

    fn keep(&mut self, isa: Isa, position: usize, key: &[f32], value: &[f32]) {
        let (shape, len) = (self.shape, self.shape.block_len::<E>());
        let start = position / CHUNK * self.chunk_stride + position % CHUNK / POSITIONS_PER_BLOCK * len;
        let block = &mut self.blocks[start..][..len];
        isa.run(Keep { key, value, block, shape, ahead: AHEAD, position: position % POSITIONS_PER_BLOCK });
    }

    /// What each query finds, as wide as the head.
    fn attend(&self, isa: Isa, queries: &[Query<'_>]) -> Vec<Vec<f32>> {
        let &Self { ref blocks, shape, chunk_stride, ref scratch } = self;
        let HeadShape { head_dim, padded_dim, .. } = shape;
        let mut output = vec![f32::NAN; queries.len() * padded_dim];
        let scratch = &mut scratch.borrow_mut();
        let chunks = View::new(blocks, blocks.len() / chunk_stride, chunk_stride);
        let chunks = chunks.tile(0..chunks.rows(), 0..BLOCKS_PER_CHUNK * shape.block_len::<E>());
        let cached = Cached { chunks, shape, ahead: AHEAD };
        isa.run(Attend { queries, cached, output: &mut output, scratch });
        output.chunks_exact(padded_dim).map(|found| found[..head_dim].to_vec()).collect()
    }
}

/// What becomes of a key and of a query before they meet, and of a value.
type Become = fn(&[f32]) -> Vec<f32>;

fn check_attention<E: Kept>(head_dim: usize, bits: KeyBits, tolerance: f64, [meet, kept]: [Become; 2]) {
    const LENS: [usize; 10] = [1, 15, 16, 17, 127, 128, 129, 256, 300, 301];
    const LONGEST: usize = 301;
    let head = |idx: usize, salt: u64| noise(head_dim, salt + idx as u64);
    // Of different sizes: each has a scale of its own.
    let value =
        |idx: usize| head(idx, 2000).into_iter().map(move |value| value * 4f32.powi(idx as i32 % 5 - 4));
    let (keys, values): (Vec<_>, Vec<_>) =
        (0..LONGEST).map(|idx| (head(idx, 1000), value(idx).collect::<Vec<f32>>())).unzip();
    // Scaled as a model's are: what is lost of a score is a part of the product of two lengths.
    let scale = 1.0 / (head_dim as f32).sqrt();
    let queries = LENS.map(|len| head(len, 3000).into_iter().map(|value| value * scale).collect::<Vec<_>>());
    let kept: Vec<_> = values.iter().map(|value| kept(value)).collect();
    let (met, asked) = (keys.iter().map(|key| meet(key)), queries.iter().map(|query| meet(query)));
    let (met, asked): (Vec<_>, Vec<_>) = (met.collect(), asked.collect());
    let expected = |query: usize| -> Vec<f64> {
        let score = |key: &Vec<f32>| -> f64 {
            key.iter().zip(&asked[query]).map(|(&key, &query)| f64::from(key) * f64::from(query)).sum()
        };
        let weights: Vec<f64> = met[..LENS[query]].iter().map(|key| score(key).exp2()).collect();
        let total: f64 = weights.iter().sum();
        let mixed = |dim: usize| -> f64 {
            weights.iter().zip(&kept).map(|(weight, value)| weight * f64::from(value[dim])).sum()
        };
        (0..head_dim).map(|dim| mixed(dim) / total).collect()
    };
    for isa in Isa::available() {
        let mut kv = Kv::<E>::new(head_dim, LONGEST, bits);
        // What was there before leaves nothing.
        for position in 0..LONGEST {
            kv.keep(isa, position, &vec![7.0; head_dim], &vec![-9.0; head_dim]);
        }
        for (position, (key, value)) in keys.iter().zip(&values).enumerate() {
            kv.keep(isa, position, key, value);
        }
        // What lies behind the longest query must not be seen.
        for position in LONGEST..LONGEST.next_multiple_of(POSITIONS_PER_BLOCK) {
            kv.keep(isa, position, &vec![60_000.0; head_dim], &vec![60_000.0; head_dim]);
        }
        let run = |which: std::ops::Range<usize>| {
            let queries: Vec<_> =
                which.map(|idx| Query { values: &queries[idx], positions: LENS[idx] }).collect();
            kv.attend(isa, &queries)
        };
        let all = run(0..LENS.len());
        for query in 0..LENS.len() {
            assert_close(&all[query], &expected(query), tolerance);
            assert!(
                run(query..query + 1) == all[query..=query],
                "{isa:?}: a query alone finds something else"
            );
        }
        assert!(run(3..7) == all[3..7], "{isa:?}: others beside it matter");
    }
}

/// To 127 steps.
fn rounded(values: &[f32]) -> Vec<f32> {
    let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    values.iter().map(|value| (value * (127.0 / largest)).round_ties_even() * (largest / 127.0)).collect()
}

/// Each 64 numbers spread over each other, or each sixteen of fewer, and rounded to 127 steps.
fn spread(values: &[f32]) -> Vec<f32> {
    let mut spread = values.to_vec();
    spread.resize(values.len().next_multiple_of(LANES), 0.0);
    for (idx, group) in spread.chunks_mut(64).enumerate() {
        let whole = values.len() >= 64 * (idx + 1);
        for distance in [1, 2, 4, 8, 16, 32].into_iter().take(if whole { 6 } else { 4 }) {
            let before = group.to_vec();
            for (idx, number) in group.iter_mut().enumerate() {
                let other = before[idx ^ distance];
                *number = if idx & distance == 0 { other + before[idx] } else { other - before[idx] };
            }
        }
        let length = if whole { 8.0 } else { 4.0 };
        group.iter_mut().for_each(|number| *number /= length);
    }
    rounded(&spread)
}

#[test]
fn attention_is_close_and_others_do_not_matter() {
    for head_dim in [8, 24, 56, 64, 80, 96, 128, MAX_HEAD_DIM] {
        check_attention::<f32>(head_dim, KeyBits::default(), 3e-6, [<[f32]>::to_vec; 2]);
        check_attention::<u32>(head_dim, KeyBits::Sixteen, 2e-4, [<[f32]>::to_vec, rounded]);
        check_attention::<u32>(head_dim, KeyBits::Eight, 2e-4, [spread, rounded]);
    }
}

/// One number far larger than the rest leaves these as many steps as it has.
#[test]
fn a_large_number_in_each_key_costs_little() {
    const POSITIONS: usize = 40;
    let head = |idx: usize, salt: u64, large: f32| {
        let mut head = noise(64, salt + idx as u64);
        head[11] = large;
        head
    };
    let keys: Vec<_> = (0..POSITIONS).map(|idx| head(idx, 1000, 30.0)).collect();
    let query: Vec<f32> = head(0, 3000, 0.5).into_iter().map(|value| value / 8.0).collect();
    let score = |key: &[f32]| -> f64 {
        key.iter().zip(&query).map(|(&key, &query)| f64::from(key) * f64::from(query)).sum()
    };
    let weights: Vec<f64> = keys.iter().map(|key| score(key).exp2()).collect();
    // A value for each position, so that the weights are found.
    let expected: Vec<f64> = (0..64)
        .map(|idx| weights.get(idx).map_or(0.0, |weight| weight / weights.iter().sum::<f64>()))
        .collect();
    for isa in Isa::available() {
        let mut kv = Kv::<u32>::new(64, POSITIONS, KeyBits::Eight);
        for (position, key) in keys.iter().enumerate() {
            let value: Vec<f32> = (0..64).map(|idx| f32::from(u8::from(idx == position))).collect();
            kv.keep(isa, position, key, &value);
        }
        let found = kv.attend(isa, &[Query { values: &query, positions: POSITIONS }]);
        assert_close(&found[0], &expected, 8e-4);
    }
}

/// Chunks whose scores and values are of other sizes than those of the next, and positions that outweigh all others.
#[test]
fn values_of_any_size_are_found_among_others() {
    const POSITIONS: usize = 700;
    const LENS: [usize; 6] = [1, 129, 256, 300, 641, POSITIONS];
    type OfPosition = fn(usize) -> f32;
    let even: OfPosition = |position| (position % 7) as f32 / 2.0;
    let ones: OfPosition = |_| 1.0;
    // The score of each position, and the size of its value.
    let cases: [(OfPosition, OfPosition); 8] = [
        (even, |position| [1.0, 1e6, 1e-6][position / CHUNK % 3]),
        (even, |position| [1e-6, 1e6, 1.0][position / CHUNK % 3]),
        (even, |position| if position < CHUNK { 0.0 } else { 1.0 }),
        (even, |position| if position < 5 * CHUNK { 1.0 } else { 0.0 }),
        (
            |position| if position == 0 { 12.0 } else { 0.0 },
            |position| if position == 0 { 1e-3 } else { 1.0 },
        ),
        (|position| if position == 3 { 40.0 } else { 0.0 }, |position| if position == 3 { 0.0 } else { 1.0 }),
        (
            |position| if position == 0 { 0.0 } else { -200.0 },
            |position| if position == 0 { 1e18 } else { 0.0 },
        ),
        (|position| [-300.0, 0.0, -150.0][position / CHUNK % 3], ones),
    ];
    for (case, (score, size)) in cases.into_iter().enumerate() {
        let value = |position: usize| -> Vec<f32> {
            noise(64, 100 + position as u64).into_iter().map(|value| value * size(position)).collect()
        };
        let kept: Vec<_> = (0..POSITIONS)
            .map(|position| if size(position) > 0.0 { rounded(&value(position)) } else { value(position) })
            .collect();
        let expected = LENS.map(|len| -> Vec<f64> {
            let largest = (0..len).map(score).fold(f32::NEG_INFINITY, f32::max);
            let weights = (0..len).map(|position| f64::from(score(position) - largest).exp2());
            let weights: Vec<_> = weights.collect();
            let mixed = |dim: usize| -> f64 {
                weights.iter().zip(&kept).map(|(weight, value)| weight * f64::from(value[dim])).sum()
            };
            (0..64).map(|dim| mixed(dim) / weights.iter().sum::<f64>()).collect()
        });
        for (isa, bits) in
            Isa::available().flat_map(|isa| [KeyBits::Sixteen, KeyBits::Eight].map(|bits| (isa, bits)))
        {
            let mut kv = Kv::<u32>::new(64, POSITIONS, bits);
            // One number, which is exact in either form.
            let one =
                |number: f32| -> [f32; 64] { std::array::from_fn(|idx| if idx == 0 { number } else { 0.0 }) };
            for position in 0..POSITIONS {
                kv.keep(isa, position, &one(score(position)), &value(position));
            }
            let query = one(1.0);
            let queries = LENS.map(|positions| Query { values: &query, positions });
            let all = kv.attend(isa, &queries);
            for ((found, expected), query) in all.iter().zip(&expected).zip(queries) {
                let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
                let scale = if largest > 0.0 { 1.0 / largest } else { 1.0 };
                let found: Vec<_> = found.iter().map(|value| (f64::from(*value) * scale) as f32).collect();
                let expected: Vec<_> = expected.iter().map(|value| value * scale).collect();
                eprintln!("{isa:?}, {bits:?}, case {case}, {} positions", query.positions);
                assert_close(&found, &expected, 1e-3);
            }
            for (nth, query) in queries.into_iter().enumerate() {
                assert!(kv.attend(isa, &[query])[0] == all[nth], "{isa:?}, case {case}: others matter");
            }
        }
    }
}

/// Where sums are as large as they can be, and where there is nothing, or as good as nothing.
#[test]
fn sums_of_kept_numbers_do_not_overflow() {
    const POSITIONS: usize = 256;
    let both = [KeyBits::Sixteen, KeyBits::Eight];
    for (isa, bits) in Isa::available().flat_map(|isa| both.map(|bits| (isa, bits))) {
        // The squares of all but one are too small for a number, and that one's is a hundredth of their sum.
        let mut key = [2.6e-23; MAX_HEAD_DIM];
        key[0] = 3.75e-23;
        let mut kv = Kv::<u32>::new(MAX_HEAD_DIM, 1, bits);
        kv.keep(isa, 0, &key, &[0.5; MAX_HEAD_DIM]);
        let found = kv.attend(isa, &[Query { values: &[0.1; MAX_HEAD_DIM], positions: 1 }]);
        assert_close(&found[0], &[0.5; MAX_HEAD_DIM], 1e-4);
    }
    // All numbers the same, or one of each 64, which is spread to as large ones.
    let cases = both.into_iter().flat_map(|bits| [1, 64].map(|every| (bits, every)));
    let cases = cases.flat_map(|(bits, every)| [0.0, 1e-25, 1.0, 1e15].map(|size| (bits, every, size)));
    for (isa, (bits, every, size)) in
        Isa::available().flat_map(|isa| cases.clone().map(move |case| (isa, case)))
    {
        let of_size = |size: f32| -> Vec<f32> {
            (0..MAX_HEAD_DIM).map(|idx| if idx % every == 0 { size } else { 0.0 }).collect()
        };
        let head = of_size(size);
        let mut kv = Kv::<u32>::new(MAX_HEAD_DIM, POSITIONS, bits);
        (0..POSITIONS).for_each(|position| kv.keep(isa, position, &head, &head));
        // All scores are the same, and so are all weights.
        let small = of_size(1e-3 / size.max(1.0));
        let found = kv.attend(isa, &[Query { values: &small, positions: POSITIONS }; 7]);
        for found in found {
            let expected: Vec<_> = head.iter().map(|&number| f64::from(number)).collect();
            assert_close(&found, &expected, 1e-4 * f64::from(size.clamp(1e-6, 1.0)));
        }
    }
}

fn check_heads_that_are_no_numbers<E: Kept>(bits: KeyBits) {
    for isa in Isa::available() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut kv = Kv::<E>::new(64, 3, bits);
            kv.keep(isa, 0, &[1.0; 64], &[0.5; 64]);
            kv.keep(isa, 1, &[wrong; 64], &[wrong; 64]);
            let mut one = [0.3; 64];
            one[5] = wrong;
            kv.keep(isa, 2, &one, &one);
            let query = [0.1; 64];
            let [alone, both] = [1, 3].map(|positions| Query { values: &query, positions });
            let found = kv.attend(isa, &[alone, both]);
            assert_close(&found[0], &[0.5; 64], 1e-4);
            assert_eq!(kv.attend(isa, &[alone])[0], found[0], "{isa:?}");

            // Another query goes on when this one has seen its last position, a wrong one among them.
            let mut kv = Kv::<E>::new(64, 129, bits);
            kv.keep(isa, 0, &[wrong; 64], &[0.5; 64]);
            (1..129).for_each(|position| kv.keep(isa, position, &[1.0; 64], &[0.25; 64]));
            let [alone, both] = [128, 129].map(|positions| Query { values: &query, positions });
            let bits = |found: &[f32]| found.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let found = kv.attend(isa, &[alone, both]);
            assert_eq!(bits(&kv.attend(isa, &[alone])[0]), bits(&found[0]), "{isa:?}, {wrong}");
        }
    }
}

#[test]
fn a_head_that_is_no_number_harms_no_other() {
    check_heads_that_are_no_numbers::<f32>(KeyBits::default());
    check_heads_that_are_no_numbers::<u32>(KeyBits::Sixteen);
    check_heads_that_are_no_numbers::<u32>(KeyBits::Eight);
}
