//! Whether a step's indices are inside the arrays they are of.
//!
//! XLA on a CPU moves an index that is outside back inside; a device fails the step. What a module gathers,
//! scatters and slices by is computed here from its inputs, before it runs: integers are followed back from
//! each index through the operations that make integers of integers. An index that comes of anything else,
//! such as a float, is not checked, and the report says so.

use crate::hlo::{ArrayShape, Computation, Instruction, Module};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

/// What a module's indices must satisfy.
#[derive(Debug, Default)]
pub(crate) struct IndexChecks {
    /// By instruction that is an index: what to call it, and the limit of each of its columns.
    checks: Vec<Check>,
    /// What makes the indices, operands first.
    steps: Vec<Step>,
    /// Instructions whose indices are not known before they run.
    pub(crate) unchecked: Vec<String>,
}

#[derive(Debug)]
struct Check {
    place: String,
    index: i64,
    /// One that is not below its limit is outside. The last dimension's entries have a limit each.
    limits: Vec<usize>,
    /// Numbers between one column and the next of the same index: 1 but where columns are not innermost.
    stride: usize,
}

#[derive(Debug)]
struct Step {
    instruction: Instruction,
    /// Of the operands.
    shapes: Vec<ArrayShape>,
}

type Integers = Rc<Vec<i64>>;

/// An index as large as a picture is none that a language model has.
const MAX_ELEMENTS: usize = 1 << 22;

impl IndexChecks {
    pub(crate) fn of(module: &Module) -> Self {
        let mut found = IndexChecks::default();
        let Ok(entry) = module.entry() else { return found };
        let by_id = entry.by_id();
        let mut needed = HashSet::new();
        for instruction in &entry.instructions {
            let Some(indices) = indices_of(instruction, &by_id) else {
                found.unchecked.push(instruction.name.clone());
                continue;
            };
            for check in indices {
                let mut cone = HashSet::new();
                if !is_known(check.index, &by_id, &mut cone) {
                    found.unchecked.push(instruction.name.clone());
                } else if !found.checks.iter().any(|other| same(other, &check)) {
                    needed.extend(cone);
                    found.checks.push(check);
                }
            }
        }
        for computation in module.computations.iter().filter(|computation| computation.id != entry.id) {
            let indexed = computation.instructions.iter().filter(|i| INDEXED.contains(&i.opcode.as_str()));
            found.unchecked.extend(indexed.map(|instruction| instruction.name.clone()));
        }
        found.steps = steps(entry, &needed);
        found
    }

    /// The parameters whose numbers have to be known.
    pub(crate) fn parameters(&self) -> Vec<usize> {
        let parameters = self.steps.iter().filter(|step| step.instruction.opcode == "parameter");
        parameters.map(|step| step.instruction.parameter_number).collect()
    }

    /// # Errors
    /// The first index that is outside, and of what.
    pub(crate) fn check(&self, parameters: &BTreeMap<usize, Vec<i64>>) -> Result<(), String> {
        let mut values: HashMap<i64, Integers> = HashMap::new();
        for step in &self.steps {
            let operands =
                step.instruction.operands.iter().filter_map(|id| values.get(id).cloned()).collect();
            let value = evaluate(step, operands, parameters)
                .ok_or_else(|| format!("{}: cannot be computed ahead of the step", step.instruction.name))?;
            values.insert(step.instruction.id, Rc::new(value));
        }
        for Check { place, index, limits, stride } in &self.checks {
            let Some(value) = values.get(index) else { continue };
            for (number, at) in value.iter().enumerate() {
                let limit = limits[number / stride % limits.len()];
                if !usize::try_from(*at).is_ok_and(|at| at < limit) {
                    return Err(format!("{place}: index {number} is {at}, and there are {limit}"));
                }
            }
        }
        Ok(())
    }
}

fn same(one: &Check, other: &Check) -> bool {
    (one.index, &one.limits, one.stride) == (other.index, &other.limits, other.stride)
}

const INDEXED: [&str; 4] = ["gather", "scatter", "dynamic-slice", "dynamic-update-slice"];

