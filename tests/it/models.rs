//! Model files through the front door: sound ones, absent ones, and ones cut, flipped and forged.

use crate::default_model;
use mondai::backend::{self, OpenOptions, OrtOptions, Row, Slot, WeightsForm};
use mondai::model::{Model, ModelError, TensorType};
use std::path::{Path, PathBuf};

/// A tiny model under `tests/fixtures/golden/`, made by `scripts/golden.py`.
pub(crate) fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name)
}

pub(crate) fn fixture(name: &str) -> Model {
    Model::open(fixture_path(name).to_str().expect("the repository's path is UTF-8"), Path::new("models"))
        .expect("the fixture is sound")
}

/// The backends that run models.
pub(crate) const BACKENDS: [&str; 3] = ["candle", "cpu", "ort"];

pub(crate) fn options(slots: usize, weights: WeightsForm) -> OpenOptions {
    OpenOptions { slots, weights, ort: ort_options(), ..OpenOptions::default() }
}

/// The library that `scripts/test.sh` fetches.
pub(crate) fn ort_options() -> OrtOptions {
    let library = default_model::models_dir().join("onnxruntime/libonnxruntime.so.1.32.0");
    assert!(library.is_file(), "{} is missing: scripts/test.sh fetches it", library.display());
    OrtOptions { library: Some(library), ..OrtOptions::default() }
}

fn open_error(spec: &Path) -> ModelError {
    match Model::open(spec.to_str().expect("a UTF-8 path"), Path::new("models")) {
        Ok(_) => panic!("{} opens", spec.display()),
        Err(error) => error,
    }
}

#[test]
fn the_default_model_is_found_by_its_name() {
    let model = &*default_model::MODEL;
    assert_eq!(model.name, default_model::NAME);
    assert_eq!((model.config.layers, model.config.width, model.config.vocab_size), (30, 576, 49152));
    assert!(model.config.tied_head);
    let parameters: usize = model.tensors().map(|tensor| tensor.elements()).sum();
    assert_eq!(parameters, 134_515_008);
}

#[test]
fn a_model_that_is_not_downloaded_says_how_to_get_it() {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("m")).unwrap();
    let repository = default_model::models_dir().join(default_model::NAME).join("manifest.toml");
    let manifest = std::fs::read_to_string(repository).unwrap().replace("\"smollm2-135m-instruct\"", "\"m\"");
    std::fs::write(models.path().join("m/manifest.toml"), manifest).unwrap();
    let error = Model::open("m", models.path()).err().unwrap();
    assert!(error.to_string().contains("run `mondai pull m`"), "{error}");
    let error = Model::open("n", models.path()).err().unwrap();
    assert!(error.to_string().contains("known: m"), "{error}");
}

#[test]
fn every_tensor_type_is_read() {
    for tensor_type in TensorType::ALL {
        let model = fixture(&format!("gguf-{tensor_type}.gguf"));
        assert!(model.tensors().any(|tensor| tensor.tensor_type() == tensor_type), "{tensor_type}");
    }
}

#[test]
fn the_graph_reads_well() {
    insta::assert_snapshot!("graph_of_qwen2", fixture("qwen2").graph);
    insta::assert_snapshot!("graph_of_qwen3", fixture("gguf-qwen3.gguf").graph);
}

