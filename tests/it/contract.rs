//! What every backend promises, stamped once for each.

use crate::models::ort_options;
use mondai::backend::neuron::hlo::Sampling;
use mondai::backend::ort::onnx::Form;
use mondai::backend::scripted::ScriptedBackend;
use mondai::backend::{
    self, Backend, BackendError, Draw, Logits, OpenOptions, OrtOptions, Row, Slot, WeightsForm,
};
use mondai::model::Model;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A backend under test, and how far its logits may be from equal ones.
struct Subject {
    backend: Box<dyn Backend>,
    tolerance: f32,
    logits: Logits,
}

macro_rules! contract {
    ($name:ident, $open:expr, tolerance = $tolerance:expr) => {
        contract!(@cases $name, $open, $tolerance, [
            a_sequence_is_the_same_alone_and_beside_others
            a_reused_slot_remembers_nothing
            a_copied_prefix_is_as_good_as_a_computed_one
            a_copy_forgets_what_was_there
            taking_tokens_back_is_as_good_as_never_writing_them
            a_prompt_in_chunks_is_as_good_as_a_whole_one
            a_repeated_step_gives_the_same
            logits_come_for_the_positions_asked_for
            tokens_that_may_come_have_the_logits_they_always_have
            the_context_can_be_filled_and_no_more
            a_token_is_drawn_from_its_rows_logits_or_the_row_is_refused
            illegal_rows_are_errors_and_change_nothing
            illegal_copies_are_errors
            work_between_steps_is_done_once
        ]);
    };
    (@cases $name:ident, $open:expr, $tolerance:expr, [$($case:ident)*]) => {
        mod $name {
            $(#[test]
            fn $case() {
                super::$case(super::Subject::new($open, $tolerance));
            })*
        }
    };
}

contract!(scripted, super::scripted(), tolerance = 0.0);
contract!(candle_f32, super::open("candle", "llama", super::WeightsForm::F32), tolerance = 0.0);
contract!(
    candle_stored,
    super::open("candle", "gguf-Q4_1.gguf", super::WeightsForm::Stored),
    tolerance = 0.0
);
contract!(cpu_f32, super::open("cpu", "llama", super::WeightsForm::F32), tolerance = 0.0);
contract!(cpu_bf16, super::open("cpu", "qwen2", super::WeightsForm::Stored), tolerance = 0.0);
contract!(cpu_stored, super::open("cpu", "gguf-Q4_1.gguf", super::WeightsForm::Stored), tolerance = 0.0);
contract!(ort_f32, super::open("ort", "llama", super::WeightsForm::F32), tolerance = 0.0);
contract!(ort_bf16, super::open("ort", "qwen2", super::WeightsForm::Stored), tolerance = 0.0);
contract!(ort_stored, super::open("ort", "gguf-Q4_1.gguf", super::WeightsForm::Stored), tolerance = 0.0);
contract!(ort_int4, super::open_int4("gguf-Q4_1.gguf"), tolerance = 0.0);

// On XLA, where programs of other shapes may sum in other orders.
contract!(
    neuron_that_draws,
    crate::neuron::contract_subject(1, 1, super::Sampling::Device),
    tolerance = 1e-4
);
contract!(neuron_two_cores, crate::neuron::contract_subject(2, 1, super::Sampling::Host), tolerance = 1e-4);
contract!(neuron_two_ranks, crate::neuron::contract_subject(1, 2, super::Sampling::Host), tolerance = 1e-4);

fn scripted() -> Box<dyn Backend> {
    Box::new(ScriptedBackend::new(ScriptedBackend::small_limits()))
}

/// A tiny model under `tests/fixtures/golden/`.
fn open(backend: &str, name: &str, weights: WeightsForm) -> Box<dyn Backend> {
    open_with(backend, name, weights, ort_options())
}

fn open_int4(name: &str) -> Box<dyn Backend> {
    open_with("ort", name, WeightsForm::Auto, OrtOptions { form: Form::Int4, ..ort_options() })
}

fn open_with(backend: &str, name: &str, weights: WeightsForm, ort: OrtOptions) -> Box<dyn Backend> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name);
    let model = Model::open(path.to_str().expect("the repository's path is UTF-8"), Path::new("models"));
    let options = OpenOptions {
        slots: 4,
        context_len: 96,
        max_step_tokens: 64,
        weights,
        ort,
        ..OpenOptions::default()
    };
    backend::open(backend, &model.expect("the fixture is sound"), &options).expect("the model opens")
}

