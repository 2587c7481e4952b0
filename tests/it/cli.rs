//! The command line, by the real binary: help, settings, errors, and what it does on SIGTERM.

use crate::served::Served;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

const MODEL: &str = "smollm2-135m-instruct";

fn mondai(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mondai"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    mondai(args).output().expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it speaks UTF-8")
}

fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Runs it, expects it to fail, and returns what it said.
fn failure(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
    assert_eq!(text(&output.stdout), "", "{args:?}");
    text(&output.stderr).to_owned()
}

#[test]
fn help() {
    for (name, args) in [
        ("help", &["--help"][..]),
        ("help-serve", &["serve", "--help"]),
        ("help-generate", &["generate", "--help"]),
        ("help-inspect", &["inspect", "--help"]),
        ("help-bench", &["bench", "--help"]),
        ("help-compile", &["compile", "--help"]),
    ] {
        insta::assert_snapshot!(name, stdout(args));
    }
}

#[test]
fn settings_say_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mondai.toml");
    std::fs::write(&file, "port = 9000\nslots = 2\nlog_format = 'json'\n").unwrap();
    let path = file.to_str().unwrap();
    let output = mondai(&["serve", "--print-config", "--config", path, "--slots", "3"])
        .env("MONDAI_PORT", "9001")
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    let line = |name: &str| {
        printed
            .lines()
            .find(|line| line.starts_with(name))
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(line("port").as_deref(), Some("port = 9001 # environment MONDAI_PORT"));
    assert_eq!(line("slots").as_deref(), Some("slots = 3 # flag"));
    assert_eq!(line("log_format"), Some(format!("log_format = json # file {path}")));
    assert_eq!(line("host").as_deref(), Some("host = 127.0.0.1 # default"));

    std::fs::write(&file, "prot = 9000\n").unwrap();
    let error = failure(&["serve", "--print-config", "--config", path]);
    assert_eq!(error, format!("mondai: {path}: unknown setting `prot`\n"));
}

#[test]
fn errors_name_what_is_wrong() {
    for (args, expected) in [
        (&["serve", "--model", "no-such-model"][..], "no-such-model"),
        (&["serve", "--backend", "abacus"], "abacus"),
        (&["serve", "--log-level", "a=b=c"], "log_level"),
        (&["serve", "--host", "256.0.0.1"], "256.0.0.1"),
        (&["serve", "--adapter", "no-such-adapter"], "no-such-adapter"),
        (&["generate"], "--topic"),
        (&["generate", "--topic", "a", "--source", "b"], "--source"),
        (&["generate", "--topic", "a", "--count", "0"], "count"),
        (&["generate", "--topic", "a", "--kind", "riddle"], "kind"),
        (&["generate", "--source", "no-such-file.txt"], "no-such-file.txt"),
        (&["inspect", "no-such-model"], "no-such-model"),
        (&["bench", "--compare", "a", "b"], "NAME=TARGET"),
        (&["bench", "--compare", "a=cpu", "a=candle"], "a is there twice"),
        (&["bench", "--goodput", "ttft:soon"], "soon"),
        (&["bench", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
        (&["bench", "abacus"], "abacus"),
        (&["bench", "--instance", "c7i.tiny"], "c7i.xlarge"),
    ] {
        let said = failure(args);
        assert!(said.contains(expected), "{args:?} said {said}");
        assert!(!said.contains("panicked"), "{args:?} said {said}");
    }
}

#[test]
fn a_model_is_inspected() {
    let printed = stdout(&["inspect", MODEL]);
    for part in ["architecture        llama", "vocab_size          49152", "token_embd.weight", "Totals"] {
        assert!(printed.contains(part), "no {part:?} in {printed}");
    }
    let document: Value = serde_json::from_str(&stdout(&["inspect", MODEL, "--format", "json"])).unwrap();
    assert_eq!(document["config"]["layers"], 30);
    assert_eq!(document["totals"]["types"]["Q4_1"]["tensors"], 210);
    let tensors = document["tensors"].as_array().unwrap();
    assert_eq!(document["totals"]["tensors"], tensors.len());
    let bytes: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    assert_eq!(document["totals"]["bytes"], bytes);
}

#[test]
fn a_quiz_is_generated_from_standard_input() {
    let source = "Honey bees dance to tell each other where flowers are. The dance was described by Karl von \
        Frisch in 1927. A hive holds about 50,000 bees in summer.";
    let mut child = mondai(&["generate", "--source", "-", "--count", "1", "--kind", "true_false"])
        .args(["--seed", "3", "--format", "ndjson", "--slots", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let events: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let delivered = events.iter().filter(|event| event["type"] == "question.completed").count();
    // Whether this model finds a question is not this test's subject; that it says so is.
    assert_eq!(output.status.success(), delivered > 0, "{}", text(&output.stderr));
    assert_eq!(events.first().map(|event| &event["type"]), Some(&json!("quiz.created")));
    assert_eq!(events.last().map(|event| &event["delivered"]), Some(&json!(delivered)));
}

#[test]
fn requests_in_flight_are_finished_after_sigterm() {
    let served = Served::start(&["--slots", "1", "--context-len", "512"]);
    let address = served.url.strip_prefix("http://").unwrap().to_owned();
    let body = json!({
        "messages": [{"role": "user", "content": "Count to a hundred."}],
        "stream": true, "temperature": 0, "max_tokens": 150, "ignore_eos": true,
    })
    .to_string();
    let mut client = TcpStream::connect(&address).unwrap();
    write!(
        client,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut reader = BufReader::new(client);
    let mut stream = String::new();
    while !stream.contains("\"role\":\"assistant\"") {
        assert!(reader.read_line(&mut stream).unwrap() > 0, "it ended early: {stream}");
    }

    // Sends the signal, and waits for an exit without error.
    let ended = std::thread::spawn(move || served.terminate());
    // No new connections: each is refused, or closed unanswered, or told to go elsewhere.
    let mut refused = false;
    for _ in 0..2000 {
        if TcpStream::connect(&address).is_err() {
            refused = true;
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(refused, "it still takes connections");

    reader.read_to_string(&mut stream).unwrap();
    assert!(stream.contains("data: [DONE]"), "{stream}");
    assert!(stream.contains("\"finish_reason\":\"length\""), "not all 150 tokens: {stream}");
    ended.join().unwrap();
}
