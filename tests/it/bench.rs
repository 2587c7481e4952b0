//! `mondai bench` against a target whose delays are known: what it says must be true of them, in process
//! and over a real socket alike.

use crate::default_model::{MODEL, NAME};
use crate::http::http_options;
use mondai::backend::scripted::{ScriptedBackend, ScriptedControl};
use mondai::backend::{Backend, BackendError, Limits, Logits, Row, Slot};
use mondai::bench::{
    Bench, Load, Loads, Measurement, Report, Sampling, SystemCard, Target, TokenCount, Workload,
    WorkloadOptions,
};
use mondai::engine::{Engine, EngineOptions};
use mondai::eval::EvalSet;
use mondai::generation::Generator;
use mondai::http::{AppState, router};
use mondai::metrics::Metrics;
use mondai::quiz::QuizService;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// What every step takes, and what the step takes that writes the token to stall at.
const STEP: Duration = Duration::from_millis(4);
const STALL: Duration = Duration::from_millis(50);
/// A token each, all of them text.
const REPLY: &str = " one two three four five six seven";
const REPLY_TOKENS: usize = 7;

/// The scripted backend, at a pace that is known.
struct Paced {
    scripted: ScriptedBackend,
    step: Duration,
    stall_at: u32,
    /// Every token is run twice, as if its row were too short for the program.
    padded_tokens: usize,
}

impl Backend for Paced {
    fn limits(&self) -> &Limits {
        self.scripted.limits()
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        let stalls = rows.iter().any(|row| row.tokens == [self.stall_at]);
        std::thread::sleep(if stalls { STALL } else { self.step });
        self.padded_tokens = rows.iter().map(|row| row.tokens.len()).sum();
        self.scripted.extend(rows, logits)
    }

    fn padded_tokens(&self) -> usize {
        self.padded_tokens
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError> {
        self.scripted.copy_prefix(from, to, len)
    }
}

/// A model that answers every chat with [`REPLY`], and stalls before its fifth word.
struct Paces {
    generator: Generator,
    quizzes: QuizService,
    metrics: Arc<Metrics>,
    control: ScriptedControl,
}

impl Paces {
    fn start(slots: usize, step: Duration) -> Self {
        let limits = Limits {
            slots,
            vocab_size: MODEL.graph.vocab_size(),
            context_len: 1024,
            max_step_tokens: 1024,
            ..ScriptedBackend::small_limits()
        };
        let scripted = ScriptedBackend::new(limits);
        let control = scripted.control();
        let metrics = Arc::new(Metrics::new(NAME));
        // The tokenizer comes with the generator, which wants an engine: what to stall at is known after.
        let stall_at = mondai::text::Tokenizer::open(&MODEL).unwrap().encode_plain(" four")[0];
        let backend = Paced { scripted, step, stall_at, padded_tokens: 0 };
        // So that each token takes a step.
        let options = EngineOptions { max_draft_tokens: 0, ..EngineOptions::default() };
        let engine = Engine::start(Box::new(backend), options, Arc::clone(&metrics));
        let generator = Generator::new(&MODEL, engine).unwrap();
        let tokenizer = generator.tokenizer();
        let reply = tokenizer.encode_plain(REPLY);
        assert_eq!(reply.len(), REPLY_TOKENS);
        control.reply(&tokenizer.encode("<|im_start|>assistant\n"), &reply);
        let quizzes = QuizService::new(generator.clone(), Arc::clone(&metrics));
        Self { generator, quizzes, metrics, control }
    }

    fn in_process(&self) -> Target {
        let metrics = Arc::clone(&self.metrics);
        Target::in_process("inside".to_owned(), self.generator.clone(), self.quizzes.clone(), metrics, None)
    }

    /// The same model behind a socket.
    async fn at_url(&self) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = AppState::new(
            self.generator.clone(),
            self.quizzes.clone(),
            Arc::clone(&self.metrics),
            http_options(),
        );
        tokio::spawn(axum::serve(listener, router(state)).into_future());
        Target::at_url("outside".to_owned(), &url, None, None, Some(std::process::id())).await.unwrap()
    }
}

