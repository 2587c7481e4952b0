//! Every call of the Neuron runtime library, failing in every way, at the start, in a request and at the end: what
//! the server makes of it, as one table.
//!
//! A binary of its own: a process can initialise the library once, and these want it fresh each time.

#![allow(unsafe_code)] // the fake's functions are C's

use libloading::os::unix::{Library, Symbol};
use mondai::backend::neuron::compile::{CompileOptions, compile};
use mondai::backend::neuron::hlo::{Precision, Sampling, Variant};
use mondai::backend::neuron::neuronx_cc::NeuronxCc;
use mondai::backend::neuron::programs::ProgramOptions;
use mondai::backend::neuron::{DeviceOptions, Patience, Target};
use mondai::backend::{self, Backend, BackendError, Logits, NEURON, OpenOptions, Row, Slot};
use mondai::engine::{
    Engine, EngineError, EngineHealth, EngineOptions, SequenceRequest, TokenEvent, TokenStream,
};
use mondai::metrics::Metrics;
use mondai::model::Model;
use mondai::sampling::SamplingParams;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;

use std::ffi::{CString, c_char};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The functions of the library that the backend calls.
const FUNCTIONS: [&str; 20] = [
    "nrt_init",
    "nrt_close",
    "nrt_get_version",
    "nrt_get_instance_info",
    "nrt_get_visible_vnc_count",
    "nrt_get_vnc_memory_stats",
    "nrt_load",
    "nrt_unload",
    "nrt_get_model_tensor_info",
    "nrt_free_model_tensor_info",
    "nrt_tensor_allocate",
    "nrt_tensor_free",
    "nrt_tensor_read",
    "nrt_tensor_write",
    "nrt_tensor_copy",
    "nrt_tensor_memset",
    "nrt_allocate_tensor_set",
    "nrt_destroy_tensor_set",
    "nrt_add_tensor_to_tensor_set",
    "nrt_execute",
];

/// Every status of the header, and one that it does not know.
const STATUSES: [i32; 28] = [
    1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 14, 15, 101, 1002, 1003, 1004, 1005, 1006, 1100, 1200, 1201, 1202,
    1203, 1204, 1205, 1206, 4711,
];

/// Of them, those that take a size or tell one, which may be another than it should.
const SIZED: [&str; 11] = [
    "nrt_get_version",
    "nrt_get_instance_info",
    "nrt_get_vnc_memory_stats",
    "nrt_load",
    "nrt_get_model_tensor_info",
    "nrt_tensor_allocate",
    "nrt_tensor_read",
    "nrt_tensor_write",
    "nrt_tensor_copy",
    "nrt_tensor_memset",
    "nrt_execute",
];

/// What a call can come to: a status, nothing at all, or a size that is half of what it should be.
fn actions(function: &str) -> Vec<String> {
    let statuses = STATUSES.iter().map(i32::to_string);
    let half_size = SIZED.contains(&function).then(|| "half-size".to_owned());
    // The last, since a thread that hangs is there until all else is over.
    statuses.chain(half_size).chain(["hang".to_owned()]).collect()
}

/// The fake, by the functions that no other library has.
struct Fake {
    report: Symbol<unsafe extern "C" fn(*mut u8, usize) -> usize>,
    inject: Symbol<unsafe extern "C" fn(*const c_char) -> i32>,
    reset: Symbol<unsafe extern "C" fn()>,
    _library: Library,
}

impl Fake {
    fn open(path: &Path) -> Self {
        // SAFETY: the fake's own page says what these functions take.
        unsafe {
            let library = Library::open(Some(path), libloading::os::unix::RTLD_NOW).expect("it was built");
            Self {
                report: library.get(b"fake_nrt_report").expect("it is the fake"),
                inject: library.get(b"fake_nrt_inject").expect("it is the fake"),
                reset: library.get(b"fake_nrt_reset").expect("it is the fake"),
                _library: library,
            }
        }
    }

    fn inject(&self, faults: &str) {
        let faults = CString::new(faults).expect("it has no zero");
        // SAFETY: the text ends with a zero.
        assert_eq!(unsafe { (self.inject)(faults.as_ptr()) }, 0);
    }

    fn reset(&self) {
        // SAFETY: it takes nothing.
        unsafe { (self.reset)() }
    }

    fn report(&self) -> Value {
        let mut bytes = vec![0; 1 << 16];
        // SAFETY: the buffer has as many bytes as is said.
        let len = unsafe { (self.report)(bytes.as_mut_ptr(), bytes.len()) };
        serde_json::from_slice(&bytes[..len]).expect("a report is JSON")
    }
}