/// The indices that an instruction uses, if any; `None` if they cannot be made out.
fn indices_of(instruction: &Instruction, by_id: &HashMap<i64, &Instruction>) -> Option<Vec<Check>> {
    if !INDEXED.contains(&instruction.opcode.as_str()) {
        return Some(Vec::new());
    }
    let operand = |number: usize| {
        let id = instruction.operands.get(number)?;
        Some((*id, by_id.get(id)?.shape.array()?))
    };
    let (_, array) = operand(0)?;
    let check = |index, limits, stride| Check { place: instruction.name.clone(), index, limits, stride };
    let places = |size: &[usize]| -> Option<Vec<usize>> {
        let places =
            array.dimensions.iter().zip(size).map(|(of, size)| of.checked_sub(*size).map(|most| most + 1));
        places.collect::<Option<Vec<usize>>>().filter(|places| places.len() == array.dimensions.len())
    };
    let scalars = |first: usize, size: &[usize]| {
        let starts = places(size)?.into_iter().enumerate();
        starts.map(|(number, limit)| Some(check(operand(first + number)?.0, vec![limit], 1))).collect()
    };
    let columns = |map: &[usize], vector: usize, size: &[usize]| {
        let places = places(size)?;
        let (index, shape) = operand(1)?;
        let limits: Option<Vec<usize>> =
            map.iter().map(|dimension| places.get(*dimension).copied()).collect();
        let stride = shape.dimensions.get(vector + 1..).unwrap_or_default().iter().product();
        Some(vec![check(index, limits.filter(|limits| !limits.is_empty())?, stride)])
    };
    match instruction.opcode.as_str() {
        "dynamic-slice" => scalars(1, &instruction.gather.slice_sizes),
        "dynamic-update-slice" => scalars(2, &operand(1)?.1.dimensions),
        "gather" => {
            let gather = &instruction.gather;
            columns(&gather.start_index_map, gather.index_vector_dim, &gather.slice_sizes)
        }
        _ => {
            let (scatter, (_, updates)) = (&instruction.scatter, operand(2)?);
            let mut windows =
                scatter.update_window_dims.iter().map(|dimension| updates.dimensions.get(*dimension));
            let dimension = |number| match scatter.inserted_window_dims.contains(&number) {
                true => Some(1),
                false => windows.next()?.copied(),
            };
            let size = (0..array.dimensions.len()).map(dimension).collect::<Option<Vec<usize>>>()?;
            columns(&scatter.to_operand_dims, scatter.index_vector_dim, &size)
        }
    }
}

/// Whether a value is made of integers all the way; adds what it is made of.
fn is_known(id: i64, by_id: &HashMap<i64, &Instruction>, cone: &mut HashSet<i64>) -> bool {
    const TAKEN: [&str; 23] = [
        "parameter",
        "constant",
        "iota",
        "broadcast",
        "reshape",
        "transpose",
        "slice",
        "concatenate",
        "copy",
        "convert",
        "add",
        "subtract",
        "multiply",
        "divide",
        "remainder",
        "maximum",
        "minimum",
        "clamp",
        "compare",
        "select",
        "and",
        "or",
        "not",
    ];
    if !cone.insert(id) {
        return true;
    }
    let Some(instruction) = by_id.get(&id) else { return false };
    let Some(shape) = instruction.shape.array() else { return false };
    let is_leaf = instruction.opcode == "parameter" || instruction.opcode == "constant";
    // Only 32-bit parameters are read; predicates come of comparing.
    let is_integer = matches!(shape.element, 4 | 8) || shape.element == 1 && !is_leaf;
    is_integer
        && shape.elements() <= MAX_ELEMENTS
        && TAKEN.contains(&instruction.opcode.as_str())
        && instruction.operands.iter().all(|operand| is_known(*operand, by_id, cone))
}

fn steps(entry: &Computation, needed: &HashSet<i64>) -> Vec<Step> {
    let by_id = entry.by_id();
    let shapes = |instruction: &Instruction| {
        let operands = instruction.operands.iter().filter_map(|id| by_id.get(id)?.shape.array().cloned());
        operands.collect()
    };
    let needed = entry.instructions.iter().filter(|instruction| needed.contains(&instruction.id));
    needed.map(|instruction| Step { instruction: instruction.clone(), shapes: shapes(instruction) }).collect()
}

