//! Packs the rows of a matrix into panels of sixteen outputs.

#[cfg(target_arch = "x86_64")]
use super::kernels::{BF16_INPUTS, Bf16Pair};
use super::{
    kernels::{BLOCK_LEN, HALF_LEN, LANES, LINE_BYTES, MAX_SCALE, output_of},
    packed::{PackedBytes, PackedMemory},
    pool::{Pool, Tiles},
    view::ViewMut,
};
use crate::backend::stored::WeightBlock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Integer weights, laid out as [`IntegerProduct`](super::kernels::IntegerProduct) says.
pub(super) struct Integers {
    pub(super) lines: PackedBytes,
    pub(super) units: Vec<f32>,
}

/// How the blocks of a type lie in a panel.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    bits: u32,
    /// Whether blocks have a minimum.
    offsets: bool,
    /// Scales of half a block, which is one stored.
    parts: usize,
}

impl Layout {
    pub(super) const Q4: Self = Self { offsets: true, ..Self::Q4_0 };
    pub(super) const Q4_0: Self = Self { bits: 4, offsets: false, parts: 1 };
    pub(super) const Q5: Self = Self { bits: 5, ..Self::Q4 };
    pub(super) const Q6K: Self = Self { bits: 6, parts: 2, ..Self::Q4_0 };
    pub(super) const Q8_0: Self = Self { bits: 8, ..Self::Q4_0 };

    /// What sums lose when they become numbers of 16 bits.
    fn bits_left_out(self) -> f32 {
        (1 << (self.bits - 4)) as f32
    }

    fn scale_lines(self) -> usize {
        self.parts + usize::from(self.offsets)
    }

    /// Lines of a panel's block.
    fn lines(self) -> usize {
        self.scale_lines() + HALF_LEN / 4 * if self.bits == 4 { 1 } else { 2 }
    }

    /// Bytes of a matrix.
    pub(super) fn packed_bytes(self, outputs: usize, inputs: usize) -> usize {
        outputs.div_ceil(LANES) * inputs.div_ceil(BLOCK_LEN) * self.lines() * LINE_BYTES
    }

    /// The scales of a stored block, and its offset if there are any.
    fn scales(self, block: &WeightBlock) -> impl Iterator<Item = f32> + use<> {
        let offset = block.scales[0] + block.minimum / (1 << (self.bits - 1)) as f32;
        block.scales.into_iter().take(self.parts).chain(self.offsets.then_some(offset))
    }
}

/// Shares the panels of a matrix out among the threads.
pub(super) struct Packer<'a> {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) memory: &'a mut PackedMemory,
    pub(super) pool: &'a mut Pool,
}

