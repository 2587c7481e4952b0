//! Token ids and prompts against the references' (`scripts/golden_text.py` wrote the fixtures), and
//! vocabularies that are wrong.

use super::special_tokens::SpecialTokens;
use super::tokenizer::Parts;
use super::{ChatMessage, ChatTemplate, Detokenizer, TextError, TokenId, Tokenizer};
use super::{gguf_tokenizer, json_tokenizer};
use crate::model::{GgufMetadata, MetadataValue};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn fixture<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name);
    let json = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn from_gguf(metadata: &GgufMetadata) -> Result<Tokenizer, String> {
    Tokenizer::from_parts(gguf_tokenizer::read(metadata), "test").map_err(|error| error.to_string())
}

fn check_ids(tokenizer: &Tokenizer, texts: &[String], expected: &[Vec<TokenId>]) {
    assert_eq!(texts.len(), expected.len());
    for (text, expected) in texts.iter().zip(expected) {
        assert_eq!(tokenizer.encode(text), *expected, "{text:?}");
    }
}

/// A vocabulary of another family, cut down to what the corpus needs, as both kinds of file.
#[derive(Deserialize)]
struct Family {
    tokenizer: Value,
    gguf: serde_json::Map<String, Value>,
    ids: Vec<Vec<TokenId>>,
}

fn check_family(name: &str, end_tokens: &[&str]) {
    let family: Family = fixture(name);
    let texts: Vec<String> = fixture("corpus.json");
    let json = serde_json::to_vec(&family.tokenizer).unwrap();
    let from_json = Tokenizer::from_json(&json, end_tokens).unwrap();
    let entries =
        family.gguf.iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), metadata_value(value)));
    let from_gguf = from_gguf(&gguf(entries)).unwrap();
    check_ids(&from_json, &texts, &family.ids);
    check_ids(&from_gguf, &texts, &family.ids);

    assert_eq!(from_json.vocab_size(), from_gguf.vocab_size());
    assert_eq!(from_json.end_tokens(), from_gguf.end_tokens());
    for id in 0..from_json.vocab_size() as TokenId {
        let both = [&from_json, &from_gguf];
        let [one, other] = both.map(|t| (t.token_text(id), t.token_bytes(id), t.is_special(id)));
        assert_eq!(one, other, "token {id}");
    }
}

#[test]
fn llama3() {
    check_family("llama3.json", &["<|end_of_text|>", "<|eot_id|>"]);
}

#[test]
fn qwen3() {
    check_family("qwen3.json", &["<|endoftext|>", "<|im_end|>"]);
}

#[test]
fn mistral() {
    check_family("mistral.json", &["</s>"]);
}

#[test]
fn pre_tokenizers() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    let default_model = GgufMetadata::read(&model)
        .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"));
    let texts: Vec<String> = fixture("corpus.json");
    let golden: serde_json::Map<String, Value> = fixture("pre_tokenizers.json");
    for (pre, ids) in golden {
        let entries = default_model.iter().map(|(key, value)| match key {
            "tokenizer.ggml.pre" => (key.to_owned(), MetadataValue::String(pre.clone())),
            _ => (key.to_owned(), value.clone()),
        });
        let ids: Vec<Vec<TokenId>> = serde_json::from_value(ids).unwrap();
        check_ids(&from_gguf(&gguf(entries)).unwrap(), &texts, &ids);
    }
}

