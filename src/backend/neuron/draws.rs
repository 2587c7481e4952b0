//! Tokens that are drawn on the core: what a step's rows ask for, and how a program gets it and answers.
//!
//! All that crosses for a row is some numbers, its mask if that is another than the last one at its place, and the
//! token with its log-probability. The row's logits stay where they are.

use super::hlo::{Bucket, DRAW_NUMBERS, DRAWN_NUMBERS, LEAST_LOG_WEIGHT, WORD_TOKENS};
use super::nrt::{NrtError, Tensor};
use super::step::{Piece, StepRow};
use crate::backend::{Draw, Drawn};
use crate::text::TokenId;
use std::ops::Range;
use std::rc::Rc;

/// More tokens than there are, and more than all the probability: what keeps all.
const EVERY_TOKEN: f32 = (1 << f32::MANTISSA_DIGITS) as f32;
const ALL_PROBABILITY: f32 = 2.0;

/// A step's draws on one core, kept between steps as the rest of its buffer.
#[derive(Clone, Debug, Default)]
pub(super) struct Draws {
    /// Of each row of the step.
    rows: Vec<Option<Request>>,
    /// Of all masks, one after another.
    words: Vec<u32>,
    /// Of the rows that asked, in their order.
    pub(super) drawn: Vec<Drawn>,
}

#[derive(Clone, Debug)]
struct Request {
    numbers: [f32; DRAW_NUMBERS],
    /// Where its mask is; all may be drawn where there is none.
    allowed: Option<Range<usize>>,
}

impl Draws {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.words.clear();
        self.drawn.clear();
    }

    /// Those of the step's next row.
    pub(super) fn push(&mut self, draw: Option<&Draw>, allowed: Option<&[u32]>) {
        let request = draw.map(|draw| {
            let allowed = allowed.map(|words| {
                let start = self.words.len();
                self.words.extend_from_slice(words);
                start..self.words.len()
            });
            Request { numbers: numbers(draw), allowed }
        });
        self.rows.push(request);
    }

    /// Takes over what is asked for, for another rank.
    pub(super) fn ask_as(&mut self, other: &Self) {
        self.rows.clone_from(&other.rows);
        self.words.clone_from(&other.words);
    }

    /// Makes room for the answers.
    pub(super) fn begin(&mut self) {
        let asked = self.rows.iter().flatten().count();
        self.drawn.resize(asked, Drawn { token: 0, logprob: f32::NAN });
    }

    /// A row's request, if its last token is in that piece.
    fn at_end(&self, rows: &[StepRow], piece: &Piece) -> Option<&Request> {
        let is_last = piece.from + piece.len == rows[piece.row].len;
        self.rows.get(piece.row).and_then(Option::as_ref).filter(|_| is_last)
    }

    fn answer(&mut self, row: usize, drawn: Drawn) {
        let before = self.rows[..row].iter().flatten().count();
        self.drawn[before] = drawn;
    }
}

/// As the program takes them: see [`DRAW_NUMBERS`].
fn numbers(draw: &Draw) -> [f32; DRAW_NUMBERS] {
    let &Draw { temperature, top_k, top_p, min_p, uniform } = draw;
    if temperature == 0.0 {
        // The first of those that are as likely as the likeliest.
        return [1.0, 0.0, EVERY_TOKEN, ALL_PROBABILITY, 0.0];
    }
    let below_one = 1.0 - f32::EPSILON / 2.0;
    [
        temperature.recip(),
        min_p.ln().clamp(LEAST_LOG_WEIGHT, 0.0),
        if top_k == 0 { EVERY_TOKEN } else { (top_k as f32).min(EVERY_TOKEN) },
        if top_p < 1.0 { top_p } else { ALL_PROBABILITY },
        (uniform as f32).min(below_one),
    ]
}

/// Where a program gets its draws, and puts what it drew.
pub(super) struct DrawTensors {
    pub(super) after: Option<Rc<Tensor>>,
    pub(super) allowed: Rc<Tensor>,
    pub(super) numbers: Rc<Tensor>,
    pub(super) drawn: Rc<Tensor>,
}

/// One program's part in drawing.
pub(super) struct Drawing {
    tensors: DrawTensors,
    bucket: Bucket,
    vocab_size: usize,
    /// What `allowed` holds.
    held: Vec<u32>,
    mask: Vec<u32>,
    after: Vec<i32>,
    numbers: Vec<f32>,
    drawn: Vec<f32>,
}

/// What cannot be a token.
pub(super) enum NoToken {
    Call(NrtError),
    /// Nor are the logits.
    NotANumber {
        slot: usize,
    },
    OutOfRange {
        slot: usize,
    },
}

impl Drawing {
    /// Whatever the memory held, there is a number everywhere.
    pub(super) fn new(tensors: DrawTensors, bucket: Bucket, vocab_size: usize) -> Result<Self, NrtError> {
        let DrawTensors { after, allowed, numbers, .. } = &tensors;
        for tensor in after.iter().chain([allowed, numbers]) {
            tensor.zero(0, tensor.size())?;
        }
        let held = vec![0; allowed.size() / size_of::<u32>()];
        Ok(Self {
            mask: vec![0; held.len() / bucket.slots],
            held,
            after: vec![0; bucket.slots],
            numbers: vec![0.0; bucket.slots * DRAW_NUMBERS],
            drawn: vec![0.0; bucket.slots * DRAWN_NUMBERS],
            tensors,
            bucket,
            vocab_size,
        })
    }

