//! Packs the rows of a matrix into panels of sixteen outputs.

#[cfg(target_arch = "x86_64")]
use super::kernels::{BF16_INPUTS, Bf16Pair};
use super::{
    kernels::{BLOCK_LEN, LANES},
    packed::{PackedBytes, PackedMemory},
    pool::{Pool, Tiles},
    view::ViewMut,
};
use crate::backend::stored::WeightBlock;

/// Integer weights, laid out as [`IntegerProduct`](super::kernels::IntegerProduct) says.
pub(super) struct Integers<E> {
    pub(super) quants: PackedBytes,
    pub(super) scales: Vec<E>,
}

/// How the blocks of a type lie in a panel.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) nibbles: bool,
    pub(super) minima: bool,
    pub(super) scales_per_block: usize,
}

impl Layout {
    pub(super) const NIBBLES: Self = Self { nibbles: true, minima: false, scales_per_block: 1 };
    pub(super) const BYTES: Self = Self { nibbles: false, ..Self::NIBBLES };

    /// Bytes of a panel's block of quants.
    pub(super) fn quants_len(self) -> usize {
        LANES * if self.nibbles { BLOCK_LEN / 2 } else { BLOCK_LEN }
    }

    fn scales_len(self) -> usize {
        LANES * self.scales_per_block * if self.minima { 2 } else { 1 }
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
    pub(super) fn floats<E: Copy + Default + Send>(
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
    pub(super) fn integers<E: Copy + Default + Send>(
        &mut self,
        read: impl Fn(usize, usize) -> WeightBlock + Sync,
        layout: Layout,
        scale: impl Fn(f32) -> E + Sync,
    ) -> Integers<E> {
        let &mut Self { outputs, inputs, .. } = self;
        let (panels, blocks) = (self.panels(), inputs / BLOCK_LEN);
        let (quants_len, scales_len) = (layout.quants_len(), layout.scales_len());
        let (packed, quants) = self.memory.take(panels * blocks * quants_len);
        let mut scales = vec![E::default(); panels * blocks * scales_len];
        let read_into = |panel: usize, put: &mut dyn FnMut(usize, usize, &WeightBlock)| {
            for (lane, output) in (panel * LANES..outputs).take(LANES).enumerate() {
                for block in 0..blocks {
                    put(lane, block, &read(output, block));
                }
            }
        };
        let view = ViewMut::new(quants, panels, blocks * quants_len);
        self.pool.tiles(view, 1, &[0, blocks * quants_len], |panel, _, mut tile| {
            let panel_quants = tile.row(0);
            read_into(panel, &mut |lane, block, weights| {
                put_quants(
                    &weights.quants,
                    layout,
                    lane,
                    &mut panel_quants[block * quants_len..][..quants_len],
                );
            });
        });
        let view = ViewMut::new(&mut scales, panels, blocks * scales_len);
        self.pool.tiles(view, 1, &[0, blocks * scales_len], |panel, _, mut tile| {
            let panel_scales = tile.row(0);
            read_into(panel, &mut |lane, block, weights| {
                let to = &mut panel_scales[block * scales_len..][..scales_len];
                to[lane] = scale(weights.scales[0]);
                if layout.minima {
                    to[LANES + lane] = scale(weights.minimum);
                } else if layout.scales_per_block == 2 {
                    to[LANES + lane] = scale(weights.scales[1]);
                }
            });
        });
        Integers { quants: packed, scales }
    }
}

/// Puts a row's block in its lane: `[quad, lane, 4]`.
fn put_quants(quants: &[u8; BLOCK_LEN], layout: Layout, lane: usize, to: &mut [u8]) {
    let (quads, _) = quants.as_chunks::<4>();
    let half = quads.len() / 2;
    for (idx, to) in to.chunks_exact_mut(4 * LANES).enumerate() {
        let to = &mut to[4 * lane..][..4];
        if layout.nibbles {
            for (to, (low, high)) in to.iter_mut().zip(quads[idx].iter().zip(quads[idx + half])) {
                *to = low | high << 4;
            }
        } else {
            to.copy_from_slice(&quads[idx]);
        }
    }
}