/// What transformers renders with one template.
#[derive(Deserialize)]
struct Renderings {
    template: String,
    #[serde(default)]
    special_tokens: SpecialTokens,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Chat {
    name: String,
    messages: Vec<ChatMessage>,
    prompt: Option<String>,
    refusal: Option<String>,
}

#[test]
fn chat_templates_render_as_in_transformers() {
    let fixtures: Vec<Renderings> = fixture("chat_templates.json");
    // The default model's own template is tested through `ChatTemplate::open`.
    for Renderings { template: name, special_tokens, chats } in
        fixtures.into_iter().filter(|fixture| fixture.template != "smollm2")
    {
        let path = format!("{}/tests/fixtures/text/templates/{name}.jinja", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(path).unwrap();
        let template = ChatTemplate::parse(&source, special_tokens).unwrap();
        for chat in chats {
            match (template.render(&chat.messages), chat.refusal) {
                (Ok(prompt), None) => assert_eq!(Some(prompt), chat.prompt, "{name}: {}", chat.name),
                (Err(TextError::Template { reason }), Some(refusal)) => assert_eq!(reason, refusal),
                (result, refusal) => panic!("{name}: {}: {result:?}, not {refusal:?}", chat.name),
            }
        }
    }
}

/// A small vocabulary of GGUF metadata, with `changes` made to it; `null` takes a key away.
fn changed_gguf(changes: Value) -> Result<Tokenizer, String> {
    let mut entries = json!({
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["<end>", "a", "b", "ab", "Ġ", "<tool>", "[PAD6]"],
        "token_type": [3, 1, 1, 1, 1, 4, 5],
        "merges": ["a b"],
        "scores": [0, -2, -3, -1, -4, 0, 0],
        "eos_token_id": 0,
    });
    for (key, value) in changes.as_object().unwrap() {
        entries[key] = value.clone();
    }
    let entries = entries.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    from_gguf(&gguf(entries.map(|(key, value)| (format!("tokenizer.ggml.{key}"), metadata_value(value)))))
}

fn check_refused(changes: Value, reason: &str) {
    let error = changed_gguf(changes.clone()).err().unwrap_or_else(|| panic!("{changes} is accepted"));
    assert!(error.contains(reason), "{changes}: {error}");
}

#[test]
fn token_types() {
    let tokenizer = changed_gguf(json!({})).unwrap();
    assert_eq!(tokenizer.encode("ab ba<end><tool>"), [3, 4, 2, 1, 0, 5]);
    assert_eq!(tokenizer.encode_plain("ab<end><tool>a"), [3, 5, 1]);
    let bytes = |id| std::str::from_utf8(tokenizer.token_bytes(id)).unwrap();
    assert_eq!([0, 3, 4, 5, 6, 7].map(bytes), ["", "ab", " ", "<tool>", "", ""]);
    assert_eq!(tokenizer.special_texts().collect::<Vec<_>>(), ["<end>"]);
    assert_eq!((tokenizer.bos(), tokenizer.end_tokens()), (None, &[0][..]));
}

#[test]
fn end_tokens_are_special_whatever_their_type() {
    let end_of_turn = json!(["<end>", "a", "b", "ab", "Ġ", "<|im_end|>", "</s>"]);
    let types = json!([1, 1, 1, 1, 1, 4, 1]);
    let tokenizer = changed_gguf(json!({"tokens": end_of_turn, "token_type": types})).unwrap();
    assert_eq!(tokenizer.end_tokens(), [0, 5]);
    assert!(tokenizer.is_special(0) && tokenizer.is_special(5) && !tokenizer.is_special(6));
}

#[test]
fn broken_gguf_vocabularies_name_the_key() {
    check_refused(json!({"model": null}), "tokenizer.ggml.model: missing");
    check_refused(json!({"model": "bert"}), "tokenizer.ggml.model: `bert` is not supported");
    check_refused(json!({"model": 7}), "tokenizer.ggml.model: not a string");
    check_refused(json!({"pre": "viking"}), "tokenizer.ggml.pre: `viking` is not supported");
    check_refused(json!({"tokens": null}), "tokenizer.ggml.tokens: missing");
    check_refused(json!({"tokens": []}), "tokenizer.ggml.tokens: 0 tokens");
    check_refused(json!({"tokens": ["a", "b", "a"]}), "tokenizer.ggml.tokens[2]: \"a\" is there twice");
    check_refused(json!({"tokens": [1, 2]}), "tokenizer.ggml.tokens[0]: not a string");
    check_refused(json!({"tokens": ["a".repeat(2000)]}), "tokenizer.ggml.tokens[0]: longer than");
    check_refused(json!({"tokens": vec![""; (1 << 20) + 1]}), "tokenizer.ggml.tokens: 1048577 tokens");
    check_refused(json!({"token_type": null}), "tokenizer.ggml.token_type: missing");
    check_refused(json!({"token_type": [1, 1]}), "tokenizer.ggml.token_type: 2 types for 7 tokens");
    check_refused(json!({"token_type": [1, 1, 1, 1, 1, 9, 1]}), "tokenizer.ggml.token_type[5]");
    check_refused(json!({"merges": null}), "tokenizer.ggml.merges: missing");
    check_refused(
        json!({"merges": ["a b", "x a"]}),
        "tokenizer.ggml.merges[1]: \"x\" is not in the vocabulary",
    );
    check_refused(json!({"merges": ["b a"]}), "tokenizer.ggml.merges[0]: \"ba\" is not in the vocabulary");
    check_refused(json!({"merges": ["ab"]}), "tokenizer.ggml.merges[0]: \"\" is not in the vocabulary");
    check_refused(json!({"merges": [""]}), "tokenizer.ggml.merges[0]");
    check_refused(json!({"merges": "a b"}), "tokenizer.ggml.merges: not an array");
    check_refused(
        json!({"eos_token_id": 7}),
        "tokenizer.ggml.eos_token_id: not a token of the vocabulary of 7",
    );
    check_refused(json!({"bos_token_id": -1.5}), "tokenizer.ggml.bos_token_id: not a token");
    let sentence_piece = |key: &str, value: Value| json!({"model": "llama", key: value});
    check_refused(sentence_piece("scores", Value::Null), "tokenizer.ggml.scores: missing");
    check_refused(sentence_piece("scores", json!([0])), "tokenizer.ggml.scores: 1 scores for 7 tokens");
    check_refused(sentence_piece("scores", json!(vec!["x"; 7])), "tokenizer.ggml.scores[0]: not a number");
    check_refused(sentence_piece("add_space_prefix", json!("yes")), "tokenizer.ggml.add_space_prefix");
}

fn changed_json(path: &str, value: Value) -> Result<Tokenizer, String> {
    let mut file = json!({
        "version": "1.0",
        "added_tokens": [{"id": 4, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": [["a", "b"]]},
    });
    *file.pointer_mut(path).unwrap_or(&mut Value::Null) = value.clone();
    if let Some((parent, key)) = path.rsplit_once('/') {
        file.pointer_mut(parent).unwrap()[key] = value;
    }
    Tokenizer::from_json(&serde_json::to_vec(&file).unwrap(), &["<end>"]).map_err(|error| error.to_string())
}

fn check_json_refused(path: &str, value: Value, reason: &str) {
    let error = changed_json(path, value.clone()).err();
    let error = error.unwrap_or_else(|| panic!("{path} = {value} is accepted"));
    assert!(error.contains(reason), "{path} = {value}: {error}");
}

#[test]
fn broken_tokenizer_json_names_the_field() {
    let tokenizer = changed_json("/version", json!("1.0")).unwrap();
    assert_eq!(tokenizer.encode("ab a<end>"), [2, 3, 0, 4]);
    check_json_refused("/model/type", json!("Unigram"), "model.type: `Unigram` is not supported");
    check_json_refused("/model/vocab", json!({}), "model.vocab: 0 tokens");
    check_json_refused("/model/vocab/a", json!(1), "are both token 1");
    check_json_refused("/model/vocab/a", json!(4_000_000_000u32), "the id 4000000000 is not below");
    check_json_refused(
        "/model/merges",
        json!([["a", "c"]]),
        "model.merges[0]: \"c\" is not in the vocabulary",
    );
    check_json_refused("/model/merges", json!([["ab", "ab"]]), "model.merges[0]: \"abab\" is not in");
    check_json_refused("/model/merges", json!(["a b", "b  a"]), "model.merges[1]");
    check_json_refused("/model/unk_token", json!("<unk>"), "model.unk_token");
    check_json_refused("/model/dropout", json!(0.5), "model.dropout");
    check_json_refused("/model/continuing_subword_prefix", json!("##"), "model.continuing_subword_prefix");
    check_json_refused(
        "/decoder",
        json!({"type": "WordPiece"}),
        "decoder: neither byte-level nor SentencePiece",
    );
    check_json_refused("/added_tokens/0/id", json!(9), "added_tokens: \"<end>\" cannot be token 9");
    check_json_refused("/added_tokens/0/id", json!(2), "are both token 2");
    check_json_refused("/added_tokens/0/id", json!(4_000_000_000u32), "added_tokens: \"<end>\": the id");
    check_json_refused("/added_tokens/0/content", json!("a"), "added_tokens: \"a\" is not token 4");
    check_json_refused("/added_tokens/0/content", json!("<fin>"), "end tokens: \"<end>\"");
    check_json_refused("/pre_tokenizer", json!({"type": "Split"}), "tokenizer.json");
}

#[test]
fn end_tokens_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, json: Value| std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    let read = || {
        let parts = json_tokenizer::read_folder(folder.path());
        parts.map(|Parts { bos, end_tokens, .. }| (bos, end_tokens))
    };
    assert_eq!(read(), Err("tokenizer.json: missing".to_owned()));
    let added = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    write(
        "tokenizer.json",
        json!({
            "added_tokens": [added(3, "<s>", true), added(4, "<fin>", true), added(5, "<|im_end|>", false)],
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "</s>": 2}, "merges": []},
        }),
    );
    assert_eq!(read(), Ok((None, vec![5])));
    write("tokenizer_config.json", json!({"bos_token": "<s>", "eos_token": {"content": "<fin>"}}));
    assert_eq!(read(), Ok((Some(3), vec![4, 5])));
    write("generation_config.json", json!({"eos_token_id": [1, 4]}));
    assert_eq!(read(), Ok((Some(3), vec![1, 4, 5])));
    write("generation_config.json", json!({"eos_token_id": 2}));
    assert_eq!(read(), Ok((Some(3), vec![2, 4, 5])));
    write("generation_config.json", json!({"eos_token_id": 6}));
    assert_eq!(read(), Err("tokenizer.json: end token 6 is not in the vocabulary of 6".to_owned()));
    write("generation_config.json", json!({"eos_token_id": ["<fin>"]}));
    assert_eq!(read(), Err("generation_config.json: eos_token_id: not a token id".to_owned()));
    write("tokenizer_config.json", json!({"eos_token": "<eos>"}));
    assert!(read().is_err());
    let parts = json_tokenizer::read(&std::fs::read(folder.path().join("tokenizer.json")).unwrap(), &["b"]);
    let tokenizer = Tokenizer::from_parts(parts, "test").unwrap();
    assert_eq!((tokenizer.encode("ab"), tokenizer.is_special(1)), (vec![0, 1], true));
}

#[test]
fn sentence_piece_replies_begin_without_the_added_space() {
    let family: Family = fixture("mistral.json");
    let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&family.tokenizer).unwrap(), &[]).unwrap();
    for text in ["The quick brown fox", " leading and trailing ", "😀 日本\n", ""] {
        let mut detokenizer = Detokenizer::default();
        let ids = tokenizer.encode(text);
        let pushed: String = ids.iter().map(|id| detokenizer.push(&tokenizer, *id)).collect();
        assert_eq!(pushed + &detokenizer.finish(), text);
    }
}

