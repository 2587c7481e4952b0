//! Tokens that the device draws, on the fake libnrt: they are those that the host draws from the same logits.

use crate::default_model::TOKENIZER;
use crate::models::fixture_path;
use crate::neuron::{Programs, library, open};
use libloading::os::unix::Library;
use mondai::backend::neuron::Target;
use mondai::backend::neuron::hlo::Precision;
use mondai::backend::{Backend, BackendError, Draw, Limits, Logits, Row, Slot};
use mondai::engine::{Engine, EngineOptions, NewToken, SequenceRequest, TokenEvent};
use mondai::metrics::Metrics;
use mondai::model::Model;
use mondai::sampling::{GrammarCompiler, GrammarSpec, Sampler, SamplingParams};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::ffi::{CString, c_char};
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;

/// The default model's vocabulary and some padding, so that it is no whole number of anything.
const VOCAB_SIZE: usize = 49_152 + 100;
/// Of the tiny model's.
const WIDTH: usize = 32;

/// A tiny model with a large vocabulary, and its programs.
struct Subject {
    model: Model,
    programs: TempDir,
    _folder: TempDir,
}

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let model = with_large_vocabulary(folder.path());
    let buckets = ["1x1x96", "1x64x96", "4x1x96", "4x8x96"];
    let programs = Programs { slots: 4, context_len: 96, precision: Precision::F32, buckets: &buckets };
    let programs = programs.compile_to_draw(&model, Target::Inf2);
    Subject { model, programs, _folder: folder }
});

/// Noise from -1 to 1.
fn noise(seed: u64, n: usize) -> impl Iterator<Item = f32> {
    let params = SamplingParams { seed, ..SamplingParams::default() };
    let mut sampler = Sampler::new(params, &[]);
    (0..n).map(move |_| {
        let (_, uniform) = sampler.draw().expect("nothing else is asked for");
        sampler.drawn(0, 0.0, None).expect("nothing is forbidden");
        (uniform * 2.0 - 1.0) as f32
    })
}

/// `llama` with an embedding and a head of as many tokens, whose logits are spread as a model's.
fn with_large_vocabulary(folder: &Path) -> Model {
    let from = fixture_path("llama");
    let file = fs::read(from.join("model.safetensors")).expect("the fixture is there");
    let tensors = SafeTensors::deserialize(&file).expect("the fixture is sound");
    let bytes = |seed| noise(seed, VOCAB_SIZE * WIDTH).flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let large = [("model.embed_tokens.weight", bytes(1)), ("lm_head.weight", bytes(2))];
    let of_fixture = tensors.iter().filter(|(name, _)| large.iter().all(|(other, _)| other != name));
    let large = large.iter().map(|(name, bytes)| {
        (
            *name,
            TensorView::new(Dtype::F32, vec![VOCAB_SIZE, WIDTH], bytes).expect("it is as long as its shape"),
        )
    });
    let all: Vec<_> = of_fixture.chain(large).collect();
    safetensors::serialize_to_file(all, None, &folder.join("model.safetensors")).expect("it can be written");
    let config = fs::read_to_string(from.join("config.json")).expect("the fixture is there");
    let mut config: Value = serde_json::from_str(&config).expect("the fixture is sound");
    config["vocab_size"] = VOCAB_SIZE.into();
    fs::write(folder.join("config.json"), config.to_string()).expect("it can be written");
    Model::open(folder.to_str().expect("it is UTF-8"), Path::new("models")).expect("it is a model")
}

/// What is asked of a draw, from plain to everything at once.
fn variants() -> Vec<SamplingParams> {
    let plain = SamplingParams::default();
    vec![
        SamplingParams { temperature: 0.0, ..plain.clone() },
        plain.clone(),
        SamplingParams { temperature: 0.2, ..plain.clone() },
        SamplingParams { temperature: 1.9, ..plain.clone() },
        SamplingParams { top_k: 1, ..plain.clone() },
        SamplingParams { top_k: 40, temperature: 1.5, ..plain.clone() },
        SamplingParams { top_k: 20_000, ..plain.clone() },
        SamplingParams { top_p: 0.95, temperature: 0.7, ..plain.clone() },
        SamplingParams { top_p: 0.5, ..plain.clone() },
        SamplingParams { top_p: 1e-6, ..plain.clone() },
        SamplingParams { min_p: 0.05, ..plain.clone() },
        SamplingParams { min_p: 0.02, top_p: 0.8, top_k: 50, temperature: 1.3, ..plain },
    ]
}

