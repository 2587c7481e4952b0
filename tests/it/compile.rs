//! `mondai compile` with the stand-in for Neuron's compiler, and the folders of programs that it makes.

use crate::models::{fixture, fixture_path};
use mondai::backend::neuron::{
    Target,
    artifact::Artifact,
    hlo::{Bucket, CachePlan, Precision, lower},
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Of the package in `tests/fake_nrt/`.
fn neuronx_cc() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_mondai")).with_file_name("neuronx-cc");
    assert!(path.is_file(), "{} is missing; scripts/test.sh builds it", path.display());
    path
}

/// `mondai compile` of a model for Inferentia2 and a cache of three slots of 64 positions, if nothing else is said.
fn compile(model: &str, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mondai"));
    let unsaid = |flag: &&str| !args.iter().any(|arg| arg.split('=').next() == flag.split('=').next());
    command
        .args(["compile", "--model"])
        .arg(fixture_path(model))
        .arg("--output")
        .arg(folder)
        .args(["--target=inf2", "--slots=3", "--context-len=64"].iter().filter(|flag| unsaid(flag)))
        .args(args)
        .env("MONDAI_NEURONX_CC", neuronx_cc())
        .stdin(Stdio::null());
    command
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("it speaks UTF-8")
}

/// What it says of each program, sorted, with what differs from run to run left out.
#[track_caller]
fn compiled(model: &str, folder: &Path, args: &[&str]) -> Vec<String> {
    let Output { status, stdout, stderr } = compile(model, folder, args).output().unwrap();
    assert!(status.success(), "{}", text(stderr));
    let stdout = text(stdout);
    let mut lines: Vec<String> = stdout
        .lines()
        .map(|line| line.split_once(" in ").map_or(line, |(before, _)| before))
        .map(|line| line.split_once(':').map_or(line, |(before, _)| before).to_owned())
        .collect();
    lines.sort();
    lines
}

#[track_caller]
fn failure(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success());
    text(stderr)
}

fn files(folder: &Path) -> Vec<String> {
    let mut files: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    files
}

#[test]
fn what_is_there_is_not_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let two = ["--bucket", "1x1x32", "--bucket", "3x1x64", "--jobs", "2"];
    assert_eq!(compiled("llama", folder, &two), ["decode-1x1x32  compiled", "decode-3x1x64  compiled"]);
    let of_two = ["decode-1x1x32", "decode-3x1x64"]
        .iter()
        .flat_map(|stem| ["json", "log", "neff"].map(|ending| format!("{stem}.{ending}")));
    assert_eq!(files(folder), of_two.collect::<Vec<_>>());
    let written = |name: &str| fs::metadata(folder.join(name)).unwrap().modified().unwrap();
    let first = written("decode-1x1x32.neff");
    assert_eq!(compiled("llama", folder, &two), ["decode-1x1x32  unchanged", "decode-3x1x64  unchanged"]);
    assert_eq!(written("decode-1x1x32.neff"), first);

    // Another set of buckets: only what is new, and what is not asked for can stay.
    let other = ["--bucket", "3x1x64", "--bucket", "1x16x64"];
    let expected = ["decode-1x1x32  kept", "decode-3x1x64  unchanged", "prefill-1x16x64  compiled"];
    assert_eq!(compiled("llama", folder, &other), expected);
    assert_eq!(programs(folder), ["1x1x32", "1x16x64", "3x1x64"]);

    // What was damaged is made again; what another cache was for goes.
    fs::write(folder.join("decode-3x1x64.neff"), "damaged").unwrap();
    fs::remove_file(folder.join("prefill-1x16x64.json")).unwrap();
    let expected = ["decode-1x1x32  kept", "decode-3x1x64  compiled", "prefill-1x16x64  compiled"];
    assert_eq!(compiled("llama", folder, &other), expected);
    fs::remove_file(folder.join("decode-3x1x64.neff")).unwrap();
    let expected = ["decode-1x1x32  compiled", "decode-3x1x64  removed", "prefill-1x16x64  removed"];
    assert_eq!(compiled("llama", folder, &["--slots=2", "--bucket=1x1x32"]), expected);
    assert_eq!(programs(folder), ["1x1x32"]);
    assert_eq!(compiled("llama", folder, &["--slots=2", "--bucket=1x1x32", "--target=trn1"]), expected[..1]);
}

/// The buckets of an artifact of the llama fixture.
#[track_caller]
fn programs(folder: &Path) -> Vec<String> {
    let artifact = Artifact::open(folder, &fixture("llama")).unwrap();
    artifact.programs.iter().map(|program| program.bucket.to_string()).collect()
}

