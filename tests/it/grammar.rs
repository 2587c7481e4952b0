//! Grammars on the default model's vocabulary: whatever is sampled, the reply fits and ends in time.

use crate::default_model::TOKENIZER;
use mondai::sampling::{Grammar, GrammarCompiler, GrammarError, GrammarSpec};
use mondai::text::TokenId;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// Longer than the vocabulary, as the logits of padded models are.
const LOGITS_LEN: usize = 49_152 + 100;

static COMPILER: LazyLock<GrammarCompiler> =
    LazyLock::new(|| GrammarCompiler::new(Arc::clone(&TOKENIZER), LOGITS_LEN).unwrap());

/// What a written reply was made of.
struct Written {
    text: String,
    n_tokens: usize,
    n_forced: usize,
}

/// Writes a reply, `choose` choosing among the tokens allowed.
fn write(mut grammar: Grammar, mut choose: impl FnMut(&[TokenId]) -> TokenId) -> Written {
    let mut tokens = Vec::new();
    let mut n_forced = 0;
    while !grammar.is_finished() {
        let forced = grammar.forced().unwrap();
        if !forced.is_empty() {
            n_forced += forced.len();
            tokens.extend(forced);
            continue;
        }
        let mask = grammar.mask().unwrap();
        assert_eq!(mask.words().len(), LOGITS_LEN.div_ceil(32));
        let allowed: Vec<TokenId> =
            (0..32 * mask.words().len() as TokenId).filter(|&id| mask.allows(id)).collect();
        assert!(allowed.iter().all(|&id| (id as usize) < TOKENIZER.vocab_size()), "padding is allowed");
        let taken = grammar.accept(choose(&allowed)).unwrap();
        assert!(allowed.contains(&taken));
        tokens.push(taken);
    }
    let bytes: Vec<u8> = tokens.iter().flat_map(|&id| TOKENIZER.token_bytes(id)).copied().collect();
    Written { text: String::from_utf8(bytes).unwrap(), n_tokens: tokens.len(), n_forced }
}

/// A fixed pseudo-random sequence, as good as a model without judgement.
fn any_of(seed: u64) -> impl FnMut(&[TokenId]) -> TokenId {
    let mut state = seed;
    move |allowed| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        allowed[(state >> 33) as usize % allowed.len()]
    }
}

/// The token with the most bytes that open something and, if that can be, none that close.
fn opening(allowed: &[TokenId]) -> TokenId {
    let count =
        |id: TokenId, set: &[u8]| TOKENIZER.token_bytes(id).iter().filter(|b| set.contains(b)).count();
    let ends = |id: TokenId| TOKENIZER.is_special(id);
    *allowed.iter().max_by_key(|&&id| (!ends(id) && count(id, b"}]\"") == 0, count(id, b"[{\""))).unwrap()
}

fn longest(allowed: &[TokenId]) -> TokenId {
    *allowed.iter().max_by_key(|&&id| TOKENIZER.token_bytes(id).len()).unwrap()
}

fn highest(allowed: &[TokenId]) -> TokenId {
    *allowed.last().unwrap()
}

/// Never closes or ends anything unless nothing else is allowed.
fn never_closing(seed: u64) -> impl FnMut(&[TokenId]) -> TokenId {
    let mut choose = any_of(seed);
    move |allowed| {
        let closes = |id: TokenId| {
            TOKENIZER.is_special(id) || TOKENIZER.token_bytes(id).iter().any(|b| b"}]\"".contains(b))
        };
        let open: Vec<TokenId> = allowed.iter().copied().filter(|&id| !closes(id)).collect();
        choose(if open.is_empty() { allowed } else { &open })
    }
}

/// Every way of choosing on budgets from the smallest up.
fn check(spec: &GrammarSpec, fits: impl Fn(&str) -> bool) {
    let Err(GrammarError::BudgetTooSmall { shortest, .. }) = COMPILER.compile(spec, 0) else {
        panic!("{spec:?} does not compile");
    };
    assert!(matches!(COMPILER.compile(spec, shortest - 1), Err(GrammarError::BudgetTooSmall { .. })));
    for slack in [0, 1, 2, 4, 7, 20, 90] {
        let budget = shortest + slack;
        let grammar = || COMPILER.compile(spec, budget).unwrap();
        let replies = [
            write(grammar(), any_of(slack as u64)),
            write(grammar(), opening),
            write(grammar(), longest),
            write(grammar(), highest),
            write(grammar(), never_closing(slack as u64)),
        ];
        for reply in replies {
            assert!(reply.n_tokens <= budget, "{} tokens of {budget}: {}", reply.n_tokens, reply.text);
            assert!(fits(&reply.text), "{spec:?} budget {budget}: {}", reply.text);
        }
    }
}

fn check_schema(schema: Value) {
    let validator = jsonschema::options().build(&schema).unwrap();
    check(&GrammarSpec::JsonSchema(schema), |reply| {
        serde_json::from_str(reply).is_ok_and(|document| validator.is_valid(&document))
    });
}

#[test]
fn a_quiz_item_always_ends() {
    check_schema(quiz_item());
}

