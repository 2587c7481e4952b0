//! The neuron backend on the fake libnrt of `tests/fake_nrt/`, which runs the real programs on XLA.

use crate::default_model;
use crate::draws::HostDraws;
use crate::logits::{Runner, check_golden_on};
use crate::models::{fixture, fixture_path, options};
use mondai::backend::neuron::compile::{CompileOptions, compile};
use mondai::backend::neuron::hlo::{Bucket, Precision, Sampling, Variant};
use mondai::backend::neuron::neuronx_cc::NeuronxCc;
use mondai::backend::neuron::programs::ProgramOptions;
use mondai::backend::neuron::{DeviceOptions, Progress, Target};
use mondai::backend::{
    self, Backend, BackendError, Limits, Logits, NEURON, OpenOptions, Row, Slot, WeightsForm,
};
use mondai::engine::{Engine, EngineOptions};
use mondai::generation::Generator;
use mondai::metrics::Metrics;
use mondai::model::Model;
use mondai::quiz::{QuizEvent, QuizRequest, QuizService, QuizSpec};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, Once, PoisonError};
use tempfile::TempDir;

/// What `scripts/test.sh` builds beside the program under test.
fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_mondai")).with_file_name(name);
    assert!(path.exists(), "{} is missing; scripts/test.sh builds it", path.display());
    path
}

pub(crate) fn library() -> PathBuf {
    for variable in ["FAKE_NRT_PJRT", "NEURON_RT_ROOT_COMM_ID"] {
        assert!(std::env::var_os(variable).is_some(), "{variable} is not set; scripts/test.sh sets it");
    }
    built("libfake_nrt.so")
}

/// Which programs of a model.
pub(crate) struct Programs<'a> {
    pub(crate) slots: usize,
    pub(crate) context_len: usize,
    pub(crate) precision: Precision,
    /// None: as many as are compiled by default.
    pub(crate) buckets: &'a [&'a str],
}

impl Programs<'_> {
    pub(crate) fn compile(&self, model: &Model, target: Target) -> TempDir {
        self.compile_for(1, model, target)
    }

    /// For so many cores that share the model.
    pub(crate) fn compile_for(&self, ranks: usize, model: &Model, target: Target) -> TempDir {
        self.compile_as((ranks, Sampling::Host), model, target)
    }

    /// With the device drawing tokens, where it is asked to.
    pub(crate) fn compile_to_draw(&self, model: &Model, target: Target) -> TempDir {
        self.compile_as((1, Sampling::Device), model, target)
    }

    fn compile_as(&self, (ranks, sampling): (usize, Sampling), model: &Model, target: Target) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let bucket = |bucket: &&str| bucket.parse::<Bucket>().expect("it is a bucket");
        let programs = ProgramOptions {
            slots: self.slots,
            context_len: self.context_len,
            buckets: self.buckets.iter().map(bucket).collect(),
            variant: Variant { precision: self.precision, ranks, sampling },
        };
        let compiler = built("neuronx-cc");
        let compiler = NeuronxCc::find(Some((&compiler, "the test".to_owned()))).expect("it is there");
        let options = CompileOptions { programs, target, jobs: 2 };
        let stop = AtomicBool::new(false);
        compile(model, &options, &compiler, folder.path(), &stop, &|_, _| {}).expect("the programs compile");
        folder
    }
}

pub(crate) fn device(folder: &Path, cores: usize) -> DeviceOptions {
    DeviceOptions {
        library: Some(library()),
        programs: Some(folder.to_owned()),
        cores,
        ..DeviceOptions::default()
    }
}

pub(crate) fn try_open(model: &Model, folder: &Path, cores: usize) -> Result<Box<dyn Backend>, BackendError> {
    let options = OpenOptions { device: device(folder, cores), ..OpenOptions::default() };
    backend::open(NEURON, model, &options)
}

