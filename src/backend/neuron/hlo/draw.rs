//! A token drawn from each row of logits, on the device: what `sampling` does on the host, in operators that the
//! compiler is known to take. No sort, no reduction of pairs, no index that depends on a number.
//!
//! In order: what the mask forbids sinks far below everything; min-p, then top-k, then top-p each keep a beginning of
//! the row sorted by logit, which is known by its least logit alone; and of what is left, the token is the first at
//! which the weights, summed in order of ids, pass the share of them that the uniform number says.
//!
//! The least logit that top-k and top-p keep is found by halving an interval, [`HALVINGS`] times, with a comparison and
//! a sum over the row each time. So tokens that tie at that place are all kept, where the host keeps the lowest ids.
//! Sums in order of ids are products with a triangle of ones, over blocks and then over their sums, as the matrix unit
//! does them at once.
//!
//! All is in `f32`. The weights' sums are rounded there and the host's are not, nor is its uniform number: a number
//! within 1e-6 of the edge between two tokens may take the other one, and where top-p ends as near to the end of a
//! token, one more or less may be kept. A greedy choice has no edges: it is the host's.

use super::{
    builder::{BuildError, ModuleBuilder, Value},
    module::{Binary, ElementType, Scalar, Stride, Unary},
};

/// What each row's draw goes by, one number a column: 1 / temperature; the natural logarithm of min-p; top-k; top-p;
/// the uniform number.
pub(in super::super) const DRAW_NUMBERS: usize = 5;
/// What a draw yields: the token, and the natural logarithm of its probability after the softmax of the raw logits.
pub(in super::super) const DRAWN_NUMBERS: usize = 2;
/// The logarithm of the least weight there is, as in `sampling`: below it a token is never drawn.
pub(in super::super) const LEAST_LOG_WEIGHT: f32 = -87.0;
/// Tokens that a word of the mask is for.
pub(in super::super) const WORD_TOKENS: usize = 32;

/// What a forbidden logit is: finite, and still so when it is divided by a small temperature.
const FORBIDDEN: f32 = -1e30;
/// Tokens whose weights are summed as one block.
const BLOCK: usize = 512;
/// Leave an interval of 2e-8, less than what tells apart any two logits above 0.25.
const HALVINGS: usize = 32;
/// More than any token: whole numbers are exact in `f32` up to here.
const NO_TOKEN: f32 = (1 << f32::MANTISSA_DIGITS) as f32;

/// As many tokens as are drawn from: the vocabulary, filled up to whole blocks.
pub(super) fn padded_vocab(vocab_size: usize) -> usize {
    vocab_size.next_multiple_of(BLOCK)
}

/// Draws from each of `[rows, vocab]` logits; `[rows, DRAWN_NUMBERS]`.
///
/// `allowed` is the mask, `[rows, padded_vocab / WORD_TOKENS]` integers of bits, lowest first; `numbers` is
/// `[rows, DRAW_NUMBERS]`.
pub(super) fn draw(
    builder: &mut ModuleBuilder,
    logits: Value,
    allowed: Value,
    numbers: Value,
) -> Result<Value, BuildError> {
    let [rows, vocab] = [0, 1].map(|dimension| builder.dimensions(logits)[dimension]);
    let mut draw = Draw::new(builder, rows, padded_vocab(vocab))?;
    let logits = draw.filled_up(logits, vocab)?;
    let [scale, floor, top_k, top_p, uniform] = draw.columns(numbers)?;

    let permitted = draw.permitted(logits, allowed)?;
    let scaled = draw.below_highest(permitted)?;
    let scale = draw.along_rows(scale)?;
    let scaled = draw.builder.binary(Binary::Multiply, scaled, scale)?;
    let weights = draw.builder.unary(Unary::Exponential, scaled)?;

    let ones = draw.splat(1.0)?;
    let least = draw.least_kept(scaled, ones, top_k)?;
    let least = draw.builder.binary(Binary::Maximum, floor, least)?;
    let weights = draw.kept(scaled, least, weights)?;
    let mass = draw.builder.reduce(Binary::Add, weights, 1, 0.0)?;
    let enough = draw.builder.binary(Binary::Multiply, top_p, mass)?;
    let least_of_nucleus = draw.least_kept(scaled, weights, enough)?;
    let least = draw.builder.binary(Binary::Maximum, least, least_of_nucleus)?;
    let weights = draw.kept(scaled, least, weights)?;

    let token = draw.at_share(scaled, least, weights, uniform)?;
    let log_probability = draw.log_probability(logits, token)?;
    let token = draw.builder.reshape(token, &[rows, 1])?;
    let log_probability = draw.builder.reshape(log_probability, &[rows, 1])?;
    draw.builder.concatenate(&[token, log_probability], 1)
}

