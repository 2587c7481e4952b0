//! Linear layers that read the same rows, as one stage shared out among the threads.

use super::{
    aligned::Aligned,
    batch::Wanted,
    kernels::{BLOCK_LEN, Block, Finish, Gate, GateBlocks, Isa, LANES},
    matrix::{Input, Matrix},
    pool::{Tasks, Tiles},
    view::{View, ViewMut},
};
use std::{cell::RefCell, ops::Range};

/// Tasks for each thread with a few rows, so that one who is kept from work holds up little.
const TASKS_PER_THREAD: usize = 12;
/// A task's weights should stay in its thread's second cache while its rows pass them.
const MAX_PANELS_PER_TASK: usize = 32;

/// How many rows a task has where there are many. A thread's tasks then are of the same rows in each stage, and as many of
/// them lie in its first cache while weights pass; but the weights are read for each task's rows anew.
#[derive(Clone, Copy)]
struct RowsPerTask(usize);

impl RowsPerTask {
    /// With matrices of so many bytes in all.
    fn new(weights: usize) -> Self {
        /// About what a second cache holds, so that it is there that weights are read again.
        const FEW: usize = 2 << 20;
        Self(if weights <= FEW { 16 } else { 128 })
    }

    /// About as many for each task; all are fewer than two tasks'.
    fn of(self, rows: usize) -> usize {
        /// Rows that are multiplied together.
        const TOGETHER: usize = 8;
        rows.div_ceil((rows / self.0).max(1)).next_multiple_of(TOGETHER)
    }
}

/// Linear layers side by side: the columns of the output are those of the first, then of the next.
pub(super) struct Projection {
    matrices: Vec<Matrix>,
    /// For all columns; 0 where there is none.
    bias: Option<Vec<f32>>,
    /// Added to what the output holds, instead of replacing it.
    accumulate: bool,
    rows_per_task: RowsPerTask,
    tasks: Vec<Task>,
    /// Columns where tasks begin, and the end.
    cuts: Vec<usize>,
}

struct Task {
    matrix: usize,
    panels: Range<usize>,
}

impl Projection {
    /// Biases are as long as their matrices have outputs.
    pub(super) fn new(layers: Vec<(Matrix, Option<Vec<f32>>)>, accumulate: bool, threads: usize) -> Self {
        let all_panels: usize = layers.iter().map(|(matrix, _)| matrix.panels()).sum();
        let per_task = all_panels.div_ceil(TASKS_PER_THREAD * threads).clamp(1, MAX_PANELS_PER_TASK);
        let (mut tasks, mut cuts, mut column) = (Vec::new(), vec![0], 0);
        for (idx, (matrix, _)) in layers.iter().enumerate() {
            for first in (0..matrix.panels()).step_by(per_task) {
                let panels = first..(first + per_task).min(matrix.panels());
                cuts.push(column + (panels.end * LANES).min(matrix.outputs()));
                tasks.push(Task { matrix: idx, panels });
            }
            column += matrix.outputs();
        }
        let has_bias = layers.iter().any(|(_, bias)| bias.is_some());
        let bias = has_bias.then(|| {
            let biases = layers.iter().map(|(matrix, bias)| (bias.clone(), matrix.outputs()));
            biases.flat_map(|(bias, outputs)| bias.unwrap_or_else(|| vec![0.0; outputs])).collect()
        });
        let matrices: Vec<_> = layers.into_iter().map(|(matrix, _)| matrix).collect();
        let rows_per_task = RowsPerTask::new(matrices.iter().map(Matrix::bytes).sum());
        Self { matrices, bias, accumulate, rows_per_task, tasks, cuts }
    }

    pub(super) fn width(&self) -> usize {
        self.cuts[self.tasks.len()]
    }

    pub(super) fn run(&self, isa: Isa, pool: &mut impl Tasks, input: Input<'_>, output: ViewMut<'_, f32>) {
        let rows_per_task = self.rows_per_task.of(output.rows());
        pool.tiles(output, rows_per_task, &self.cuts, |first, idx, tile| {
            let input = input.part(first..first + tile.rows());
            self.multiply(isa, idx, self.cuts[idx]..self.cuts[idx + 1], input, tile);
        });
    }

    /// As [`run`](Self::run), but for outputs that are not wanted, which become negative infinity.
    pub(super) fn run_wanted(
        &self,
        isa: Isa,
        pool: &mut impl Tasks,
        input: Input<'_>,
        output: ViewMut<'_, f32>,
        wanted: &Wanted,
    ) {
        let all_rows = output.rows();
        pool.tiles(output, all_rows, &self.cuts, |_, idx, mut tile| {
            let columns = self.cuts[idx]..self.cuts[idx + 1];
            for (rows, runs) in wanted.parts() {
                let input = input.part(rows.clone());
                let mut part = tile.tile(rows, 0..columns.len());
                let Some(runs) = runs else {
                    self.multiply(isa, idx, columns.clone(), input, part);
                    continue;
                };
                part.row(0).fill(f32::NEG_INFINITY);
                for run in runs.iter().map(|run| run.start.max(columns.start)..run.end.min(columns.end)) {
                    if !run.is_empty() {
                        let place = run.start - columns.start..run.end - columns.start;
                        self.multiply(isa, idx, run, input, part.tile(0..1, place));
                    }
                }
            }
        });
    }

    /// Some columns of a task, from where a panel begins.
    fn multiply(
        &self,
        isa: Isa,
        idx: usize,
        columns: Range<usize>,
        input: Input<'_>,
        output: ViewMut<'_, f32>,
    ) {
        let Task { matrix, panels } = &self.tasks[idx];
        let first = panels.start + (columns.start - self.cuts[idx]) / LANES;
        let panels = first..first + columns.len().div_ceil(LANES);
        let finish = match &self.bias {
            Some(bias) => Finish::Bias(&bias[columns]),
            None if self.accumulate => Finish::Accumulate,
            None => Finish::Store,
        };
        self.matrices[*matrix].multiply(isa, panels, input, output, finish);
    }
}

