//! ONNX Runtime: the models that are written for it, judged from outside, and what is said where it is not as it
//! should be. That it computes as other backends do is in `contract`, `logits` and `rounding`.

use crate::default_model::MODEL;
use crate::models::{corrupted, fixture, fixture_path, options, ort_options, outcome};
use crate::quiz::{service_on, write};
use mondai::backend::{self, OpenOptions, OrtOptions, WeightsForm};
use mondai::model::Model;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};

fn mondai(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mondai"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .expect("the binary was built for this test")
}

fn compile(model: &str, form: &str, folder: &Path) {
    let model = fixture_path(model);
    let output = mondai(&[
        "compile",
        "--target=onnx",
        &format!("--form={form}"),
        "--model",
        model.to_str().unwrap(),
        "--output",
        folder.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What is written for others to run: the onnx package accepts all forms and ONNX Runtime's own Python runs them, and
/// the package's NumPy the portable one.
#[test]
fn every_architecture_runs_elsewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".cache/venv/bin/python");
    assert!(python.is_file(), "{} is missing; scripts/test.sh makes it", python.display());
    let folder = tempfile::tempdir().unwrap();
    for model in ["llama", "gguf-llama3-rope.gguf", "qwen2", "qwen3", "gguf-Q4_1.gguf", "gguf-Q6_K.gguf"] {
        let forms = ["portable", "fast", "int4"].map(|form| {
            let folder = folder.path().join(format!("{model}-{form}"));
            compile(model, form, &folder);
            format!("{form}={}", folder.display())
        });
        let output = Command::new(&python)
            .args(["-B", "scripts/onnx_judge.py"])
            .arg(fixture_path(&format!("{}.json", model.trim_end_matches(".gguf"))))
            .args(forms)
            .current_dir(root)
            .output()
            .expect("the judge can be run");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            report.trim_end().ends_with("\nOK") && report.matches("the farthest logit is").count() == 4,
            "{report}"
        );
        eprintln!("{report}");
    }
}

#[test]
fn an_onnx_model_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    compile("gguf-Q4_1.gguf", "fast", folder.path());
    let output = mondai(&["inspect", folder.path().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(&*folder.path().to_string_lossy(), "onnx");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!("inspect_of_an_onnx_model", text);
}

#[test]
fn a_quiz_is_the_same_as_the_references() {
    let request = json!({
        "source": "The Moon is about 384,400 km from Earth. Its gravity causes the tides of the sea.",
        "count": 1, "kind": "short_answer", "seed": 7
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let [reference, ort] = ["candle", "ort"].map(|backend| {
        let options = OpenOptions { context_len: 512, ..options(2, WeightsForm::F32) };
        runtime.block_on(write(&service_on(&MODEL, backend, &options), request.clone())).items
    });
    assert_eq!(json!(reference), json!(ort));
    assert_eq!(ort.len(), 1);
}

/// What is said of a library or a provider, by a process that has loaded none.
#[track_caller]
fn check_refused(flags: &[&str], expected: &[&str]) {
    let model = fixture_path("llama");
    let args =
        [&["generate", "--backend=ort", "--topic=x", "--model", model.to_str().unwrap()], flags].concat();
    let output = mondai(&args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{flags:?}");
    for expected in expected {
        assert!(error.contains(expected), "{flags:?}: expected {expected:?} in {error}");
    }
}

#[test]
fn what_is_wrong_with_the_library_is_said() {
    let nowhere = tempfile::tempdir().unwrap();
    let models = format!("--models-dir={}", nowhere.path().display());
    check_refused(&[&models], &["no ONNX Runtime library", "libonnxruntime.so", "`mondai pull onnxruntime`"]);
    check_refused(&["--ort-library=absent.so"], &["no ONNX Runtime library absent.so"]);
    check_refused(&["--ort-library=Cargo.toml"], &["Cargo.toml is not an ONNX Runtime library"]);
    // A library that can be loaded, and is another.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.split_whitespace().find(|word| word.contains("/libc.so")).expect("tests have a C library");
    check_refused(&[&format!("--ort-library={libc}")], &["is not an ONNX Runtime library", "OrtGetApiBase"]);
}

#[test]
fn no_room_for_the_files_says_how_to_find_some() {
    let library = ort_options().library.unwrap();
    let model = fixture_path("llama");
    let output = Command::new(env!("CARGO_BIN_EXE_mondai"))
        .args(["generate", "--backend=ort", "--topic=x", "--model", model.to_str().unwrap()])
        .env("ORT_DYLIB_PATH", library)
        .env("TMPDIR", "/absent")
        .output()
        .expect("the binary was built for this test");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot be kept in /absent") && error.contains("TMPDIR"), "{error}");
}

#[test]
fn a_provider_that_is_not_there_is_refused() {
    let library = ort_options().library.unwrap();
    let library = format!("--ort-library={}", library.display());
    check_refused(&[&library, "--ort-provider=CUDA"], &["no execution provider CUDA", "CPU"]);
}

#[test]
fn a_process_has_one_library() {
    let open =
        |ort| backend::open("ort", &fixture("llama"), &OpenOptions { ort, ..options(1, WeightsForm::F32) });
    assert!(open(ort_options()).is_ok());
    let other = OrtOptions { library: Some("Cargo.toml".into()), ..OrtOptions::default() };
    let error = open(other).err().expect("another library is refused");
    let error = std::error::Error::source(&error).expect("a reason").to_string();
    assert!(error.contains("cannot load another") && error.contains("Cargo.toml"), "{error}");
    // By another name it is the same.
    let provider = Some("cpuExecutionProvider".to_owned());
    assert!(open(OrtOptions { provider, ..ort_options() }).is_ok());
}

#[test]
fn an_exported_model_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture_path("llama/config.json"), folder.path().join("config.json")).unwrap();
    std::fs::write(folder.path().join("model.onnx"), "as another wrote it").unwrap();
    for path in [folder.path().to_owned(), folder.path().join("model.onnx")] {
        let error = Model::open(path.to_str().unwrap(), Path::new("models")).err().unwrap().to_string();
        assert!(error.contains("model.onnx is an ONNX model that was exported elsewhere"), "{error}");
        assert!(error.contains("model.safetensors with config.json, or a GGUF file, is missing"), "{error}");
    }
}

/// What other backends make of many more such files is in `models`.
#[test]
fn corrupt_files_are_errors_or_sane_models() {
    let folder = tempfile::tempdir().unwrap();
    let (mut errors, mut sane) = (0, 0);
    for name in ["gguf-Q4_0.gguf", "gguf-qwen3.gguf"] {
        let sound = std::fs::read(fixture_path(name)).unwrap();
        let path = folder.path().join(name);
        for seed in 0..60 {
            std::fs::write(&path, corrupted(&sound, seed)).unwrap();
            match outcome(&path, &["ort"]) {
                Ok(()) => sane += 1,
                Err(_) => errors += 1,
            }
        }
    }
    assert!(errors > 50 && sane > 10, "{errors} errors and {sane} sane models: the cases test little");
}