struct Subject {
    model: Model,
    folder: TempDir,
    library: PathBuf,
    fake: Fake,
    /// What a request comes to when nothing is wrong.
    expected: Vec<u32>,
    runtime: tokio::runtime::Runtime,
    patience: Cell<Patience>,
    cores: Cell<usize>,
    /// With no core in use.
    core_threads: usize,
}

/// Threads of cores, and those that XLA has begun from one, which inherit its name.
fn core_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("there are threads").flatten();
    let of_core = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("neuron-core"))
    };
    tasks.filter(of_core).count()
}

/// What came of a request.
#[derive(Debug, PartialEq)]
enum Reply {
    Good,
    Failed(String),
    Lost(String),
}

impl Subject {
    fn new() -> Self {
        let built = |name: &str| {
            let path = Path::new(env!("CARGO_BIN_EXE_mondai")).with_file_name(name);
            assert!(path.exists(), "{} is missing; scripts/test.sh builds it", path.display());
            path
        };
        assert!(
            std::env::var_os("FAKE_NRT_PJRT").is_some(),
            "FAKE_NRT_PJRT is not set; scripts/test.sh sets it"
        );
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("tests/fixtures/golden/llama");
        let model = Model::open(path.to_str().expect("it is UTF-8"), root).expect("the fixture is sound");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let buckets = vec!["1x1x64".parse().expect("it is a bucket")];
        let variant = Variant { precision: Precision::F32, ranks: 1, sampling: Sampling::Host };
        let programs = ProgramOptions { slots: 2, context_len: 64, buckets, variant };
        let compiler =
            NeuronxCc::find(Some((&built("neuronx-cc"), "the test".to_owned()))).expect("it is there");
        let options = CompileOptions { programs, target: Target::Inf2, jobs: 1 };
        compile(&model, &options, &compiler, folder.path(), &AtomicBool::new(false), &|_, _| {})
            .expect("the program compiles");
        let library = built("libfake_nrt.so");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
        let fake = Fake::open(&library);
        let mut subject = Self {
            model,
            folder,
            library,
            fake,
            expected: Vec::new(),
            runtime,
            patience: Cell::default(),
            cores: Cell::new(1),
            core_threads: 0,
        };
        subject.fake.reset();
        let engine = subject.start().expect("nothing is wrong");
        let (tokens, reply) = subject.request(&engine, 0);
        assert_eq!((tokens.len(), reply), (6, Reply::Good));
        subject.expected = tokens;
        drop(engine);
        subject.assert_nothing_is_left();
        subject.core_threads = core_threads();
        subject
    }

    fn open(&self) -> Result<Box<dyn Backend>, BackendError> {
        let device = DeviceOptions {
            library: Some(self.library.clone()),
            programs: Some(self.folder.path().to_owned()),
            patience: self.patience.get(),
            cores: self.cores.get(),
            ..DeviceOptions::default()
        };
        backend::open(NEURON, &self.model, &OpenOptions { device, ..OpenOptions::default() })
    }

    fn start(&self) -> Result<Engine, BackendError> {
        let backend = self.open()?;
        // So that it is known which execution computes which token.
        let options = EngineOptions { max_draft_tokens: 0, ..EngineOptions::default() };
        Ok(Engine::start(backend, options, Arc::new(Metrics::simulated("fake"))))
    }

    /// Six greedy tokens after a prompt of its own.
    fn prompt(&self, salt: u32) -> SequenceRequest {
        self.greedy(salt, 20, 6)
    }

    fn greedy(&self, salt: u32, prompt_len: u32, max_new_tokens: usize) -> SequenceRequest {
        SequenceRequest {
            prompt: (0..prompt_len).map(|idx| (idx * 7 + salt) % 96).collect(),
            max_new_tokens,
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            grammar: None,
            given: Vec::new(),
            stop_tokens: Vec::new(),
        }
    }

    fn request(&self, engine: &Engine, salt: u32) -> (Vec<u32>, Reply) {
        self.reply(engine, self.prompt(salt))
    }

    fn reply(&self, engine: &Engine, request: SequenceRequest) -> (Vec<u32>, Reply) {
        match engine.submit(request) {
            Ok(stream) => self.read(stream),
            Err(error) => (Vec::new(), Reply::Lost(error.to_string())),
        }
    }