/// A backend on the fake: one at a time, as a core runs one program at a time. Its library is initialised once a
/// process, and so stays open for the next.
pub(crate) fn open(model: &Model, folder: &Path, cores: usize) -> Box<dyn Backend> {
    static KEPT_OPEN: Once = Once::new();
    let turn = Turn::wait();
    KEPT_OPEN.call_once(|| {
        let first = try_open(model, folder, cores).expect("the programs run on the fake");
        std::mem::forget(first);
    });
    let backend = try_open(model, folder, cores).expect("the programs run on the fake");
    Box::new(InTurn { backend, _turn: turn })
}

struct InTurn {
    backend: Box<dyn Backend>,
    _turn: Turn,
}

impl Backend for InTurn {
    fn limits(&self) -> &Limits {
        self.backend.limits()
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        self.backend.extend(rows, logits)
    }

    fn padded_tokens(&self) -> usize {
        self.backend.padded_tokens()
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError> {
        self.backend.copy_prefix(from, to, len)
    }
}

/// A lock that another thread may give back.
struct Turn;

static TAKEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl Turn {
    fn wait() -> Self {
        let (taken, freed) = &TAKEN;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        *freed.wait_while(taken, |taken| *taken).unwrap_or_else(PoisonError::into_inner) = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
        TAKEN.1.notify_one();
    }
}

/// Of the contract: a tiny model for a few slots, in so many replicas of so many cores.
pub(crate) fn contract_subject(replicas: usize, ranks: usize, sampling: Sampling) -> Box<dyn Backend> {
    static FOLDERS: Mutex<BTreeMap<(usize, usize, &str), TempDir>> = Mutex::new(BTreeMap::new());
    let model = fixture("llama");
    let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folders.entry((replicas, ranks, sampling.name())).or_insert_with(|| {
        let slots = 4 / replicas;
        // XLA takes half a second for one that draws.
        let few = [format!("{slots}x1x96"), format!("{slots}x8x96"), "1x64x96".to_owned()];
        let few = few.each_ref().map(String::as_str);
        let buckets: &[&str] = if sampling == Sampling::Device { &few } else { &[] };
        let programs = Programs { slots, context_len: 96, precision: Precision::F32, buckets };
        programs.compile_as((ranks, sampling), &model, Target::Inf2)
    });
    let folder = folder.path().to_owned();
    drop(folders);
    open(&model, &folder, replicas * ranks)
}

/// Goes on greedily after a prompt in one slot, beside others that do the like; each step's logits of each slot.
fn greedy(backend: &mut dyn Backend, prompts: &[&[u32]], steps: usize) -> Vec<Vec<Vec<f32>>> {
    let mut logits = Logits::new(backend.limits().vocab_size);
    let mut seen = vec![Vec::new(); prompts.len()];
    for (slot, prompt) in prompts.iter().enumerate() {
        for (idx, chunk) in prompt.chunks(200).enumerate() {
            let row = Row {
                slot: Slot(slot),
                start: idx * 200,
                tokens: chunk,
                logits_from: chunk.len() - 1,
                allowed: None,
                draw: None,
            };
            backend.extend(&[row], &mut logits).expect("the prompt runs");
        }
        seen[slot].push(logits.row(0).to_vec());
    }
    for step in 0..steps {
        let tokens: Vec<[u32; 1]> = seen.iter().map(|of_slot| [best(&of_slot[step])]).collect();
        let rows: Vec<Row<'_>> = tokens
            .iter()
            .enumerate()
            .map(|(slot, token)| Row {
                slot: Slot(slot),
                start: prompts[slot].len() + step,
                tokens: token,
                logits_from: 0,
                allowed: None,
                draw: None,
            })
            .collect();
        backend.extend(&rows, &mut logits).expect("the step runs");
        seen.iter_mut().enumerate().for_each(|(slot, of_slot)| of_slot.push(logits.row(slot).to_vec()));
    }
    seen
}

fn best(logits: &[f32]) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == most).expect("the best is there") as u32
}