/// `silu(input · gateᵀ) * (input · upᵀ)`.
pub(super) struct GatedProjection {
    gate: Matrix,
    up: Matrix,
    rows_per_task: RowsPerTask,
    /// Columns where tasks begin, and the end: multiples of [`GATE_COLUMNS`] but for the end.
    cuts: Vec<usize>,
}

/// Columns that are gated at once: a block of the next matrix's input.
const GATE_COLUMNS: usize = BLOCK_LEN;
/// Rows that are gated at once, in memory that stays in the first cache.
const GATE_ROWS: usize = 32;

impl GatedProjection {
    pub(super) fn new(gate: Matrix, up: Matrix, threads: usize) -> Self {
        let blocks = gate.outputs().div_ceil(GATE_COLUMNS);
        let max_blocks = MAX_PANELS_PER_TASK * LANES / GATE_COLUMNS;
        let per_task = blocks.div_ceil(TASKS_PER_THREAD * threads).clamp(1, max_blocks) * GATE_COLUMNS;
        let cuts = (0..gate.outputs()).step_by(per_task).chain([gate.outputs()]).collect();
        let rows_per_task = RowsPerTask::new(gate.bytes() + up.bytes());
        Self { gate, up, rows_per_task, cuts }
    }

    /// As floats; the columns of `output` are those of the matrices.
    pub(super) fn run_to_floats(
        &self,
        isa: Isa,
        pool: &mut impl Tasks,
        input: Input<'_>,
        output: ViewMut<'_, f32>,
    ) {
        let rows_per_task = self.rows_per_task.of(output.rows());
        pool.tiles(output, rows_per_task, &self.cuts, |first, idx, mut tile| {
            let (rows, columns) = (first..first + tile.rows(), self.cuts[idx]..self.cuts[idx + 1]);
            self.run_columns(isa, columns, rows.len(), input.part(rows), |rows, column, gates, ups| {
                isa.run(Gate { gate: gates, up: ups });
                let gated = View::new(gates, rows.len(), gates.len() / rows.len());
                for (idx, row) in rows.enumerate() {
                    let gated = gated.row(idx);
                    tile.row(row)[column..][..gated.len()].copy_from_slice(gated);
                }
            });
        });
    }

    /// As blocks; the columns of `output` are those of the matrices by [`BLOCK_LEN`].
    pub(super) fn run_to_blocks(
        &self,
        isa: Isa,
        pool: &mut impl Tasks,
        input: Input<'_>,
        output: ViewMut<'_, Block>,
        block_cuts: &[usize],
    ) {
        let rows_per_task = self.rows_per_task.of(output.rows());
        pool.tiles(output, rows_per_task, block_cuts, |first, idx, mut tile| {
            let (rows, columns) = (first..first + tile.rows(), self.cuts[idx]..self.cuts[idx + 1]);
            self.run_columns(isa, columns, rows.len(), input.part(rows), |rows, column, gates, ups| {
                let width = gates.len() / rows.len();
                let (gate, up) = (View::new(gates, rows.len(), width), View::new(ups, rows.len(), width));
                let block = column / GATE_COLUMNS;
                isa.run(GateBlocks { gate, up, blocks: tile.tile(rows, block..block + 1) });
            });
        });
    }

    /// Where tasks begin in an output of blocks.
    pub(super) fn block_cuts(&self) -> Vec<usize> {
        self.cuts.iter().map(|cut| cut.div_ceil(GATE_COLUMNS)).collect()
    }

    /// Calls `put` with the rows, the column from the first and the products of each piece of these columns.
    fn run_columns(
        &self,
        isa: Isa,
        columns: Range<usize>,
        all_rows: usize,
        input: Input<'_>,
        mut put: impl FnMut(Range<usize>, usize, &mut [f32], &[f32]),
    ) {
        type Products = [f32; GATE_ROWS * GATE_COLUMNS];
        thread_local! {
            /// Kept for the next ones: to clear them takes longer than some products.
            static PRODUCTS: RefCell<Aligned<[Products; 2]>> = const { RefCell::new(Aligned([[0.0; _]; 2])) };
        }
        PRODUCTS.with_borrow_mut(|Aligned([gates, ups])| {
            for column in columns.clone().step_by(GATE_COLUMNS) {
                let width = GATE_COLUMNS.min(columns.end - column);
                let panels = column / LANES..(column + width).div_ceil(LANES);
                for row in (0..all_rows).step_by(GATE_ROWS) {
                    let rows = row..(row + GATE_ROWS).min(all_rows);
                    for (matrix, to) in [(&self.gate, &mut *gates), (&self.up, &mut *ups)] {
                        let to = ViewMut::new(to, rows.len(), width);
                        matrix.multiply(isa, panels.clone(), input.part(rows.clone()), to, Finish::Store);
                    }
                    let used = rows.len() * width;
                    put(rows, column - columns.start, &mut gates[..used], &ups[..used]);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_have_whole_tiles_of_rows() {
        for (weights, least) in [(1 << 20, 16), (1 << 30, 128)] {
            for rows in 1..600 {
                let per_task = RowsPerTask::new(weights).of(rows);
                assert!(per_task.is_multiple_of(8) && per_task <= 2 * least, "{rows}: {per_task}");
                assert!(rows < 2 * least || per_task >= least, "{rows}: {per_task}");
                assert!(rows.div_ceil(per_task) <= (rows / least).max(1), "{rows}: {per_task}");
            }
        }
    }
}