fn evaluate(
    step: &Step,
    operands: Vec<Integers>,
    parameters: &BTreeMap<usize, Vec<i64>>,
) -> Option<Vec<i64>> {
    let Step { instruction, shapes } = step;
    let shape = instruction.shape.array()?;
    let of = |number: usize| operands.get(number).map(|integers| integers.as_slice());
    let each = |of_element: &dyn Fn(&[usize]) -> Option<i64>| -> Option<Vec<i64>> {
        (0..shape.elements()).map(|element| of_element(&coordinates(element, &shape.dimensions))).collect()
    };
    let pairs = |combine: fn(i64, i64) -> Option<i64>| -> Option<Vec<i64>> {
        of(0)?.iter().zip(of(1)?).map(|(left, right)| combine(*left, *right).map(wrapped)).collect()
    };
    let dimensions = &instruction.dimensions;
    match instruction.opcode.as_str() {
        "parameter" => parameters.get(&instruction.parameter_number).cloned(),
        "constant" => match instruction.literal.integers.as_slice() {
            [] => Some(vec![0; shape.elements()]), // all zeros: a default that is not written
            integers => Some(integers.to_vec()),
        },
        "iota" => each(&|at| Some(*at.get(*dimensions.first()?)? as i64)),
        "broadcast" => each(&|at| {
            let at: Option<Vec<usize>> =
                dimensions.iter().map(|dimension| at.get(*dimension).copied()).collect();
            of(0)?.get(position(&at?, &shapes[0].dimensions)).copied()
        }),
        "transpose" => each(&|at| {
            let mut from = vec![0; at.len()];
            for (to, dimension) in dimensions.iter().enumerate() {
                *from.get_mut(*dimension)? = at[to];
            }
            of(0)?.get(position(&from, &shapes[0].dimensions)).copied()
        }),
        "slice" => each(&|at| {
            let ranges = at.iter().zip(&instruction.slices);
            let from: Vec<usize> = ranges.map(|(at, [start, _, stride])| start + at * stride).collect();
            of(0)?.get(position(&from, &shapes[0].dimensions)).copied()
        }),
        "concatenate" => each(&|at| {
            let dimension = *dimensions.first()?;
            let mut from = at.to_vec();
            for (operand, shape) in operands.iter().zip(shapes) {
                let len = *shape.dimensions.get(dimension)?;
                if from[dimension] < len {
                    return operand.get(position(&from, &shape.dimensions)).copied();
                }
                from[dimension] -= len;
            }
            None
        }),
        "reshape" | "copy" | "convert" => of(0).map(<[i64]>::to_vec),
        "not" => {
            Some(of(0)?.iter().map(|value| if shape.element == 1 { 1 - value } else { !value }).collect())
        }
        "add" => pairs(i64::checked_add),
        "subtract" => pairs(i64::checked_sub),
        "multiply" => pairs(i64::checked_mul),
        "divide" => pairs(i64::checked_div),
        "remainder" => pairs(i64::checked_rem),
        "maximum" => pairs(|left, right| Some(left.max(right))),
        "minimum" => pairs(|left, right| Some(left.min(right))),
        "and" => pairs(|left, right| Some(left & right)),
        "or" => pairs(|left, right| Some(left | right)),
        "clamp" => {
            let bound = |operand: usize, at: usize| of(operand)?.get(at).or(of(operand)?.first()).copied();
            let values = of(1)?.iter().enumerate();
            values.map(|(at, value)| Some((*value).max(bound(0, at)?).min(bound(2, at)?))).collect()
        }
        "compare" => {
            let holds: fn(i64, i64) -> bool = match instruction.comparison.as_str() {
                "EQ" => |left, right| left == right,
                "NE" => |left, right| left != right,
                "LT" => |left, right| left < right,
                "LE" => |left, right| left <= right,
                "GT" => |left, right| left > right,
                "GE" => |left, right| left >= right,
                _ => return None,
            };
            Some(of(0)?.iter().zip(of(1)?).map(|(left, right)| holds(*left, *right).into()).collect())
        }
        "select" => {
            let choices = of(0)?.iter().zip(of(1)?.iter().zip(of(2)?));
            Some(choices.map(|(choice, (yes, no))| if *choice == 0 { *no } else { *yes }).collect())
        }
        _ => None,
    }
}

/// Integers have 32 bits.
fn wrapped(value: i64) -> i64 {
    i64::from(value as i32)
}

fn coordinates(mut element: usize, dimensions: &[usize]) -> Vec<usize> {
    let mut at = vec![0; dimensions.len()];
    for (at, dimension) in at.iter_mut().zip(dimensions).rev() {
        *at = element % dimension;
        element /= dimension;
    }
    at
}

fn position(at: &[usize], dimensions: &[usize]) -> usize {
    at.iter().zip(dimensions).fold(0, |position, (at, dimension)| position * dimension + at)
}
