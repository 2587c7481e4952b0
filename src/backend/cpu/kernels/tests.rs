//! Every instruction set this CPU has, against plain arithmetic.

use super::{
    Attend, BLOCK_LEN, Bf16Bits, Block, Element, Finish, FloatProduct, Gate, HalfBits, HeadShape,
    IntegerProduct, Isa, Keep, Kept, LANES, MAX_HEAD_DIM, POSITIONS_PER_BLOCK, Quantise, Query, RmsNorm,
};
#[cfg(target_arch = "x86_64")]
use super::{BF16_INPUTS, Bf16Dots, Bf16Product};
use crate::backend::cpu::view::{View, ViewMut};
use half::{bf16, f16};

/// Numbers in -1.0..1.0 that differ for every `salt`.
fn noise(len: usize, salt: u64) -> Vec<f32> {
    let mut state = (salt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn noise_bytes(len: usize, salt: u64) -> Vec<u8> {
    noise(len, salt).into_iter().map(|value| ((value + 1.0) * 128.0) as u8).collect()
}

#[track_caller]
fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    for (idx, (&actual, expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{idx}: {actual}, not {expected}");
    }
}

/// Blocks whose every number is whole, so that sums of products are exact.
fn whole_blocks(rows: usize, blocks: usize) -> Vec<Block> {
    let quants = noise_bytes(rows * blocks * BLOCK_LEN, 3);
    quants.chunks_exact(BLOCK_LEN).map(|bytes| Block::of_whole(|idx| (bytes[idx] as i8).max(-127))).collect()
}

/// Checks one form of integer weights; `quant` is where a panel's input and lane lie, and their bits.
fn check_integers<E, const BITS: u32, const MINIMA: bool, const SCALES: usize, const BIAS: i32>(
    of_whole: fn(i32) -> E,
) where
    E: Element,
{
    const ROWS: usize = 100;
    const BLOCKS: usize = 35;
    const PANELS: usize = 2;
    const OUTPUTS: usize = PANELS * LANES - 5;
    let bytes_per_quant = if BITS == 4 { 1 } else { 2 };
    let mask = if BITS == 4 { 0xff } else { ((1u32 << BITS) - 1) as u8 };
    let mut quants = noise_bytes(PANELS * BLOCKS * BLOCK_LEN * LANES * bytes_per_quant / 2, 1);
    quants.iter_mut().for_each(|byte| *byte &= mask);
    let scale_rows = SCALES * if MINIMA { 2 } else { 1 };
    // Powers of two, and small enough that a sum stays below 2^24.
    let scale_of = |idx: usize| 1 << (idx % 3);
    let scales: Vec<E> =
        (0..PANELS * BLOCKS * scale_rows * LANES).map(|idx| of_whole(scale_of(idx))).collect();
    let rows = whole_blocks(ROWS, BLOCKS);

    let weight = |output: usize, input: usize| {
        let (panel, lane, block, at) = (output / LANES, output % LANES, input / BLOCK_LEN, input % BLOCK_LEN);
        let (quad, byte) = (at / 4, at % 4);
        let block = panel * BLOCKS + block;
        let quant = if BITS == 4 {
            let pair = quants[((block * 4 + quad % 4) * LANES + lane) * 4 + byte];
            if quad < 4 { pair & 0xf } else { pair >> 4 }
        } else {
            quants[((block * 8 + quad) * LANES + lane) * 4 + byte]
        };
        let part = at * SCALES / BLOCK_LEN;
        let scale = scale_of((block * scale_rows + part) * LANES + lane);
        let minimum = if MINIMA { scale_of((block * scale_rows + 1) * LANES + lane) } else { 0 };
        scale * (i32::from(quant) - BIAS) + minimum
    };
    let expected: Vec<f32> = (0..ROWS * OUTPUTS)
        .map(|idx| {
            let row = &rows[idx / OUTPUTS * BLOCKS..][..BLOCKS];
            let product = |input: usize| {
                weight(idx % OUTPUTS, input) * i32::from(row[input / BLOCK_LEN].quants[input % BLOCK_LEN])
            };
            (0..BLOCKS * BLOCK_LEN).map(product).sum::<i32>() as f32
        })
        .collect();

    for isa in Isa::available() {
        for first in (0..ROWS).filter(|first| first % 7 == 0 || first + 20 > ROWS) {
            let count = ROWS - first;
            let mut output = vec![f32::NAN; count * OUTPUTS];
            isa.run(IntegerProduct::<'_, E, BITS, MINIMA, SCALES, BIAS> {
                quants: &quants,
                scales: &scales,
                panels: 0..PANELS,
                input: View::new(&rows[first * BLOCKS..], count, BLOCKS),
                output: ViewMut::new(&mut output, count, OUTPUTS),
                finish: Finish::Store,
            });
            assert_eq!(output, expected[first * OUTPUTS..], "{isa:?}, {BITS} bits, {count} rows");
        }
    }
}

#[test]
fn integer_products_are_exact() {
    let half = |whole: i32| f16::from_f32(whole as f32).to_bits();
    let single = |whole: i32| whole as f32;
    check_integers::<HalfBits, 4, false, 1, 8>(half);
    check_integers::<HalfBits, 4, true, 1, 0>(half);
    check_integers::<HalfBits, 8, false, 1, 128>(half);
    check_integers::<f32, 4, true, 1, 0>(single);
    check_integers::<f32, 5, true, 1, 0>(single);
    check_integers::<f32, 6, false, 2, 32>(single);
}

#[test]
fn a_row_yields_the_same_alone_and_among_others() {
    const ROWS: usize = 83;
    const BLOCKS: usize = 37;
    let quants = noise_bytes(BLOCKS * BLOCK_LEN * LANES / 2, 1);
    let scales: Vec<HalfBits> =
        noise(2 * BLOCKS * LANES, 2).into_iter().map(|scale| f16::from_f32(scale).to_bits()).collect();
    let values = noise(ROWS * BLOCKS * BLOCK_LEN, 3);
    for isa in Isa::available() {
        let mut blocks = vec![Block::default(); ROWS * BLOCKS];
        isa.run(Quantise { values: &values, blocks: &mut blocks });
        let products = |rows: std::ops::Range<usize>| {
            let mut output = vec![f32::NAN; rows.len() * LANES];
            isa.run(IntegerProduct::<'_, HalfBits, 4, true, 1, 0> {
                quants: &quants,
                scales: &scales,
                panels: 0..1,
                input: View::new(&blocks[rows.start * BLOCKS..], rows.len(), BLOCKS),
                output: ViewMut::new(&mut output, rows.len(), LANES),
                finish: Finish::Store,
            });
            output.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let alone: Vec<u32> = (0..ROWS).flat_map(|row| products(row..row + 1)).collect();
        assert_eq!(products(0..ROWS), alone, "{isa:?}");
        assert_eq!(products(3..40), alone[3 * LANES..40 * LANES], "{isa:?}");
    }
}

#[test]
fn the_largest_integers_do_not_overflow() {
    for (quant, byte) in [(127, 255), (-127, 255), (-127, 0), (127, 0)] {
        let row = [Block::of_whole(|_| quant)];
        let expected = (i32::from(quant) * (byte - 128) * BLOCK_LEN as i32) as f32;
        for isa in Isa::available() {
            let mut output = [0.0; LANES];
            isa.run(IntegerProduct::<'_, f32, 8, false, 1, 128> {
                quants: &[byte as u8; BLOCK_LEN * LANES],
                scales: &[1.0; LANES],
                panels: 0..1,
                input: View::new(&row, 1, 1),
                output: ViewMut::new(&mut output, 1, LANES),
                finish: Finish::Store,
            });
            assert_eq!(output, [expected; LANES], "{isa:?}");
        }
    }
}