    /// Writes what a run draws by, if it draws at all.
    pub(super) fn write(
        &mut self,
        pieces: &[Piece],
        rows: &[StepRow],
        draws: &Draws,
    ) -> Result<(), NrtError> {
        let mut draws_any = false;
        for piece in pieces {
            let Some(request) = draws.at_end(rows, piece) else { continue };
            draws_any = true;
            let line = self.bucket.line(rows[piece.row].slot);
            self.numbers[line * DRAW_NUMBERS..][..DRAW_NUMBERS].copy_from_slice(&request.numbers);
            self.after[line] = i32::try_from(line * self.bucket.width + piece.len - 1).unwrap_or(0);
            self.write_mask(line, request.allowed.clone().map(|range| &draws.words[range]))?;
        }
        if !draws_any {
            return Ok(());
        }
        if let Some(after) = &self.tensors.after {
            after.write_integers(&self.after)?;
        }
        self.tensors.numbers.write_floats(&self.numbers)
    }

    /// Writes a row's mask if the core has another.
    fn write_mask(&mut self, line: usize, allowed: Option<&[u32]>) -> Result<(), NrtError> {
        for (idx, word) in self.mask.iter_mut().enumerate() {
            let asked = allowed.map_or(u32::MAX, |words| words.get(idx).copied().unwrap_or(0));
            let tokens = self.vocab_size.saturating_sub(idx * WORD_TOKENS).min(WORD_TOKENS);
            let known = u32::MAX.checked_shr((WORD_TOKENS - tokens) as u32).unwrap_or(0);
            *word = asked & known;
        }
        let first = line * self.mask.len();
        let held = &mut self.held[first..first + self.mask.len()];
        if *held == self.mask {
            return Ok(());
        }
        self.tensors.allowed.write_words(first, &self.mask)?;
        held.copy_from_slice(&self.mask);
        Ok(())
    }

    /// Reads what a run drew.
    pub(super) fn read(
        &mut self,
        pieces: &[Piece],
        rows: &[StepRow],
        draws: &mut Draws,
    ) -> Result<(), NoToken> {
        if !pieces.iter().any(|piece| draws.at_end(rows, piece).is_some()) {
            return Ok(());
        }
        self.tensors.drawn.read_floats(0, &mut self.drawn).map_err(NoToken::Call)?;
        for piece in pieces {
            if draws.at_end(rows, piece).is_none() {
                continue;
            }
            let slot = rows[piece.row].slot;
            let [token, logprob] = [0, 1].map(|idx| self.drawn[self.bucket.line(slot) * DRAWN_NUMBERS + idx]);
            if logprob.is_nan() {
                return Err(NoToken::NotANumber { slot });
            }
            if !(token >= 0.0 && token < self.vocab_size as f32) {
                return Err(NoToken::OutOfRange { slot });
            }
            draws.answer(piece.row, Drawn { token: token as TokenId, logprob });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(temperature: f32) -> Draw {
        Draw { temperature, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.25 }
    }

    #[test]
    fn numbers_are_as_the_program_takes_them() {
        let check = |draw: Draw, expected: [f32; DRAW_NUMBERS]| assert_eq!(numbers(&draw), expected);
        let all = EVERY_TOKEN;
        check(draw(0.5), [2.0, LEAST_LOG_WEIGHT, all, ALL_PROBABILITY, 0.25]);
        check(Draw { top_k: 7, top_p: 0.5, ..draw(1.0) }, [1.0, LEAST_LOG_WEIGHT, 7.0, 0.5, 0.25]);
        check(Draw { min_p: 1.0, top_k: usize::MAX, ..draw(1.0) }, [1.0, 0.0, all, ALL_PROBABILITY, 0.25]);
        // Greedy is greedy, whatever else is asked for.
        check(Draw { top_k: 7, top_p: 0.5, ..draw(0.0) }, [1.0, 0.0, all, ALL_PROBABILITY, 0.0]);
        // The number just below 1 is not rounded up to it.
        let highest = numbers(&Draw { uniform: 1.0 - f64::EPSILON, ..draw(1.0) })[4];
        assert!(highest < 1.0 && highest > 0.999_999);
    }

    #[test]
    fn a_request_is_met_by_the_run_that_has_the_rows_end() {
        let rows = [StepRow { slot: 0, start: 0, len: 9, logits_from: 9 }];
        let mut draws = Draws::default();
        draws.push(Some(&draw(1.0)), Some(&[5, 6]));
        let piece = |from, len| Piece { row: 0, from, len };
        assert!(draws.at_end(&rows, &piece(0, 8)).is_none());
        let request = draws.at_end(&rows, &piece(8, 1)).expect("the row ends there");
        assert_eq!(draws.words[request.allowed.clone().expect("it has a mask")], [5, 6]);
    }

    #[test]
    fn answers_are_in_the_order_of_the_rows_that_asked() {
        let mut draws = Draws::default();
        for asks in [true, false, true] {
            draws.push(Some(&draw(1.0)).filter(|_| asks), None);
        }
        draws.begin();
        let drawn = |token| Drawn { token, logprob: -1.0 };
        draws.answer(2, drawn(7));
        draws.answer(0, drawn(5));
        assert_eq!(draws.drawn, [drawn(5), drawn(7)]);
    }
}
