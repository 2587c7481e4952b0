//! Whether an index can leave its array: the numbers each integer of the entry may be, from those the
//! host promises of the parameters.
//!
//! XLA on a CPU moves such an index back inside; a device fails the step, or writes elsewhere.

use super::{
    module::{ArrayShape, Binary, Computation, ElementType, Instruction, Operation, Scalar},
    verify::{Rule, Violation},
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

/// Integers are added and multiplied as `f32` on the device, which has 24 bits for them. Those whose bits are
/// shifted and masked stay integers.
const MAX_EXACT: i64 = 1 << 24;

/// Smallest and largest; `None` where nothing is known.
type Range = Option<(i64, i64)>;

pub(super) fn check_ranges(
    entry: &Computation,
    promised: &BTreeMap<usize, RangeInclusive<i64>>,
) -> Result<(), Violation> {
    let mut known: HashMap<i64, (&ArrayShape, Range)> = HashMap::new();
    for instruction in &entry.instructions {
        let Some(shape) = instruction.shape.array() else { continue };
        let operands: Vec<(&ArrayShape, Range)> =
            instruction.operand_ids.iter().filter_map(|id| known.get(id).copied()).collect();
        check_indices(instruction, &operands)?;
        let is_integer = shape.element == ElementType::S32;
        let range = if is_integer { range(&instruction.operation, &operands, shape, promised) } else { None };
        let rounded = match instruction.operation {
            Operation::Binary(_) => range,
            // To floats.
            Operation::Convert => operands.first().and_then(|(_, range)| *range),
            _ => None,
        };
        if let Some((least, most)) = rounded.filter(|(least, most)| *least < -MAX_EXACT || *most > MAX_EXACT)
        {
            let rule = Rule::IntegerRange(format!("{least} to {most}"));
            return Err(Violation { place: instruction.name.clone(), rule });
        }
        known.insert(instruction.id, (shape, range));
    }
    Ok(())
}

/// The indices of an instruction that has some, against the array they are of.
fn check_indices(instruction: &Instruction, operands: &[(&ArrayShape, Range)]) -> Result<(), Violation> {
    let check = |(_, index): &(&ArrayShape, Range), limit: usize| {
        if index.is_some_and(|(least, most)| least >= 0 && most < limit as i64) {
            return Ok(());
        }
        let actual = index.map_or("anything".to_owned(), |(least, most)| format!("{least} to {most}"));
        Err(Violation { place: instruction.name.clone(), rule: Rule::IndexRange { actual, limit } })
    };
    match (&instruction.operation, operands) {
        (Operation::GatherRows | Operation::ScatterRows { .. }, [(matrix, _), indices, ..]) => {
            check(indices, matrix.dimensions[0])
        }
        (Operation::DynamicSlice { sizes }, [(array, _), starts @ ..]) => {
            let places = starts.iter().zip(&array.dimensions).zip(sizes);
            places.into_iter().try_for_each(|((start, &of), &size)| check(start, of - size + 1))
        }
        _ => Ok(()),
    }
}

fn range(
    operation: &Operation,
    operands: &[(&ArrayShape, Range)],
    shape: &ArrayShape,
    promised: &BTreeMap<usize, RangeInclusive<i64>>,
) -> Range {
    let of = |operand: usize| operands.get(operand).and_then(|(_, range)| *range);
    match operation {
        Operation::Parameter { number } => promised.get(number).map(|range| (*range.start(), *range.end())),
        Operation::Constant(Scalar::S32(value)) => Some(((*value).into(), (*value).into())),
        Operation::Iota { dimension } => Some((0, shape.dimensions[*dimension] as i64 - 1)),
        Operation::Broadcast { .. }
        | Operation::Reshape
        | Operation::Transpose { .. }
        | Operation::Slice { .. }
        | Operation::Copy => of(0),
        Operation::Select => union(of(1), of(2)),
        Operation::Concatenate { .. } => {
            operands.iter().map(|(_, range)| *range).reduce(union).unwrap_or_default()
        }
        Operation::Binary(binary) => combined(*binary, of(0)?, of(1)?),
        _ => None,
    }
}

fn union(left: Range, right: Range) -> Range {
    let ((a, b), (c, d)) = (left?, right?);
    Some((a.min(c), b.max(d)))
}

fn combined(binary: Binary, (a, b): (i64, i64), (c, d): (i64, i64)) -> Range {
    match binary {
        Binary::Add => Some((a.checked_add(c)?, b.checked_add(d)?)),
        Binary::Subtract => Some((a.checked_sub(d)?, b.checked_sub(c)?)),
        Binary::Multiply => {
            let ends = [a.checked_mul(c)?, a.checked_mul(d)?, b.checked_mul(c)?, b.checked_mul(d)?];
            Some((*ends.iter().min()?, *ends.iter().max()?))
        }
        Binary::Maximum => Some((a.max(c), b.max(d))),
        Binary::Minimum => Some((a.min(c), b.min(d))),
        Binary::Divide | Binary::And | Binary::ShiftRightLogical => None,
    }
}