#[test]
fn a_cut_tokenizer_json_is_an_error() {
    let family: Value = fixture("mistral.json");
    let json = serde_json::to_vec(&family["tokenizer"]).unwrap();
    for cut in (0..json.len()).step_by(997) {
        assert!(Tokenizer::from_json(&json[..cut], &[]).is_err(), "cut at {cut}");
    }
}

/// A GGUF file of metadata alone.
fn gguf(entries: impl IntoIterator<Item = (String, MetadataValue)>) -> GgufMetadata {
    let entries: Vec<_> = entries.into_iter().collect();
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in &entries {
        write_string(key, &mut bytes);
        bytes.extend(type_number(value).to_le_bytes());
        write_value(value, &mut bytes);
    }
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("metadata.gguf");
    std::fs::write(&path, bytes).unwrap();
    GgufMetadata::read(&path).unwrap()
}

fn type_number(value: &MetadataValue) -> u32 {
    match value {
        MetadataValue::Bool(_) => 7,
        MetadataValue::String(_) => 8,
        MetadataValue::Array(_) => 9,
        MetadataValue::Unsigned(_) => 10,
        MetadataValue::Signed(_) => 11,
        MetadataValue::Float(_) => 12,
    }
}

fn write_string(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn write_value(value: &MetadataValue, bytes: &mut Vec<u8>) {
    match value {
        MetadataValue::Bool(value) => bytes.push(u8::from(*value)),
        MetadataValue::String(text) => write_string(text, bytes),
        MetadataValue::Array(items) => {
            bytes.extend(items.first().map_or(8, type_number).to_le_bytes());
            bytes.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| write_value(item, bytes));
        }
        MetadataValue::Unsigned(number) => bytes.extend(number.to_le_bytes()),
        MetadataValue::Signed(number) => bytes.extend(number.to_le_bytes()),
        MetadataValue::Float(number) => bytes.extend(number.to_le_bytes()),
    }
}

fn metadata_value(json: &Value) -> MetadataValue {
    match json {
        Value::Bool(value) => MetadataValue::Bool(*value),
        Value::String(text) => MetadataValue::String(text.clone()),
        Value::Array(items) => MetadataValue::Array(items.iter().map(metadata_value).collect()),
        Value::Number(number) => match number.as_u64() {
            Some(number) => MetadataValue::Unsigned(number),
            None => MetadataValue::Float(number.as_f64().unwrap()),
        },
        Value::Null | Value::Object(_) => panic!("no such metadata: {json}"),
    }
}
