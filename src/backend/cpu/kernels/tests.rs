//! Every instruction set this CPU has, against plain arithmetic.

mod attention;

#[cfg(target_arch = "x86_64")]
use super::{BF16_INPUTS, Bf16Dots, Bf16Product};
use super::{
    BLOCK_LEN, Bf16Bits, Block, Element, Finish, FloatProduct, Gate, GateBlocks, HALF_LEN, HalfBits,
    IntegerProduct, Isa, Kernel, LANES, LINE_BYTES, MAX_SCALE, Quantise, RmsNorm, Simd, output_of,
};
use super::{block::MAX_SHIFT, simd::pair};
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

/// Blocks of noise in a scale of 1, some of whose halves are far apart.
fn whole_blocks(rows: usize, blocks: usize) -> Vec<Block> {
    let quants = noise_bytes(rows * blocks * BLOCK_LEN, 3);
    let quants = quants.chunks_exact(BLOCK_LEN).enumerate();
    let block = |(idx, bytes): (usize, &[u8])| {
        let shifts = [[0, 0], [3, 0], [0, MAX_SHIFT]][idx % 3];
        Block::of_whole(shifts, |idx| (bytes[idx] as i8).max(-127))
    };
    quants.map(block).collect()
}

/// The numbers of a pair.
fn numbers(pair: u32) -> [i64; 2] {
    [i64::from(pair as i16), i64::from((pair >> 16) as i16)]
}

/// Integer weights, as noise.
struct Weights<const BITS: u32, const OFFSETS: bool, const PARTS: usize> {
    blocks: usize,
    lines: Vec<u8>,
    units: Vec<f32>,
}

impl<const BITS: u32, const OFFSETS: bool, const PARTS: usize> Weights<BITS, OFFSETS, PARTS> {
    const SCALE_LINES: usize = PARTS + if OFFSETS { 1 } else { 0 };
    const LINES: usize = Self::SCALE_LINES + if BITS == 4 { 8 } else { 16 };

    /// Scales and offsets are up to `largest`.
    fn noise(panels: usize, blocks: usize, largest: f32) -> Self {
        let mut lines = noise_bytes(panels * blocks * Self::LINES * LINE_BYTES, 1);
        let mut scales = noise(lines.len() / 2, 2).into_iter().map(|scale| (scale * largest).round() as i16);
        let mask = if BITS == 4 { 0xff } else { ((1u32 << BITS) - 1) as u8 };
        for (idx, line) in lines.as_chunks_mut::<LINE_BYTES>().0.iter_mut().enumerate() {
            if idx % Self::LINES < Self::SCALE_LINES {
                line.as_chunks_mut()
                    .0
                    .iter_mut()
                    .for_each(|scale| *scale = scales.next().unwrap().to_le_bytes());
            } else {
                line.iter_mut().for_each(|byte| *byte &= mask);
            }
        }
        let units = (0..panels * LANES).map(|idx| 0.5f32.powi(idx as i32 % 5)).collect();
        Self { blocks, lines, units }
    }

    fn line(&self, output: usize, block: usize, line: usize) -> &[u8] {
        let line = (output / LANES * self.blocks + block) * Self::LINES + line;
        &self.lines[line * LINE_BYTES..][..LINE_BYTES]
    }

    /// The quant of a block's input.
    fn quant(&self, output: usize, block: usize, input: usize) -> i64 {
        let (half, at) = (input / HALF_LEN, input % HALF_LEN);
        let mut places = (0..2).flat_map(|group| (0..LANES).map(move |lane| (group, lane)));
        let place =
            places.find(|&(group, lane)| output_of(group, lane) == output % LANES && lane % 2 == half);
        let (group, lane) = place.unwrap();
        let byte = |line: usize| self.line(output, block, Self::SCALE_LINES + line)[4 * lane + at % 4];
        i64::from(if BITS == 4 { byte(at / 4) >> (4 * group) & 0xf } else { byte(2 * (at / 4) + group) })
    }

    fn scale(&self, output: usize, block: usize, line: usize) -> [i64; 2] {
        let (words, _) = self.line(output, block, line).as_chunks();
        numbers(u32::from_le_bytes(words[output % LANES]))
    }