    fn read(&self, mut stream: TokenStream) -> (Vec<u32>, Reply) {
        let mut tokens = Vec::new();
        loop {
            match self.runtime.block_on(stream.next()).expect("a stream ends with an end") {
                TokenEvent::Tokens(new) => tokens.extend(new.iter().map(|new| new.token)),
                TokenEvent::Finished(_) => return (tokens, Reply::Good),
                TokenEvent::Failed(error @ EngineError::BackendLost { .. }) => {
                    return (tokens, Reply::Lost(error.to_string()));
                }
                TokenEvent::Failed(error) => return (tokens, Reply::Failed(error.to_string())),
            }
        }
    }

    /// A call that hangs returns, and its thread frees what it has before the next moment begins.
    fn let_hanging_calls_end(&self) {
        self.fake.reset();
        let waits = Instant::now();
        while core_threads() > self.core_threads {
            assert!(waits.elapsed() < Duration::from_secs(30), "a core's thread does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        let report = self.fake.report();
        let live = report["live"].as_object().expect("it says what is alive");
        assert!(live.values().all(|count| count == 0), "{report:#}");
        assert_eq!(report["violation_count"], 0, "{report:#}");
    }

    fn at_start(&self, function: &str, action: &str) -> &'static str {
        self.fake.inject(&format!("{function}@1={action}"));
        match self.start() {
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::new(error));
                let told = match action {
                    "hang" => text.contains("has not answered"),
                    // A size that is wrong is found by whoever goes by it next.
                    "half-size" => text.contains("2 (NRT_INVALID)") || text.contains(" bytes, not "),
                    status => text.contains(function) && text.contains(status),
                };
                assert!(told, "{function} {action}: {text}");
                "refused"
            }
            Ok(engine) => {
                // A call that opening does not make fails at no start.
                self.fake.inject("");
                assert_eq!(
                    self.request(&engine, 0),
                    (self.expected.clone(), Reply::Good),
                    "{function} {action}"
                );
                "goes on"
            }
        }
    }

    fn in_a_request(&self, function: &str, action: &str) -> &'static str {
        let engine = self.start().expect("nothing is wrong yet");
        // One slot holds so much that it is not given up for the prompt alone; what the other holds is no number. So
        // the request gets a copy of its prompt, in a slot that is zeroed past it.
        assert_eq!(self.reply(&engine, self.greedy(0, 20, 26)).1, Reply::Good);
        self.fake.inject("nrt_execute@*=nan");
        assert!(
            matches!(self.request(&engine, 1).1, Reply::Failed(text) if text.contains("is not a number"))
        );
        self.fake.inject("");
        // The second call is past a request's first token for whatever a step calls once.
        self.fake.inject(&format!("{function}@2={action}"));
        let (tokens, reply) = self.request(&engine, 0);
        let ready = engine.health() == EngineHealth::Ready;
        let outcome = match &reply {
            Reply::Good => {
                assert!(ready && tokens == self.expected, "{function} {action}");
                "goes on"
            }
            Reply::Failed(text) => {
                assert!(ready && text.contains(function), "{function} {action}: {text}");
                // Those who come after it find everything as it was.
                assert_eq!(
                    self.request(&engine, 0),
                    (self.expected.clone(), Reply::Good),
                    "{function} {action}"
                );
                "the request fails"
            }
            Reply::Lost(text) => {
                let named = text.contains(function) || action == "hang" && text.contains("has not answered");
                assert!(!ready && named, "{function} {action}: {text}");
                "the device is lost"
            }
        };
        drop(engine);
        outcome
    }

    fn at_the_end(&self, function: &str, action: &str) -> &'static str {
        let engine = self.start().expect("nothing is wrong yet");
        assert_eq!(self.request(&engine, 0).1, Reply::Good);
        self.fake.inject(&format!("{function}@1={action}"));
        drop(engine);
        "goes on"
    }
}

#[test]
fn what_a_failing_library_costs() {
    let subject = Subject::new();
    what_a_lost_core_costs_the_other(&subject);
    what_is_no_number_is_not_inherited(&subject);
    what_a_last_step_leaves_is_not_inherited(&subject);
    what_a_prefix_takes_on_its_way(&subject);
    what_a_thousand_requests_leave(&subject);
    let mut table = String::new();
    type Moment = fn(&Subject, &str, &str) -> &'static str;
    let moments: [(&str, Moment); 3] =
        [("start", Subject::at_start), ("request", Subject::in_a_request), ("end", Subject::at_the_end)];
    for function in FUNCTIONS {
        for (name, moment) in moments {
            let mut outcomes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            let actions = actions(function);
            let all = actions.len();
            for action in actions {
                subject.fake.reset();
                if action == "hang" {
                    let short = Duration::from_millis(600);
                    let opening = if name == "start" { short } else { Patience::default().opening };
                    subject.patience.set(Patience { opening, step: short, closing: short });
                }
                let outcome = moment(&subject, function, &action);
                if action != "hang" {
                    subject.assert_nothing_is_left();
                }
                outcomes.entry(outcome).or_default().push(action);
            }
            subject.patience.set(Patience::default());
            subject.let_hanging_calls_end();
            for (outcome, actions) in outcomes {
                let actions =
                    if actions.len() == all { "whatever it is".to_owned() } else { actions.join(" ") };
                writeln!(table, "{function:<29} {name:<8} {outcome:<18} {actions}").expect("a text takes it");
            }
        }
    }
    eprintln!("{table}");
    insta::assert_snapshot!(table);
}

