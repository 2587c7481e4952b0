//! Four cores that two replicas of a model share, and one of them is lost; and what cannot be shared.
//!
//! A binary of its own: the library takes its settings from the environment of the process, once.

#![allow(unsafe_code)] // the environment is set

use mondai::backend::neuron::compile::{CompileError, CompileOptions, compile};
use mondai::backend::neuron::hlo::{Precision, Sampling, Variant};
use mondai::backend::neuron::neuronx_cc::NeuronxCc;
use mondai::backend::neuron::programs::ProgramOptions;
use mondai::backend::neuron::{DeviceOptions, Target};
use mondai::backend::{self, Backend, BackendError, Logits, NEURON, OpenOptions, Row, Slot, WeightsForm};
use mondai::model::Model;
use serde_json::Value;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_mondai")).with_file_name(name);
    assert!(path.exists(), "{} is missing; scripts/test.sh builds it", path.display());
    path
}

fn llama() -> Model {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/fixtures/golden/llama");
    Model::open(path.to_str().expect("it is UTF-8"), root).expect("the fixture is sound")
}

fn try_compile(ranks: usize, bucket: &str) -> Result<TempDir, CompileError> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let buckets = vec![bucket.parse().expect("it is a bucket")];
    let variant = Variant { precision: Precision::F32, ranks, sampling: Sampling::Host };
    let programs = ProgramOptions { slots: 2, context_len: 64, buckets, variant };
    let compiler = built("neuronx-cc");
    let compiler = NeuronxCc::find(Some((&compiler, "the test".to_owned()))).expect("it is there");
    let options = CompileOptions { programs, target: Target::Inf2, jobs: 1 };
    compile(&llama(), &options, &compiler, folder.path(), &AtomicBool::new(false), &|_, _| {})?;
    Ok(folder)
}

fn open(folder: &Path, cores: usize) -> Result<Box<dyn Backend>, BackendError> {
    let device = DeviceOptions {
        library: Some(built("libfake_nrt.so")),
        programs: Some(folder.to_owned()),
        cores,
        ..DeviceOptions::default()
    };
    backend::open(NEURON, &llama(), &OpenOptions { device, ..OpenOptions::default() })
}