fn quiz_item() -> Value {
    json!({"type": "object", "properties": {
        "question": {"type": "string", "minLength": 1, "maxLength": 200},
        "choices": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 60}, "minItems": 4, "maxItems": 4},
        "answer": {"type": "integer", "minimum": 0, "maximum": 3},
        "explanation": {"type": "string", "maxLength": 300}},
        "required": ["question", "choices", "answer", "explanation"], "additionalProperties": false})
}

#[test]
fn open_and_recursive_schemas_always_end() {
    check_schema(json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
        "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["name", "children"], "additionalProperties": false}}}));
    check_schema(json!({"type": "object", "properties": {"when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"enum": ["history", "science", "art"]}, "maxItems": 3}},
        "required": ["when"]}));
    check_schema(
        json!({"anyOf": [{"type": "array", "items": {"type": "number"}, "minItems": 2}, {"type": "null"}]}),
    );
    check(&GrammarSpec::JsonObject, |reply| {
        serde_json::from_str::<Value>(reply).is_ok_and(|document| document.is_object())
    });
}

/// An open end takes one of the model's own end tokens, and any of them will do.
#[test]
fn a_reply_that_could_go_on_is_ended_by_an_end_token() {
    let spec = GrammarSpec::Regex("(?:ha)+".to_owned());
    check(&spec, |reply| !reply.is_empty() && reply.replace("ha", "").is_empty());
    for &end in TOKENIZER.end_tokens() {
        let mut grammar = COMPILER.compile(&spec, 10).unwrap();
        for &id in &TOKENIZER.encode_plain("ha") {
            grammar.accept(id).unwrap();
        }
        assert!(grammar.forced().unwrap().is_empty() && grammar.mask().unwrap().allows(end));
        assert_eq!(grammar.accept(end).unwrap(), end);
        assert!(grammar.is_finished());
    }
}

#[test]
fn what_the_grammar_forces_is_spelt_as_the_tokenizer_would() {
    let mut grammar = COMPILER.compile(&GrammarSpec::JsonSchema(quiz_item()), 200).unwrap();
    let forced = grammar.forced().unwrap();
    let usual = TOKENIZER.encode_plain("{\n  \"question\": \"Who");
    assert!(!forced.is_empty() && usual.starts_with(&forced), "{forced:?} {usual:?}");
    // With strings as short as can be, much of what is left is keys, colons and brackets.
    let reply = write(grammar, |allowed| {
        let quote = |id: &&TokenId| TOKENIZER.token_bytes(**id).starts_with(b"\"");
        *allowed.iter().find(quote).unwrap_or(&allowed[0])
    });
    assert!(reply.n_forced >= 8, "{} of {}", reply.n_forced, reply.n_tokens);
}

/// One of the sentences, words of that same sentence, then a free question.
fn item_about(sentences: &[&str]) -> String {
    let lark = |text: &str| serde_json::to_string(text).unwrap();
    let inner = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let mut rules = String::new();
    let mut pairs = Vec::new();
    for (idx, sentence) in sentences.iter().enumerate() {
        let words: Vec<String> = sentence.split_inclusive([' ', '、', '。', 'は', 'の']).map(inner).collect();
        pairs.push(format!("{} ANSWER_{idx}", lark(&format!("{}\",\"answer\":\"", inner(sentence)))));
        rules.push_str(&format!("ANSWER_{idx}: %regex {} & /.+/\n", json!({"substring_chunks": words})));
    }
    format!(
        "start: {} ({}) {} QUESTION {}\nQUESTION: /[^\"\\\\\\x00-\\x1f]{{1,200}}/\n{rules}",
        lark("{\"evidence\":\""),
        pairs.join(" | "),
        lark("\",\"question\":\""),
        lark("\"}"),
    )
}

#[test]
fn answers_are_spans_of_the_sentence_they_rest_on() {
    let sentences = [
        "The Eiffel Tower in Paris was finished in 1889.",
        "She said \"no\" and left; the file was C:\\temp.",
        "琵琶湖は、滋賀県にある日本最大の湖である。",
    ];
    check(&GrammarSpec::Lark(item_about(&sentences)), |reply| {
        let item: Value = serde_json::from_str(reply).unwrap();
        let field = |name: &str| item[name].as_str().unwrap().to_owned();
        let (evidence, answer, question) = (field("evidence"), field("answer"), field("question"));
        sentences.contains(&&*evidence)
            && !answer.is_empty()
            && evidence.contains(&answer)
            && !question.is_empty()
    });
}

/// The sentence that a span must come from is known from the first byte on which sentences differ.
#[test]
fn forty_sentences_are_no_burden() {
    let sentences: Vec<String> = (0..40)
        .map(|n| {
            format!(
                "In the year {} the town of Example number {n} had about {} inhabitants and a mill.",
                1500 + 7 * n,
                90 * n
            )
        })
        .collect();
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let grammar = COMPILER.compile(&GrammarSpec::Lark(item_about(&sentences)), 150).unwrap();
    let item: Value = serde_json::from_str(&write(grammar, any_of(7)).text).unwrap();
    assert!(item["evidence"].as_str().unwrap().contains(item["answer"].as_str().unwrap()));
}
