//! How long a step takes: decode with a few rows, and prefill, on each backend.
//!
//! `cargo bench --bench steps -- [BACKEND]...`; the default model, or a path in `MONDAI_MODEL`. Backends
//! take turns, so that what disturbs the machine disturbs all; the least disturbed run is the minimum.

#![expect(clippy::print_stdout, reason = "a table for whoever runs it")]

use mondai::backend::{self, Backend, Logits, OpenOptions, OrtOptions, Row, Slot};
use mondai::model::Model;
use std::path::Path;
use std::time::{Duration, Instant};

/// Positions that each slot holds before a decode step.
const DECODE_CONTEXT: usize = 128;
const DECODE_ROWS: [usize; 5] = [1, 2, 4, 8, 16];
const PREFILL_TOKENS: [usize; 2] = [64, 512];
const MAX_STEP_TOKENS: usize = 512;
/// Of each backend and kind of step.
const TURNS: usize = 15;

struct Subject {
    backend: Box<dyn Backend>,
    logits: Logits,
}

impl Subject {
    fn open(name: &str, model: &Model) -> Self {
        let options = OpenOptions {
            slots: 16,
            context_len: 1024,
            max_step_tokens: MAX_STEP_TOKENS,
            ort: OrtOptions {
                library: std::env::var_os("ORT_DYLIB_PATH").map(Into::into),
                ..OrtOptions::default()
            },
            ..OpenOptions::default()
        };
        let begun = Instant::now();
        let backend = backend::open(name, model, &options).expect("the backend opens the model");
        println!("{name}: opened in {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
        let logits = Logits::new(backend.limits().vocab_size);
        Self { backend, logits }
    }

    fn step(&mut self, rows: &[Row<'_>]) -> Duration {
        let begun = Instant::now();
        self.backend.extend(rows, &mut self.logits).expect("the rows are legal");
        begun.elapsed()
    }
}

fn main() {
    // Cargo passes `--bench` along.
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let names = if names.is_empty() { vec!["cpu".to_owned(), "candle".to_owned()] } else { names };
    let model = std::env::var("MONDAI_MODEL").unwrap_or_else(|_| "smollm2-135m-instruct".to_owned());
    let model = Model::open(&model, Path::new("models")).expect("a model; see `mondai pull`");
    let vocab_size = model.config.vocab_size as u32;
    let tokens: Vec<u32> = (0..MAX_STEP_TOKENS as u32).map(|idx| (idx * 7919 + 17) % vocab_size).collect();
    println!("{}: {:.1} million products a token", model.name, products(&model) as f64 / 1e6);
    let mut subjects: Vec<Subject> = names.iter().map(|name| Subject::open(name, &model)).collect();
    for subject in &mut subjects {
        for slot in 0..DECODE_ROWS.into_iter().max().unwrap_or(0) {
            subject.step(&[row(slot, 0, &tokens[..DECODE_CONTEXT], false)]);
        }
    }
    for n_rows in DECODE_ROWS {
        let rows: Vec<Row<'_>> =
            (0..n_rows).map(|slot| row(slot, DECODE_CONTEXT, &tokens[slot..=slot], true)).collect();
        report(&names, &mut subjects, &format!("decode, {n_rows} rows"), n_rows, &rows);
    }
    for len in PREFILL_TOKENS {
        let rows = [row(0, 0, &tokens[..len], true)];
        report(&names, &mut subjects, &format!("prefill, {len} tokens"), len, &rows);
    }
}

/// Logits of the last token, or of none.
fn row(slot: usize, start: usize, tokens: &[u32], logits: bool) -> Row<'_> {
    Row {
        slot: Slot(slot),
        start,
        tokens,
        logits_from: tokens.len() - usize::from(logits),
        allowed: None,
        draw: None,
    }
}

fn report(names: &[String], subjects: &mut [Subject], what: &str, n_tokens: usize, rows: &[Row<'_>]) {
    let mut times = vec![Vec::new(); subjects.len()];
    for _ in 0..TURNS {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            times.push(subject.step(rows));
        }
    }
    for (name, times) in names.iter().zip(&mut times) {
        times.sort();
        let [minimum, median] = [times[0], times[TURNS / 2]].map(|time| time.as_secs_f64());
        println!(
            "{what:<20} {name:<8} minimum {:8.2} ms, median {:8.2} ms, {:8.0} tokens/s at best",
            minimum * 1e3,
            median * 1e3,
            n_tokens as f64 / minimum
        );
    }
}

/// Multiplications of a weight and an activation for one token with logits.
fn products(model: &Model) -> usize {
    model.matrices().map(|tensor| tensor.elements()).sum()
}