struct Draw<'a> {
    builder: &'a mut ModuleBuilder,
    rows: usize,
    /// Of a row, whole blocks.
    width: usize,
    /// Of the tokens of each row, as floats.
    ids: Value,
}

type Built = Result<Value, BuildError>;

impl<'a> Draw<'a> {
    fn new(builder: &'a mut ModuleBuilder, rows: usize, width: usize) -> Result<Self, BuildError> {
        let ids = builder.iota(&[rows, width], 1)?;
        let ids = builder.convert(ids, ElementType::F32)?;
        Ok(Self { builder, rows, width, ids })
    }

    fn splat(&mut self, number: f32) -> Built {
        self.builder.splat(Scalar::F32(number), &[self.rows, self.width])
    }

    fn of_row(&mut self, number: f32) -> Built {
        self.builder.splat(Scalar::F32(number), &[self.rows])
    }

    /// A number of each row, at each of its tokens.
    fn along_rows(&mut self, numbers: Value) -> Built {
        self.builder.broadcast(numbers, &[self.rows, self.width], &[0])
    }

    fn filled_up(&mut self, logits: Value, vocab: usize) -> Built {
        if vocab == self.width {
            return Ok(logits);
        }
        let rest = self.builder.splat(Scalar::F32(FORBIDDEN), &[self.rows, self.width - vocab])?;
        self.builder.concatenate(&[logits, rest], 1)
    }

    fn columns(&mut self, numbers: Value) -> Result<[Value; DRAW_NUMBERS], BuildError> {
        let mut columns = [numbers; DRAW_NUMBERS];
        for (start, column) in columns.iter_mut().enumerate() {
            let part = self.builder.slice(numbers, 1, Stride { start, limit: start + 1, stride: 1 })?;
            *column = self.builder.reshape(part, &[self.rows])?;
        }
        Ok(columns)
    }

    /// The logits that the mask allows.
    fn permitted(&mut self, logits: Value, allowed: Value) -> Built {
        let Self { rows, width, ref mut builder, .. } = *self;
        let by_word = [rows, width / WORD_TOKENS, WORD_TOKENS];
        let words = builder.broadcast(allowed, &by_word, &[0, 1])?;
        let place = builder.iota(&by_word, 2)?;
        let bits = builder.binary(Binary::ShiftRightLogical, words, place)?;
        let one = builder.splat(Scalar::S32(1), &by_word)?;
        let bits = builder.binary(Binary::And, bits, one)?;
        let bits = builder.reshape(bits, &[rows, width])?;
        let zero = builder.splat(Scalar::S32(0), &[rows, width])?;
        let is_forbidden = builder.less_or_equal(bits, zero)?;
        let forbidden = self.splat(FORBIDDEN)?;
        self.builder.select(is_forbidden, forbidden, logits)
    }

    /// How far each is above the highest of its row: 0 for that, and less for the others.
    fn below_highest(&mut self, logits: Value) -> Built {
        let highest = self.builder.reduce(Binary::Maximum, logits, 1, f32::MIN)?;
        let highest = self.along_rows(highest)?;
        self.builder.binary(Binary::Subtract, logits, highest)
    }