#[test]
fn the_default_buckets_go_to_the_models_folder() {
    let models_dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mondai"))
        .args(["compile", "--target", "trn2", "--slots", "1", "--context-len", "64", "--precision", "f32"])
        .args(["--model".as_ref(), fixture_path("qwen3").as_os_str(), "--models-dir".as_ref()])
        .arg(models_dir.path())
        .env("PATH", neuronx_cc().parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    let folder = models_dir.path().join("qwen3/neuron/trn2");
    let artifact = Artifact::open(&folder, &fixture("qwen3")).unwrap();
    assert_eq!(
        (artifact.target, artifact.lnc, artifact.variant.precision),
        (Target::Trn2, 1, Precision::F32)
    );
    let expected = Bucket::defaults(CachePlan { slots: 1, context: 64 });
    assert_eq!(artifact.programs.iter().map(|program| program.bucket).collect::<Vec<_>>(), expected);
}

/// Compiled once, and copied by whoever wants to harm it.
fn sound() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            compiled("llama", folder.path(), &["--bucket=1x1x64", "--bucket=3x8x64"]);
            folder
        })
        .path()
}

fn copied() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in files(sound()) {
        fs::copy(sound().join(&name), folder.path().join(&name)).unwrap();
    }
    folder
}

#[test]
fn an_artifact_is_what_the_model_is_lowered_to_wherever_it_lies() {
    for name in files(sound()).iter().filter(|name| name.ends_with(".json")) {
        let json = fs::read_to_string(sound().join(name)).unwrap();
        assert!(!json.contains(env!("CARGO_MANIFEST_DIR")) && !json.contains(&*sound().to_string_lossy()));
    }
    let elsewhere = copied();
    let model = fixture("llama");
    let artifact = Artifact::open(elsewhere.path(), &model).unwrap();
    let plan = CachePlan { slots: 3, context: 64 };
    assert_eq!(
        (artifact.plan, artifact.variant.precision, artifact.target),
        (plan, Precision::Bf16, Target::Inf2)
    );
    assert_eq!(artifact.programs.len(), 2);
    for program in artifact.programs {
        let lowered = lower(&model.graph, plan, program.bucket, artifact.variant).unwrap();
        assert_eq!(program.inputs, lowered.inputs);
        assert!(program.neff.starts_with(elsewhere.path()) && program.neff.is_file());
        let [logits, caches @ ..] = program.outputs.as_slice() else { panic!("there are outputs") };
        assert_eq!((logits.name.as_str(), &logits.replaces), ("logits", &None));
        assert_eq!(logits.shape.dimensions, [program.bucket.logits(), 96]);
        assert_eq!(caches.len(), 4);
        for cache in caches {
            let replaced = program.inputs.iter().find(|input| Some(&input.name) == cache.replaces.as_ref());
            assert_eq!(replaced.expect("it is an input").shape, cache.shape);
        }
    }
}

#[track_caller]
fn check_refused(folder: &Path, model: &str, expected: &[&str]) {
    let error = Artifact::open(folder, &fixture(model)).map(|_| ()).unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let message = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    for expected in expected {
        assert!(message.contains(expected), "{message}");
    }
}

const NEFF: &str = "decode-1x1x64.neff";
const JSON: &str = "decode-1x1x64.json";

