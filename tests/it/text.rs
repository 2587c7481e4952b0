//! Tokens, templates and detokenisation of the real default model, against what the references say.

use mondai::model::Model;
use mondai::text::{ChatMessage, ChatTemplate, Detokenizer, Role, Tokenizer};
use std::path::Path;
use std::sync::LazyLock;

static SMOLLM2: LazyLock<Model> = LazyLock::new(|| {
    let models_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    Model::open("smollm2-135m-instruct", &models_dir)
        .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"))
});

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::open(&SMOLLM2).unwrap());

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
fn the_default_models_own_chat_template() {
    let template = ChatTemplate::open(&SMOLLM2).unwrap();
    let user = ChatMessage { role: Role::User, content: "Hi".to_owned() };
    assert_eq!(
        template.render(&[user]).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}
