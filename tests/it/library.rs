//! Libraries of passages: filled and shown on the command line, asked about over HTTP, and the one that
//! ships. The model is scripted: what it is given to ask about is this theme's subject, not how it asks.

use crate::default_model::{MODEL, NAME};
use crate::http::{http_options, without_circumstances};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use mondai::backend::Limits;
use mondai::backend::scripted::ScriptedBackend;
use mondai::engine::{Engine, EngineOptions};
use mondai::generation::Generator;
use mondai::http::{AppState, router};
use mondai::library::{Document, Library, LibraryWriter};
use mondai::metrics::Metrics;
use mondai::quiz::{QUIZ_SCHEMA, QuizService};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tower::ServiceExt;

/// Runs `mondai library` in a folder; whether it went well, and what it said on both streams.
fn library(folder: &Path, args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mondai"));
    let output = command.arg("library").args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it speaks UTF-8");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn check_ok(folder: &Path, args: &[&str]) -> String {
    let (ok, said, errors) = library(folder, args);
    assert!(ok, "{args:?}: {errors}");
    said
}

/// Expects an error with all of `parts` in it.
fn check_error(folder: &Path, args: &[&str], parts: &[&str]) {
    let (ok, said, errors) = library(folder, args);
    assert!(!ok && said.is_empty(), "{args:?}: {said}");
    for part in parts {
        assert!(errors.contains(part), "{args:?} said {errors}");
    }
    assert!(!errors.contains("panicked"), "{args:?} said {errors}");
}

fn notes() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    fs::create_dir(folder.path().join("notes")).unwrap();
    write("notes/glass.md", "# How *glass* is made\n\nGlass is made of sand, and the furnace is hot.\n");
    write("notes/salt.html", "<title>Salt</title><p>Salt was the pay of the <b>soldiers</b> of Rome.</p>");
    write("notes/picture.png", "no text");
    let record =
        json!({"id": "himeji", "title": "姫路城", "text": "姫路城は日本の城である。", "licence": "CC0-1.0"});
    write("castles.jsonl", &format!("{record}\n"));
    folder
}