/// Masks of none, of about half, of a few and of one.
fn mask(seed: usize) -> Option<Vec<u32>> {
    let every = [1, 2, 997, 30_011][seed % 4];
    let mut words = vec![0; VOCAB_SIZE.div_ceil(32)];
    (seed..VOCAB_SIZE).step_by(every).for_each(|token| words[token / 32] |= 1 << (token % 32));
    (every > 1).then_some(words)
}

fn allows(mask: Option<&Vec<u32>>, token: usize) -> bool {
    mask.is_none_or(|words| words[token / 32] >> (token % 32) & 1 == 1)
}

/// One row of a step, to be drawn from.
struct Asked {
    tokens: Vec<u32>,
    params: SamplingParams,
    mask: Option<Vec<u32>>,
}

/// In shares of all weight: the device sums weights in `f32`, and rounds the uniform number to it.
const EDGE: f64 = 1e-6;

/// How much the logarithm of a weight may be off on the device, for each unit of it: three roundings to `f32`.
const TIE: f64 = 3.0 * f32::EPSILON as f64 / 2.0;

/// Seeds that are looked through for one whose number is near an edge.
const SEEDS: u64 = 20_000;

impl Asked {
    fn sampler(&self) -> Sampler {
        Sampler::new(self.params.clone(), &[])
    }

    /// A row of the step, to be drawn from or not. Its last logits are wanted in any case.
    fn row<'a>(&'a self, slot: usize, sampler: Option<&Sampler>) -> Row<'a> {
        let draw = sampler.map(|sampler| {
            let (params, uniform) = sampler.draw().expect("the device can do that");
            let &SamplingParams { temperature, top_k, top_p, min_p, .. } = params;
            Draw { temperature, top_k, top_p, min_p, uniform }
        });
        let (tokens, logits_from) = (&self.tokens, self.tokens.len() - 1);
        let allowed = self.mask.as_deref().filter(|_| draw.is_some());
        Row { slot: Slot(slot), start: 0, tokens, logits_from, allowed, draw }
    }

    /// Takes a seed whose number is about as far from an edge between two tokens as is asked; where `ends_with_token`,
    /// after it has top-p end where a token does, as nearly as an `f32` can say so.
    fn aim(&mut self, logits: &[f32], distance: f64, ends_with_token: bool) {
        if self.params.temperature == 0.0 {
            return;
        }
        let mut ranked = Ranked::new(self, logits);
        if ends_with_token && self.params.top_p < 1.0 {
            let before = ranked.count_before_top_p(&self.params, 0.0);
            self.params.top_p = (ranked.mass(ranked.kept) / ranked.mass(before)) as f32;
            ranked = Ranked::new(self, logits);
        }
        let edges = ranked.edges();
        let off = |seed: &u64| {
            let params = SamplingParams { seed: *seed, ..self.params.clone() };
            let (_, uniform) = Sampler::new(params, &[]).draw().expect("the device can do that");
            let next = edges.partition_point(|&edge| edge < uniform);
            let around = &edges[next.saturating_sub(1)..edges.len().min(next + 1)];
            let nearest = around.iter().map(|edge| (edge - uniform).abs()).fold(f64::INFINITY, f64::min);
            (nearest / distance).ln().abs()
        };
        let first = self.params.seed * SEEDS;
        let seeds = first..first + SEEDS;
        self.params.seed = seeds.min_by(|a, b| off(a).total_cmp(&off(b))).expect("there are some");
    }
}

/// What a draw chooses from, in `f64` and by a full sort.
struct Ranked {
    /// Those that the mask allows, best first.
    tokens: Vec<usize>,
    /// Logarithms of their weights, of which the best is 1.
    log_weights: Vec<f64>,
    /// How many of them min-p, top-k and top-p keep.
    kept: usize,
    /// How many they may keep where weights and their sums are rounded.
    may_be_kept: RangeInclusive<usize>,
}

