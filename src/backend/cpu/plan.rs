//! A step as a fixed list of stages over memory that is had once.

use super::{
    attention::{Attention, Context, Heads},
    batch::Batch,
    cache::KvCache,
    kernels::{BLOCK_LEN, Block, Isa, Kept, Quantise, RmsNorm},
    matrix::Input,
    pool::{Pool, Tiles},
    project::{GatedProjection, Projection},
    rotary::RotaryTable,
    view::{View, ViewMut},
};
use crate::{backend::Logits, model::StoredTensor};
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

/// What all threads do before any goes on.
pub(super) enum Stage {
    Embed {
        table: StoredTensor,
        output: FloatsId,
    },
    Norm {
        input: FloatsId,
        weight: Vec<f32>,
        epsilon: f32,
        output: Forms,
    },
    Quantise {
        input: FloatsId,
        output: BlocksId,
    },
    Project {
        input: Forms,
        projection: Projection,
        output: FloatsId,
    },
    Gate {
        input: Forms,
        projection: GatedProjection,
        output: Output,
    },
    /// Each source is a matrix and the column where its heads begin.
    Attend {
        attention: Attention,
        sources: [(FloatsId, usize); 3],
        output: Output,
    },
    /// From the first one on the rows are those whose logits are wanted.
    Select {
        input: FloatsId,
        output: FloatsId,
    },
    /// The logits.
    Head {
        input: Forms,
        projection: Projection,
    },
}

/// The form that a stage writes, and where its tasks begin in blocks.
pub(super) enum Output {
    Floats(FloatsId),
    Blocks { output: BlocksId, cuts: Vec<usize> },
}

/// A lowered graph.
pub(super) struct Plan {
    pub(super) stages: Vec<Stage>,
    pub(super) rotary: RotaryTable,
    pub(super) memory: Memory,
}

/// The matrices that stages write and read: room for a step's most tokens each.
pub(super) struct Memory {
    floats: Vec<Matrix<f32>>,
    blocks: Vec<Matrix<Block>>,
}

#[derive(Default)]
struct Matrix<T> {
    values: Vec<T>,
    columns: usize,
}

impl<T: Clone + Default> Matrix<T> {
    fn new(rows: usize, columns: usize) -> Self {
        Self { values: vec![T::default(); rows * columns], columns }
    }

    fn view(&self, rows: usize) -> View<'_, T> {
        View::new(&self.values, rows, self.columns)
    }

    fn view_mut(&mut self, rows: usize) -> ViewMut<'_, T> {
        ViewMut::new(&mut self.values, rows, self.columns)
    }
}

impl Memory {
    /// Room for `rows` rows of the given widths, in values.
    pub(super) fn new(rows: usize, float_widths: &[usize], block_widths: &[usize]) -> Self {
        Self {
            floats: float_widths.iter().map(|&width| Matrix::new(rows, width)).collect(),
            blocks: block_widths.iter().map(|&width| Matrix::new(rows, width.div_ceil(BLOCK_LEN))).collect(),
        }
    }

    fn floats(&self, id: FloatsId, rows: usize) -> View<'_, f32> {
        self.floats[id.0].view(rows)
    }

    fn heads(&self, sources: &[(FloatsId, usize); 3], rows: usize) -> [Heads<'_>; 3] {
        sources.map(|(id, column)| Heads { rows: self.floats(id, rows), column })
    }

    fn input(&self, forms: Forms, rows: usize) -> Input<'_> {
        Input {
            floats: forms.floats.map(|id| self.floats(id, rows)),
            blocks: forms.blocks.map(|id| self.blocks[id.0].view(rows)),
        }
    }

    /// Runs `stage` with one matrix to write and the others to read.
    fn writing_floats(&mut self, id: FloatsId, stage: impl FnOnce(&Self, &mut Matrix<f32>)) {
        let mut output = take(&mut self.floats[id.0]);
        stage(self, &mut output);
        self.floats[id.0] = output;
    }

    fn writing_blocks(&mut self, id: BlocksId, stage: impl FnOnce(&Self, &mut Matrix<Block>)) {
        let mut output = take(&mut self.blocks[id.0]);
        stage(self, &mut output);
        self.blocks[id.0] = output;
    }
}

/// What a step runs with.
pub(super) struct Step<'a, E> {
    pub(super) isa: Isa,
    pub(super) pool: &'a mut Pool,
    pub(super) batch: &'a Batch,
    pub(super) cache: &'a mut KvCache<E>,
    pub(super) logits: &'a mut Logits,
}