impl Subject {
    fn new(backend: Box<dyn Backend>, tolerance: f32) -> Self {
        let limits = backend.limits();
        assert!(limits.slots >= 2 && limits.max_step_rows >= 2 && limits.max_step_tokens >= 48, "{limits:?}");
        assert!(limits.context_len >= 64, "{limits:?}");
        let logits = Logits::new(limits.vocab_size);
        Self { backend, tolerance, logits }
    }

    /// `len` tokens that differ for every `salt`.
    fn tokens(&self, salt: u32, len: usize) -> Vec<u32> {
        let vocab_size = self.backend.limits().vocab_size as u32;
        let mut state = salt.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % vocab_size
        };
        (0..len).map(|_| next()).collect()
    }

    fn extend(&mut self, rows: &[Row<'_>]) -> Vec<Vec<f32>> {
        self.backend.extend(rows, &mut self.logits).expect("the rows are legal");
        (0..self.logits.len()).map(|idx| self.logits.row(idx).to_vec()).collect()
    }

    /// Writes `tokens` after `start` in as many steps as it takes; the logits of the last one.
    fn write(&mut self, slot: usize, start: usize, tokens: &[u32]) -> Vec<f32> {
        let mut start = start;
        let mut last = Vec::new();
        for chunk in tokens.chunks(self.backend.limits().max_step_tokens) {
            let rows = [Row {
                slot: Slot(slot),
                start,
                tokens: chunk,
                logits_from: chunk.len() - 1,
                allowed: None,
                draw: None,
            }];
            last = self.extend(&rows).remove(0);
            start += chunk.len();
        }
        last
    }

    /// Goes on greedily from the logits after `start` positions, `n` tokens far.
    fn go_on(&mut self, slot: usize, start: usize, logits: Vec<f32>, n: usize) -> (Vec<u32>, Vec<Vec<f32>>) {
        let (mut tokens, mut all) = (Vec::new(), vec![logits]);
        for idx in 0..n {
            let token = greedy(all.last().expect("there is a first row"));
            tokens.push(token);
            let row = self.write(slot, start + idx, &[token]);
            all.push(row);
        }
        (tokens, all)
    }

    fn assert_same(&self, left: &[f32], right: &[f32]) {
        assert_eq!(left.len(), right.len());
        let worst = left.iter().zip(right).map(|(l, r)| (l - r).abs()).fold(0.0, f32::max);
        assert!(worst <= self.tolerance, "logits differ by {worst}, more than {}", self.tolerance);
    }

    fn assert_all_same(&self, left: &[Vec<f32>], right: &[Vec<f32>]) {
        assert_eq!(left.len(), right.len());
        left.iter().zip(right).for_each(|(left, right)| self.assert_same(left, right));
    }

    fn assert_step_error(&mut self, rows: &[Row<'_>]) {
        let result = self.backend.extend(rows, &mut self.logits);
        assert!(matches!(result, Err(BackendError::Step { .. })), "{rows:?} gave {result:?}");
    }
}

fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == best).expect("the best is there") as u32
}

fn a_sequence_is_the_same_alone_and_beside_others(mut subject: Subject) {
    const STEPS: usize = 8;
    let prompt = subject.tokens(1, 12);
    let first = subject.write(0, 0, &prompt);
    let (expected, expected_logits) = subject.go_on(0, prompt.len(), first, STEPS);

    // Now in the last slot, with neighbours that write a prompt or a token, sometimes before it in the step.
    let limits = subject.backend.limits().clone();
    let slot = limits.slots - 1;
    let n_neighbours = slot.min(limits.max_step_rows - 1).min(7);
    let mut last = subject.write(slot, 0, &prompt);
    subject.assert_same(&last, &expected_logits[0]);
    let mut written = vec![0; n_neighbours];
    for step in 0..STEPS {
        let token = [greedy(&last)];
        assert_eq!(token[0], expected[step]);
        let texts: Vec<_> = (0..n_neighbours)
            .map(|i| subject.tokens((step * 10 + i) as u32, if (step + i) % 3 == 0 { 5 } else { 1 }))
            .collect();
        let mut rows: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| Row {
                slot: Slot(i),
                start: written[i],
                tokens: text,
                logits_from: text.len() - 1,
                allowed: None,
                draw: None,
            })
            .collect();
        let place = step % (n_neighbours + 1);
        rows.insert(
            place,
            Row {
                slot: Slot(slot),
                start: prompt.len() + step,
                tokens: &token,
                logits_from: 0,
                allowed: None,
                draw: None,
            },
        );
        last = subject.extend(&rows).swap_remove(place);
        subject.assert_same(&last, &expected_logits[step + 1]);
        texts.iter().zip(&mut written).for_each(|(text, written)| *written += text.len());
    }
}