impl Ranked {
    fn new(asked: &Asked, logits: &[f32]) -> Self {
        let mut tokens: Vec<usize> =
            (0..VOCAB_SIZE).filter(|&token| allows(asked.mask.as_ref(), token)).collect();
        tokens.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let [highest, temperature] = [logits[tokens[0]], asked.params.temperature].map(f64::from);
        let log_weights = tokens.iter().map(|&token| (f64::from(logits[token]) - highest) / temperature);
        let mut ranked = Self { log_weights: log_weights.collect(), tokens, kept: 0, may_be_kept: 0..=0 };
        let [fewest, kept, most] = [-1.0, 0.0, 1.0].map(|slack| ranked.count(&asked.params, slack));
        (ranked.kept, ranked.may_be_kept) = (kept, fewest..=most);
        ranked
    }

    /// How many tokens are kept: exactly, or where whatever is rounded is rounded against or for them.
    fn count(&self, params: &SamplingParams, slack: f64) -> usize {
        let count = self.count_before_top_p(params, slack);
        if params.top_p >= 1.0 {
            return count;
        }
        let enough = (f64::from(params.top_p) + slack * EDGE) * self.mass(count);
        let mut so_far = 0.0;
        let ends = |of_token: &f64| {
            so_far += of_token.exp();
            so_far >= enough
        };
        let last = self.log_weights[..count].iter().position(ends);
        last.map_or(count, |last| self.with_ties(last + 1, slack))
    }

    /// Of them, those that min-p and top-k keep.
    fn count_before_top_p(&self, params: &SamplingParams, slack: f64) -> usize {
        let count = self.reach(f64::from(params.min_p).ln().max(f64::MIN), slack).max(1);
        if (1..count).contains(&params.top_k) { self.with_ties(params.top_k, slack) } else { count }
    }

    fn reach(&self, bound: f64, slack: f64) -> usize {
        let bound = bound + slack * TIE * bound;
        self.log_weights.partition_point(|&of_token| of_token >= bound)
    }

    /// Tokens that tie with the last are kept with it on the device, and never on the host.
    fn with_ties(&self, count: usize, slack: f64) -> usize {
        if slack > 0.0 { self.reach(self.log_weights[count - 1], slack) } else { count }
    }

    fn mass(&self, kept: usize) -> f64 {
        self.log_weights[..kept].iter().map(|of_token| of_token.exp()).sum()
    }

    /// Where each token kept ends, in shares of all weight, in order of ids. The last has no other after it.
    fn edges(&self) -> Vec<f64> {
        let mut by_id: Vec<usize> = (0..self.kept).collect();
        by_id.sort_by_key(|&rank| self.tokens[rank]);
        let mass = self.mass(self.kept);
        let ends = by_id.iter().scan(0.0, |so_far, &rank| {
            *so_far += self.log_weights[rank].exp() / mass;
            Some(*so_far)
        });
        ends.take(self.kept.max(2) - 1).collect()
    }

    /// In shares of all weight, how far a number is from those that stand for the token, if so many are kept; 0 if it
    /// is one of them.
    fn distance(&self, token: usize, uniform: f64, kept: usize) -> f64 {
        let Some(rank) = self.tokens[..kept].iter().position(|&of_rank| of_rank == token) else {
            return f64::INFINITY;
        };
        let before = (0..kept).filter(|&rank| self.tokens[rank] < token);
        let before: f64 = before.map(|rank| self.log_weights[rank].exp()).sum();
        let [start, end] = [before, before + self.log_weights[rank].exp()].map(|of| of / self.mass(kept));
        (start - uniform).max(uniform - end).max(0.0)
    }
}

