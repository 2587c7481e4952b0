//! The shape an operation yields, from the shapes it is given.
//!
//! The builder asks it what it has built, and the verifier whether what is written agrees.

use super::module::{ArrayShape, Binary, ElementType, Operation, Scalar, Shape, Stride, Unary};

/// The shape of the result, or why there is none. Where the operands leave it open (a parameter's, what a
/// broadcast or reshape makes, the type a product is summed in), it is `declared`.
pub(super) fn infer(
    operation: &Operation,
    operands: &[&ArrayShape],
    declared: &ArrayShape,
) -> Result<ArrayShape, String> {
    let expected_count = match operation {
        Operation::Parameter { .. } | Operation::Constant(_) | Operation::Iota { .. } => Some(0),
        Operation::Broadcast { .. }
        | Operation::Reshape
        | Operation::Transpose { .. }
        | Operation::Slice { .. }
        | Operation::Convert
        | Operation::Copy
        | Operation::Unary(_)
        | Operation::AllReduce { .. } => Some(1),
        Operation::Binary(_)
        | Operation::LessOrEqual
        | Operation::Dot { .. }
        | Operation::Reduce { .. }
        | Operation::GatherRows => Some(2),
        Operation::Select | Operation::ScatterRows { .. } => Some(3),
        Operation::DynamicSlice { sizes } => Some(1 + sizes.len()),
        Operation::Concatenate { .. } | Operation::Tuple => None,
    };
    ensure(expected_count.is_none_or(|count| count == operands.len()), || {
        format!("{} operands", operands.len())
    })?;
    match operation {
        Operation::Parameter { .. } => Ok(declared.clone()),
        Operation::Constant(scalar) => constant(*scalar),
        Operation::Iota { dimension } => iota(*dimension, declared),
        Operation::Broadcast { dimensions } => broadcast(operands[0], dimensions, declared),
        Operation::Reshape => reshape(operands[0], declared),
        Operation::Transpose { permutation } => transpose(operands[0], permutation),
        Operation::Slice { ranges } => slice(operands[0], ranges),
        Operation::DynamicSlice { sizes } => dynamic_slice(operands, sizes),
        Operation::Concatenate { dimension } => concatenate(operands, *dimension),
        Operation::Convert => Ok(ArrayShape::new(declared.element, &operands[0].dimensions)),
        Operation::Copy => Ok(operands[0].clone()),
        Operation::Unary(unary) => of_floats(*unary, operands[0]),
        Operation::Binary(binary) => of_pairs(*binary, operands[0], operands[1]),
        Operation::LessOrEqual => {
            same(operands[0], operands[1])?;
            Ok(ArrayShape::new(ElementType::Pred, &operands[0].dimensions))
        }
        Operation::Select => {
            let condition = ArrayShape::new(ElementType::Pred, &operands[1].dimensions);
            same(operands[0], &condition)?;
            same(operands[1], operands[2]).cloned()
        }
        Operation::Dot { batch, left_contracting, right_contracting } => {
            let contracting = [*left_contracting, *right_contracting];
            dot(operands[0], operands[1], *batch, contracting, declared.element)
        }
        Operation::Reduce { dimensions, .. } => reduce(operands[0], operands[1], dimensions),
        Operation::AllReduce { .. } => {
            let is_float = operands[0].element == ElementType::F32;
            ensure(is_float, || format!("{} is summed over ranks in f32", operands[0]))?;
            Ok(operands[0].clone())
        }
        Operation::GatherRows => gather_rows(operands[0], operands[1]),
        Operation::ScatterRows { .. } => {
            let [matrix, indices, rows] = [operands[0], operands[1], operands[2]];
            let gathered = gather_rows(matrix, indices)?;
            same(rows, &gathered)?;
            Ok(matrix.clone())
        }
        Operation::Tuple => Err("a tuple is no array".to_owned()),
    }
}

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