/// A NaN that a step yields, or leaves in the cache with logits that are good, costs the request whose reply meets it,
/// and no request that has no token yet: that is computed again. Those who get its slot next find it as if it had never
/// been there; only when nothing else comes of a core, it is lost.
fn what_is_no_number_is_not_inherited(subject: &Subject) {
    // Shorter than what failed, so that the slot holds more than they write.
    let short = |engine: &Engine| -> Vec<_> {
        (0..4).map(|salt| subject.reply(engine, subject.greedy(salt, 4, 6))).collect()
    };
    subject.fake.reset();
    let engine = subject.start().expect("nothing is wrong");
    let expected = short(&engine);
    assert!(expected.iter().all(|(_, reply)| *reply == Reply::Good));
    drop(engine);
    // The prompt is 20 executions, its reply 5.
    let in_the_reply = ["@22=nan", "@20=nan-in-place", "@22=nan-in-place", "@20+=nan-in-place"];
    let in_the_prompt = ["@20=nan", "@3=nan-in-place"];
    for fault in in_the_reply.iter().chain(&in_the_prompt) {
        subject.fake.reset();
        let engine = subject.start().expect("nothing is wrong yet");
        subject.fake.inject(&format!("nrt_execute{fault}"));
        let (tokens, reply) = subject.request(&engine, 0);
        if in_the_prompt.contains(fault) {
            assert_eq!((tokens, reply), (subject.expected.clone(), Reply::Good), "{fault}");
        } else {
            assert!(
                matches!(&reply, Reply::Failed(text) if text.contains("is not a number")),
                "{fault}: {reply:?}"
            );
        }
        subject.fake.inject("");
        assert_eq!(short(&engine), expected, "{fault}");
        drop(engine);
        subject.assert_nothing_is_left();
    }

    subject.fake.reset();
    let engine = subject.start().expect("nothing is wrong yet");
    subject.fake.inject("nrt_execute@*=nan");
    // Each has two steps that fail.
    let replies: Vec<_> = (0..4).map(|salt| subject.request(&engine, salt).1).collect();
    let (last, before) = replies.split_last().expect("there are four");
    assert!(before.iter().all(|reply| matches!(reply, Reply::Failed(_))), "{replies:?}");
    assert!(matches!(last, Reply::Lost(text) if text.contains("failed 8 times in a row")), "{last:?}");
    drop(engine);
    subject.assert_nothing_is_left();
}