#[test]
fn an_artifact_that_is_not_whole_is_refused() {
    let sound = sound();
    check_refused(
        &sound.join("nowhere"),
        "llama",
        &["no compiled programs", "nowhere", "run `mondai compile --model llama --target inf2`"],
    );
    check_refused(tempfile::tempdir().unwrap().path(), "llama", &["no compiled programs"]);

    let harmed = |harm: &dyn Fn(&Path)| {
        let folder = copied();
        harm(folder.path());
        folder
    };
    let neff = fs::read(sound.join(NEFF)).unwrap();
    let with_neff = |bytes: Vec<u8>| harmed(&|folder| fs::write(folder.join(NEFF), &bytes).unwrap());
    let flipped = |at: usize| {
        let mut bytes = neff.clone();
        bytes[at] ^= 1;
        with_neff(bytes)
    };
    check_refused(flipped(1500).path(), "llama", &[NEFF, "is damaged: SHA-256", "copy it again"]);
    check_refused(flipped(0).path(), "llama", &[NEFF, "is no NEFF", "its package version is 3"]);
    let other_lnc = {
        let mut bytes = neff.clone();
        bytes[552] = 2;
        with_neff(bytes)
    };
    check_refused(
        other_lnc.path(),
        "llama",
        &[NEFF, "2 physical cores a logical core, and its sidecar says 1"],
    );
    check_refused(with_neff(neff[..2000].to_vec()).path(), "llama", &[NEFF, "its archive size is"]);
    check_refused(with_neff(Vec::new()).path(), "llama", &[NEFF, "is no NEFF", "its size is 0"]);
    let longer = [neff.as_slice(), b"more"].concat();
    let sizes = format!("{} bytes, and its sidecar says {} bytes", neff.len() + 4, neff.len());
    check_refused(with_neff(longer).path(), "llama", &[NEFF, &sizes]);

    let without = |name: &str| harmed(&|folder| fs::remove_file(folder.join(name)).unwrap());
    check_refused(without(JSON).path(), "llama", &[NEFF, "has no decode-1x1x64.json beside it"]);
    check_refused(without(NEFF).path(), "llama", &[JSON, "has no decode-1x1x64.neff beside it"]);
    let with_json = |json: &str| harmed(&|folder| fs::write(folder.join(JSON), json).unwrap());
    check_refused(with_json("{}").path(), "llama", &[JSON, "is not what `mondai compile` writes"]);
    check_refused(with_json(&"[".repeat(100_000)).path(), "llama", &[JSON, "is not what `mondai compile`"]);
    let renamed = harmed(&|folder| {
        for [from, to] in [[NEFF, "decode-2x1x64.neff"], [JSON, "decode-2x1x64.json"]] {
            fs::rename(folder.join(from), folder.join(to)).unwrap();
        }
    });
    check_refused(renamed.path(), "llama", &["decode-2x1x64.json is of the bucket 1x1x64, not of what"]);
}