/// Rows of all widths, four at a time, with every variant and every mask, and numbers that are as near to the edge
/// between two tokens as can be found, or just far enough: each token is the host's from the very logits that it was
/// drawn from, or the number is within [`EDGE`] of those that stand for it among the tokens that may be kept. Its
/// log-probability is what those logits say.
#[test]
fn a_token_is_the_one_that_the_host_draws_from_the_same_logits() {
    const STEPS: usize = 48;
    const DISTANCES: [f64; 5] = [1e-8, 1e-7, 5e-7, 2e-6, 1e-5];
    let subject = &*SUBJECT;
    let mut device = open(&subject.model, subject.programs.path(), 1);
    assert!(device.limits().draws);
    let mut logits = Logits::new(VOCAB_SIZE);
    let variants = variants();
    let (mut worst, mut draws, mut parted) = (0.0_f64, 0, Vec::new());
    for step in 0..STEPS {
        // One row alone, four of a token, four of a few, and a prompt.
        let (rows, len) = [(1, 1), (4, 1), (4, 1), (4, 5), (1, 30), (4, 8)][step % 6];
        let asked = (0..rows).map(|slot| {
            let number = step * 4 + slot;
            let tokens =
                (0..len + slot % 2 * (len / 4)).map(|idx| ((number * 7919 + idx * 37) % VOCAB_SIZE) as u32);
            let params = SamplingParams { seed: number as u64, ..variants[number % variants.len()].clone() };
            Asked { tokens: tokens.collect(), params, mask: mask(number / 3) }
        });
        let mut asked: Vec<Asked> = asked.collect();
        let rows: Vec<Row<'_>> = asked.iter().enumerate().map(|(slot, of)| of.row(slot, None)).collect();
        device.extend(&rows, &mut logits).expect("the rows run");
        for (idx, of) in asked.iter_mut().enumerate() {
            of.aim(logits.row(idx), DISTANCES[(step + idx) % DISTANCES.len()], step % 2 == 1);
        }
        let samplers: Vec<Sampler> = asked.iter().map(Asked::sampler).collect();
        let rows = asked.iter().zip(&samplers).enumerate();
        let rows: Vec<Row<'_>> = rows.map(|(slot, (of, sampler))| of.row(slot, Some(sampler))).collect();
        device.extend(&rows, &mut logits).expect("the rows run");
        assert_eq!((logits.len(), logits.drawn().len()), (rows.len(), rows.len()));
        for (idx, (of, mut sampler)) in asked.iter().zip(samplers).enumerate() {
            let (raw, drawn) = (logits.row(idx), logits.drawn()[idx]);
            let (_, uniform) = sampler.draw().expect("the device can do that");
            let mut permitted: Vec<f32> = raw.to_vec();
            for (token, logit) in permitted.iter_mut().enumerate() {
                *logit = if allows(of.mask.as_ref(), token) { *logit } else { f32::NEG_INFINITY };
            }
            let expected = sampler.sample(&mut permitted, None).expect("something is allowed").token;
            if drawn.token != expected {
                assert_ne!(
                    of.params.temperature, 0.0,
                    "step {step}, row {idx}: a greedy choice has no edges"
                );
                let ranked = Ranked::new(of, raw);
                let distance = |kept| ranked.distance(drawn.token as usize, uniform, kept);
                let nearest = ranked.may_be_kept.clone().map(distance).fold(f64::INFINITY, f64::min);
                assert!(
                    nearest < EDGE,
                    "step {step}, row {idx}: {} is drawn for {expected}, {nearest:.1e} from its numbers: {:?}",
                    drawn.token,
                    of.params
                );
                parted.push((distance(ranked.kept), nearest));
            }
            draws += 1;
            let sum: f64 = raw.iter().map(|&logit| f64::from(logit).exp()).sum();
            let logprob = f64::from(raw[drawn.token as usize]) - sum.ln();
            worst = worst.max((logprob - f64::from(drawn.logprob)).abs());
        }
    }
    let farthest = parted.iter().map(|&(_, nearest)| nearest).fold(0.0, f64::max);
    let others_kept = parted.iter().filter(|&&(exact, _)| exact >= EDGE).count();
    eprintln!(
        "{} of {draws} tokens are not the host's, {others_kept} of them since others are kept; the number was \
         {farthest:.1e} from theirs at most; log-probabilities are {worst:.1e} away at most",
        parted.len()
    );
    assert!(worst < 1e-4, "{worst}");
    assert!(!parted.is_empty(), "no number was near enough to an edge for this to say anything");

    // Where there are no numbers to draw from, the step fails, and not the next one.
    let draw = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.5 };
    let row =
        Row { slot: Slot(0), start: 0, tokens: &[1, 2, 3], logits_from: 3, allowed: None, draw: Some(draw) };
    let fake = Fake::open();
    fake.inject("nrt_execute@*=nan");
    let failed = device.extend(&[row], &mut logits);
    fake.inject("");
    assert!(matches!(failed, Err(BackendError::NotANumber { .. })), "{failed:?}");
    device.extend(&[row], &mut logits).expect("nothing is wrong any more");
    assert_eq!((logits.len(), logits.drawn().len()), (0, 1));
}

