//! The programs for a NeuronCore, judged by XLA on the CPU: `scripts/hlo_judge.py` runs them with real weights
//! and holds them to transformers' golden values.

use crate::models::{fixture, fixture_path};
use mondai::backend::neuron::hlo::{Bucket, CachePlan, InputSource, Precision, Sampling, Variant, lower};
use std::path::Path;
use std::process::Command;

/// One and three slots, a row of one token, of 8 and of 64, and contexts that a sequence outgrows.
const BUCKETS: [&str; 7] = ["1x64x64", "3x1x112", "3x8x112", "1x1x64", "1x1x112", "3x1x64", "1x8x112"];
/// One of each family: XLA takes a second of a CPU for each.
const FEW_BUCKETS: &[&str] = BUCKETS.split_at(3).0;

fn emit(model: &str, options: &[&str], buckets: &[&str], output: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_mondai"))
        .args(["compile", "--emit-only", "--with-weights", "--slots", "3", "--context-len", "112"])
        .args(buckets.iter().map(|bucket| format!("--bucket={bucket}")))
        .args(options)
        .arg("--model")
        .arg(fixture_path(model))
        .arg("--output")
        .arg(output)
        .output()
        .expect("the binary was built for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `precisions` begins with f32; `options` are of `mondai compile` beside that.
#[track_caller]
fn check(model: &str, buckets: &[&str], precisions: &[&str], options: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".cache/venv/bin/python");
    assert!(python.is_file(), "{} is missing; scripts/test.sh makes it", python.display());
    let folder = tempfile::tempdir().unwrap();
    let programs = precisions.iter().map(|precision| {
        let programs = folder.path().join(precision);
        emit(model, &[options, &["--precision", precision]].concat(), buckets, &programs);
        programs
    });
    let output = Command::new(python)
        .args(["-B", "scripts/hlo_judge.py"])
        .arg(fixture_path(&format!("{}.json", model.trim_end_matches(".gguf"))))
        .args(programs)
        .current_dir(root)
        // Half the time to compile; the numbers differ in the last bits alone.
        .env("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
        .output()
        .expect("the judge can be run");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.trim_end().ends_with("\nOK"), "{report}");
    eprintln!("{report}");
}

#[test]
fn xla_runs_llama_as_transformers_does() {
    check("llama", &BUCKETS, &["f32", "bf16"], &[]);
}

/// Of GGUF, whose pairs of a head are neighbours.
#[test]
fn xla_runs_llama_of_gguf_as_transformers_does() {
    check("gguf-llama3-rope.gguf", FEW_BUCKETS, &["f32"], &[]);
}

#[test]
fn xla_runs_qwen2_as_transformers_does() {
    check("qwen2", FEW_BUCKETS, &["f32"], &[]);
}

/// And draws the tokens, in all that these programs run.
#[test]
fn xla_runs_qwen3_as_transformers_does() {
    check("qwen3", FEW_BUCKETS, &["f32"], &["--sampling", "device"]);
}

/// The bytes are those of the first time, whoever writes them: a compiled program is found by their hash.
#[test]
fn the_same_model_is_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let options = ["--sampling", "device"];
    emit("qwen2", &options, &BUCKETS, &first);
    emit("qwen2", &options, &BUCKETS, &second);
    let mut names: Vec<_> = first.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 2 * BUCKETS.len() + 1);
    for name in names {
        let [first, second] = [&first, &second].map(|folder| std::fs::read(folder.join(&name)).unwrap());
        assert!(first == second, "{name:?} differs");
    }
}

#[test]
fn a_program_says_what_its_inputs_are() {
    let folder = tempfile::tempdir().unwrap();
    emit("qwen2", &[], &["3x1x112"], folder.path());
    let program = folder.path().join("decode-3x1x112.hlo.pb");
    let inspect =
        || Command::new(env!("CARGO_BIN_EXE_mondai")).arg("inspect").arg(&program).output().unwrap();
    let output = inspect();
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(&*folder.path().to_string_lossy(), "programs");
    insta::assert_snapshot!("inspect_of_a_program", text);

    let mut bytes = std::fs::read(&program).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&program, bytes).unwrap();
    let error = String::from_utf8(inspect().stderr).unwrap();
    assert!(error.contains("its SHA-256 is") && error.contains("run `mondai compile` again"), "{error}");
    std::fs::remove_file(folder.path().join("decode-3x1x112.json")).unwrap();
    let error = String::from_utf8(inspect().stderr).unwrap();
    assert!(error.contains("cannot read") && error.contains("decode-3x1x112.json"), "{error}");
}