/// Greedy tokens of the reference are those of the device for so many steps, alone and beside others; returns the
/// largest difference of a logit.
fn compare(model: &Model, folder: &Path, cores: usize, prompts: &[&[u32]], steps: usize) -> f32 {
    let mut reference =
        backend::open("candle", model, &options(prompts.len(), WeightsForm::F32)).expect("candle runs it");
    let mut device = open(model, folder, cores);
    let expected = greedy(&mut *reference, prompts, steps);
    let together = greedy(&mut *device, prompts, steps);
    let alone = greedy(&mut *device, &prompts[..1], steps);
    let mut worst = 0.0_f32;
    for (expected, actual) in expected.iter().zip(&together).chain([(&expected[0], &alone[0])]) {
        for (step, (expected, actual)) in expected.iter().zip(actual).enumerate() {
            assert_eq!(best(actual), best(expected), "step {step}");
            let differences = expected.iter().zip(actual).map(|(left, right)| (left - right).abs());
            worst = differences.fold(worst, f32::max);
        }
    }
    worst
}

/// Prompts that end on both sides of a bucket's edges.
fn prompts(vocab_size: u32) -> Vec<Vec<u32>> {
    [7, 8, 64, 65]
        .iter()
        .map(|&len| (0..len).map(|idx| (idx * 37 + len * 11) % vocab_size).collect())
        .collect()
}

#[test]
fn every_architecture_is_transformers_and_the_reference_for_64_greedy_tokens() {
    for name in ["llama", "llama-tied-linear", "qwen2", "qwen3"] {
        let model = fixture(name);
        let programs = Programs { slots: 4, context_len: 160, precision: Precision::F32, buckets: &[] };
        let folder = programs.compile(&model, Target::Inf2);
        check_golden_on(&mut Runner::new(open(&model, folder.path(), 1)), &format!("neuron, {name}"), name);

        let prompts = prompts(model.graph.vocab_size() as u32);
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let worst = compare(&model, folder.path(), 1, &prompts, 64);
        // Both in f32, summed in other orders.
        assert!(worst <= 1e-4, "{name}: logits differ by {worst}");
    }
}

/// Of `qwen2`, whose layers have biases and one key-value head: the same model with that head twice, which is
/// what makes it one for two cores. Half of the query heads attend to each of the two.
fn qwen2_of_two_heads(folder: &Path) -> Model {
    let from = fixture_path("qwen2");
    let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let files = parts.map(|part| fs::read(from.join(part)).expect("the fixture is there"));
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for file in &files {
        for (name, view) in SafeTensors::deserialize(file).expect("the fixture is sound").iter() {
            let (mut shape, mut bytes) = (view.shape().to_vec(), view.data().to_vec());
            if name.contains("k_proj") || name.contains("v_proj") {
                shape[0] *= 2;
                bytes.extend_from_within(..);
            }
            tensors.push((name.to_owned(), view.dtype(), shape, bytes));
        }
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("it is as long as its shape"))
    });
    let file = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &file).expect("it can be written");
    let config = fs::read_to_string(from.join("config.json")).expect("the fixture is there");
    let mut config: Value = serde_json::from_str(&config).expect("the fixture is sound");
    assert_eq!(config["num_key_value_heads"], 1);
    config["num_key_value_heads"] = 2.into();
    fs::write(folder.join("config.json"), config.to_string()).expect("it can be written");
    Model::open(folder.to_str().expect("it is UTF-8"), Path::new("models")).expect("it is a model")
}

#[test]
fn two_cores_that_share_a_model_are_transformers_and_the_reference_for_64_greedy_tokens() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let doubled = qwen2_of_two_heads(folder.path());
    let models = ["llama", "llama-tied-linear", "qwen3"].map(|name| (name, fixture(name)));
    for (name, model) in models.into_iter().chain([("qwen2", doubled)]) {
        let programs = Programs { slots: 4, context_len: 160, precision: Precision::F32, buckets: &[] };
        let folder = programs.compile_for(2, &model, Target::Inf2);
        let subject = format!("neuron, two cores, {name}");
        check_golden_on(&mut Runner::new(open(&model, folder.path(), 2)), &subject, name);

        let prompts = prompts(model.graph.vocab_size() as u32);
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let worst = compare(&model, folder.path(), 2, &prompts, 64);
        assert!(worst <= 1e-4, "{name}: logits differ by {worst}");
    }
}