    /// The product of an output's weights with a row, as the kernels are to round it.
    fn product(&self, output: usize, row: &[Block]) -> f64 {
        let mut total = 0.0;
        for (nth, block) in row.iter().enumerate() {
            let mut sum = 0;
            for (part, half) in (0..PARTS).flat_map(|part| [(part, 0), (part, 1)]) {
                let len = HALF_LEN / PARTS;
                let inputs = half * HALF_LEN + part * len..half * HALF_LEN + (part + 1) * len;
                let dots: i64 =
                    inputs.map(|idx| self.quant(output, nth, idx) * i64::from(block.quant(idx))).sum();
                let start = if PARTS == 1 { block.starts[half] } else { block.part_starts[part][half] };
                let dots = dots + (i64::from(start) << (BITS - 4));
                let rounded = (dots + (1 << (BITS - 4) >> 1)) >> (BITS - 4);
                assert!(i16::try_from(rounded).is_ok(), "the kernels have 16 bits for {rounded}");
                let rounded = rounded >> numbers(block.shifts.pair)[half];
                sum += rounded * self.scale(output, nth, part)[half];
                if OFFSETS {
                    sum += self.scale(output, nth, PARTS)[half] * numbers(block.sums)[half];
                }
            }
            assert!(i32::try_from(sum).is_ok(), "the kernels have 32 bits for {sum}");
            total += sum as f64 * f64::from(block.scale);
        }
        total * f64::from(self.units[output])
    }

    fn multiply(&self, isa: Isa, input: View<'_, Block>, outputs: usize) -> Vec<f32> {
        let mut output = vec![f32::NAN; input.rows() * outputs];
        isa.run(IntegerProduct::<'_, BITS, OFFSETS, PARTS> {
            lines: &self.lines,
            units: &self.units,
            panels: 0..outputs.div_ceil(LANES),
            input,
            output: ViewMut::new(&mut output, input.rows(), outputs),
            finish: Finish::Store,
        });
        output
    }
}

/// Checks one form of integer weights, with numbers so small that sums of floats are exact.
fn check_integers<const BITS: u32, const OFFSETS: bool, const PARTS: usize>() {
    const ROWS: usize = 100;
    const BLOCKS: usize = 17;
    const PANELS: usize = 2;
    const OUTPUTS: usize = PANELS * LANES - 5;
    let weights = Weights::<BITS, OFFSETS, PARTS>::noise(PANELS, BLOCKS, 4.0);
    let rows = whole_blocks(ROWS, BLOCKS);
    let expected = (0..ROWS * OUTPUTS)
        .map(|idx| weights.product(idx % OUTPUTS, &rows[idx / OUTPUTS * BLOCKS..][..BLOCKS]) as f32);
    let expected: Vec<f32> = expected.collect();
    for isa in Isa::available() {
        for first in (0..ROWS).filter(|first| first % 7 == 0 || first + 20 > ROWS) {
            let count = ROWS - first;
            let output = weights.multiply(isa, View::new(&rows[first * BLOCKS..], count, BLOCKS), OUTPUTS);
            assert_eq!(output, expected[first * OUTPUTS..], "{isa:?}, {BITS} bits, {count} rows");
        }
    }
}

#[test]
fn integer_products_are_exact() {
    check_integers::<4, false, 1>();
    check_integers::<4, true, 1>();
    check_integers::<5, true, 1>();
    check_integers::<6, false, 2>();
    check_integers::<8, false, 1>();
}

