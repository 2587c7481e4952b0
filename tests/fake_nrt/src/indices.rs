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
    /// Whether the module promises that no two are the same.
    is_unique: bool,
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

    /// Yields which indices are the same where the module promises that they are not: what is written there is
    /// then anything.
    ///
    /// # Errors
    /// The first index that is outside, and of what.
    pub(crate) fn check(&self, parameters: &BTreeMap<usize, Vec<i64>>) -> Result<Vec<String>, String> {
        let mut values: HashMap<i64, Integers> = HashMap::new();
        for step in &self.steps {
            let operands =
                step.instruction.operands.iter().filter_map(|id| values.get(id).cloned()).collect();
            let value = evaluate(step, operands, parameters)
                .ok_or_else(|| format!("{}: cannot be computed ahead of the step", step.instruction.name))?;
            values.insert(step.instruction.id, Rc::new(value));
        }
        let mut repeated = Vec::new();
        for Check { place, index, limits, stride, is_unique } in &self.checks {
            let Some(value) = values.get(index) else { continue };
            for (number, at) in value.iter().enumerate() {
                let limit = limits[number / stride % limits.len()];
                if !usize::try_from(*at).is_ok_and(|at| at < limit) {
                    return Err(format!("{place}: index {number} is {at}, and there are {limit}"));
                }
            }
            if *is_unique && let Some(at) = first_repeated(value) {
                repeated
                    .push(format!("{place}: {at} is written twice, and the module promises that nothing is"));
            }
        }
        Ok(repeated)
    }
}

fn first_repeated(values: &[i64]) -> Option<i64> {
    let mut seen = HashSet::new();
    values.iter().copied().find(|value| !seen.insert(*value))
}

