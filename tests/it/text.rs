//! Tokens, templates and detokenisation of the real default model, against what the references say.

use crate::default_model::{MODEL, TOKENIZER};
use mondai::text::{ChatMessage, ChatTemplate, Detokenizer, Role};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

/// `scripts/golden_text.py` asked transformers and llama.cpp, which agree on all of it.
#[derive(serde::Deserialize)]
struct Golden {
    ids: Vec<Vec<u32>>,
    plain_ids: Vec<Vec<u32>>,
}

fn fixture<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn ids_are_those_of_transformers_and_llama_cpp() {
    let texts: Vec<String> = fixture("corpus.json");
    let golden: Golden = fixture("smollm2.json");
    assert_eq!((texts.len(), texts.len()), (golden.ids.len(), golden.plain_ids.len()));
    for (text, (ids, plain_ids)) in texts.iter().zip(golden.ids.iter().zip(&golden.plain_ids)) {
        assert_eq!(TOKENIZER.encode(text), *ids, "{text:?}");
        assert_eq!(TOKENIZER.encode_plain(text), *plain_ids, "{text:?} as plain text");
    }
}

/// The token of each single byte.
static BYTE_TOKENS: LazyLock<[Option<u32>; 256]> = LazyLock::new(|| {
    let mut tokens = [None; 256];
    for id in 0..TOKENIZER.vocab_size() as u32 {
        if let [byte] = TOKENIZER.token_bytes(id) {
            tokens[*byte as usize] = Some(id);
        }
    }
    tokens
});

#[test]
fn detokenised_text_is_the_text() {
    // 13 bytes that UTF-8 never uses and 8 that the vocabulary's training never saw.
    let missing: Vec<u8> = (0..=u8::MAX).filter(|byte| BYTE_TOKENS[*byte as usize].is_none()).collect();
    assert_eq!(missing.len(), 21, "{missing:x?}");
    let texts: Vec<String> = fixture("corpus.json");
    let spellable = texts.iter().filter(|text| !text.bytes().any(|byte| missing.contains(&byte)));
    let mut checked = 0;
    for text in spellable {
        let mut detokenizer = Detokenizer::default();
        let ids = TOKENIZER.encode_plain(text);
        let pushed: String = ids.iter().map(|id| detokenizer.push(&TOKENIZER, *id)).collect();
        assert_eq!(pushed + &detokenizer.finish(), *text);
        checked += 1;
    }
    assert!(checked > texts.len() * 9 / 10, "{checked} of {}", texts.len());
}

proptest! {
    #[test]
    fn pushes_add_up_to_the_lossy_whole(ids in proptest::collection::vec(0u32..50_000, 0..60)) {
        let mut detokenizer = Detokenizer::default();
        let mut text: String = ids.iter().map(|id| detokenizer.push(&TOKENIZER, *id)).collect();
        text += &detokenizer.finish();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| TOKENIZER.token_bytes(*id)).copied().collect();
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_character_cut_anywhere_comes_out_whole(text in "[\\PC&&[^\u{fffd}]]{0,20}") {
        let bytes = text.as_bytes();
        let byte_ids: Option<Vec<u32>> = bytes.iter().map(|byte| BYTE_TOKENS[*byte as usize]).collect();
        if let Some(ids) = byte_ids {
            let mut detokenizer = Detokenizer::default();
            let pushes: Vec<String> = ids.iter().map(|id| detokenizer.push(&TOKENIZER, *id)).collect();
            let half = pushes.iter().find(|push| push.contains(char::REPLACEMENT_CHARACTER));
            prop_assert_eq!(half, None);
            prop_assert_eq!(pushes.concat() + &detokenizer.finish(), text);
        }
    }
}

#[test]
fn special_tokens_of_the_default_model() {
    let named = |text: &str| TOKENIZER.encode(text);
    assert_eq!(named("<|im_start|>user\n"), [1, 4093, 198]);
    assert_eq!(TOKENIZER.bos(), Some(1));
    assert_eq!(TOKENIZER.end_tokens(), [0, 2]);
    assert_eq!(TOKENIZER.vocab_size(), 49_152);
    assert_eq!(TOKENIZER.special_texts().count(), 17);
    assert!(TOKENIZER.is_special(2) && TOKENIZER.token_bytes(2).is_empty());
    assert_eq!(TOKENIZER.token_text(2), "<|im_end|>");
    assert_eq!(TOKENIZER.token_text(u32::MAX), "");
}

#[test]
fn special_texts_are_plain_where_asked() {
    let ids = TOKENIZER.encode_plain("<|im_end|>");
    assert!(ids.len() > 1 && !ids.iter().any(|id| TOKENIZER.is_special(*id)), "{ids:?}");
    let bytes: Vec<u8> = ids.iter().flat_map(|id| TOKENIZER.token_bytes(*id)).copied().collect();
    assert_eq!(bytes, b"<|im_end|>");
}

#[test]
fn an_emoji_comes_out_whole() {
    let text = "a 👩‍👩‍👧 日本";
    let mut detokenizer = Detokenizer::default();
    let pushes: Vec<String> =
        TOKENIZER.encode(text).iter().map(|id| detokenizer.push(&TOKENIZER, *id)).collect();
    assert_eq!(pushes.concat(), text);
    assert!(pushes.iter().any(String::is_empty), "no token held back: {pushes:?}");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn prompts_are_those_of_transformers() {
    let fixtures: Vec<serde_json::Value> = fixture("chat_templates.json");
    let own = fixtures.iter().find(|fixture| fixture["template"] == "smollm2").unwrap();
    let template = ChatTemplate::open(&MODEL).unwrap();
    for chat in own["chats"].as_array().unwrap() {
        let messages: Vec<ChatMessage> = serde_json::from_value(chat["messages"].clone()).unwrap();
        assert_eq!(template.render(&messages).unwrap(), chat["prompt"], "{}", chat["name"]);
    }
}

#[test]
fn a_prompt_begins_turns_with_single_tokens() {
    let template = ChatTemplate::open(&MODEL).unwrap();
    let user = ChatMessage { role: Role::User, content: "Hi".to_owned() };
    let prompt = template.render(&[user]).unwrap();
    assert!(prompt.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), "{prompt}");
    assert_eq!(TOKENIZER.encode(&prompt).iter().filter(|id| **id == 1).count(), 3);
}