#[test]
fn a_row_yields_the_same_alone_and_among_others() {
    const ROWS: usize = 83;
    const BLOCKS: usize = 19;
    let weights = Weights::<4, true, 1>::noise(1, BLOCKS, MAX_SCALE);
    let values = noise(ROWS * BLOCKS * BLOCK_LEN, 3);
    for isa in Isa::available() {
        let mut blocks = vec![Block::default(); ROWS * BLOCKS];
        isa.run(Quantise { values: &values, blocks: &mut blocks });
        let products = |rows: std::ops::Range<usize>| {
            let input = View::new(&blocks[rows.start * BLOCKS..], rows.len(), BLOCKS);
            weights.multiply(isa, input, LANES).into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let alone: Vec<u32> = (0..ROWS).flat_map(|row| products(row..row + 1)).collect();
        assert_eq!(products(0..ROWS), alone, "{isa:?}");
        assert_eq!(products(3..40), alone[3 * LANES..40 * LANES], "{isa:?}");
        for count in 2..8 {
            assert_eq!(products(0..count), alone[..count * LANES], "{isa:?}, {count} rows");
        }
    }
}

/// Checks products whose every number is as large as it can be.
fn check_largest<const BITS: u32, const OFFSETS: bool, const PARTS: usize>() {
    let largest = MAX_SCALE as i32;
    let mask = if BITS == 4 { 0xff } else { ((1u32 << BITS) - 1) as u8 };
    let shifts = [[0, 0], [0, MAX_SHIFT], [MAX_SHIFT, 0]];
    let rows = shifts.into_iter().flat_map(|shifts| [127, -127].map(|quant| (shifts, quant)));
    for row in rows.map(|(shifts, quant)| Block::of_whole(shifts, |_| quant)) {
        for (quant, scale) in [0, 0xff].into_iter().flat_map(|byte| [(byte, largest), (byte, -largest)]) {
            let mut weights = Weights::<BITS, OFFSETS, PARTS>::noise(1, 1, 0.0);
            // Against the products, and with them.
            let offset = if quant == 0 { scale } else { -scale };
            for (idx, line) in weights.lines.as_chunks_mut::<LINE_BYTES>().0.iter_mut().enumerate() {
                match idx {
                    _ if idx >= Weights::<BITS, OFFSETS, PARTS>::SCALE_LINES => line.fill(quant & mask),
                    _ if idx >= PARTS => line.as_chunks_mut().0.fill(pair([offset; 2]).to_le_bytes()),
                    _ => line.as_chunks_mut().0.fill(pair([scale; 2]).to_le_bytes()),
                }
            }
            let expected: Vec<_> = (0..LANES).map(|output| weights.product(output, &[row])).collect();
            for isa in Isa::available() {
                assert_close(&weights.multiply(isa, View::new(&[row], 1, 1), LANES), &expected, 1e-6);
            }
        }
    }
}

#[test]
fn the_largest_integers_do_not_overflow() {
    check_largest::<4, false, 1>();
    check_largest::<4, true, 1>();
    check_largest::<5, true, 1>();
    check_largest::<6, false, 2>();
    check_largest::<8, false, 1>();
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
    let (blocks, _) = values.as_chunks_mut::<BLOCK_LEN>();
    blocks[0].fill(0.0);
    blocks[1].iter_mut().for_each(|value| *value *= 1e-20);
    // Too small for an inverse.
    blocks[2].iter_mut().for_each(|value| *value *= 1e-36);
    // One far from the rest, in either half; nothing in the other.
    blocks[3][5] = 300.0;
    blocks[4][40] = -3e7;
    blocks[5][..HALF_LEN].fill(0.0);
    blocks[6].fill(-1.0);
    let quantised = Isa::available().map(|isa| {
        let mut blocks = vec![Block::default(); 64];
        isa.run(Quantise { values: &values, blocks: &mut blocks });
        blocks
    });
    let quantised: Vec<_> = quantised.collect();
    for blocks in &quantised {
        assert_eq!(blocks, &quantised[0]);
    }
    // Several are rounded at once: any number of them, the last one half, are as each alone.
    for isa in Isa::available() {
        for halves in 1..=14 {
            let values = &values[4 * BLOCK_LEN..][..halves * HALF_LEN];
            let mut blocks = vec![Block::default(); halves.div_ceil(2)];
            isa.run(Quantise { values, blocks: &mut blocks });
            for (values, together) in values.chunks(BLOCK_LEN).zip(blocks) {
                let mut alone = [Block::default()];
                isa.run(Quantise { values, blocks: &mut alone });
                assert_eq!(alone[0], together, "{isa:?}, {halves}");
            }
        }
    }
    for (block, values) in quantised[0].iter().zip(values.as_chunks::<BLOCK_LEN>().0) {
        let shifts = numbers(block.shifts.pair);
        let mut sums = [[0; 2]; 2];
        for idx in 0..BLOCK_LEN {
            let (half, quant, value) = (idx / HALF_LEN, block.quant(idx), values[idx]);
            let scale = block.scale * 0.5f32.powi(shifts[half] as i32);
            let error = (f32::from(quant) * scale - value).abs();
            assert!(error <= 0.5001 * scale.max(2e-30), "{value} is not {quant} times {scale}");
            sums[idx % HALF_LEN / LANES][half] += i32::from(quant);
        }
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!((block.scale - largest / 127.0).abs() <= 1e-6 * block.scale);
        let starts = |sums: [i32; 2]| [0, 1].map(|half: usize| (1 << shifts[half] >> 1) - 8 * sums[half]);
        assert_eq!(block.part_starts, sums.map(starts));
        let sums = [0, 1].map(|half| sums[0][half] + sums[1][half]);
        assert_eq!(block.starts, starts(sums));
        assert_eq!(block.byte_starts, starts(sums).map(|start| 16 * start + 8));
        assert_eq!(block.shifts.of_bytes, shifts.map(|shift| shift as i32 + 4));
        let shifted = |half: usize| {
            let exact = f64::from(8 * sums[half]) / f64::from(1 << shifts[half]);
            (exact + 0.5).floor() as i32
        };
        assert_eq!(block.sums, pair([shifted(0), shifted(1)]));
    }
    // The half beside an outlier keeps its own scale.
    assert_eq!(numbers(quantised[0][3].shifts.pair), [0, 8]);
    assert_eq!(numbers(quantised[0][4].shifts.pair), [MAX_SHIFT.into(), 0]);
}

#[test]
fn a_block_with_a_half_that_is_no_number_is_none() {
    for isa in Isa::available() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 2 * BLOCK_LEN];
            values[..HALF_LEN].fill(wrong);
            values[BLOCK_LEN + HALF_LEN..].fill(wrong);
            let mut blocks = [Block::default(); 2];
            isa.run(Quantise { values: &values, blocks: &mut blocks });
            let scales = blocks.map(|block| block.scale);
            assert!(scales.iter().all(|scale| scale.is_nan()), "{isa:?}, {wrong}: {scales:?}");
        }
        let mut block = [Block::default()];
        isa.run(Quantise { values: &[f32::MAX; BLOCK_LEN], blocks: &mut block });
        assert!(block[0].scale.is_finite());
    }
}