fn same(one: &Check, other: &Check) -> bool {
    (one.index, &one.limits, one.stride, one.is_unique)
        == (other.index, &other.limits, other.stride, other.is_unique)
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
    let check = |index, limits: Vec<usize>, stride| {
        // Of indices of several columns, none by itself has to be another's equal.
        let is_unique = instruction.scatter.is_unique && limits.len() == 1;
        Check { place: instruction.name.clone(), index, limits, stride, is_unique }
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlo::{Gather, Literal, Scatter, Shape};

    fn array(dimensions: &[usize]) -> ArrayShape {
        let dimensions = dimensions.to_vec();
        ArrayShape { element: 4, dimensions, minor_to_major: None, is_dynamic: false }
    }

    /// What an operation makes of integers, given as their dimensions and values.
    #[track_caller]
    fn check(
        instruction: Instruction,
        dimensions: &[usize],
        operands: &[(&[usize], &[i64])],
        expected: impl Into<Option<Vec<i64>>>,
    ) {
        let shape = Shape::Array(array(dimensions));
        let shapes = operands.iter().map(|(dimensions, _)| array(dimensions)).collect();
        let step = Step { instruction: Instruction { shape, ..instruction }, shapes };
        let operands = operands.iter().map(|(_, values)| Rc::new(values.to_vec())).collect();
        assert_eq!(evaluate(&step, operands, &BTreeMap::new()), expected.into());
    }

    fn operation(opcode: &str) -> Instruction {
        Instruction { opcode: opcode.into(), ..Instruction::default() }
    }

    fn along(opcode: &str, dimensions: &[usize]) -> Instruction {
        Instruction { dimensions: dimensions.to_vec(), ..operation(opcode) }
    }

    #[test]
    fn integers_are_moved_as_hlo_says() {
        check(along("iota", &[0]), &[2, 3], &[], vec![0, 0, 0, 1, 1, 1]);
        check(along("iota", &[1]), &[2, 3], &[], vec![0, 1, 2, 0, 1, 2]);
        check(along("broadcast", &[]), &[2], &[(&[], &[7])], vec![7, 7]);
        check(along("broadcast", &[0]), &[2, 2], &[(&[2], &[7, 8])], vec![7, 7, 8, 8]);
        check(along("broadcast", &[1]), &[2, 2], &[(&[2], &[7, 8])], vec![7, 8, 7, 8]);
        check(
            along("transpose", &[1, 0]),
            &[3, 2],
            &[(&[2, 3], &[1, 2, 3, 4, 5, 6])],
            vec![1, 4, 2, 5, 3, 6],
        );
        let two = [(&[2usize, 1] as &[usize], &[1i64, 2] as &[i64]), (&[2, 2], &[3, 4, 5, 6])];
        check(along("concatenate", &[1]), &[2, 3], &two, vec![1, 3, 4, 2, 5, 6]);
        let every_other = Instruction { slices: vec![[1, 4, 2]], ..operation("slice") };
        check(every_other, &[2], &[(&[5], &[0, 1, 2, 3, 4])], vec![1, 3]);
        check(operation("reshape"), &[2, 1], &[(&[2], &[1, 2])], vec![1, 2]);
        let seven = Instruction {
            literal: Literal { integers: vec![7], has_infinity: false },
            ..operation("constant")
        };
        check(seven, &[], &[], vec![7]);
    }

    #[test]
    fn integers_are_combined_as_hlo_says() {
        let both = [(&[2usize] as &[usize], &[7i64, -7] as &[i64]), (&[2], &[2, 3])];
        check(operation("add"), &[2], &both, vec![9, -4]);
        check(operation("subtract"), &[2], &both, vec![5, -10]);
        check(operation("multiply"), &[2], &both, vec![14, -21]);
        check(operation("divide"), &[2], &both, vec![3, -2]);
        check(operation("remainder"), &[2], &both, vec![1, -1]);
        check(operation("maximum"), &[2], &both, vec![7, 3]);
        check(operation("minimum"), &[2], &both, vec![2, -7]);
        check(
            operation("add"),
            &[1],
            &[(&[1], &[i64::from(i32::MAX)]), (&[1], &[1])],
            vec![i64::from(i32::MIN)],
        );
        check(operation("divide"), &[1], &[(&[1], &[1]), (&[1], &[0])], None);
        for (comparison, expected) in [("LT", [0, 1]), ("GE", [1, 0]), ("EQ", [0, 0]), ("NE", [1, 1])] {
            let compare = Instruction { comparison: comparison.into(), ..operation("compare") };
            check(compare, &[2], &both, expected.to_vec());
        }
        check(operation("select"), &[2], &[(&[2], &[0, 1]), (&[2], &[1, 2]), (&[2], &[3, 4])], vec![3, 2]);
        check(operation("clamp"), &[2], &[(&[], &[0]), (&[2], &[-1, 9]), (&[], &[4])], vec![0, 4]);
        check(operation("sort"), &[2], &both, None);
    }

    /// The limits of the indices that an instruction has, over arrays of these dimensions.
    #[track_caller]
    fn limits(instruction: Instruction, operands: &[&[usize]], expected: &[(i64, &[usize], usize)]) {
        let operand = |(id, dimensions): (usize, &&[usize])| Instruction {
            id: id as i64,
            shape: Shape::Array(array(dimensions)),
            ..Instruction::default()
        };
        let all: Vec<Instruction> = operands.iter().enumerate().map(operand).collect();
        let by_id = all.iter().map(|instruction| (instruction.id, instruction)).collect();
        let instruction = Instruction { operands: (0..operands.len() as i64).collect(), ..instruction };
        let found = indices_of(&instruction, &by_id).unwrap();
        let found: Vec<(i64, &[usize], usize)> =
            found.iter().map(|check| (check.index, check.limits.as_slice(), check.stride)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn indices_end_where_their_slice_still_fits() {
        let sizes = |sizes: &[usize]| Gather { slice_sizes: sizes.to_vec(), ..Gather::default() };
        let slice = Instruction { gather: sizes(&[1, 4]), ..operation("dynamic-slice") };
        limits(slice, &[&[3, 6], &[], &[]], &[(1, &[3], 1), (2, &[3], 1)]);
        limits(
            operation("dynamic-update-slice"),
            &[&[3, 6], &[2, 6], &[], &[]],
            &[(2, &[2], 1), (3, &[1], 1)],
        );
        let pairs = Gather { start_index_map: vec![1, 0], index_vector_dim: 1, slice_sizes: vec![1, 2] };
        limits(Instruction { gather: pairs, ..operation("gather") }, &[&[3, 6], &[5, 2]], &[(1, &[5, 3], 1)]);
        let columns = Gather { start_index_map: vec![0, 1], index_vector_dim: 0, slice_sizes: vec![1, 1] };
        limits(
            Instruction { gather: columns, ..operation("gather") },
            &[&[3, 6], &[2, 5]],
            &[(1, &[3, 6], 5)],
        );
        let rows = Scatter {
            update_window_dims: vec![1],
            inserted_window_dims: vec![0],
            to_operand_dims: vec![0],
            index_vector_dim: 1,
            is_unique: false,
        };
        limits(
            Instruction { scatter: rows, ..operation("scatter") },
            &[&[8, 6], &[5], &[5, 6]],
            &[(1, &[8], 1)],
        );
    }

    #[test]
    fn what_is_written_twice_is_found_where_it_is_promised_not_to_be() {
        let parameter = Instruction { shape: Shape::Array(array(&[3])), ..operation("parameter") };
        let checks = |is_unique| IndexChecks {
            checks: vec![Check { place: "rows".into(), index: 0, limits: vec![8], stride: 1, is_unique }],
            steps: vec![Step { instruction: parameter.clone(), shapes: Vec::new() }],
            unchecked: Vec::new(),
        };
        let of = |is_unique, rows: [i64; 3]| checks(is_unique).check(&BTreeMap::from([(0, rows.to_vec())]));
        assert_eq!(of(true, [1, 2, 3]), Ok(Vec::new()));
        assert_eq!(of(false, [1, 2, 1]), Ok(Vec::new()));
        let repeated = of(true, [5, 2, 5]).unwrap();
        assert_eq!(repeated, ["rows: 5 is written twice, and the module promises that nothing is"]);
        assert!(of(true, [1, 2, 8]).is_err());
    }
}
