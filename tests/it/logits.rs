//! The backends that run models against golden values of transformers, against each other, and each
//! against itself.

use crate::default_model::{MODEL, NAME};
use crate::models::{BACKENDS, fixture, fixture_path, options};
use mondai::backend::{self, Backend, Logits, Row, Slot, WeightsForm};
use mondai::model::{Model, StoredTensor, TensorType};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// How far a logit may be from transformers', both in f32 but summed in other orders. Seen: 7e-5 in
/// SmolLM2, whose logits reach 32, and 2e-5 in the tiny models, whose reach 8.
const TOLERANCE: f32 = 2e-4;

/// What `scripts/golden.py` writes.
#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    /// Of GGUF files: each tensor's values as the gguf package decodes them.
    #[serde(default)]
    sha256_of_f32: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Case {
    prompt: Vec<u32>,
    probes: Vec<Probe>,
    greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct Probe {
    position: usize,
    ids: Vec<usize>,
    logits: Vec<f32>,
}

/// A backend and the logits it writes to.
pub(crate) struct Runner {
    backend: Box<dyn Backend>,
    logits: Logits,
}

impl Runner {
    pub(crate) fn open(backend: &str, model: &Model, slots: usize, weights: WeightsForm) -> Self {
        Self::new(backend::open(backend, model, &options(slots, weights)).unwrap())
    }

    pub(crate) fn new(backend: Box<dyn Backend>) -> Self {
        let logits = Logits::new(backend.limits().vocab_size);
        Self { backend, logits }
    }

    /// Logits of all the tokens of each row, as bits.
    pub(crate) fn run(&mut self, rows: &[(usize, usize, &[u32])]) -> Vec<Vec<u32>> {
        let rows: Vec<Row<'_>> = rows
            .iter()
            .map(|&(slot, start, tokens)| Row {
                slot: Slot(slot),
                start,
                tokens,
                logits_from: 0,
                allowed: None,
                draw: None,
            })
            .collect();
        self.backend.extend(&rows, &mut self.logits).unwrap();
        let bits = |idx| self.logits.row(idx).iter().map(|logit| logit.to_bits()).collect();
        (0..self.logits.len()).map(bits).collect()
    }
}

fn golden(name: &str) -> Golden {
    let text = std::fs::read_to_string(fixture_path(&format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn check_golden(model: &Model, name: &str) {
    BACKENDS.into_iter().for_each(|backend| check_golden_of(backend, model, name));
}

fn check_golden_of(backend: &str, model: &Model, name: &str) {
    let mut runner = Runner::open(backend, model, 1, WeightsForm::F32);
    check_golden_on(&mut runner, &format!("{backend}, {name}"), name);
}

pub(crate) fn check_golden_on(runner: &mut Runner, subject: &str, name: &str) {
    let golden = golden(name);
    let mut worst = 0.0f32;
    for Case { prompt, probes, greedy } in &golden.cases {
        runner.run(&[(0, 0, prompt)]);
        for Probe { position, ids, logits } in probes {
            assert!(!ids.is_empty() && ids.len() == logits.len());
            for (&id, logit) in ids.iter().zip(logits) {
                worst = worst.max((runner.logits.row(*position)[id] - logit).abs());
            }
        }
        assert!(worst <= TOLERANCE, "{subject}: a logit is {worst} away, more than {TOLERANCE}");

        let mut generated = vec![argmax(runner.logits.row(prompt.len() - 1))];
        while generated.len() < greedy.len() {
            let start = prompt.len() + generated.len() - 1;
            runner.run(&[(0, start, &generated[generated.len() - 1..])]);
            generated.push(argmax(runner.logits.row(0)));
        }
        assert_eq!(greedy.len(), 64);
        assert_eq!(&generated, greedy, "{subject}: greedy tokens after {prompt:?}");
    }
    eprintln!("{subject}: the farthest logit is {worst:e} away");
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == best).expect("some logit is the largest") as u32
}

#[test]
fn tiny_folders_agree_with_transformers() {
    for name in ["llama", "llama-tied-linear", "qwen2", "qwen3"] {
        check_golden(&fixture(name), name);
    }
}

#[test]
fn tiny_gguf_files_agree_with_transformers() {
    for name in ["gguf-llama3-rope", "gguf-qwen2", "gguf-qwen3"] {
        check_golden(&fixture(&format!("{name}.gguf")), name);
    }
}

#[test]
fn every_tensor_type_agrees_with_transformers() {
    for tensor_type in TensorType::ALL {
        let name = format!("gguf-{tensor_type}");
        check_golden(&fixture(&format!("{name}.gguf")), &name);
    }
}

#[test]
fn every_tensor_type_is_decoded_to_the_last_bit() {
    for tensor_type in TensorType::ALL {
        let name = format!("gguf-{tensor_type}");
        let (model, hashes) = (fixture(&format!("{name}.gguf")), golden(&name).sha256_of_f32);
        let of_type = |tensor: &&StoredTensor| tensor.tensor_type() == tensor_type;
        assert!(model.tensors().filter(of_type).count() > 3, "{name}");
        for tensor in model.tensors() {
            let bytes: Vec<u8> = tensor.to_f32().into_iter().flat_map(f32::to_le_bytes).collect();
            let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, hashes[tensor.name()], "{name}: {}", tensor.name());
        }
    }
}

#[test]
fn the_default_model_agrees_with_transformers() {
    check_golden(&MODEL, NAME);
}

/// `len` tokens that differ for every `salt`.
fn tokens(model: &Model, salt: usize, len: usize) -> Vec<u32> {
    let vocab_size = model.config.vocab_size;
    (0..len).map(|idx| ((idx * 7919 + salt * 104_729 + 17) % vocab_size) as u32).collect()
}

/// A sequence's logits are the same to the last bit however it is computed.
fn check_groupings(backend: &str, model: &Model, weights: WeightsForm, len: usize) {
    let sequence = tokens(model, 0, len);
    let mut runner = Runner::open(backend, model, 5, weights);
    let whole = runner.run(&[(0, 0, &sequence)]);
    let name = format!("{backend}, {}", model.name);

    for chunk_len in [1, 2, 3, 17] {
        let chunks = sequence.chunks(chunk_len).enumerate();
        let chunked = chunks.flat_map(|(idx, chunk)| runner.run(&[(1, idx * chunk_len, chunk)]));
        assert!(chunked.eq(whole.iter().cloned()), "{name} {weights:?}: in chunks of {chunk_len}");
    }

    // Beside three others of other lengths, in prefill and then a token at a time.
    let others: Vec<Vec<u32>> = (1..4).map(|salt| tokens(model, salt, len + salt)).collect();
    let half = len / 2;
    let beside = runner.run(&[
        (2, 0, &others[0][..half + 5]),
        (0, 0, &sequence[..half]),
        (3, 0, &others[1][..3]),
        (4, 0, &others[2][..1]),
    ]);
    assert!(beside[half + 5..][..half] == whole[..half], "{name} {weights:?}: prefilled beside others");
    for position in half..len {
        let beside = runner.run(&[
            (3, 3 + position - half, &others[1][position..=position]),
            (0, position, &sequence[position..=position]),
            (4, 1 + position - half, &others[2][position..=position]),
        ]);
        assert!(beside[1] == whole[position], "{name} {weights:?}: position {position} beside others");
    }

    // A prefix that was copied, and one that is shorter than what the slot held.
    runner.run(&[(1, 0, &others[2])]);
    runner.backend.copy_prefix(Slot(0), Slot(1), half).unwrap();
    let copied = runner.run(&[(1, half, &sequence[half..])]);
    assert!(copied == whole[half..], "{name} {weights:?}: after a copied prefix");
    let taken_back = runner.run(&[(1, half - 3, &sequence[half - 3..])]);
    assert!(taken_back == whole[half - 3..], "{name} {weights:?}: after tokens were taken back");
}

#[test]
fn groupings_do_not_change_a_bit_of_tiny_models() {
    for name in ["llama", "qwen2", "qwen3", "gguf-Q4_K.gguf", "gguf-Q8_0.gguf"] {
        for weights in [WeightsForm::F32, WeightsForm::Stored] {
            BACKENDS.into_iter().for_each(|backend| check_groupings(backend, &fixture(name), weights, 70));
        }
    }
    for tensor_type in TensorType::ALL {
        // Past a chunk of attention.
        check_groupings("cpu", &fixture(&format!("gguf-{tensor_type}.gguf")), WeightsForm::Stored, 150);
    }
}

#[test]
fn groupings_do_not_change_a_bit_of_the_default_model() {
    check_groupings("candle", &MODEL, WeightsForm::F32, 24);
    // Past a chunk of attention, in whose middle the prompt is cut.
    check_groupings("cpu", &MODEL, WeightsForm::Stored, 150);
    // Past several lengths that the cache is bound for.
    check_groupings("ort", &MODEL, WeightsForm::Stored, 150);
}

#[test]
fn weights_as_stored_give_the_same_bits_as_decoded_ones() {
    for name in ["qwen2", "gguf-Q6_K.gguf", "gguf-Q5_1.gguf"] {
        let model = fixture(name);
        let sequence = tokens(&model, 3, 40);
        let [decoded, stored] = [WeightsForm::F32, WeightsForm::Stored]
            .map(|weights| Runner::open("candle", &model, 1, weights).run(&[(0, 0, &sequence)]));
        assert!(decoded == stored, "{name}");
    }
}

#[test]
fn only_the_logits_asked_for_are_written() {
    BACKENDS.into_iter().for_each(check_only_the_logits_asked_for_are_written);
}

fn check_only_the_logits_asked_for_are_written(backend: &str) {
    let model = fixture("llama");
    let mut runner = Runner::open(backend, &model, 2, WeightsForm::F32);
    let (left, right) = (tokens(&model, 1, 9), tokens(&model, 2, 5));
    let rows = [
        Row { slot: Slot(1), start: 0, tokens: &left, logits_from: 9, allowed: None, draw: None },
        Row { slot: Slot(0), start: 0, tokens: &right, logits_from: 4, allowed: None, draw: None },
    ];
    runner.backend.extend(&rows, &mut runner.logits).unwrap();
    assert_eq!(runner.logits.len(), 1);
    let last: Vec<u32> = runner.logits.row(0).iter().map(|logit| logit.to_bits()).collect();
    assert!(runner.run(&[(0, 0, &right)])[4] == last);

    runner.backend.extend(&rows[..1], &mut runner.logits).unwrap();
    assert!(runner.logits.is_empty());
}