impl Packer<'_> {
    fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// `[panel, input, lane]` of rows that `read` writes.
    pub(super) fn floats<E: Copy + Default + Send + Sync>(
        &mut self,
        read: impl Fn(usize, &mut [E]) + Sync,
    ) -> Vec<E> {
        let &mut Self { outputs, inputs, .. } = self;
        let panels = self.panels();
        let mut packed = vec![E::default(); panels * inputs * LANES];
        let view = ViewMut::new(&mut packed, panels, inputs * LANES);
        self.pool.tiles(view, 1, &[0, inputs * LANES], |panel, _, mut tile| {
            let mut row = vec![E::default(); inputs];
            for (lane, output) in (panel * LANES..outputs).take(LANES).enumerate() {
                read(output, &mut row);
                for (to, value) in tile.row(0).chunks_exact_mut(LANES).zip(&row) {
                    to[lane] = *value;
                }
            }
        });
        packed
    }

    /// `[panel, pair, lane]` of the words that `read` takes from a row, as `Bf16Product` wants them.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn bf16_pairs(&mut self, read: impl Fn(usize, usize) -> u16 + Sync) -> Vec<Bf16Pair> {
        let &mut Self { outputs, inputs, .. } = self;
        let (panels, pairs) = (self.panels(), inputs.next_multiple_of(BF16_INPUTS) / 2);
        let mut packed = vec![[0; 2]; panels * pairs * LANES];
        let view = ViewMut::new(&mut packed, panels, pairs * LANES);
        self.pool.tiles(view, 1, &[0, pairs * LANES], |panel, _, mut tile| {
            let pairs = tile.row(0);
            for (lane, output) in (panel * LANES..outputs).take(LANES).enumerate() {
                for input in 0..inputs {
                    pairs[input / 2 * LANES + lane][input % 2] = read(output, input);
                }
            }
        });
        packed
    }

    /// Blocks that `read` takes from a row, as `IntegerProduct` wants them.
    pub(super) fn integers(
        &mut self,
        read: impl Fn(usize, usize) -> WeightBlock + Sync,
        layout: Layout,
    ) -> Integers {
        let &mut Self { outputs, inputs, .. } = self;
        let (panels, stored) = (self.panels(), inputs / HALF_LEN);
        // Each written once, by the thread that has the row.
        let units: Vec<_> = (0..panels * LANES).map(|_| AtomicU32::new(0)).collect();
        let panel_bytes = layout.packed_bytes(1, inputs);
        let (lines, bytes) = self.memory.take(panels * panel_bytes);
        let view = ViewMut::new(bytes, panels, panel_bytes);
        self.pool.tiles(view, 1, &[0, panel_bytes], |panel, _, mut tile| {
            let (lines, _) = tile.row(0).as_chunks_mut::<LINE_BYTES>();
            let places = (0..2).flat_map(|group| (0..LANES / 2).map(move |nth| (group, 2 * nth)));
            for (group, lane) in places {
                let place = output_of(group, lane);
                let output = panel * LANES + place;
                if output >= outputs {
                    continue;
                }
                let blocks: Vec<_> = (0..stored).map(|nth| read(output, nth)).collect();
                // The largest number of a row is the largest there can be. What is no number makes the row none,
                // whatever follows it.
                let all = blocks.iter().flat_map(|block| layout.scales(block));
                let largest =
                    all.fold(0.0, |most: f32, scale| most.max(scale.abs()) + 0.0 * most + 0.0 * scale);
                let unit = largest / MAX_SCALE;
                units[output].store((unit * layout.bits_left_out()).to_bits(), Ordering::Relaxed);
                for (nth, block) in blocks.iter().enumerate() {
                    let lines = &mut lines[nth / 2 * layout.lines()..][..layout.lines()];
                    let (scales, quants) = lines.split_at_mut(layout.scale_lines());
                    for (line, scale) in scales.iter_mut().zip(layout.scales(block)) {
                        let whole = if unit > 0.0 { (scale / unit).round_ties_even() as i16 } else { 0 };
                        line[4 * place + 2 * (nth % 2)..][..2].copy_from_slice(&whole.to_le_bytes());
                    }
                    put_quants(&block.quants, layout, group, lane + nth % 2, quants);
                }
            }
        });
        let units = units.into_iter().map(|unit| f32::from_bits(unit.into_inner())).collect();
        Integers { lines, units }
    }
}