fn a_reused_slot_remembers_nothing(mut subject: Subject) {
    let (long, short) = (subject.tokens(1, 40), subject.tokens(2, 9));
    let fresh = subject.write(0, 0, &short);
    let fresh = subject.go_on(0, short.len(), fresh, 6);
    subject.write(1, 0, &long);
    let reused = subject.write(1, 0, &short);
    let reused = subject.go_on(1, short.len(), reused, 6);
    assert_eq!(reused.0, fresh.0);
    subject.assert_all_same(&reused.1, &fresh.1);
}

fn a_copied_prefix_is_as_good_as_a_computed_one(mut subject: Subject) {
    let shared = subject.tokens(1, 20);
    let (own, other) = (subject.tokens(2, 7), subject.tokens(3, 5));
    subject.write(0, 0, &[shared.clone(), other.clone()].concat());
    let computed = subject.write(1, 0, &[shared.clone(), own.clone()].concat());
    let computed = subject.go_on(1, shared.len() + own.len(), computed, 6);

    subject.write(1, 0, &other);
    subject.backend.copy_prefix(Slot(0), Slot(1), shared.len()).expect("the copy is legal");
    let copied = subject.write(1, shared.len(), &own);
    let copied = subject.go_on(1, shared.len() + own.len(), copied, 6);
    assert_eq!(copied.0, computed.0);
    subject.assert_all_same(&copied.1, &computed.1);

    // The source is unchanged, and each goes its own way.
    let source = subject.write(0, shared.len() + other.len(), &own);
    let expected = subject.write(1, 0, &[shared, other, own].concat());
    subject.assert_same(&source, &expected);
}

fn a_copy_forgets_what_was_there(mut subject: Subject) {
    let (short, long) = (subject.tokens(1, 6), subject.tokens(2, 30));
    subject.write(0, 0, &short);
    subject.write(1, 0, &long);
    subject.backend.copy_prefix(Slot(0), Slot(1), short.len()).expect("the copy is legal");
    subject.assert_step_error(&[Row {
        slot: Slot(1),
        start: 7,
        tokens: &[1],
        logits_from: 0,
        allowed: None,
        draw: None,
    }]);
    let (left, right) = (subject.write(0, 6, &[1]), subject.write(1, 6, &[1]));
    subject.assert_same(&left, &right);
}

fn taking_tokens_back_is_as_good_as_never_writing_them(mut subject: Subject) {
    let (prompt, wrong, right) = (subject.tokens(1, 15), subject.tokens(2, 8), subject.tokens(3, 4));
    let fresh = subject.write(0, 0, &[prompt.clone(), right.clone()].concat());
    let fresh = subject.go_on(0, prompt.len() + right.len(), fresh, 6);
    subject.write(1, 0, &[prompt.clone(), wrong].concat());
    let back = subject.write(1, prompt.len(), &right);
    let back = subject.go_on(1, prompt.len() + right.len(), back, 6);
    assert_eq!(back.0, fresh.0);
    subject.assert_all_same(&back.1, &fresh.1);
}

fn a_prompt_in_chunks_is_as_good_as_a_whole_one(mut subject: Subject) {
    let prompt = subject.tokens(1, 37);
    let whole = subject.extend(&[Row {
        slot: Slot(0),
        start: 0,
        tokens: &prompt,
        logits_from: 0,
        allowed: None,
        draw: None,
    }]);
    for chunk_len in [1, 2, 5, 16, 36] {
        let mut parts = Vec::new();
        for (idx, chunk) in prompt.chunks(chunk_len).enumerate() {
            let row = Row {
                slot: Slot(1),
                start: idx * chunk_len,
                tokens: chunk,
                logits_from: 0,
                allowed: None,
                draw: None,
            };
            parts.extend(subject.extend(&[row]));
        }
        subject.assert_all_same(&parts, &whole);
    }
}

fn a_repeated_step_gives_the_same(mut subject: Subject) {
    let (prompt, more) = (subject.tokens(1, 10), subject.tokens(2, 6));
    subject.write(0, 0, &prompt);
    let rows = [
        Row { slot: Slot(0), start: 10, tokens: &more, logits_from: 0, allowed: None, draw: None },
        Row { slot: Slot(1), start: 0, tokens: &prompt, logits_from: 9, allowed: None, draw: None },
    ];
    let first = subject.extend(&rows);
    let second = subject.extend(&rows);
    subject.assert_all_same(&first, &second);
}