/// Matrices and the cache are bf16, of 8 bits of precision. The bounds are those of `scripts/hlo_judge.py`: a logit
/// within a part of its row's spread, most best tokens the same; and all of them where they are clear.
#[test]
fn in_bf16_logits_are_near_the_references_and_best_tokens_mostly_the_same() {
    const TOLERANCE: f32 = 0.05;
    const SAME_TOKENS: f32 = 0.9;
    for name in ["llama", "qwen2", "qwen3"] {
        let model = fixture(name);
        let programs = Programs { slots: 2, context_len: 160, precision: Precision::Bf16, buckets: &[] };
        let folder = programs.compile(&model, Target::Trn1);
        let mut reference =
            backend::open("candle", &model, &options(2, WeightsForm::F32)).expect("candle runs it");
        let mut device = open(&model, folder.path(), 1);
        let vocab_size = model.graph.vocab_size() as u32;
        let tokens: Vec<u32> = (0..96).map(|idx| (idx * 37 + 11) % vocab_size).collect();
        let rows =
            [Row { slot: Slot(1), start: 0, tokens: &tokens, logits_from: 0, allowed: None, draw: None }];
        let mut logits = [Logits::new(vocab_size as usize), Logits::new(vocab_size as usize)];
        reference.extend(&rows, &mut logits[0]).expect("the reference runs");
        device.extend(&rows, &mut logits[1]).expect("the device runs");
        let (mut same, mut worst) = (0, 0.0_f32);
        for position in 0..tokens.len() {
            let (expected, actual) = (logits[0].row(position), logits[1].row(position));
            let mut sorted = expected.to_vec();
            sorted.sort_unstable_by(|left, right| right.total_cmp(left));
            let spread = sorted[0] - sorted[sorted.len() - 1];
            let differences = expected.iter().zip(actual).map(|(left, right)| (left - right).abs() / spread);
            worst = differences.fold(worst, f32::max);
            let is_same = best(actual) == best(expected);
            let is_clear = sorted[0] - sorted[1] > TOLERANCE * spread;
            assert!(is_same || !is_clear, "{name}, position {position}: another token is best");
            same += usize::from(is_same);
        }
        eprintln!(
            "{name}: the farthest logit is {worst} of its row's spread away; {same} tokens are the same"
        );
        assert!(
            worst <= TOLERANCE && same as f32 >= SAME_TOKENS * tokens.len() as f32,
            "{name}: {worst}, {same}"
        );
    }
}

/// The base of the default model, whole: golden tokens, and the quiz that the reference writes, whether its tokens are
/// drawn from logits that are read, or on the device.
#[tokio::test]
async fn the_base_model_writes_the_quiz_of_the_reference() {
    let model = &*default_model::MODEL;
    let buckets = ["1x1x512", "1x8x512", "1x256x512"];
    let programs = Programs { slots: 1, context_len: 512, precision: Precision::F32, buckets: &buckets };
    let folder = programs.compile_to_draw(model, Target::Inf2);
    let name = "smollm2-135m-instruct";
    check_golden_on(&mut Runner::new(open(model, folder.path(), 1)), "neuron, the base model", name);

    let request = serde_json::json!({
        "source": "The Nile flows through Sudan and Egypt and ends in the Mediterranean Sea. It is 6650 kilometres long.",
        "kind": "short_answer",
        "count": 1,
        "seed": 11,
    });
    let same =
        OpenOptions { slots: 1, context_len: 512, weights: WeightsForm::F32, ..OpenOptions::default() };
    let reference = backend::open("cpu", model, &same).expect("the CPU runs it");
    let expected = quiz(model, reference, &request).await;
    let simulated = quiz(model, HostDraws::of(open(model, folder.path(), 1)), &request).await;
    assert_eq!(simulated, expected);
    let drawn = quiz(model, open(model, folder.path(), 1), &request).await;
    assert_eq!(drawn, expected);
    assert_eq!(expected.len(), 1);
}