fn bench(targets: Vec<Target>, workload: Workload, loads: &[Load], requests: usize) -> Bench {
    Bench {
        targets,
        set: EvalSet::default_set(),
        workload: WorkloadOptions {
            workload,
            output_tokens: REPLY_TOKENS,
            prompt_tokens: 32,
            items: 1,
            seed: 1,
            ignore_eos: true,
            sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        },
        loads: Loads::Listed(loads.to_vec()),
        requests,
        warm_up: 1,
        runs: 2,
        slo: Some("ttft:20000".parse().unwrap()),
        limit: Duration::from_secs(60),
    }
}

async fn measure(bench: &Bench) -> (Vec<Measurement>, Report) {
    let measurements = bench.run(&|_| {}).await.unwrap();
    let report = Report::new(bench, SystemCard::read(), measurements.clone());
    (measurements, report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delays_show_where_they_are() {
    let paces = Paces::start(4, STEP);
    let loads = [Load::Closed { concurrency: 2 }];
    let bench = bench(vec![paces.in_process(), paces.at_url().await], Workload::Chat, &loads, 4);
    let (measurements, report) = measure(&bench).await;
    assert_eq!(measurements.len(), 4, "two targets, two runs");
    let (step, stall) = (STEP.as_secs_f64() * 1e3, STALL.as_secs_f64() * 1e3);
    for of in &measurements {
        let target = of.target.as_str();
        assert_eq!((of.requests.sent, of.requests.succeeded), (4, 4), "{target}: {:?}", of.requests);
        assert_eq!(of.tokens.output, 4 * REPLY_TOKENS, "{target}");
        let counted = if target == "inside" { TokenCount::Engine } else { TokenCount::Usage };
        assert_eq!(of.tokens.counted, counted);
        let [ttft, itl, tpot, e2e] = [of.ttft_ms, of.itl_ms, of.tpot_ms, of.e2e_ms].map(Option::unwrap);
        assert!(ttft.p50 >= step, "{target}: {ttft:?}");
        assert_eq!(itl.n, 4 * (REPLY_TOKENS - 1), "{target}: a piece of text is a token");
        assert!(
            itl.p50 < itl.max,
            "{target}: each request has one stall, so the middle of the gaps is none: {itl:?}"
        );
        assert_eq!(tpot.n, 4, "{target}: a mean gap a request");
        // A reader that is late may find several pieces at once, but never one before it was written.
        assert!(e2e.p50 >= stall + 6.0 * step, "{target}: {e2e:?}");
        // Two at a time take at least half as long as one after the other.
        assert!(of.seconds * 1e3 >= 2.0 * (stall + 6.0 * step), "{target}: {}", of.seconds);
        assert!((of.requests_per_second - 4.0 / of.seconds).abs() < 1e-9);
        assert_eq!(of.good_share, Some(1.0));
        let computed = of.computed.unwrap();
        assert_eq!(computed.padded, computed.tokens, "{target}");
        // The last token of a reply is not run.
        let prompts = of.tokens.prompt.unwrap() - of.tokens.cached.unwrap();
        assert_eq!(computed.tokens as usize, prompts + 4 * (REPLY_TOKENS - 1), "{target}");
        assert!(of.peak_rss_bytes.is_some_and(|bytes| bytes > 1 << 20), "{target}");
        assert!(of.simulated, "{target}: a scripted model is no device");
    }
    for target in ["inside", "outside"] {
        let of_target = measurements.iter().filter(|of| of.target == target);
        let longest = of_target.map(|of| of.itl_ms.unwrap().max).fold(0.0, f64::max);
        assert!(longest >= stall * 0.9, "{target}: the stall is in no gap: {longest}");
    }
    let table = report.table();
    for part in ["inside SIMULATED", "outside SIMULATED", "2 at once", "Against inside", "2 interleaved runs"]
    {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    assert!(paces.control.violations().is_empty());

    let page = report.html();
    for part in ["SIMULATED targets", "First token by then, 2 at once", "<svg", "2 at once"] {
        assert!(page.contains(part), "no {part:?} in the page");
    }
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
    assert!(!page.contains("prediction"), "no model file was named to predict anything of");

    let lines = report.json_lines().unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["run"]["targets"][1]["simulated"], true);
    assert_eq!((&lines[1]["target"], &lines[3]["target"]), (&"inside".into(), &"outside".into()));
    assert_eq!(lines[1]["load"]["closed"]["concurrency"], 2);
    assert!(lines.iter().skip(1).all(|line| line["simulated"] == true && line["ttft_ms"]["p99"].is_f64()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_shows_in_the_open_loop() {
    // One slot: a request takes no less than this, and the next waits for it.
    let paces = Paces::start(1, STEP);
    let each = (STALL + STEP * (REPLY_TOKENS as u32 - 1)).as_secs_f64() * 1e3;
    let loads = [Load::Closed { concurrency: 1 }, Load::Open { per_second: 1000.0 }];
    let requests = 6;
    for target in [paces.in_process(), paces.at_url().await] {
        let (measurements, _) = measure(&bench(vec![target], Workload::Chat, &loads, requests)).await;
        let of = |load: Load| measurements.iter().find(|of| of.load == load).unwrap();
        let (closed, open) = (of(loads[0]), of(loads[1]));
        assert_eq!((open.requests.succeeded, open.tokens.output), (requests, requests * REPLY_TOKENS));
        let (closed, open) = (closed.ttft_ms.unwrap(), open.ttft_ms.unwrap());
        // All six are there within some ten milliseconds; the last waits for five.
        assert!(open.max >= 5.0 * each - 50.0, "{open:?}, each takes {each}");
        assert!(open.p50 >= 2.0 * each - 50.0, "{open:?}, each takes {each}");
        // In the closed loop nobody waits for anybody, whatever the server's pace.
        assert!(closed.p50 < open.p50, "{closed:?} {open:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiz_is_the_same_on_either_side_of_the_wire() {
    let paces = Paces::start(4, Duration::ZERO);
    let loads = [Load::Closed { concurrency: 1 }];
    let targets = vec![paces.in_process(), paces.at_url().await];
    // A model that makes its tokens up writes long, and is rejected often: one quiz is enough of it.
    let bench = Bench { warm_up: 0, runs: 1, ..bench(targets, Workload::Quiz, &loads, 1) };
    let (measurements, report) = measure(&bench).await;
    let of = |target: &str| measurements.iter().find(|of| of.target == target && of.run == 0).unwrap();
    let (inside, outside) = (of("inside"), of("outside"));
    assert_eq!(inside.items, outside.items);
    assert_eq!(inside.items.as_ref().unwrap().asked, 1);
    assert_eq!(inside.tokens.output, outside.tokens.output);
    assert_eq!(inside.tokens.forced, outside.tokens.forced);
    assert!(inside.tokens.forced > Some(0) && inside.tokens.prompt > Some(0), "{:?}", inside.tokens);
    assert!(outside.ttft_ms.is_none(), "quizzes come by items, not by tokens");
    assert!(report.table().contains("forced"), "{}", report.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_measured_is_said_at_once() {
    let paces = Paces::start(4, Duration::ZERO);
    let loads = [Load::Closed { concurrency: 1 }];
    let error = async |target, workload| {
        let error = bench(vec![target], workload, &loads, 2).run(&|_| {}).await.unwrap_err();
        format!("{error:#}")
    };
    let said = error(paces.at_url().await, Workload::Prefill).await;
    assert!(said.contains("in this process"), "{said}");
    let url = paces.at_url().await.card.place;
    let other = Target::at_url("a".to_owned(), &url, Some("no-such-model".to_owned()), None, None).await;
    let said = error(other.unwrap(), Workload::Chat).await;
    assert!(said.contains("404") && said.contains("no-such-model"), "{said}");
    for url in ["http://127.0.0.1:1", "https://127.0.0.1", "127.0.0.1"] {
        let error = Target::at_url("a".to_owned(), url, None, None, None).await.err().unwrap();
        assert!(format!("{error:#}").contains(url), "{error:#}");
    }
}