/// A device of which nobody knows that it draws.
pub(crate) struct HostDraws {
    backend: Box<dyn Backend>,
    limits: Limits,
}

impl HostDraws {
    pub(crate) fn of(backend: Box<dyn Backend>) -> Box<dyn Backend> {
        assert!(backend.limits().draws, "it does draw");
        let limits = Limits { draws: false, ..backend.limits().clone() };
        Box::new(Self { backend, limits })
    }
}

impl Backend for HostDraws {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        assert!(rows.iter().all(|row| row.draw.is_none()));
        self.backend.extend(rows, logits)
    }

    fn padded_tokens(&self) -> usize {
        self.backend.padded_tokens()
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError> {
        self.backend.copy_prefix(from, to, len)
    }
}

static GRAMMARS: LazyLock<GrammarCompiler> = LazyLock::new(|| {
    GrammarCompiler::new(Arc::clone(&TOKENIZER), VOCAB_SIZE).expect("the tokenizer is sound")
});

fn request(sampling: SamplingParams, with_grammar: bool) -> SequenceRequest {
    const TOKENS: usize = 24;
    let schema = json!({
        "type": "object",
        "properties": {
            "question": { "type": "string", "maxLength": 12 },
            "answer": { "enum": ["Mercury", "Venus", "Earth"] }
        },
        "required": ["question", "answer"],
        "additionalProperties": false
    });
    let grammar = GRAMMARS.compile(&GrammarSpec::JsonSchema(schema), TOKENS).expect("it can be honoured");
    SequenceRequest {
        prompt: (0..7 + sampling.seed as u32 % 11).map(|idx| 1000 + idx * 37).collect(),
        max_new_tokens: TOKENS,
        sampling,
        grammar: Some(grammar).filter(|_| with_grammar),
        given: Vec::new(),
        stop_tokens: Vec::new(),
    }
}

/// Requests for the device to draw, with and without a grammar: with fewer tokens to choose from than a single draw's,
/// as one that falls on an edge would be another reply from there on.
fn drawn_requests() -> Vec<SequenceRequest> {
    let all = variants().into_iter().enumerate();
    let all =
        all.map(|(idx, params)| (idx, SamplingParams { temperature: params.temperature / 3.0, ..params }));
    all.map(|(idx, params)| request(SamplingParams { seed: idx as u64, ..params }, idx % 2 == 0)).collect()
}

/// Requests whose logits the host must have.
fn host_requests() -> Vec<SequenceRequest> {
    let plain = SamplingParams { seed: 5, ..SamplingParams::default() };
    let given = SequenceRequest { given: vec![5, 700, 49_000], ..request(plain.clone(), false) };
    let of_host = [
        SamplingParams { repetition_penalty: 1.2, ..plain.clone() },
        SamplingParams { logprobs: Some(3), ..plain.clone() },
        SamplingParams { logit_bias: vec![(17, 4.0)], temperature: 0.0, ..plain },
    ];
    let of_host = of_host.into_iter().enumerate().map(|(idx, params)| request(params, idx == 0));
    of_host.chain([given]).collect()
}

/// The replies to requests that come all at once.
async fn replies(engine: &Engine, requests: Vec<SequenceRequest>) -> Vec<Vec<NewToken>> {
    let streams: Vec<_> =
        requests.into_iter().map(|request| engine.submit(request).expect("there is room")).collect();
    let mut replies = Vec::new();
    for mut stream in streams {
        let mut reply = Vec::new();
        loop {
            match stream.next().await.expect("a stream ends with an end") {
                TokenEvent::Tokens(tokens) => reply.extend(tokens),
                TokenEvent::Finished(_) => break,
                TokenEvent::Failed(error) => panic!("{error}"),
            }
        }
        replies.push(reply);
    }
    replies
}