    /// The highest bound for which the amounts of tokens that reach it add up to `enough`; of each row. The lowest
    /// there is if they never do.
    fn least_kept(&mut self, scaled: Value, amounts: Value, enough: Value) -> Built {
        let mut reached = self.of_row(LEAST_LOG_WEIGHT)?;
        let mut missed = self.of_row(0.0)?;
        let half = self.of_row(0.5)?;
        for left in (0..HALVINGS).rev() {
            let sum = self.builder.binary(Binary::Add, reached, missed)?;
            let middle = self.builder.binary(Binary::Multiply, sum, half)?;
            let kept = self.kept(scaled, middle, amounts)?;
            let sum = self.builder.reduce(Binary::Add, kept, 1, 0.0)?;
            let reaches = self.builder.less_or_equal(enough, sum)?;
            reached = self.builder.select(reaches, middle, reached)?;
            if left > 0 {
                missed = self.builder.select(reaches, missed, middle)?;
            }
        }
        Ok(reached)
    }

    /// The amounts of the tokens that reach the row's bound, and 0 for the others.
    fn kept(&mut self, scaled: Value, least: Value, amounts: Value) -> Built {
        let least = self.along_rows(least)?;
        let reaches = self.builder.less_or_equal(least, scaled)?;
        let zeros = self.splat(0.0)?;
        self.builder.select(reaches, amounts, zeros)
    }

    /// The first token of those kept at which the sum of weights passes that share of them all.
    fn at_share(&mut self, scaled: Value, least: Value, weights: Value, share: Value) -> Built {
        let sums = self.sums_so_far(weights)?;
        let total = self.builder.reduce(Binary::Maximum, sums, 1, 0.0)?;
        let target = self.builder.binary(Binary::Multiply, share, total)?;
        let target = self.along_rows(target)?;
        let is_before = self.builder.less_or_equal(sums, target)?;
        let least = self.along_rows(least)?;
        let is_kept = self.builder.less_or_equal(least, scaled)?;
        let ids = self.ids;
        let none = self.splat(NO_TOKEN)?;
        let after = self.builder.select(is_before, none, ids)?;
        let after = self.builder.select(is_kept, after, none)?;
        let first = self.builder.reduce(Binary::Minimum, after, 1, NO_TOKEN)?;
        // Where rounding leaves none, the last.
        let zeros = self.splat(0.0)?;
        let kept_ids = self.builder.select(is_kept, ids, zeros)?;
        let last = self.builder.reduce(Binary::Maximum, kept_ids, 1, 0.0)?;
        self.builder.binary(Binary::Minimum, first, last)
    }

    /// Of each token, the sum of its row's weights up to its own.
    fn sums_so_far(&mut self, weights: Value) -> Built {
        let Self { rows, width, ref mut builder, .. } = *self;
        let (blocks, by_block) = (width / BLOCK, [rows, width / BLOCK, BLOCK]);
        let weights = builder.reshape(weights, &[rows * blocks, BLOCK])?;
        let up_to = triangle(builder, BLOCK, false)?;
        let within = builder.dot(0, (weights, 1), (up_to, 0))?;
        let within = builder.reshape(within, &by_block)?;
        let last = Stride { start: BLOCK - 1, limit: BLOCK, stride: 1 };
        let of_block = builder.slice(within, 2, last)?;
        let of_block = builder.reshape(of_block, &[rows, blocks])?;
        let before = triangle(builder, blocks, true)?;
        let before = builder.dot(0, (of_block, 1), (before, 0))?;
        let before = builder.broadcast(before, &by_block, &[0, 1])?;
        let sums = builder.binary(Binary::Add, before, within)?;
        builder.reshape(sums, &[rows, width])
    }