#[test]
fn a_program_that_draws_tokens_says_so() {
    let folder = tempfile::tempdir().unwrap();
    emit("qwen2", &["--sampling", "device"], &["3x8x112"], folder.path());
    let program = folder.path().join("short-rows-3x8x112.hlo.pb");
    let output = Command::new(env!("CARGO_BIN_EXE_mondai")).arg("inspect").arg(&program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.contains("draw"));
    let lines: Vec<String> =
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "sampling the device draws a token for each row",
        "drawn.after s32 3 drawn after",
        "drawn.allowed s32 3 x 16 allowed",
        "drawn.numbers f32 3 x 5 draw",
        "drawn f32 3 x 2",
    ];
    assert_eq!(lines, expected);
}

/// The programs that a larger cache is served with by default keep every rule, for each architecture.
#[test]
fn the_default_buckets_can_be_written() {
    let plan = CachePlan { slots: 8, context: 2048 };
    for model in ["llama", "gguf-llama3-rope.gguf", "qwen2", "qwen3"] {
        let graph = fixture(model).graph;
        let kv_heads = graph.cache().kv_heads;
        for bucket in Bucket::defaults(plan) {
            let host = Variant { precision: Precision::Bf16, ranks: 1, sampling: Sampling::Host };
            let f32 = Variant { precision: Precision::F32, ..host };
            let shared = Variant { ranks: kv_heads, ..host };
            let drawing = Variant { sampling: Sampling::Device, ..host };
            for variant @ Variant { ranks, .. } in [host, f32, shared, drawing] {
                let lowered = lower(&graph, plan, bucket, variant).unwrap();
                assert_eq!(lowered.inputs.len(), lowered.module.host_program_shape.parameters.len());
                let cache = lowered.inputs.iter().find(|input| input.source == InputSource::Cache);
                assert_eq!(cache.unwrap().shape.dimensions[1], kv_heads / ranks);
            }
        }
    }
}

#[test]
fn what_a_cache_or_the_device_cannot_hold_is_refused() {
    let graph = fixture("llama").graph;
    let of_ranks = |ranks| Variant { precision: Precision::Bf16, ranks, sampling: Sampling::Host };
    let error = |slots, context, bucket: &str| {
        let plan = CachePlan { slots, context };
        lower(&graph, plan, bucket.parse().unwrap(), of_ranks(1)).unwrap_err().to_string()
    };
    assert!(error(4, 128, "8x1x128").contains("8x1x128 has more slots or positions than the KV cache"));
    // Two heads, and a slot for padding: one row too many.
    assert!(error(127, 65_537, "1x1x256").contains("more rows than 2^24"));
    assert!(error(usize::MAX, 2, "1x1x1").contains("more rows than 2^24"));
    for ranks in [0, 4, usize::MAX] {
        let plan = CachePlan { slots: 1, context: 64 };
        let shared = lower(&graph, plan, "1x1x64".parse().unwrap(), of_ranks(ranks));
        let text = shared.unwrap_err().to_string();
        assert!(text.contains("2 key-value heads") && text.contains("--tensor-parallel"), "{text}");
    }
}

#[test]
fn compile_refuses_what_it_cannot_write() {
    for (args, expected) in [
        (&["--bucket", "4x1"][..], "`4x1` is not a bucket"),
        (&["--bucket", "9x1x64"], "9x1x64 has more slots or positions than the KV cache"),
        (&["--context-len", "257"], "longer than the model's 256"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mondai"))
            .args(["compile", "--emit-only", "--slots", "4", "--model"])
            .arg(fixture_path("llama"))
            .args(args)
            .arg("--output")
            .arg(folder.path())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{error}");
    }
}