/// An artifact of one program whose sidecar says something else at this place.
fn edited(place: &str, value: Value) -> TempDir {
    let folder = copied();
    for name in files(folder.path()).iter().filter(|name| name.starts_with("short-rows")) {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    edit(folder.path(), place, value);
    folder
}

fn edit(folder: &Path, place: &str, value: Value) {
    let path = folder.join(JSON);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    *json.pointer_mut(place).expect("the sidecar has it") = value;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn an_artifact_of_another_make_is_refused() {
    check_refused(
        sound(),
        "qwen2",
        &["is of another model than qwen2: it takes", "run `mondai compile --model qwen2`"],
    );
    let same_shapes = "is not what is written for gguf-llama3-rope now (HLO";
    check_refused(sound(), "gguf-llama3-rope.gguf", &[same_shapes, "or of a model of the same shapes"]);

    for (place, value, found) in [
        ("/precision", "f32".into(), "3 slots of 64 in f32 for inf2 with --lnc=1"),
        ("/sampling", "device".into(), "in bf16 for inf2 with --lnc=1 and --sampling device"),
        ("/cache/slots", 4.into(), "4 slots of 64 in bf16"),
        ("/cache/context", 128.into(), "3 slots of 128 in bf16"),
        ("/compiled/target", "trn2".into(), "in bf16 for trn2"),
        ("/compiled/lnc", 2.into(), "with --lnc=2"),
    ] {
        let folder = copied();
        edit(folder.path(), place, value);
        check_refused(folder.path(), "llama", &["short-rows-3x8x64.json", "share these", found]);
    }

    for (place, value, expected) in [
        ("/hlo_sha256", "00".into(), "is not what is written for llama now (HLO 00, expected"),
        ("/cache/context", 257.into(), "a context of 257, longer than the 256 of the model llama"),
        ("/cache/context", u64::MAX.into(), "longer than the 256"),
        ("/cache/slots", u64::MAX.into(), "more rows than 2^24"),
        ("/cache/slots", 4.into(), "it takes `layers.0.cache.keys.must_alias_input` of bf16 4 x 2 x 64 x 8"),
        ("/inputs/0/is", "weight".into(), "its description does not follow"),
        ("/outputs/0/name", "other".into(), "its description does not follow"),
        ("/compiled/compiler", "other".into(), "its key does not follow"),
        ("/compiled/flags/0", "-O3".into(), "its key does not follow"),
        ("/compiled", Value::Null, "of HLO that was not compiled"),
        ("/bucket/context", 63.into(), "is of the bucket 1x1x63, not of what its name says"),
        ("/compiled/neff_sha256", "00".into(), "is damaged: SHA-256"),
        ("/inputs/0/shape/0", (-1).into(), "is not what `mondai compile` writes"),
        ("/compiled/target", "inf1".into(), "is not what `mondai compile` writes"),
    ] {
        check_refused(edited(place, value).path(), "llama", &["decode-1x1x64", expected]);
    }
    let precision = edited("/precision", "f32".into());
    check_refused(precision.path(), "llama", &["is of another model than llama: it takes", "bf16"]);
}

#[test]
fn a_failing_compiler_is_heard_and_leaves_nothing_half_made() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = ["--bucket=1x1x64", "--bucket=3x1x64", "--jobs=1"];
    let mut command = compile("llama", folder, &args);
    command.env("FAKE_NEURONX_CC_FAIL", "[NCC_ETEST] the graph is not to its liking");
    let error = failure(command);
    let folder_said = folder.canonicalize().unwrap();
    for expected in [
        "mondai: decode-1x1x64 was not compiled: neuronx-cc ended with exit status: 70\n",
        "    [ERROR] [NCC_ETEST] the graph is not to its liking\n    Compiler status ERROR\n",
        &format!("all that it said: {}\n", folder_said.join("decode-1x1x64.log").display()),
        &format!("what it was given, and left: {}", folder_said.join(".compile-decode-1x1x64").display()),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    // Nor was another begun.
    assert_eq!(files(folder), [".compile-decode-1x1x64", "decode-1x1x64.log"]);
    assert!(folder.join(".compile-decode-1x1x64/decode-1x1x64.hlo.pb").is_file());
    check_refused(folder, "llama", &["no compiled programs"]);

    assert_eq!(compiled("llama", folder, &args).len(), 2);
    assert_eq!(files(folder).len(), 6);

    // A program that was there stays until there is another in its place.
    let mut command = compile("llama", folder, &["--slots=2", "--bucket=1x1x64"]);
    command.env("FAKE_NEURONX_CC_FAIL", "no");
    failure(command);
    assert_eq!(programs(folder), ["1x1x64", "3x1x64"]);
}

/// A program in the place of the compiler.
fn script(folder: &Path, version: &str, lines: &str) -> PathBuf {
    let path = folder.join("compiler");
    // Written by another process: a file that this one has open while a test beside it forks cannot be run.
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let script = format!("#!/bin/sh\nif [ $1 = --version ]; then {version}; exit; fi\n{lines}\n");
    writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    path
}

#[test]
fn a_compiler_that_is_not_there_or_does_no_work_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("output");
    let with = |variable: &str, value: &Path| {
        let mut command = compile("llama", &output, &["--bucket=1x1x64"]);
        command.env_remove("MONDAI_NEURONX_CC").env("PATH", folder.path()).env(variable, value);
        failure(command)
    };
    let error = with("MONDAI_BACKEND", Path::new("cpu"));
    let looked = format!("is in no folder of PATH ({})", folder.path().display());
    for expected in [looked.as_str(), "AWS's Neuron setup guide", "--neuronx-cc or MONDAI_NEURONX_CC"] {
        assert!(error.contains(expected), "{error}");
    }
    let error = with("MONDAI_NEURONX_CC", &folder.path().join("missing"));
    assert!(
        error.contains("missing, named as the Neuron compiler by environment MONDAI_NEURONX_CC"),
        "{error}"
    );
    assert!(!output.exists());

    for (lines, expected) in [
        ("exit 0", "ended well, but what it wrote is not a NEFF: it cannot be read"),
        ("while [ $1 != --output ]; do shift; done; echo NEFF > $2", "not a NEFF: its size is 5"),
        ("kill -9 $$", "ended with signal: 9 (SIGKILL); if the machine ran out of memory, --jobs 1"),
    ] {
        let mut command = compile("llama", &output, &["--bucket=1x1x64", "--neuronx-cc"]);
        command.arg(script(folder.path(), "echo 1", lines));
        let error = failure(command);
        assert!(error.contains(expected), "{error}");
        assert_eq!(files(&output), [".compile-decode-1x1x64", "decode-1x1x64.log"]);
    }
    for (version, expected) in [
        ("echo no Python; exit 1", "compiler --version ended with exit status: 1, and said: no Python"),
        ("true", "compiler --version ended with exit status: 0, and said: nothing"),
    ] {
        let mut command = compile("llama", &output, &["--bucket=1x1x64", "--neuronx-cc"]);
        command.arg(script(folder.path(), version, ""));
        let error = failure(command);
        assert!(error.contains(expected), "{error}");
        assert_eq!(files(&output), ["decode-1x1x64.log"]);
    }
}

/// What the compiler started ends with it, too.
#[test]
fn an_interrupt_ends_the_compilers_processes() {
    const LONG: Duration = Duration::from_secs(600);
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Both hold the pipe open as long as they live.
    let lines = format!("exec 3> {}\nsleep {} &\necho started >&3\nwait", pipe.display(), LONG.as_secs());
    let compiler = script(folder.path(), "echo 1", &lines);
    let output = folder.path().join("output");
    let began = Instant::now();
    let mut command = compile("llama", &output, &["--bucket=1x1x64", "--neuronx-cc"]);
    let mondai = command.arg(compiler).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    let mut pipe = BufReader::new(fs::File::open(pipe).unwrap());
    let mut line = String::new();
    pipe.read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    let other = compile("llama", &output, &["--bucket=1x1x64"]);
    assert!(failure(other).contains("another `mondai compile` is at work in"));
    assert!(Command::new("kill").args(["-INT", &mondai.id().to_string()]).status().unwrap().success());

    let Output { status, stderr, .. } = mondai.wait_with_output().unwrap();
    assert!(!status.success());
    assert!(text(stderr).ends_with("mondai: stopped; the programs that were compiled by then are kept\n"));
    assert_eq!(pipe.read_line(&mut line).unwrap(), 0, "the pipe has ended");
    assert!(began.elapsed() < LONG, "nobody waited for them");
    assert_eq!(files(&output), ["decode-1x1x64.log"]);
}

#[test]
fn compile_wants_to_know_what_to_write() {
    let mondai = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mondai"));
        command.arg("compile").args(args);
        failure(command)
    };
    for (args, expected) in [
        (&[][..], "--target <TARGET>"),
        (&["--emit-only"], "--output <DIR>"),
        (&["--emit-only", "--output=x", "--target=inf2"], "cannot be used with"),
        (&["--target=inf1"], "there is no target `inf1` (there is: inf2, trn1, trn1n, trn2, trn3), or onnx"),
        (&["--target=onnx"], "--output"),
        (&["--target=onnx", "--output=x", "--slots=2"], "--target onnx has one model"),
        (&["--target=inf2", "--jobs=0"], "0 is not in 1.."),
    ] {
        let error = mondai(args);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_neff_is_inspected_without_a_device() {
    let folder = copied();
    let path = folder.path().join(NEFF);
    let inspect = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_mondai")).arg("inspect").arg(&path).args(args).output().unwrap()
    };
    let printed = text(inspect(&[]).stdout);
    let bytes = fs::metadata(&path).unwrap().len();
    let printed = without_hashes(&printed)
        .replace(&*folder.path().to_string_lossy(), "programs")
        // What a version of the packer makes of it.
        .replace(&bytes.to_string(), "[BYTES]")
        .replace(&(bytes - 1024).to_string(), "[BYTES]");
    insta::assert_snapshot!("inspect_of_a_neff", printed);

    let json: Value = serde_json::from_slice(&inspect(&["--format", "json"]).stdout).unwrap();
    assert_eq!(json["bytes"], bytes);
    assert_eq!(json["header"]["packing"], "gzip");
    assert_eq!(json["program"]["compiled"]["target"], "inf2");
    let archive = json["archive"].as_array().unwrap();
    let members: BTreeMap<_, _> =
        archive.iter().map(|member| (member["name"].as_str().unwrap(), &member["bytes"])).collect();
    assert!(members.contains_key("neff.json"), "{members:?}");

    fs::remove_file(folder.path().join(JSON)).unwrap();
    assert!(text(inspect(&[]).stdout).contains("What its inputs and outputs are is not in it"));
    let mut damaged = fs::read(&path).unwrap();
    damaged[1100] ^= 0xff;
    fs::write(&path, &damaged).unwrap();
    let error = text(inspect(&[]).stderr);
    assert!(error.contains(NEFF) && error.contains("because: its archive is damaged"), "{error}");
    fs::write(&path, &damaged[..500]).unwrap();
    let error = text(inspect(&[]).stderr);
    assert!(error.contains("because: its size is 500; a NEFF's is more than 1024 bytes"), "{error}");
}

fn without_hashes(text: &str) -> String {
    let word = |word: &str| {
        let is_hash = word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash { format!("[{} digits]", word.len()) } else { word.to_owned() }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(|l| line(l) + "\n").collect()
}