/// Puts the quants of a stored block in their lane.
fn put_quants(
    quants: &[u8; HALF_LEN],
    layout: Layout,
    group: usize,
    lane: usize,
    lines: &mut [[u8; LINE_BYTES]],
) {
    let (quads, _) = quants.as_chunks::<4>();
    let nibbles = layout.bits == 4;
    let (first, step) = if nibbles { (0, 1) } else { (group, 2) };
    for (line, quad) in lines[first..].iter_mut().step_by(step).zip(quads) {
        let to = &mut line.as_chunks_mut::<4>().0[lane];
        // All four at once: no nibble reaches the next byte.
        let quad = u32::from_le_bytes(*quad) << if nibbles { 4 * group } else { 0 };
        *to = (u32::from_le_bytes(*to) | quad).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        kernels::{Block, Finish, IntegerProduct, Isa, Quantise},
        view::View,
    };
    use super::*;

    /// Not whole panels, nor whole blocks.
    const OUTPUTS: usize = 19;
    const INPUTS: usize = 96;

    /// The products of a row with the blocks that `read` takes.
    fn multiply<const BITS: u32, const OFFSETS: bool, const PARTS: usize>(
        layout: Layout,
        row: &[f32],
        read: impl Fn(usize, usize) -> WeightBlock + Sync,
    ) -> Vec<f32> {
        let mut memory = PackedMemory::new([layout.packed_bytes(OUTPUTS, INPUTS)].into_iter()).unwrap();
        let mut pool = Pool::with_threads(1).unwrap();
        let mut packer = Packer { outputs: OUTPUTS, inputs: INPUTS, memory: &mut memory, pool: &mut pool };
        let Integers { lines, units } = packer.integers(read, layout);
        memory.finish().unwrap();
        let isa = Isa::best();
        let mut blocks = [Block::default(); INPUTS.div_ceil(BLOCK_LEN)];
        isa.run(Quantise { values: row, blocks: &mut blocks });
        let mut output = vec![0.0; OUTPUTS];
        isa.run(IntegerProduct::<'_, BITS, OFFSETS, PARTS> {
            lines: lines.as_slice(),
            units: &units,
            panels: 0..OUTPUTS.div_ceil(LANES),
            input: View::new(&blocks, 1, blocks.len()),
            output: ViewMut::new(&mut output, 1, OUTPUTS),
            finish: Finish::Store,
        });
        output
    }

    fn check<const BITS: u32, const OFFSETS: bool, const PARTS: usize>(layout: Layout) {
        let read = |output: usize, nth: usize| {
            let quant = |idx: usize| ((output * 31 + nth * 17 + idx * 7) % (1 << BITS)) as u8;
            let scale = 0.01 * (1 + (output + nth) % 5) as f32;
            let scales = [scale, if PARTS == 2 { -0.5 * scale } else { scale }];
            let minimum = if OFFSETS { -0.1 * nth as f32 } else { 0.0 };
            WeightBlock { quants: std::array::from_fn(quant), scales, minimum }
        };
        let bias = if OFFSETS { 0 } else { 1 << (BITS - 1) };
        let weight = |output: usize, input: usize| {
            let WeightBlock { quants, scales, minimum } = read(output, input / HALF_LEN);
            let at = input % HALF_LEN;
            scales[at / LANES] * (i32::from(quants[at]) - bias) as f32 + minimum
        };
        // Whole numbers, the largest of which in each half is that of a quant, so that rows are not rounded.
        let row: Vec<f32> = (0..INPUTS).map(|idx| (idx % HALF_LEN * 37 % 255) as f32 - 127.0).collect();
        let output = multiply::<BITS, OFFSETS, PARTS>(layout, &row, read);
        for (idx, actual) in output.into_iter().enumerate() {
            let terms = row.iter().enumerate().map(|(input, value)| weight(idx, input) * value);
            let (expected, size) =
                terms.fold((0.0, 0.0), |(sum, size): (f32, f32), term| (sum + term, size + term.abs()));
            assert!((actual - expected).abs() < 2e-4 * size, "{BITS} bits, {idx}: {actual}, not {expected}");
        }
        for (place, wrong) in [(0, f32::NAN), (1, f32::INFINITY), (2, f32::NEG_INFINITY)] {
            let output = multiply::<BITS, OFFSETS, PARTS>(layout, &row, |output, nth| {
                let mut block = read(output, nth);
                if (output, nth) == (17, place) {
                    block.scales[0] = wrong;
                }
                block
            });
            for (idx, value) in output.into_iter().enumerate() {
                assert_eq!(value.is_nan(), idx == 17, "{idx}: {value}");
            }
        }
    }

    #[test]
    fn packed_blocks_multiply_as_what_they_stand_for() {
        check::<4, true, 1>(Layout::Q4);
        check::<4, false, 1>(Layout::Q4_0);
        check::<5, true, 1>(Layout::Q5);
        check::<6, false, 2>(Layout::Q6K);
        check::<8, false, 1>(Layout::Q8_0);
    }
}
