//! A step as a fixed list of stages over memory that is had once.

use super::{
    attention::{Attention, Context},
    batch::{Batch, Wanted},
    cache::{KvCache, Slots},
    kernels::{Isa, Kept, Quantise, RmsNorm},
    memory::{Activations, BlocksId, FloatsId, Forms, Memory},
    pool::{Alone, Pool, Tasks, Tiles},
    project::{GatedProjection, Projection},
    rotary::RotaryTable,
    shares::{Share, Shares},
    view::ViewMut,
};
use crate::{
    backend::{Logits, Row},
    model::StoredTensor,
};

/// What is done with all rows of a share before the next stage begins.
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
}

/// What leaves the rows whose logits are wanted.
pub(super) struct Select {
    pub(super) input: FloatsId,
    pub(super) output: FloatsId,
}

/// What yields the logits.
pub(super) struct Head {
    pub(super) input: Forms,
    pub(super) projection: Projection,
}

/// The form that a stage writes, and where its tasks begin in blocks.
pub(super) enum Output {
    Floats(FloatsId),
    Blocks { output: BlocksId, cuts: Vec<usize> },
}

/// A lowered graph.
pub(super) struct Plan {
    /// For all rows.
    pub(super) layers: Vec<Stage>,
    pub(super) selects: Vec<Select>,
    /// For those that are left.
    pub(super) last: Vec<Stage>,
    pub(super) head: Head,
    pub(super) rotary: RotaryTable,
    pub(super) shares: Shares,
}

/// What a step runs with.
pub(super) struct Step<'a, E> {
    pub(super) isa: Isa,
    pub(super) pool: &'a mut Pool,
    pub(super) cache: &'a mut KvCache<E>,
    pub(super) wanted: &'a Wanted,
    pub(super) logits: &'a mut Logits,
}

impl Plan {
    pub(super) fn run<E: Kept>(&mut self, rows: &[Row<'_>], step: Step<'_, E>) {
        let Self { layers, selects, last, head, rotary, shares } = self;
        let Step { isa, pool, cache, wanted, logits } = step;
        let rotary = &*rotary;
        match shares.fill(rows) {
            ([Share { batch, memory }], _) => {
                let cache = &mut cache.slots();
                let mut run = Run { isa, tasks: pool, rotary, rows: batch.tokens.len(), batch, cache };
                layers.iter().for_each(|stage| run.stage(stage, memory));
            }
            (shares, share_of_slot) => {
                let slots = cache.split(share_of_slot, shares.len());
                let mut parts: Vec<_> = shares.iter_mut().zip(slots).collect();
                let n_parts = parts.len();
                pool.tiles(ViewMut::new(&mut parts, n_parts, 1), 1, &[0, 1], |_, _, mut part| {
                    let [(Share { batch, memory }, cache)] = part.row(0) else {
                        unreachable!("it is one part")
                    };
                    let mut run =
                        Run { isa, tasks: &mut Alone, rotary, rows: batch.tokens.len(), batch, cache };
                    layers.iter().for_each(|stage| run.stage(stage, memory));
                });
            }
        }
        let rows = shares.selected();
        logits.resize(rows);
        if rows == 0 {
            return;
        }
        selects.iter().for_each(|select| shares.select(select));
        let Share { memory, batch } = shares.first();
        let mut run = Run { isa, tasks: pool, rotary, batch, cache: &mut cache.slots(), rows };
        last.iter().for_each(|stage| run.stage(stage, memory));
        let logits = ViewMut::new(logits.as_mut_slice(), rows, head.projection.width());
        head.projection.run_wanted(isa, run.tasks, memory.input(head.input, rows), logits, wanted);
    }
}

/// What a stage runs with.
struct Run<'a, 'cache, E, T> {
    isa: Isa,
    tasks: &'a mut T,
    rotary: &'a RotaryTable,
    batch: &'a Batch,
    cache: &'a mut Slots<'cache, E>,
    rows: usize,
}

impl<E: Kept, T: Tasks> Run<'_, '_, E, T> {
    fn stage(&mut self, stage: &Stage, memory: &mut Memory) {
        let Self { isa, rotary, batch, rows, .. } = *self;
        match stage {
            Stage::Embed { table, output } => memory.writing_floats(*output, |_, output| {
                self.each_row(output, |row, to| table.read_rows(batch.tokens[row] as usize, to));
            }),
            Stage::Norm { input, weight, epsilon, output } => {
                let epsilon = *epsilon;
                if let Some(id) = output.blocks {
                    memory.writing_blocks(id, |memory, output| {
                        let input = memory.floats(*input, rows);
                        self.each_row(output, |row, blocks| {
                            let (input, floats) = (input.row(row), &mut [][..]);
                            isa.run(RmsNorm { input, weight, epsilon, floats, blocks });
                        });
                    });
                }
                if let Some(id) = output.floats {
                    memory.writing_floats(id, |memory, output| {
                        let input = memory.floats(*input, rows);
                        self.each_row(output, |row, floats| {
                            let (input, blocks) = (input.row(row), &mut [][..]);
                            isa.run(RmsNorm { input, weight, epsilon, floats, blocks });
                        });
                    });
                }
            }
            Stage::Quantise { input, output } => memory.writing_blocks(*output, |memory, output| {
                let input = memory.floats(*input, rows);
                self.each_row(output, |row, blocks| {
                    isa.run(Quantise { values: input.row(row), blocks });
                });
            }),
            Stage::Project { input, projection, output } => {
                memory.writing_floats(*output, |memory, output| {
                    projection.run(isa, self.tasks, memory.input(*input, rows), output.view_mut(rows));
                })
            }
            Stage::Gate { input, projection, output: Output::Floats(output) } => {
                memory.writing_floats(*output, |memory, output| {
                    let input = memory.input(*input, rows);
                    projection.run_to_floats(isa, self.tasks, input, output.view_mut(rows));
                });
            }
            Stage::Gate { input, projection, output: Output::Blocks { output, cuts } } => {
                memory.writing_blocks(*output, |memory, output| {
                    let input = memory.input(*input, rows);
                    projection.run_to_blocks(isa, self.tasks, input, output.view_mut(rows), cuts);
                });
            }
            Stage::Attend { attention, sources, output } => {
                let context = Context { isa, rotary, places: &batch.places };
                match output {
                    Output::Floats(output) => memory.writing_floats(*output, |memory, output| {
                        let output = output.view_mut(rows);
                        attention.run(context, self.tasks, self.cache, memory.heads(sources, rows), output);
                    }),
                    Output::Blocks { output, cuts } => memory.writing_blocks(*output, |memory, output| {
                        let output = (output.view_mut(rows), &cuts[..]);
                        attention.run_to_blocks(
                            context,
                            self.tasks,
                            self.cache,
                            memory.heads(sources, rows),
                            output,
                        );
                    }),
                }
            }
        }
    }

    fn each_row<V: Clone + Default + Send + Sync>(
        &mut self,
        output: &mut Activations<V>,
        task: impl Fn(usize, &mut [V]) + Sync,
    ) {
        /// Fewer are done sooner than another thread has heard of them.
        const ROWS_PER_TASK: usize = 4;
        let columns = output.columns();
        self.tasks.tiles(output.view_mut(self.rows), ROWS_PER_TASK, &[0, columns], |first, _, mut tile| {
            for row in 0..tile.rows() {
                task(first + row, tile.row(row));
            }
        });
    }
}