fn chain(error: impl Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

/// Runs rows of a slot, where they start and their tokens; the logits of each row's last token.
fn extend(backend: &mut dyn Backend, rows: &[(usize, usize, &[u32])]) -> Result<Vec<Vec<f32>>, BackendError> {
    let mut logits = Logits::new(backend.limits().vocab_size);
    let rows = rows.iter().map(|&(slot, start, tokens)| {
        let logits_from = tokens.len() - 1;
        Row { slot: Slot(slot), start, tokens, logits_from, allowed: None, draw: None }
    });
    let rows: Vec<Row<'_>> = rows.collect();
    backend.extend(&rows, &mut logits)?;
    Ok((0..rows.len()).map(|idx| logits.row(idx).to_vec()).collect())
}

/// The device's logits are those of the reference.
#[track_caller]
fn check_alike(device: &mut dyn Backend, reference: &mut dyn Backend, rows: &[(usize, usize, &[u32])]) {
    let actual = extend(device, rows).expect("nothing is wrong");
    let expected = extend(reference, rows).expect("the reference runs");
    let pairs = actual.iter().flatten().zip(expected.iter().flatten());
    let worst = pairs.map(|(actual, expected)| (actual - expected).abs()).fold(0.0, f32::max);
    assert!(actual.len() == expected.len() && worst <= 1e-4, "logits differ by {worst}");
}

#[test]
fn a_lost_core_takes_those_that_share_the_model_with_it_and_no_others() {
    assert!(std::env::var_os("FAKE_NRT_PJRT").is_some(), "FAKE_NRT_PJRT is not set; scripts/test.sh sets it");
    let report = tempfile::NamedTempFile::new().expect("a file can be made");
    /// The core that fails stays away from the others for so long, if nobody notices.
    const EXEC_TIMEOUT: Duration = Duration::from_secs(5);
    let variables = [
        ("FAKE_NRT_CORES", "4".to_owned()),
        ("FAKE_NRT_FAULTS", "nrt_execute@13=101".to_owned()),
        ("FAKE_NRT_REPORT", report.path().display().to_string()),
        ("NEURON_RT_EXEC_TIMEOUT", EXEC_TIMEOUT.as_secs().to_string()),
        ("NEURON_RT_ROOT_COMM_ID", "127.0.0.1:61239".to_owned()),
    ];
    for (name, value) in variables {
        // SAFETY: this is the only test of the process, and nothing else runs in it yet.
        unsafe { std::env::set_var(name, value) };
    }
    let folder = try_compile(2, "1x1x64").expect("the program compiles");
    refuses_what_cannot_be_shared(folder.path());

    let mut device = open(folder.path(), 4).expect("two replicas of two cores each");
    let same = OpenOptions { slots: 4, weights: WeightsForm::F32, ..OpenOptions::default() };
    let mut reference = backend::open("candle", &llama(), &same).expect("candle runs it");
    assert_eq!(device.limits().slots, 4);
    let (shared, reference) = (&mut *device, &mut *reference);

    // Each token is one execution on each of two cores: twelve of them.
    check_alike(shared, reference, &[(0, 0, &[5, 9, 31])]);
    check_alike(shared, reference, &[(0, 3, &[7]), (1, 0, &[11])]);
    for backend in [&mut *shared, &mut *reference] {
        backend.copy_prefix(Slot(0), Slot(3), 4).expect("from one replica to the other");
    }
    check_alike(shared, reference, &[(3, 4, &[60])]);

    let began = Instant::now();
    let error = extend(shared, &[(1, 1, &[8])]).expect_err("one of its cores fails");
    assert!(began.elapsed() < EXEC_TIMEOUT, "nobody noticed for {:?}", began.elapsed());
    assert!(
        matches!(&error, BackendError::SlotsLost { slots, .. } if *slots == [Slot(1), Slot(3)]),
        "{error}"
    );
    let text = chain(error);
    assert!(text.contains("nrt_execute returned 101"), "{text}");
    assert!(["core 2 of", "core 3 of"].iter().any(|core| text.contains(core)), "{text}");

    check_alike(shared, reference, &[(0, 4, &[2])]);
    let text = chain(extend(shared, &[(3, 0, &[2])]).expect_err("its replica is lost"));
    assert!(text.contains("core 2 of this process is lost"), "{text}");

    drop(device);
    let report = fs::read_to_string(report.path()).expect("it was written when the library was closed");
    let report: Value = serde_json::from_str(&report).expect("a report is JSON");
    let live = report["live"].as_object().expect("it says what is alive");
    assert!(live.values().all(|count| count == 0) && report["violation_count"] == 0, "{report:#}");
}

fn refuses_what_cannot_be_shared(folder: &Path) {
    let text = chain(open(folder, 3).map(drop).expect_err("three is no multiple of two"));
    assert!(text.contains("3 cores are asked for") && text.contains("--cores 0-1"), "{text}");

    let text = chain(try_compile(4, "1x1x64").expect_err("the model has two key-value heads"));
    assert!(text.contains("2 key-value heads") && text.contains("--tensor-parallel"), "{text}");
    let text = chain(try_compile(3, "1x1x64").expect_err("there is no ring of three"));
    assert!(text.contains("3 cores of inf2 cannot share a model"), "{text}");

    let mixed = try_compile(1, "1x8x64").expect("the program compiles");
    for entry in fs::read_dir(folder).expect("it is there").flatten() {
        fs::copy(entry.path(), mixed.path().join(entry.file_name())).expect("it can be copied");
    }
    let text = chain(open(mixed.path(), 2).map(drop).expect_err("they are of two makes"));
    assert!(text.contains("with --lnc=1 and --tensor-parallel 2"), "{text}");
}