impl Plan {
    pub(super) fn run<E: Kept>(&mut self, step: &mut Step<'_, E>) {
        let Self { stages, rotary, memory } = self;
        let mut rows = step.batch.tokens.len();
        step.logits.resize(step.batch.selected.len());
        for stage in stages {
            if matches!(stage, Stage::Select { .. }) {
                rows = step.batch.selected.len();
                if rows == 0 {
                    return;
                }
            }
            step.run(stage, rows, rotary, memory);
        }
    }
}

impl<E: Kept> Step<'_, E> {
    fn run(&mut self, stage: &Stage, rows: usize, rotary: &RotaryTable, memory: &mut Memory) {
        let (isa, batch) = (self.isa, self.batch);
        match stage {
            Stage::Embed { table, output } => memory.writing_floats(*output, |_, output| {
                self.each_row(output, rows, |row, to| table.read_rows(batch.tokens[row] as usize, to));
            }),
            Stage::Norm { input, weight, epsilon, output } => {
                let epsilon = *epsilon;
                if let Some(id) = output.blocks {
                    memory.writing_blocks(id, |memory, output| {
                        let input = memory.floats(*input, rows);
                        self.each_row(output, rows, |row, blocks| {
                            let (input, floats) = (input.row(row), &mut [][..]);
                            isa.run(RmsNorm { input, weight, epsilon, floats, blocks });
                        });
                    });
                }
                if let Some(id) = output.floats {
                    memory.writing_floats(id, |memory, output| {
                        let input = memory.floats(*input, rows);
                        self.each_row(output, rows, |row, floats| {
                            let (input, blocks) = (input.row(row), &mut [][..]);
                            isa.run(RmsNorm { input, weight, epsilon, floats, blocks });
                        });
                    });
                }
            }
            Stage::Quantise { input, output } => memory.writing_blocks(*output, |memory, output| {
                let input = memory.floats(*input, rows);
                self.each_row(output, rows, |row, blocks| {
                    isa.run(Quantise { values: input.row(row), blocks });
                });
            }),
            Stage::Project { input, projection, output } => {
                memory.writing_floats(*output, |memory, output| {
                    projection.run(isa, self.pool, memory.input(*input, rows), output.view_mut(rows));
                })
            }
            Stage::Gate { input, projection, output: Output::Floats(output) } => {
                memory.writing_floats(*output, |memory, output| {
                    let input = memory.input(*input, rows);
                    projection.run_to_floats(isa, self.pool, input, output.view_mut(rows));
                });
            }
            Stage::Gate { input, projection, output: Output::Blocks { output, cuts } } => {
                memory.writing_blocks(*output, |memory, output| {
                    let input = memory.input(*input, rows);
                    projection.run_to_blocks(isa, self.pool, input, output.view_mut(rows), cuts);
                });
            }
            Stage::Attend { attention, sources, output } => {
                let context = Context { isa, rotary, places: &batch.places };
                match output {
                    Output::Floats(output) => memory.writing_floats(*output, |memory, output| {
                        let output = output.view_mut(rows);
                        attention.run(context, self.pool, self.cache, memory.heads(sources, rows), output);
                    }),
                    Output::Blocks { output, cuts } => memory.writing_blocks(*output, |memory, output| {
                        let output = (output.view_mut(rows), &cuts[..]);
                        attention.run_to_blocks(
                            context,
                            self.pool,
                            self.cache,
                            memory.heads(sources, rows),
                            output,
                        );
                    }),
                }
            }
            Stage::Select { input, output } => memory.writing_floats(*output, |memory, output| {
                let input = memory.floats(*input, batch.tokens.len());
                self.each_row(output, rows, |row, to| to.copy_from_slice(input.row(batch.selected[row])));
            }),
            Stage::Head { input, projection } => {
                let logits = ViewMut::new(self.logits.as_mut_slice(), rows, projection.width());
                projection.run_wanted(isa, self.pool, memory.input(*input, rows), logits, &batch.wanted);
            }
        }
    }

    fn each_row<T: Clone + Default + Send>(
        &mut self,
        output: &mut Matrix<T>,
        rows: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        /// Fewer rows are done sooner than another thread has heard of them.
        const MIN_ROWS_PER_TASK: usize = 4;
        let rows_per_task = rows.div_ceil(4 * self.pool.threads()).max(MIN_ROWS_PER_TASK);
        let columns = output.columns;
        self.pool.tiles(output.view_mut(rows), rows_per_task, &[0, columns], |first, _, mut tile| {
            for row in 0..tile.rows() {
                task(first + row, tile.row(row));
            }
        });
    }
}