#[test]
fn exponents_are_logarithms_rounded_down() {
    struct Exponents([f32; LANES]);
    impl Kernel for Exponents {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [f32; LANES] {
            let mut exponents = [0.0; LANES];
            simd.store(simd.exponents(simd.load(&self.0)), &mut exponents);
            exponents
        }
    }
    let some = [1.0, 2.0, 2f32.next_down(), 0.5, 0.4, 7e-33, 8e15, 1e18, f32::MIN_POSITIVE, f32::MAX];
    let mut values = [3.0; LANES];
    values[..some.len()].copy_from_slice(&some);
    for isa in Isa::available() {
        let expected = values.map(|value| f64::from(value).log2().floor() as f32);
        assert_eq!(isa.run(Exponents(values)), expected, "{isa:?}");
        assert!(isa.run(Exponents([0.0; LANES])).iter().all(|exponent| *exponent <= -127.0), "{isa:?}");
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
        let (mut floats, mut blocks) = ([0.0; 96], [Block::default(); 2]);
        let (input, weight) = (&input[..], &weight[..]);
        isa.run(RmsNorm { input, weight, epsilon: 1e-5, floats: &mut floats, blocks: &mut blocks });
        assert_close(&floats, &normed, 1e-6);
        let mut expected = [Block::default(); 2];
        isa.run(Quantise { values: &floats, blocks: &mut expected });
        assert_eq!(blocks, expected, "{isa:?}");
        let mut gate = gates.clone();
        isa.run(Gate { gate: &mut gate, up: &ups });
        assert_close(&gate, &gated, 1e-6);
        for width in [HALF_LEN, BLOCK_LEN] {
            let rows = gates.len() / width;
            let mut blocks = vec![Block::default(); rows];
            isa.run(GateBlocks {
                gate: View::new(&gates, rows, width),
                up: View::new(&ups, rows, width),
                blocks: ViewMut::new(&mut blocks, rows, 1),
            });
            for (values, expected) in gate.chunks_exact(width).zip(&blocks) {
                let mut block = [Block::default()];
                isa.run(Quantise { values, blocks: &mut block });
                assert_eq!(&block[0], expected, "{isa:?}");
            }
        }
    }
}