#[test]
fn what_does_not_fit_the_config_is_named() {
    check_config_error(
        "\"vocab_size\": 96",
        "\"vocab_size\": 95",
        "tensor model.embed_tokens.weight: its shape",
    );
    check_config_error("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "tensor model.layers.2.");
    check_config_error(
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 1",
        "the architecture has no such",
    );
    check_config_error("\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"", ".bias: is missing");
    check_config_error("\"model_type\": \"llama\"", "\"model_type\": \"bert\"", "`bert` is not supported");
    check_config_error("\"head_dim\": 8", "\"head_dim\": 16", "q_proj.weight: its shape");
    check_config_error("{", "", "JSON");
}

#[track_caller]
fn check_config_error(from: &str, to: &str, says: &str) {
    let folder = copied_folder("llama");
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    assert!(config.contains(from), "{from}");
    std::fs::write(&path, config.replacen(from, to, 1)).unwrap();
    let error = open_error(folder.path()).to_string();
    assert!(error.contains(says) && error.contains(folder.path().to_str().unwrap()), "{error}");
}

#[test]
fn shards_must_be_where_the_index_says() {
    let folder = copied_folder("qwen2");
    let index = folder.path().join("model.safetensors.index.json");
    let sound = std::fs::read_to_string(&index).unwrap();
    let first = "model-00001-of-00002.safetensors";
    for (shard, says) in [("../escape.safetensors", "plain file name"), ("absent.safetensors", "cannot read")]
    {
        std::fs::write(&index, sound.replacen(first, shard, 1)).unwrap();
        let error = open_error(folder.path()).to_string();
        assert!(error.contains(says), "{error}");
    }
    std::fs::write(&index, sound.replacen(first, "model-00002-of-00002.safetensors", 1)).unwrap();
    let error = open_error(folder.path()).to_string();
    assert!(error.contains("does not hold it"), "{error}");
}

#[test]
fn a_backend_opens_as_asked_or_not_at_all() {
    let model = fixture("llama");
    let sound = options(1, WeightsForm::F32);
    let error = backend::open("abacus", &model, &sound).err().unwrap().to_string();
    assert!(error.contains("`abacus`") && error.contains("cpu, candle"), "{error}");
    for options in [
        OpenOptions { context_len: 257, ..sound.clone() },
        OpenOptions { slots: 0, ..sound.clone() },
        OpenOptions { slots: usize::MAX / 4096, ..sound.clone() },
        OpenOptions { slots: 1 << 46, ..sound.clone() },
        OpenOptions { max_step_tokens: 0, ..sound.clone() },
    ] {
        for backend in BACKENDS {
            assert!(backend::open(backend, &model, &options).is_err(), "{backend}, {options:?}");
        }
    }
    for backend in BACKENDS {
        let limits = backend::open(backend, &model, &sound).unwrap().limits().clone();
        assert_eq!((limits.backend, limits.context_len), (backend, 256));
    }
}

pub(crate) fn copied_folder(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture_path(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

/// How much the cases may add to the process's peak of reserved memory, touched or not: the files have
/// 231 KB at most, and what opens asks for a small KV cache.
const MEMORY_BOUND_KIB: u64 = 64 << 10;

/// Those whose memory is all our own. ONNX Runtime reserves more for its threads than the bound.
const BOUNDED: [&str; 2] = ["candle", "cpu"];

/// Set in the process that runs nothing but the cases, so that its memory can be told.
const CHILD: &str = "MONDAI_TEST_CORRUPTION_CHILD";

#[test]
fn corrupt_files_are_errors_or_sane_models() {
    if std::env::var_os(CHILD).is_some() {
        return run_corruption_cases();
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "models::corrupt_files_are_errors_or_sane_models", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

fn run_corruption_cases() {
    let gguf_files =
        ["gguf-Q4_0.gguf", "gguf-llama3-rope.gguf", "gguf-qwen3.gguf"].map(|name| (name, fixture_path(name)));
    gguf_files.iter().for_each(|(_, path)| outcome(path, &BOUNDED).expect("the fixture is sound"));
    let peak_before = peak_memory_kib();

    let (mut errors, mut sane) = (0, 0);
    let mut count = |result: Result<(), String>| match result {
        Ok(()) => sane += 1,
        Err(_) => errors += 1,
    };
    for (name, path) in &gguf_files {
        let sound = std::fs::read(path).unwrap();
        for seed in 0..300 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, corrupted(&sound, seed)).unwrap();
            count(outcome(&path, &BOUNDED));
        }
    }
    for (folder, file) in [
        ("llama", "model.safetensors"),
        ("llama", "config.json"),
        ("qwen2", "model.safetensors.index.json"),
        ("qwen2", "model-00001-of-00002.safetensors"),
    ] {
        let sound = std::fs::read(fixture_path(folder).join(file)).unwrap();
        for seed in 0..150 {
            let folder = copied_folder(folder);
            std::fs::write(folder.path().join(file), corrupted(&sound, seed)).unwrap();
            count(outcome(folder.path(), &BOUNDED));
        }
    }
    assert!(errors > 500 && sane > 100, "{errors} errors and {sane} sane models: the cases test little");
    let grown = peak_memory_kib() - peak_before;
    assert!(grown < MEMORY_BOUND_KIB, "reserved memory grew by {grown} KiB");
}

/// Opens what is there and, if it opens, runs it; an error must name the file.
pub(crate) fn outcome(path: &Path, backends: &[&str]) -> Result<(), String> {
    let path = path.to_str().unwrap();
    let model = Model::open(path, Path::new("models")).map_err(|error| {
        let error = error.to_string();
        assert!(error.contains(path), "{error}");
        error
    })?;
    let options =
        OpenOptions { context_len: model.config.context_len.min(64), ..options(1, WeightsForm::F32) };
    for weights in [WeightsForm::F32, WeightsForm::Stored] {
        for backend in backends {
            run(backend, &model, &OpenOptions { weights, ..options.clone() })?;
        }
    }
    Ok(())
}

fn run(backend: &str, model: &Model, options: &OpenOptions) -> Result<(), String> {
    let mut backend = backend::open(backend, model, options).map_err(|error| error.to_string())?;
    let mut logits = backend::Logits::new(backend.limits().vocab_size);
    let rows =
        [Row { slot: Slot(0), start: 0, tokens: &[1, 0, 1], logits_from: 2, allowed: None, draw: None }];
    if backend.limits().context_len >= 3 && backend.limits().vocab_size >= 2 {
        backend.extend(&rows, &mut logits).map_err(|error| error.to_string())?;
        assert_eq!(logits.len(), 1);
    }
    Ok(())
}

/// A few wrongs done to a file, mostly where its header is.
pub(crate) fn corrupted(sound: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |below: usize| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    };
    const HEADER: usize = 1500;
    const EXTREMES: [u64; 8] = [0, 1, 1 << 16, 1 << 31, 1 << 40, 1 << 62, u64::MAX - 31, u64::MAX];
    let mut bytes = sound.to_vec();
    for _ in 0..=random(3) {
        let len = bytes.len();
        let reach = if random(4) == 0 { len } else { len.min(HEADER) };
        let at = random(reach);
        match random(6) {
            0 => bytes.truncate(at),
            1 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random(8)),
            2 => bytes[at..].iter_mut().take(1 + random(8)).for_each(|byte| *byte = random(256) as u8),
            3 => {
                let extreme = EXTREMES[random(EXTREMES.len())].to_le_bytes();
                bytes[at..].iter_mut().zip(extreme).for_each(|(byte, extreme)| *byte = extreme);
            }
            4 => drop(bytes.drain(at..(at + 1 + random(64)).min(len))),
            _ => {
                let copied = bytes[at..(at + 64).min(len)].to_vec();
                let target = random(reach);
                bytes.splice(target..target, copied);
            }
        }
    }
    bytes
}

/// The most memory the process has had reserved, touched or not.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