fn logits_come_for_the_positions_asked_for(mut subject: Subject) {
    let tokens = subject.tokens(1, 10);
    let all = subject.extend(&[Row {
        slot: Slot(0),
        start: 0,
        tokens: &tokens,
        logits_from: 0,
        allowed: None,
        draw: None,
    }]);
    assert_eq!(all.len(), 10);
    for (first, second) in [(10, 10), (10, 9), (9, 10), (3, 8)] {
        let some = subject.extend(&[
            Row { slot: Slot(0), start: 0, tokens: &tokens, logits_from: first, allowed: None, draw: None },
            Row { slot: Slot(1), start: 0, tokens: &tokens, logits_from: second, allowed: None, draw: None },
        ]);
        subject.assert_all_same(&some, &[&all[first..], &all[second..]].concat());
    }
}

/// Few tokens or many may come, of the last position of each row; other positions have all logits.
fn tokens_that_may_come_have_the_logits_they_always_have(mut subject: Subject) {
    let vocab_size = subject.backend.limits().vocab_size;
    let slots = subject.backend.limits().slots;
    let mask = |every: usize| {
        let mut words = vec![0_u32; vocab_size.div_ceil(32)];
        (0..vocab_size).step_by(every).for_each(|token| words[token / 32] |= 1 << (token % 32));
        words
    };
    let masks = [Some(mask(vocab_size - 1)), None, Some(mask(3)), Some(mask(vocab_size / 2))];
    let texts: Vec<_> = [1, 5, 1, 12].map(|len| subject.tokens(len, len as usize)).into();
    let rows: Vec<_> = texts
        .iter()
        .zip(&masks)
        .take(slots)
        .enumerate()
        .map(|(slot, (text, allowed))| Row {
            slot: Slot(slot),
            start: 0,
            tokens: text,
            logits_from: text.len() - text.len().min(2),
            allowed: allowed.as_deref(),
            draw: None,
        })
        .collect();
    let some = subject.extend(&rows);
    let rows: Vec<_> = rows.into_iter().map(|row| Row { allowed: None, ..row }).collect();
    let all = subject.extend(&rows);
    assert_eq!(some.len(), all.len());
    let mut place = 0;
    for (row, mask) in rows.iter().zip(&masks) {
        for idx in row.logits_from..row.tokens.len() {
            let mask = mask.as_ref().filter(|_| idx + 1 == row.tokens.len());
            let may_come = |token: usize| mask.is_none_or(|words| words[token / 32] >> (token % 32) & 1 == 1);
            let kept = |logits: &[f32]| -> Vec<f32> {
                (0..vocab_size).filter(|&token| may_come(token)).map(|token| logits[token]).collect()
            };
            subject.assert_same(&kept(&some[place]), &kept(&all[place]));
            place += 1;
        }
    }
}

/// Of a backend that draws, rows of any length beside each other, with a mask or without, with their logits or not.
fn a_token_is_drawn_from_its_rows_logits_or_the_row_is_refused(mut subject: Subject) {
    let plain = Draw { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.5 };
    let limits = subject.backend.limits().clone();
    let odd = vec![0xaaaa_aaaa; limits.vocab_size.div_ceil(32)];
    let texts: Vec<_> = [1, 5, 1, 12].map(|len| subject.tokens(len, len as usize)).into();
    let draws = [(None, None), (Some(plain), None), (Some(plain), Some(&odd[..])), (Some(plain), Some(&odd))];
    let rows =
        texts.iter().zip(draws).take(limits.slots).enumerate().map(|(slot, (text, (draw, allowed)))| Row {
            slot: Slot(slot),
            start: 0,
            tokens: text,
            logits_from: text.len() - 1,
            allowed,
            draw,
        });
    let rows: Vec<_> = rows.collect();
    if !limits.draws {
        return subject.assert_step_error(&rows);
    }
    let logits = subject.extend(&rows);
    let expected: Vec<u32> = rows
        .iter()
        .zip(logits)
        .filter_map(|(row, mut logits)| {
            row.draw?;
            if row.allowed.is_some() {
                logits.iter_mut().step_by(2).for_each(|logit| *logit = f32::NEG_INFINITY);
            }
            Some(greedy(&logits))
        })
        .collect();
    let drawn =
        |subject: &Subject| subject.logits.drawn().iter().map(|drawn| drawn.token).collect::<Vec<_>>();
    assert_eq!(drawn(&subject), expected);

    let rows: Vec<_> = rows.iter().map(|row| Row { logits_from: row.tokens.len(), ..*row }).collect();
    assert!(subject.extend(&rows).is_empty());
    assert_eq!(drawn(&subject), expected);
}