/// A NaN that a request's very last step leaves in the cache costs nobody anything: the request has its reply, and shows
/// nothing. Those who go on from what it held, in its slot or by a copy, and those who have its slot for something
/// else, get their own replies.
fn what_a_last_step_leaves_is_not_inherited(subject: &Subject) {
    let longer = |salt: u32| {
        let mut request = subject.greedy(0, 20, 6);
        request.prompt.extend(subject.expected.iter().chain(&[salt]));
        request
    };
    let at_once = |engine: &Engine, requests: Vec<SequenceRequest>| -> Vec<_> {
        let streams: Vec<_> =
            requests.into_iter().map(|request| engine.submit(request).expect("there is room")).collect();
        streams.into_iter().map(|stream| subject.read(stream)).collect()
    };
    let others = || (1..3).map(|salt| subject.greedy(salt, 4, 6)).collect::<Vec<_>>();
    type Next<'a> = &'a dyn Fn(&Engine) -> Vec<(Vec<u32>, Reply)>;
    let nexts: [(&str, Next<'_>); 4] = [
        ("goes on", &|engine| at_once(engine, vec![longer(7)])),
        ("two go on", &|engine| at_once(engine, vec![longer(7), longer(8)])),
        ("goes on from less", &|engine| at_once(engine, vec![subject.greedy(0, 20, 6)])),
        ("others", &|engine| others().into_iter().map(|request| subject.reply(engine, request)).collect()),
    ];
    for (name, next) in nexts {
        let [expected, actual] = ["", "nrt_execute@25=nan-in-place"].map(|fault| {
            subject.fake.reset();
            let engine = subject.start().expect("nothing is wrong");
            subject.fake.inject(fault);
            // The prompt is 20 executions, its reply 5.
            assert_eq!(subject.request(&engine, 0), (subject.expected.clone(), Reply::Good), "{name}");
            subject.fake.inject("");
            let replies = next(&engine);
            assert_eq!(engine.health(), EngineHealth::Ready, "{name}");
            drop(engine);
            subject.assert_nothing_is_left();
            replies
        });
        assert!(expected.iter().all(|(_, reply)| *reply == Reply::Good), "{name}: {expected:?}");
        assert_eq!(actual, expected, "{name}");
    }
}

/// On the device from slot to slot of one core, through the host from core to core, and in both cases the positions
/// that are held and no others.
fn what_a_prefix_takes_on_its_way(subject: &Subject) {
    const LEN: usize = 10;
    subject.fake.reset();
    subject.cores.set(2);
    let mut backend = subject.open().expect("nothing is wrong");
    let tokens: Vec<u32> = (0..LEN as u32).collect();
    let row = Row { slot: Slot(0), start: 0, tokens: &tokens, logits_from: LEN, allowed: None, draw: None };
    let mut logits = Logits::new(backend.limits().vocab_size);
    backend.extend(&[row], &mut logits).expect("nothing is wrong");
    let mut moved = |to: usize| {
        let count = |report: &Value| {
            ["read", "written", "copied"].map(|of| report["tensor_bytes"][of].as_u64().expect("it counts"))
        };
        let before = count(&subject.fake.report());
        backend.copy_prefix(Slot(0), Slot(to), LEN).expect("nothing is wrong");
        let after = count(&subject.fake.report());
        [0, 1, 2].map(|idx| after[idx] - before[idx])
    };
    // Keys and values of 2 layers, 2 heads, 8 numbers of 4 bytes.
    let held = (2 * 2 * 2 * LEN * 8 * 4) as u64;
    assert_eq!(moved(2), [0, 0, held], "from slot to slot");
    assert_eq!(moved(1), [held, held, 0], "from core to core");
    subject.cores.set(1);
    drop(backend);
    subject.assert_nothing_is_left();
}

/// Nothing: no handle, and no memory.
fn what_a_thousand_requests_leave(subject: &Subject) {
    subject.fake.reset();
    let engine = subject.start().expect("nothing is wrong");
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").expect("the system tells");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has this line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("it is a number")
    };
    let mut after_a_hundred = 0;
    for idx in 0..1000 {
        if idx == 100 {
            after_a_hundred = resident();
        }
        assert_eq!(subject.request(&engine, idx % 7).1, Reply::Good);
    }
    let grown = resident().saturating_sub(after_a_hundred);
    eprintln!("900 requests: {grown} KiB more than {after_a_hundred}");
    assert!(grown < 4096, "900 requests took {grown} KiB and kept them");
    drop(engine);
    subject.assert_nothing_is_left();
}

/// Two cores with two slots each, and one of them fails for good while both have a request: the other's is finished,
/// the engine stays ready, and those who come later are served by the core that is left.
fn what_a_lost_core_costs_the_other(subject: &Subject) {
    for action in ["101", "5", "hang"] {
        subject.fake.reset();
        subject.cores.set(2);
        if action == "hang" {
            let step = Duration::from_secs(1);
            subject.patience.set(Patience { step, closing: step, ..Patience::default() });
        }
        let engine = subject.start().expect("nothing is wrong yet");
        subject.fake.inject(&format!("nrt_execute@7={action}"));
        let streams: Vec<_> =
            (0..2).map(|salt| engine.submit(subject.prompt(salt)).expect("there is room")).collect();
        let replies: Vec<_> = streams.into_iter().map(|stream| subject.read(stream).1).collect();
        let failed: Vec<_> = replies.iter().filter(|reply| **reply != Reply::Good).collect();
        assert!(
            matches!(failed[..], [Reply::Failed(text)] if text.contains("of this process")),
            "{action}: {replies:?}"
        );
        assert_eq!(engine.health(), EngineHealth::Ready, "{action}");
        for _ in 0..4 {
            assert_eq!(subject.request(&engine, 0), (subject.expected.clone(), Reply::Good), "{action}");
        }
        drop(engine);
        match action {
            "hang" => subject.let_hanging_calls_end(),
            _ => subject.assert_nothing_is_left(),
        }
    }
    subject.cores.set(1);
    subject.patience.set(Patience::default());
}