/// Inputs of a row in the checks of float products: not whole registers, nor pairs.
const FLOAT_INPUTS: usize = 37;
/// Not whole panels.
const FLOAT_OUTPUTS: usize = LANES + 3;

/// Checks the products of some rows with two panels, finished in each way; `weight` and `rounded` are what an output's
/// weight and a row's value count as.
fn check_float_product(
    name: &str,
    weight: impl Fn(usize, usize) -> f64,
    rounded: impl Fn(f32) -> f64,
    multiply: impl Fn(View<'_, f32>, ViewMut<'_, f32>, Finish<'_>),
) {
    const ROWS: usize = 11;
    let (rows, bias) = (noise(ROWS * FLOAT_INPUTS, 2), noise(FLOAT_OUTPUTS, 3));
    let product = |idx: usize| -> f64 {
        let (row, output) = (&rows[idx / FLOAT_OUTPUTS * FLOAT_INPUTS..], idx % FLOAT_OUTPUTS);
        (0..FLOAT_INPUTS).map(|input| weight(output, input) * rounded(row[input])).sum()
    };
    for finish in [Finish::Store, Finish::Bias(&bias), Finish::Accumulate] {
        let run = |first: usize| {
            let mut output = vec![0.25; (ROWS - first) * FLOAT_OUTPUTS];
            let input = View::new(&rows[first * FLOAT_INPUTS..], ROWS - first, FLOAT_INPUTS);
            multiply(input, ViewMut::new(&mut output, ROWS - first, FLOAT_OUTPUTS), finish);
            output
        };
        let all = run(0);
        let expected = (0..ROWS * FLOAT_OUTPUTS).map(|idx| {
            product(idx)
                + match finish {
                    Finish::Store => 0.0,
                    Finish::Bias(bias) => f64::from(bias[idx % FLOAT_OUTPUTS]),
                    Finish::Accumulate => 0.25,
                }
        });
        assert_close(&all, &expected.collect::<Vec<_>>(), 2e-6);
        for first in 1..ROWS {
            assert!(run(first) == all[first * FLOAT_OUTPUTS..], "{name}: fewer rows give other sums");
        }
    }
}

fn check_floats<E: Element>(store: fn(f32) -> E, load: fn(E) -> f32) {
    let weights: Vec<E> = noise(2 * LANES * FLOAT_INPUTS, 1).into_iter().map(store).collect();
    let weight = |output: usize, input: usize| {
        f64::from(load(weights[(output / LANES * FLOAT_INPUTS + input) * LANES + output % LANES]))
    };
    for isa in Isa::available() {
        check_float_product(&format!("{isa:?}"), weight, f64::from, |input, output, finish| {
            isa.run(FloatProduct { weights: &weights, panels: 0..2, input, output, finish });
        });
    }
}

#[test]
fn float_products_are_close_and_rows_do_not_matter() {
    check_floats::<f32>(|value| value, |value| value);
    check_floats::<HalfBits>(|value| f16::from_f32(value).to_bits(), |bits| f16::from_bits(bits).to_f32());
    check_floats::<Bf16Bits>(
        |value| Bf16Bits(bf16::from_f32(value).to_bits()),
        |bits| bf16::from_bits(bits.0).to_f32(),
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn products_of_bf16_pairs_are_close_and_rows_do_not_matter() {
    const PAIRS: usize = FLOAT_INPUTS.next_multiple_of(BF16_INPUTS) / 2;
    let Some(dots) = Bf16Dots::detect() else {
        return eprintln!("this CPU has no products of bf16 pairs, or does not gain by them");
    };
    let values = noise(2 * LANES * FLOAT_INPUTS, 1);
    let value = |output: usize, input: usize| bf16::from_f32(values[output * FLOAT_INPUTS + input]);
    let mut weights = vec![[0; 2]; 2 * PAIRS * LANES];
    for (output, input) in
        (0..2 * LANES).flat_map(|output| (0..FLOAT_INPUTS).map(move |input| (output, input)))
    {
        let pair = (output / LANES * PAIRS + input / 2) * LANES + output % LANES;
        weights[pair][input % 2] = value(output, input).to_bits();
    }
    let weight = |output: usize, input: usize| value(output, input).to_f64();
    let rounded = |value: f32| bf16::from_f32(value).to_f64();
    check_float_product("bf16 pairs", weight, rounded, |input, output, finish| {
        dots.run(Bf16Product { weights: &weights, panels: 0..2, input, output, finish });
    });
}

#[test]
fn blocks_are_the_nearest_and_the_same_everywhere() {
    let mut values = noise(64 * BLOCK_LEN, 7);
    values[..BLOCK_LEN].fill(0.0);
    values[BLOCK_LEN..2 * BLOCK_LEN].iter_mut().for_each(|value| *value *= 1e-20);
    let quantised = Isa::available().map(|isa| {
        let mut blocks = vec![Block::default(); 64];
        isa.run(Quantise { values: &values, blocks: &mut blocks });
        blocks
    });
    let quantised: Vec<_> = quantised.collect();
    for blocks in &quantised {
        assert_eq!(blocks, &quantised[0]);
    }
    for (block, values) in quantised[0].iter().zip(values.chunks_exact(BLOCK_LEN)) {
        for (&quant, value) in block.quants.iter().zip(values) {
            let error = (f32::from(quant) * block.scale - value).abs();
            assert!(error <= 0.5001 * block.scale, "{value} is not {quant} times {}", block.scale);
        }
        let sum: f32 = block.quants.iter().map(|&quant| f32::from(quant)).sum();
        assert_eq!(block.scaled_sum, block.scale * sum);
    }
}

#[test]
fn what_is_no_number_does_no_harm() {
    for isa in Isa::available() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut block = [Block::default()];
            isa.run(Quantise { values: &[wrong; BLOCK_LEN], blocks: &mut block });
        }
    }
}

#[test]
fn norms_and_gates_are_close() {
    let (input, weight) = (noise(96, 1), noise(96, 2));
    let mean = input.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / 96.0;
    let normed = input
        .iter()
        .zip(&weight)
        .map(|(&value, &weight)| f64::from(value) / (mean + 1e-5).sqrt() * f64::from(weight));
    let normed: Vec<f64> = normed.collect();
    // Where the exponential is largest, smallest and in between; not whole vectors.
    let gates: Vec<f32> = noise(1003, 3).into_iter().map(|value| value * 120.0).collect();
    let ups = noise(1003, 4);
    let gated = gates
        .iter()
        .zip(&ups)
        .map(|(&gate, &up)| f64::from(gate) / (1.0 + (-f64::from(gate)).exp()) * f64::from(up));
    let gated: Vec<f64> = gated.collect();
    for isa in Isa::available() {
        let (mut floats, mut blocks) = ([0.0; 96], [Block::default(); 3]);
        let (input, weight) = (&input[..], &weight[..]);
        isa.run(RmsNorm { input, weight, epsilon: 1e-5, floats: &mut floats, blocks: &mut blocks });
        assert_close(&floats, &normed, 1e-6);
        let mut expected = [Block::default(); 3];
        isa.run(Quantise { values: &floats, blocks: &mut expected });
        assert_eq!(blocks, expected, "{isa:?}");
        let mut gate = gates.clone();
        isa.run(Gate { gate: &mut gate, up: &ups });
        assert_close(&gate, &gated, 1e-6);
    }
}

/// Keys and values of one head, kept position by position.
struct Kv<E> {
    blocks: Vec<E>,
    shape: HeadShape,
}

impl<E: Kept> Kv<E> {
    fn new(head_dim: usize, positions: usize) -> Self {
        let shape = HeadShape::new(head_dim);
        let len = positions.div_ceil(POSITIONS_PER_BLOCK) * shape.block_len::<E>();
        Self { blocks: vec![E::default(); len], shape }
    }

    fn keep(&mut self, isa: Isa, position: usize, key: &[f32], value: &[f32]) {
        let len = self.shape.block_len::<E>();
        let block = &mut self.blocks[position / POSITIONS_PER_BLOCK * len..][..len];
        isa.run(Keep { key, value, block, position: position % POSITIONS_PER_BLOCK });
    }

    /// What each query finds, as wide as the head.
    fn attend(&self, isa: Isa, queries: &[Query<'_>]) -> Vec<Vec<f32>> {
        let Self { blocks, shape } = self;
        let HeadShape { head_dim, padded_dim } = *shape;
        let mut output = vec![f32::NAN; queries.len() * padded_dim];
        isa.run(Attend { queries, blocks, shape: *shape, output: &mut output });
        output.chunks_exact(padded_dim).map(|found| found[..head_dim].to_vec()).collect()
    }
}

fn check_attention<E: Kept>(head_dim: usize, tolerance: f64) {
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
    let expected = |query: usize| -> Vec<f64> {
        let score = |key: &Vec<f32>| -> f64 {
            key.iter().zip(&queries[query]).map(|(&key, &query)| f64::from(key) * f64::from(query)).sum()
        };
        let weights: Vec<f64> = keys[..LENS[query]].iter().map(|key| score(key).exp2()).collect();
        let total: f64 = weights.iter().sum();
        let mixed = |dim: usize| -> f64 {
            weights.iter().zip(&values).map(|(weight, value)| weight * f64::from(value[dim])).sum()
        };
        (0..head_dim).map(|dim| mixed(dim) / total).collect()
    };
    for isa in Isa::available() {
        let mut kv = Kv::<E>::new(head_dim, LONGEST);
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

#[test]
fn attention_is_close_and_others_do_not_matter() {
    for head_dim in [8, 24, 64, 80, MAX_HEAD_DIM] {
        check_attention::<f32>(head_dim, 3e-6);
        check_attention::<u32>(head_dim, 2e-4);
    }
}

/// Where sums are as large as they can be, and where there is nothing, or as good as nothing.
#[test]
fn sums_of_kept_pairs_do_not_overflow() {
    const POSITIONS: usize = 256;
    for isa in Isa::available() {
        // The squares of all but one are too small for a number, and that one's is a hundredth of their sum.
        let mut key = [2.6e-23; MAX_HEAD_DIM];
        key[0] = 3.75e-23;
        let mut kv = Kv::<u32>::new(MAX_HEAD_DIM, 1);
        kv.keep(isa, 0, &key, &[0.5; MAX_HEAD_DIM]);
        let found = kv.attend(isa, &[Query { values: &[0.1; MAX_HEAD_DIM], positions: 1 }]);
        assert_close(&found[0], &[0.5; MAX_HEAD_DIM], 1e-4);
    }
    for (isa, size) in Isa::available().flat_map(|isa| [0.0, 1e-25, 1.0, 1e15].map(|size| (isa, size))) {
        let head = vec![size; MAX_HEAD_DIM];
        let mut kv = Kv::<u32>::new(MAX_HEAD_DIM, POSITIONS);
        (0..POSITIONS).for_each(|position| kv.keep(isa, position, &head, &head));
        // All scores are the same, and so are all weights.
        let small = vec![1e-3 / size.max(1.0); MAX_HEAD_DIM];
        let found = kv.attend(isa, &[Query { values: &small, positions: POSITIONS }; 7]);
        for found in found {
            let expected = vec![f64::from(size); MAX_HEAD_DIM];
            assert_close(&found, &expected, 1e-4 * f64::from(size.clamp(1e-6, 1.0)));
        }
    }
}

#[test]
fn a_head_that_is_no_number_harms_no_other() {
    for isa in Isa::available() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut kv = Kv::<u32>::new(64, 3);
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
        }
    }
}