#[test]
fn files_are_added_listed_and_found() {
    let folder = notes();
    let at = folder.path();
    let add = ["add", "notes", "castles.jsonl", "--library", "lib", "--licence", "CC-BY-4.0"];
    let (ok, _, said) = library(at, &add);
    assert!(
        ok && said.contains("3 documents, 3 passages") && said.contains("1 files of other kinds"),
        "{said}"
    );

    let listed = check_ok(at, &["list", "--library", "lib"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(
        listed.lines().any(|line| line.contains("himeji") && line.contains("ja") && line.contains("CC0-1.0"))
    );
    assert!(listed.lines().any(|line| line.contains("How glass is made") && line.contains("CC-BY-4.0")));
    let found = check_ok(at, &["search", "soldiers of Rome", "--library", "lib"]);
    assert!(found.contains("Salt was the pay of the soldiers of Rome."), "{found}");
    check_ok(at, &["search", "日本の城", "--language", "ja", "--library", "lib"]);
    check_error(at, &["search", "chess", "--library", "lib"], &["no passage", "chess"]);

    // The same files from elsewhere, one of them changed: replaced, not doubled.
    fs::write(
        at.join("notes/salt.html"),
        "<title>Salt</title><p>Salt is one of the minerals of the sea.</p>",
    )
    .unwrap();
    check_ok(
        &at.join("notes"),
        &["add", ".", "../castles.jsonl", "--library", "../lib", "--licence", "CC-BY-4.0"],
    );
    assert_eq!(check_ok(at, &["list", "--library", "lib"]), listed);
    check_error(at, &["search", "soldiers of Rome", "--library", "lib"], &["no passage"]);
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let folder = notes();
    let at = folder.path();
    fs::write(at.join("empty.txt"), "").unwrap();
    fs::write(at.join("binary.txt"), b"\x7fELF\0\0").unwrap();
    fs::write(at.join("bad.jsonl"), "{\"text\":\"fine\"}\n{\"title\":\"no text\"}\n").unwrap();
    let add = |files: &[&'static str]| [&["add"], files, &["--library", "lib"]].concat();
    check_error(at, &add(&["nowhere.txt"]), &["nowhere.txt"]);
    check_error(at, &add(&["notes/picture.png"]), &["picture.png", ".jsonl"]);
    check_error(
        at,
        &add(&["castles.jsonl", "empty.txt"]),
        &["empty.txt", "leave it out", "nothing was added"],
    );
    check_error(at, &add(&["binary.txt"]), &["binary.txt", "binary"]);
    check_error(at, &add(&["castles.jsonl", "bad.jsonl"]), &["bad.jsonl:2", "text"]);
    check_error(at, &["add", "castles.jsonl"], &["--library"]);
    check_error(at, &["add", "castles.jsonl", "--library", "notes"], &["notes", "another folder"]);
    check_error(at, &["add", "castles.jsonl", "--library", "lib", "--language", "英語"], &["英語"]);
    // Whatever went wrong, what had been read before it was not added.
    assert_eq!(check_ok(at, &["list", "--library", "lib"]), "");

    check_error(at, &["list", "--library", "nowhere"], &["nowhere", "mondai library add"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mondai"));
    let serve = command.args(["serve", "--library", "nowhere"]).current_dir(at).output().unwrap();
    let said = String::from_utf8_lossy(&serve.stderr).into_owned();
    assert!(
        !serve.status.success() && said.contains("nowhere") && said.contains("mondai library add"),
        "{said}"
    );
}

#[test]
fn a_crash_in_the_middle_of_adding_loses_nothing() {
    let folder = notes();
    let at = folder.path();
    check_ok(at, &["add", "notes", "--library", "lib"]);
    let before = check_ok(at, &["list", "--library", "lib"]);

    let pipe = at.join("endless.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = Command::new(env!("CARGO_BIN_EXE_mondai"))
        .args(["library", "add", "castles.jsonl", "endless.jsonl", "--library", "lib"])
        .current_dir(at)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Opens when it is read: everything before it has been added by then.
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    writer.write_all(b"{\"text\":\"The kettle boils.\"}\n").unwrap();
    check_error(at, &["add", "castles.jsonl", "--library", "lib"], &["another process", "lib"]);
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(check_ok(at, &["list", "--library", "lib"]), before);
    check_ok(at, &["add", "castles.jsonl", "--library", "lib"]);
    assert_eq!(check_ok(at, &["list", "--library", "lib"]).lines().count(), before.lines().count() + 1);
}

const SENTENCE: &str = "The volcano Zorbula erupted in 1875 and buried the town of Kessel.";

/// A server whose library has one sentence, and whose model says this after every prompt.
fn server(library: Option<Library>, reply: &Value) -> Router {
    let limits =
        Limits { vocab_size: MODEL.graph.vocab_size(), context_len: 1024, ..ScriptedBackend::small_limits() };
    let backend = ScriptedBackend::new(limits);
    let control = backend.control();
    let metrics = Arc::new(Metrics::new(NAME));
    let engine = Engine::start(Box::new(backend), EngineOptions::default(), Arc::clone(&metrics));
    let generator = Generator::new(&MODEL, engine).unwrap();
    let tokenizer = generator.tokenizer();
    let mut tokens = tokenizer.encode_plain(&reply.to_string());
    tokens.push(tokenizer.end_tokens()[0]);
    control.reply(&tokenizer.encode("<|im_start|>assistant\n"), &tokens);
    let mut quizzes = QuizService::new(generator.clone(), Arc::clone(&metrics));
    if let Some(library) = library {
        quizzes = quizzes.with_library(library);
    }
    router(AppState::new(generator, quizzes, metrics, http_options()))
}

fn zorbula(folder: &Path) -> Library {
    let document = Document {
        id: "zorbula".to_owned(),
        title: "Zorbula".to_owned(),
        language: "en".to_owned(),
        licence: Some("CC-BY-SA-4.0".to_owned()),
        source: Some("A traveller's notes".to_owned()),
        text: SENTENCE.to_owned(),
    };
    let mut writer = LibraryWriter::open(folder).unwrap();
    writer.add(&document).unwrap();
    writer.commit().unwrap();
    Library::open(folder).unwrap()
}

async fn quiz(server: &Router, request: &Value) -> Value {
    let request = Request::post("/v1/quizzes").body(Body::from(request.to_string())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let mut quiz: Value = serde_json::from_slice(&body).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(QUIZ_SCHEMA).unwrap()).unwrap();
    let errors: Vec<String> = schema.iter_errors(&quiz).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {quiz:#}");
    let fields = quiz.as_object_mut().unwrap();
    fields.remove("created");
    fields.remove("timings");
    quiz
}

/// What the model says of [`SENTENCE`].
fn grounded_reply() -> Value {
    json!({"evidence": SENTENCE, "answer": "Kessel", "question": "Which town did an eruption bury?"})
}

#[tokio::test]
async fn a_topic_that_the_library_knows_is_grounded_and_cited() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(Some(zorbula(folder.path())), &grounded_reply());
    let request = json!({"topic": "volcanoes", "count": 1, "kind": "short_answer", "seed": 5});
    let quiz = quiz(&server, &request).await;
    let item = &quiz["items"][0];
    assert_eq!(
        (&item["status"], &item["answer"]["text"]),
        (&json!("grounded"), &json!("Kessel")),
        "{quiz:#}"
    );
    let expected = json!({
        "title": "Zorbula", "licence": "CC-BY-SA-4.0", "source": "A traveller's notes", "passage": SENTENCE,
    });
    assert_eq!(item["citation"], expected);
    let place = json!({"text": SENTENCE, "start": 0, "end": SENTENCE.chars().count()});
    assert_eq!(item["evidence"], place);
}

#[tokio::test]
async fn a_topic_that_the_library_does_not_know_comes_from_memory_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let reply = json!({"answer": "Mozart", "question": "Who wrote the Magic Flute?", "explanation": "He did so in 1791."});
    let server = server(Some(zorbula(folder.path())), &reply);
    for request in [
        json!({"topic": "opera", "count": 1, "kind": "short_answer", "seed": 5}),
        // The library's only passage is in English.
        json!({"topic": "Zorbula", "language": "fr", "count": 1, "kind": "short_answer", "seed": 5}),
    ] {
        let quiz = quiz(&server, &request).await;
        let item = &quiz["items"][0];
        assert_eq!(item["status"], "unverified", "{quiz:#}");
        assert_eq!((item.get("citation"), item.get("evidence")), (None, None));
    }
}

#[tokio::test]
async fn a_source_is_asked_about_as_if_there_were_no_library() {
    let folder = tempfile::tempdir().unwrap();
    let request = json!({"source": SENTENCE, "count": 2, "kind": "short_answer", "seed": 5});
    let with = quiz(&server(Some(zorbula(folder.path())), &grounded_reply()), &request).await;
    let without = quiz(&server(None, &grounded_reply()), &request).await;
    assert_eq!(without_circumstances(with.clone()), without_circumstances(without));
    assert!(with["items"][0].get("citation").is_none(), "{with:#}");
}

/// What people ask about first, and, in the last two, nothing that there is.
const TOPICS: &[(&str, &str)] = &[
    ("volcanoes", "en"),
    ("rivers", "en"),
    ("the French Revolution", "en"),
    ("musical instruments", "en"),
    ("music", "en"),
    ("composers", "en"),
    ("chemistry", "en"),
    ("the periodic table", "en"),
    ("Japan", "en"),
    ("the flag of Kenya", "en"),
    ("the Amazon rainforest", "en"),
    ("prime numbers", "en"),
    ("the Apollo program", "en"),
    ("Nikola Tesla", "en"),
    ("deserts", "en"),
    ("mountains", "en"),
    ("bread", "en"),
    ("bridges", "en"),
    ("planets", "en"),
    ("World War II", "en"),
    ("Roman emperors", "en"),
    ("painters", "en"),
    ("diseases", "en"),
    ("dogs", "en"),
    ("birds", "en"),
    ("dance", "en"),
    ("the capital of Peru", "en"),
    ("oxygen", "en"),
    ("日本の城", "ja"),
    ("火山", "ja"),
    ("音楽", "ja"),
    ("江戸時代", "ja"),
    ("漢字", "ja"),
    ("ブラジル", "ja"),
    ("手塚治虫", "ja"),
    ("zxqv blorptastic", "en"),
    ("ゔゔぬぬぺぺ", "ja"),
];

#[test]
fn the_shipped_library_knows_ordinary_topics() {
    let library = Library::shipped();
    let (known, nonsense) = TOPICS.split_at(TOPICS.len() - 2);
    for (topic, language) in known {
        let found = library.find(topic, language, 5).unwrap();
        let titles: Vec<&str> = found.passages.iter().map(|passage| passage.title.as_str()).collect();
        eprintln!("{topic}: {titles:?}");
        assert!(!titles.is_empty(), "nothing on {topic}");
        assert!(found.passages.iter().all(|passage| passage.licence.is_some() && passage.source.is_some()));
    }
    for (topic, language) in nonsense {
        assert_eq!(library.find(topic, language, 5).unwrap().passages, [], "{topic}");
    }
}