fn same<'a>(left: &'a ArrayShape, right: &ArrayShape) -> Result<&'a ArrayShape, String> {
    ensure(left.element == right.element && left.dimensions == right.dimensions, || {
        format!("{left} does not go with {right}")
    })?;
    Ok(left)
}

fn constant(scalar: Scalar) -> Result<ArrayShape, String> {
    if let Scalar::F32(value) = scalar {
        // The device may multiply a mask or an initial value by zero.
        ensure(value.is_finite(), || format!("{value} is not finite"))?;
    }
    Ok(ArrayShape::new(scalar.element(), &[]))
}

fn iota(dimension: usize, declared: &ArrayShape) -> Result<ArrayShape, String> {
    ensure(dimension < declared.rank(), || format!("{declared} has no dimension {dimension}"))?;
    ensure(declared.element == ElementType::S32, || format!("{declared} is not of s32"))?;
    Ok(declared.clone())
}

fn broadcast(
    operand: &ArrayShape,
    dimensions: &[usize],
    declared: &ArrayShape,
) -> Result<ArrayShape, String> {
    let fits = dimensions.len() == operand.rank()
        && dimensions.is_sorted_by(|a, b| a < b)
        && dimensions
            .iter()
            .zip(&operand.dimensions)
            .all(|(&dimension, size)| declared.dimensions.get(dimension) == Some(size));
    ensure(fits, || format!("{operand} does not become {declared} by dimensions {dimensions:?}"))?;
    Ok(ArrayShape::new(operand.element, &declared.dimensions))
}

fn reshape(operand: &ArrayShape, declared: &ArrayShape) -> Result<ArrayShape, String> {
    let fits = operand.elements().is_some() && operand.elements() == declared.elements();
    ensure(fits, || format!("{operand} has other elements than {declared}"))?;
    Ok(ArrayShape::new(operand.element, &declared.dimensions))
}

fn transpose(operand: &ArrayShape, permutation: &[usize]) -> Result<ArrayShape, String> {
    let mut sorted = permutation.to_vec();
    sorted.sort_unstable();
    ensure(sorted.iter().copied().eq(0..operand.rank()), || {
        format!("{permutation:?} is no permutation of the dimensions of {operand}")
    })?;
    let dimensions: Vec<usize> = permutation.iter().map(|&from| operand.dimensions[from]).collect();
    Ok(ArrayShape::new(operand.element, &dimensions))
}

fn slice(operand: &ArrayShape, ranges: &[Stride]) -> Result<ArrayShape, String> {
    let inside = |(range, &size): (&Stride, &usize)| {
        range.start < range.limit && range.limit <= size && range.stride > 0
    };
    let fits = ranges.len() == operand.rank() && ranges.iter().zip(&operand.dimensions).all(inside);
    ensure(fits, || format!("{ranges:?} does not lie inside {operand}"))?;
    let dimensions: Vec<usize> =
        ranges.iter().map(|range| (range.limit - range.start).div_ceil(range.stride)).collect();
    Ok(ArrayShape::new(operand.element, &dimensions))
}

fn dynamic_slice(operands: &[&ArrayShape], sizes: &[usize]) -> Result<ArrayShape, String> {
    let (operand, starts) = (operands[0], &operands[1..]);
    let is_index = |start: &&ArrayShape| start.rank() == 0 && start.element == ElementType::S32;
    ensure(starts.iter().all(is_index), || "a start is not a scalar of s32".to_owned())?;
    let fits = sizes.len() == operand.rank()
        && sizes.iter().zip(&operand.dimensions).all(|(&size, &of)| 0 < size && size <= of);
    ensure(fits, || format!("{sizes:?} is no part of {operand}"))?;
    Ok(ArrayShape::new(operand.element, sizes))
}

