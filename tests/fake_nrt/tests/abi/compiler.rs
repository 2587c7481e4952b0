//! The stand-in compiler, through its command line.

use crate::{
    library::compiler,
    program::{Proto, instruction, module_with, shape},
};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const S64: i64 = 5;
const F32: i64 = 11;

fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(compiler())
        .current_dir(folder)
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

const LINE: [&str; 13] = [
    "compile",
    "cell.pb",
    "--framework",
    "XLA",
    "--target=inf2",
    "--model-type=transformer",
    "--auto-cast=none",
    "-O2",
    "--lnc=1",
    "--output",
    "cell.neff",
    "--internal-hlo2tensorizer-options=--verify-hlo=true",
    "--verbose=INFO",
];

#[test]
fn a_module_is_packed_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cell.pb"), module_with(&[])).unwrap();
    let neffs = [(); 2].map(|()| {
        let output = run(folder.path(), &LINE, &[]);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Compiler status PASS"));
        fs::read(folder.path().join("cell.neff")).unwrap()
    });
    assert_eq!(neffs[0], neffs[1]);
    assert_eq!((neffs[0][0], &neffs[0][1024..1026]), (2, [0x1f, 0x8b].as_slice()));
    assert!(!folder.path().join("sg00").exists());
    assert!(folder.path().join("log-neuron-cc.txt").exists());
}

/// What the compiler says of the module with these instructions in it.
fn refusal(more: &[Proto]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cell.pb"), module_with(more)).unwrap();
    let output = run(folder.path(), &LINE, &[]);
    assert!(!folder.path().join("cell.neff").exists());
    assert!(!folder.path().join("sg00").exists());
    assert_eq!(output.status.code(), Some(70));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn modules_that_xla_takes_and_the_compiler_does_not_are_refused() {
    #[track_caller]
    fn check(more: &[Proto], expected: &str) {
        let error = refusal(more);
        assert!(error.contains(expected), "{error}");
    }
    let rows = || shape(F32, &[2, 16]);
    check(&[instruction(1 << 31, "copy", rows(), &[25])], "Instruction with id > INT_MAX: 2147483648");
    check(&[instruction(1, "negate", rows(), &[25])], "the id 1 is taken elsewhere");
    let reduced = instruction(80, "reduce", rows(), &[25, 25, 14, 14]).integer(38, 1);
    check(&[reduced], "[NCC_ISPP027]");
    check(&[instruction(80, "convert", shape(S64, &[2]), &[11])], "64-bit type");
    let literal = Proto::default().message(1, shape(F32, &[])).bytes(8, &f32::NEG_INFINITY.to_le_bytes());
    check(&[instruction(80, "constant", shape(F32, &[]), &[]).message(8, literal)], "not finite");
    check(&[instruction(80, "fft", rows(), &[25])], "Operator fft is not supported");
    check(&[instruction(80, "copy", rows(), &[81])], "does not come before it");
    check(&[instruction(80, "copy", rows().integers(6, &[1]), &[25])], "dynamic");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cell.pb"), b"no module").unwrap();
    assert_eq!(run(folder.path(), &LINE, &[]).status.code(), Some(70));
}

#[test]
fn it_fails_when_it_is_told_to_and_where_another_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cell.pb"), module_with(&[])).unwrap();
    let output =
        run(folder.path(), &LINE, &[("FAKE_NEURONX_CC_FAIL", "[NCC_EBVF030] too many instructions")]);
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("[NCC_EBVF030] too many instructions"));
    fs::create_dir(folder.path().join("sg00")).unwrap();
    let output = run(folder.path(), &LINE, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("a working directory of its own"));
}

#[test]
fn it_says_what_it_is_and_what_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let version = run(folder.path(), &["--version"], &[]);
    let version = String::from_utf8(version.stdout).unwrap();
    assert!(version.starts_with("NeuronX Compiler version 2.") && version.contains("simulated"), "{version}");
    let operators = run(folder.path(), &["list-operators", "--framework", "XLA"], &[]);
    assert!(String::from_utf8_lossy(&operators.stdout).lines().any(|operator| operator == "scatter"));
    let output = run(
        folder.path(),
        &["compile", "a.pb", "--framework", "XLA", "--target", "inf2", "--frobnicate"],
        &[],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unrecognized arguments: --frobnicate"));
}
