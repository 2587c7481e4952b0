//! The matrices that the stages of a step write and read, had once.

use super::{
    aligned::AlignedVec,
    attention::Heads,
    kernels::{BLOCK_LEN, Block},
    matrix::Input,
    view::{View, ViewMut},
};
use std::mem::take;

/// A matrix of floats, a row a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FloatsId(pub(super) usize);

/// A matrix of blocks, a row a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlocksId(pub(super) usize);

/// The forms in which a value is had.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forms {
    pub(super) floats: Option<FloatsId>,
    pub(super) blocks: Option<BlocksId>,
}

/// The matrices that the stages of a share write and read: room for its most tokens each.
pub(super) struct Memory {
    floats: Vec<Activations<f32>>,
    blocks: Vec<Activations<Block>>,
}

#[derive(Default)]
pub(super) struct Activations<T> {
    values: AlignedVec<T>,
    columns: usize,
}

impl<T: Clone + Default> Activations<T> {
    fn new(rows: usize, columns: usize) -> Self {
        Self { values: AlignedVec::new(rows * columns), columns }
    }

    fn view(&self, rows: usize) -> View<'_, T> {
        View::new(&self.values, rows, self.columns)
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn view_mut(&mut self, rows: usize) -> ViewMut<'_, T> {
        ViewMut::new(&mut self.values, rows, self.columns)
    }
}

impl Memory {
    /// Room for `rows` rows of the given widths, in values.
    pub(super) fn new(rows: usize, float_widths: &[usize], block_widths: &[usize]) -> Self {
        Self {
            floats: float_widths.iter().map(|&width| Activations::new(rows, width)).collect(),
            blocks: block_widths
                .iter()
                .map(|&width| Activations::new(rows, width.div_ceil(BLOCK_LEN)))
                .collect(),
        }
    }

    pub(super) fn floats(&self, id: FloatsId, rows: usize) -> View<'_, f32> {
        self.floats[id.0].view(rows)
    }

    pub(super) fn heads(&self, sources: &[(FloatsId, usize); 3], rows: usize) -> [Heads<'_>; 3] {
        sources.map(|(id, column)| Heads { rows: self.floats(id, rows), column })
    }

    pub(super) fn input(&self, forms: Forms, rows: usize) -> Input<'_> {
        Input {
            floats: forms.floats.map(|id| self.floats(id, rows)),
            blocks: forms.blocks.map(|id| self.blocks[id.0].view(rows)),
        }
    }

    /// Runs `stage` with one matrix to write and the others to read.
    pub(super) fn writing_floats(&mut self, id: FloatsId, stage: impl FnOnce(&Self, &mut Activations<f32>)) {
        let mut output = take(&mut self.floats[id.0]);
        stage(self, &mut output);
        self.floats[id.0] = output;
    }

    pub(super) fn writing_blocks(
        &mut self,
        id: BlocksId,
        stage: impl FnOnce(&Self, &mut Activations<Block>),
    ) {
        let mut output = take(&mut self.blocks[id.0]);
        stage(self, &mut output);
        self.blocks[id.0] = output;
    }
}