    /// Of each row's token, after the softmax of the logits as they are.
    fn log_probability(&mut self, logits: Value, token: Value) -> Built {
        let below = self.below_highest(logits)?;
        let weights = self.builder.unary(Unary::Exponential, below)?;
        let sum = self.builder.reduce(Binary::Add, weights, 1, 0.0)?;
        let log_sum = self.builder.unary(Unary::Log, sum)?;
        let ids = self.ids;
        let token = self.along_rows(token)?;
        let is_at_most = self.builder.less_or_equal(ids, token)?;
        let is_at_least = self.builder.less_or_equal(token, ids)?;
        let lowest = self.splat(f32::MIN)?;
        let chosen = self.builder.select(is_at_most, below, lowest)?;
        let chosen = self.builder.select(is_at_least, chosen, lowest)?;
        let chosen = self.builder.reduce(Binary::Maximum, chosen, 1, f32::MIN)?;
        self.builder.binary(Binary::Subtract, chosen, log_sum)
    }
}

/// `[size, size]`, in which column `c` has ones in the rows up to `c`, or before it.
fn triangle(builder: &mut ModuleBuilder, size: usize, before: bool) -> Built {
    let square = [size, size];
    let (row, column) = (builder.iota(&square, 0)?, builder.iota(&square, 1)?);
    let [ones, zeros] = [1.0, 0.0].map(|number| builder.splat(Scalar::F32(number), &square));
    match before {
        false => {
            let holds = builder.less_or_equal(row, column)?;
            builder.select(holds, ones?, zeros?)
        }
        true => {
            let fails = builder.less_or_equal(column, row)?;
            builder.select(fails, zeros?, ones?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::neuron::hlo::{
        builder::Output,
        module::{ArrayShape, Module, Operation},
        verify::{Rule, verify},
    };
    use std::collections::BTreeSet;

    fn module(rows: usize, vocab: usize) -> Module {
        let mut builder = ModuleBuilder::new("draw");
        let mut input = |name: &str, element, dimensions: &[usize]| {
            builder.parameter(name, &ArrayShape::new(element, dimensions)).unwrap()
        };
        let logits = input("logits", ElementType::F32, &[rows, vocab]);
        let allowed = input("allowed", ElementType::S32, &[rows, padded_vocab(vocab) / WORD_TOKENS]);
        let numbers = input("numbers", ElementType::F32, &[rows, DRAW_NUMBERS]);
        let value = draw(&mut builder, logits, allowed, numbers).unwrap();
        let output = Output { name: "drawn".to_owned(), value, replaces: None };
        builder.finish(&[output]).unwrap()
    }

    #[test]
    fn vocabularies_of_any_size_keep_the_rules() {
        for (rows, vocab) in [(1, 1), (4, BLOCK), (3, BLOCK + 1), (8, 49_152), (1, 151_936)] {
            let module = module(rows, vocab);
            assert_eq!(verify(&module), Ok(()), "{rows} rows of {vocab}");
            let drawn = module.host_program_shape.result.array().unwrap();
            assert_eq!(drawn.dimensions, [rows, DRAWN_NUMBERS]);
        }
    }

    /// What is not on this list is not known to compile, or is known to come out wrong: sorts, reductions of pairs,
    /// indices made of floats, loops, random numbers, calls of what only one compiler has.
    #[test]
    fn it_is_written_in_few_operators() {
        let module = module(4, 1000);
        let opcodes: BTreeSet<&str> =
            module.entry().unwrap().instructions.iter().map(|of| of.operation.opcode()).collect();
        let expected = "add and broadcast compare concatenate constant convert copy dot exponential iota log maximum \
                        minimum multiply parameter reduce reshape select shift-right-logical slice subtract";
        assert_eq!(opcodes.into_iter().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn tokens_that_a_float_cannot_count_are_refused() {
        let violation = verify(&module(1, (1 << 24) + 1)).expect_err("the last token has no float");
        assert!(matches!(violation.rule, Rule::IntegerRange(_)), "{violation}");
    }

    #[test]
    fn bits_are_of_integers() {
        let mut builder = ModuleBuilder::new("bits");
        let float = builder.constant(Scalar::F32(1.0)).unwrap();
        for binary in [Binary::And, Binary::ShiftRightLogical] {
            let error = builder.binary(binary, float, float).unwrap_err();
            assert!(error.to_string().contains("which is not s32"), "{error}");
        }
        assert_eq!(Operation::Binary(Binary::And).opcode(), "and");
    }
}