#[test]
fn tokens_are_drawn_by_the_core_that_has_their_rows() {
    for (replicas, ranks) in [(2, 1), (1, 2)] {
        let backend = crate::neuron::contract_subject(replicas, ranks, Sampling::Device);
        a_token_is_drawn_from_its_rows_logits_or_the_row_is_refused(Subject::new(backend, 1e-4));
    }
}

fn the_context_can_be_filled_and_no_more(mut subject: Subject) {
    let context_len = subject.backend.limits().context_len;
    let tokens = subject.tokens(1, context_len);
    let whole = subject.write(0, 0, &tokens);
    subject.assert_step_error(&[Row {
        slot: Slot(0),
        start: context_len,
        tokens: &[1],
        logits_from: 0,
        allowed: None,
        draw: None,
    }]);
    subject.assert_step_error(&[Row {
        slot: Slot(0),
        start: context_len - 1,
        tokens: &[1, 1],
        logits_from: 1,
        allowed: None,
        draw: None,
    }]);
    let again = subject.write(0, context_len - 1, &tokens[context_len - 1..]);
    subject.assert_same(&whole, &again);
}

fn illegal_rows_are_errors_and_change_nothing(mut subject: Subject) {
    let limits = subject.backend.limits().clone();
    let prompt = subject.tokens(1, 10);
    let expected = subject.write(0, 0, &prompt);
    let row = |slot, start, tokens| Row {
        slot: Slot(slot),
        start,
        tokens,
        logits_from: 0,
        allowed: None,
        draw: None,
    };
    let too_many = vec![1; limits.max_step_tokens + 1];
    let no_token = [limits.vocab_size as u32];

    subject.assert_step_error(&[row(limits.slots, 0, &[1])]);
    subject.assert_step_error(&[row(0, 11, &[1])]);
    subject.assert_step_error(&[row(0, 9, &[])]);
    subject.assert_step_error(&[row(0, 9, &[1]), row(0, 9, &[2])]);
    subject.assert_step_error(&[row(0, 9, &no_token)]);
    subject.assert_step_error(&[row(0, 0, &too_many)]);
    subject.assert_step_error(&[Row {
        slot: Slot(0),
        start: 9,
        tokens: &[1],
        logits_from: 2,
        allowed: None,
        draw: None,
    }]);
    // One bad row among good ones.
    subject.assert_step_error(&[row(1, 0, &[1]), row(0, 11, &[1])]);

    let again = subject.write(0, 9, &prompt[9..]);
    subject.assert_same(&again, &expected);
}

fn illegal_copies_are_errors(mut subject: Subject) {
    let n_slots = subject.backend.limits().slots;
    let prompt = subject.tokens(1, 10);
    let expected = subject.write(0, 0, &prompt);
    for (from, to, len) in [(0, 1, 11), (0, n_slots, 5), (n_slots, 0, 5), (0, 0, 5)] {
        let result = subject.backend.copy_prefix(Slot(from), Slot(to), len);
        assert!(matches!(result, Err(BackendError::Step { .. })), "{from} to {to}, {len}: {result:?}");
    }
    let again = subject.write(0, 9, &prompt[9..]);
    subject.assert_same(&again, &expected);
}

#[test]
fn scripts_speak_after_their_words() {
    let backend = ScriptedBackend::new(ScriptedBackend::small_limits());
    let control = backend.control();
    control.reply(&[5, 6], &[1, 2, 3]);
    control.reply(&[4, 5, 6], &[9, 8]);
    let mut subject = Subject::new(Box::new(backend), 0.0);
    let mut check = |tokens: &[u32], expected| assert_eq!(greedy(&subject.write(0, 0, tokens)), expected);
    check(&[5, 6], 1);
    check(&[0, 5, 6], 1);
    check(&[0, 5, 6, 1], 2);
    check(&[0, 5, 6, 1, 2], 3);
    check(&[4, 5, 6], 9);
    check(&[4, 5, 6, 9], 8);
}

fn work_between_steps_is_done_once(mut subject: Subject) {
    for n in [0, 1, 2, 33] {
        let runs: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        subject.backend.share_out(n, &|idx| {
            runs[idx].fetch_add(1, Ordering::Relaxed);
        });
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{runs:?}");
    }
}

#[test]
fn all_threads_of_the_cpu_backend_work_between_steps() {
    let mut backend = open("cpu", "llama", WeightsForm::F32);
    let n = std::thread::available_parallelism().unwrap().get();
    let (arrived, began) = (AtomicUsize::new(0), Instant::now());
    // Each waits for the others.
    backend.share_out(n, &|_| {
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < n {
            assert!(began.elapsed() < Duration::from_secs(60), "{arrived:?} of {n} have come");
            std::thread::yield_now();
        }
    });
}