fn concatenate(operands: &[&ArrayShape], dimension: usize) -> Result<ArrayShape, String> {
    let Some((first, rest)) = operands.split_first() else { return Err("no operands".to_owned()) };
    ensure(dimension < first.rank(), || format!("{first} has no dimension {dimension}"))?;
    let mut dimensions = first.dimensions.clone();
    for operand in rest {
        let mut expected = first.dimensions.clone();
        let size = operand.dimensions.get(dimension).copied().unwrap_or(0);
        expected[dimension] = size;
        same(operand, &ArrayShape::new(first.element, &expected))?;
        dimensions[dimension] += size;
    }
    Ok(ArrayShape::new(first.element, &dimensions))
}

fn of_floats(unary: Unary, operand: &ArrayShape) -> Result<ArrayShape, String> {
    ensure(operand.element == ElementType::F32, || format!("{unary:?} of {operand}, which is not f32"))?;
    Ok(operand.clone())
}

fn of_pairs(binary: Binary, left: &ArrayShape, right: &ArrayShape) -> Result<ArrayShape, String> {
    if matches!(binary, Binary::And | Binary::ShiftRightLogical) {
        let is_integer = left.element == ElementType::S32;
        ensure(is_integer, || format!("the bits of {left}, which is not s32"))?;
    }
    same(left, right).cloned()
}

fn dot(
    left: &ArrayShape,
    right: &ArrayShape,
    batch: usize,
    [left_contracting, right_contracting]: [usize; 2],
    element: ElementType,
) -> Result<ArrayShape, String> {
    let has = |shape: &ArrayShape, dimension: usize| (batch..shape.rank()).contains(&dimension);
    let fits = has(left, left_contracting)
        && has(right, right_contracting)
        && left.element == right.element
        && left.dimensions[..batch] == right.dimensions[..batch]
        && left.dimensions[left_contracting] == right.dimensions[right_contracting];
    ensure(fits, || {
        format!("{left} and {right} have no product over {left_contracting} and {right_contracting}")
    })?;
    ensure(element == left.element || element == ElementType::F32, || {
        format!("a product of {left} is not summed in {}", element.name())
    })?;
    let free = |shape: &ArrayShape, contracting: usize| -> Vec<usize> {
        let kept = (batch..shape.rank()).filter(|&dimension| dimension != contracting);
        kept.map(|dimension| shape.dimensions[dimension]).collect()
    };
    let dimensions =
        [left.dimensions[..batch].to_vec(), free(left, left_contracting), free(right, right_contracting)];
    Ok(ArrayShape::new(element, &dimensions.concat()))
}

fn reduce(operand: &ArrayShape, initial: &ArrayShape, dimensions: &[usize]) -> Result<ArrayShape, String> {
    same(initial, &ArrayShape::new(operand.element, &[]))?;
    let fits = dimensions.is_sorted_by(|a, b| a < b) && dimensions.iter().all(|&d| d < operand.rank());
    ensure(fits, || format!("{operand} is not reduced over {dimensions:?}"))?;
    let kept = (0..operand.rank()).filter(|dimension| !dimensions.contains(dimension));
    let kept: Vec<usize> = kept.map(|dimension| operand.dimensions[dimension]).collect();
    Ok(ArrayShape::new(operand.element, &kept))
}

fn gather_rows(matrix: &ArrayShape, indices: &ArrayShape) -> Result<ArrayShape, String> {
    ensure(matrix.rank() == 2, || format!("{matrix} is not a matrix"))?;
    ensure(indices.rank() == 1 && indices.element == ElementType::S32, || {
        format!("{indices} is not a vector of s32")
    })?;
    Ok(ArrayShape::new(matrix.element, &[indices.dimensions[0], matrix.dimensions[1]]))
}

/// The shapes of operands and result, which only a tuple's root need not be arrays of.
pub(super) fn infer_tuple(operands: &[&ArrayShape]) -> Shape {
    Shape::Tuple(operands.iter().map(|&operand| operand.clone()).collect())
}