/// The items that a backend's quiz has, as JSON.
async fn quiz(model: &Model, backend: Box<dyn Backend>, request: &Value) -> Vec<Value> {
    let metrics = Arc::new(Metrics::new(&model.name));
    let engine = Engine::start(backend, EngineOptions::default(), Arc::clone(&metrics));
    let service = QuizService::new(Generator::new(model, engine).expect("its texts are sound"), metrics);
    let request: QuizRequest = serde_json::from_value(request.clone()).expect("the request is sound");
    let spec = QuizSpec::try_from(request).expect("the request is sound");
    let mut stream = service.create(spec).await.expect("there is room");
    let mut items = Vec::new();
    while let Some(event) = stream.next().await {
        if let QuizEvent::Item(item) = event {
            items.push(serde_json::to_value(&*item).expect("an item is JSON"));
        }
    }
    items
}

#[track_caller]
fn refusal(model: &Model, options: DeviceOptions) -> String {
    let _turn = Turn::wait();
    let options = OpenOptions { device: options, ..OpenOptions::default() };
    let error = backend::open(NEURON, model, &options).map(drop).expect_err("it cannot be opened");
    format!("{:#}", anyhow::Error::new(error))
}

#[test]
fn fewer_slots_than_there_are_can_be_had_and_who_waits_is_told_how_far_the_weights_are() {
    let model = fixture("llama");
    let programs = Programs { slots: 2, context_len: 64, precision: Precision::F32, buckets: &["1x1x64"] };
    let folder = programs.compile(&model, Target::Inf2);
    drop(open(&model, folder.path(), 1));
    let told = Arc::new(Mutex::new(Vec::new()));
    let progress = Progress::new({
        let told = Arc::clone(&told);
        move |done, all| told.lock().expect("nobody panics").push((done, all))
    });
    let device = DeviceOptions { slots: Some(3), progress, ..device(folder.path(), 2) };
    let _turn = Turn::wait();
    let backend = backend::open(NEURON, &model, &OpenOptions { device, ..OpenOptions::default() });
    assert_eq!(backend.expect("there are four").limits().slots, 3);
    let told = told.lock().expect("nobody panics");
    assert!(told.is_sorted(), "{told:?}");
    let (first, last) = (told[0], told[told.len() - 1]);
    assert!(first.0 == 0 && last.0 == last.1 && told.iter().all(|(_, all)| *all == last.1), "{told:?}");
}

#[test]
fn what_cannot_be_opened_is_told_with_what_to_do() {
    let model = fixture("llama");
    let programs = |context_len, target| {
        let buckets = ["1x1x64"];
        let programs = Programs { slots: 2, context_len, precision: Precision::F32, buckets: &buckets };
        programs.compile(&model, target)
    };
    let sound = programs(64, Target::Inf2);
    drop(open(&model, sound.path(), 1));
    let check = |options: DeviceOptions, expected: &[&str]| {
        let text = refusal(&model, options);
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    };
    let models_dir = tempfile::tempdir().expect("a folder can be made");
    let nothing =
        DeviceOptions { programs: None, models_dir: models_dir.path().into(), ..device(sound.path(), 1) };
    check(nothing, &["the model llama is not compiled", "mondai compile --model llama --target inf2"]);
    check(device(sound.path(), 3), &["3 cores are asked for", "may use 2", "--cores"]);
    let slots = |slots| DeviceOptions { slots: Some(slots), ..device(sound.path(), 2) };
    check(slots(5), &["5 slots are asked for", "have 4, on 2 replicas", "mondai compile --slots 3"]);
    let for_trn2 = programs(64, Target::Trn2);
    check(device(for_trn2.path(), 1), &["compiled for trn2", "this is inf2", "mondai compile --target inf2"]);
    let short = programs(128, Target::Inf2);
    check(device(short.path(), 1), &["position 128 of every slot", "--bucket 1x1x128"]);
    let text = refusal(&fixture("qwen2"), device(sound.path(), 1));
    assert!(text.contains("of another model") && text.contains("mondai compile --model qwen2"), "{text}");
    let path = sound.path().join("decode-1x1x64.neff");
    let mut bytes = fs::read(&path).expect("it is there");
    *bytes.last_mut().expect("it has bytes") ^= 1;
    fs::write(&path, bytes).expect("it can be written");
    check(device(sound.path(), 1), &["decode-1x1x64.neff is damaged"]);
}