/// The same tokens, and log-probabilities that are the same up to rounding.
fn check_alike(actual: &[Vec<NewToken>], expected: &[Vec<NewToken>]) {
    assert_eq!(actual.len(), expected.len());
    for (request, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let tokens = |reply: &[NewToken]| reply.iter().map(|new| (new.token, new.forced)).collect::<Vec<_>>();
        assert_eq!(tokens(actual), tokens(expected), "request {request}");
        for (actual, expected) in actual.iter().zip(expected) {
            let [actual, expected] = [actual, expected].map(|new| new.logprobs.as_ref());
            assert_eq!(actual.is_some(), expected.is_some());
            let Some((actual, expected)) = actual.zip(expected) else { continue };
            assert!((actual.logprob - expected.logprob).abs() < 1e-3, "{actual:?}, {expected:?}");
            assert_eq!(actual.top.len(), expected.top.len());
        }
    }
}

/// Requests that the device draws for, alone and among others whose logits the host must have: the replies are those
/// of a device that draws nothing, and of the former next to nothing is read.
#[tokio::test]
async fn a_reply_is_the_same_whoever_draws_it() {
    let subject = &*SUBJECT;
    let fake = Fake::open();
    let mixed = || {
        let mut requests = drawn_requests();
        requests[1].sampling.logprobs = Some(0);
        requests[6].sampling.logprobs = Some(0);
        for (place, request) in host_requests().into_iter().enumerate() {
            requests.insert(place * 3, request);
        }
        requests
    };
    let (mut seen, mut crossed) = (Vec::new(), Vec::new());
    for on_device in [false, true] {
        let backend = open(&subject.model, subject.programs.path(), 1);
        let backend = if on_device { backend } else { HostDraws::of(backend) };
        let engine = Engine::start(backend, EngineOptions::default(), Arc::new(Metrics::new("tiny")));
        let before = fake.transfers();
        let drawn = replies(&engine, drawn_requests()).await;
        let after = fake.transfers();
        let chosen = drawn.iter().flatten().filter(|new| !new.forced).count() as u64;
        crossed.push([0, 1].map(|way| (after[way] - before[way]) / chosen));
        seen.push([drawn, replies(&engine, mixed()).await]);
    }
    check_alike(&seen[1][0], &seen[0][0]);
    check_alike(&seen[1][1], &seen[0][1]);

    let [host, device] = [crossed[0], crossed[1]];
    eprintln!(
        "bytes read and written for a token: {host:?} with the host's draws, {device:?} with the device's"
    );
    let (logits, mask) = (VOCAB_SIZE as u64 * 4, VOCAB_SIZE as u64 / 8);
    assert!(host[0] >= logits, "every token's logits are read");
    // Of each of four rows 8 bytes, and 4 to look at a prompt's logits.
    assert!(device[0] <= 4 * 8 + 4, "{device:?}");
    assert!(device[1] <= host[1] + mask + 200, "no more than a mask and some numbers: {device:?}");
}

/// The functions that only the fake has.
struct Fake(Library);

impl Fake {
    fn open() -> Self {
        #[expect(unsafe_code, reason = "a library is opened")]
        // SAFETY: the fake has no initialisers that could do harm, and is in use already.
        Self(unsafe { Library::new(library()) }.expect("it was built"))
    }

    /// Bytes read and written so far, by all of the process.
    #[expect(unsafe_code, reason = "the fake's functions are C's")]
    fn transfers(&self) -> [u64; 2] {
        let mut bytes = vec![0_u8; 1 << 20];
        // SAFETY: it takes a buffer and its size.
        let len = unsafe {
            let report = self.0.get::<unsafe extern "C" fn(*mut u8, usize) -> usize>(b"fake_nrt_report");
            report.expect("it is the fake")(bytes.as_mut_ptr(), bytes.len())
        };
        let report: Value = serde_json::from_slice(&bytes[..len]).expect("a report is JSON");
        ["read", "written"].map(|of| report["tensor_bytes"][of].as_u64().expect("it is counted"))
    }

    #[expect(unsafe_code, reason = "the fake's functions are C's")]
    fn inject(&self, faults: &str) {
        let faults = CString::new(faults).expect("it has no zero");
        // SAFETY: the text ends with a zero.
        let status = unsafe {
            let inject = self.0.get::<unsafe extern "C" fn(*const c_char) -> i32>(b"fake_nrt_inject");
            inject.expect("it is the fake")(faults.as_ptr())
        };
        assert_eq!(status, 0);
    }
}
