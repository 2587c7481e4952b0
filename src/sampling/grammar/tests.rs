use super::*;
use serde_json::{Value, json};

mod layouts;

const END: TokenId = 256;
/// Tokens beyond single bytes: what tokenizers have for JSON, words, and tails that span lexemes.
const WORDS: [&str; 34] = [
    "{\"",
    "\":",
    "\":\"",
    "\",\"",
    "\"}",
    "},{",
    "\"}]",
    "]}",
    "[]",
    "{}",
    "[{\"",
    "[[",
    "{\"a\":{\"",
    "\"\"",
    "null",
    "true",
    "false",
    "the",
    " the",
    " answer",
    "question",
    "evidence",
    "name",
    "aaaa",
    "00",
    "123",
    ".5",
    "e1",
    "\\n",
    "\\\"",
    "東京",
    "、",
    "x\",\"",
    "1,",
];

/// A vocabulary of single bytes, one end token and [`WORDS`]; its tokenizer takes the longest match.
fn compiler() -> GrammarCompiler {
    let mut token_bytes: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    token_bytes.push(Vec::new());
    token_bytes.extend(WORDS.iter().map(|word| word.as_bytes().to_vec()));
    let known = token_bytes.clone();
    let encode = move |text: &str| {
        let mut rest = text.as_bytes();
        let mut tokens = Vec::new();
        while !rest.is_empty() {
            let fits = |(_, token): &(usize, &Vec<u8>)| !token.is_empty() && rest.starts_with(token);
            let longest = known.iter().enumerate().filter(fits).max_by_key(|(_, token)| token.len());
            let (id, token) = longest.expect("every byte is a token");
            tokens.push(id as TokenId);
            rest = &rest[token.len()..];
        }
        tokens
    };
    GrammarCompiler::of(|| Vocabulary::new(token_bytes, &[END], Box::new(encode), 320))
}

#[test]
fn vocabularies_that_no_grammar_can_use() {
    let check = |tokens: &[&[u8]], end_tokens: &[TokenId], logits_len: usize, expected: &str| {
        let error = vocabulary::check(tokens.iter().copied(), end_tokens, logits_len).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&[b"a", b"b"], &[1], 1, "it has 2 tokens, the model scores 1");
    check(&[b"a", b"b"], &[], 2, "no token of it ends a reply");
    check(&[b"a", b"b"], &[2], 2, "no token of it ends a reply");
    check(&[b"", b"b", &[0xff]], &[1], 3, "its tokens are 0 bytes together");
    assert!(vocabulary::check([&b"a"[..], b"b"].into_iter(), &[1], 2).is_ok());
}

/// How a model without judgement chooses among the tokens allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Chooser {
    Random(u64),
    Longest,
    /// The token that opens the most, and never one that closes if there is another.
    Opening,
    Highest,
    Lowest,
    /// Any token but those that close or end something.
    NeverClosing(u64),
}

const CHOOSERS: [Chooser; 7] = [
    Chooser::Random(1),
    Chooser::Random(2),
    Chooser::Longest,
    Chooser::Opening,
    Chooser::Highest,
    Chooser::Lowest,
    Chooser::NeverClosing(4),
];

fn shuffled(seed: &mut u64, n: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize % n
}

impl Chooser {
    fn choose(&mut self, allowed: &[TokenId], vocabulary: &Vocabulary) -> TokenId {
        let opens = |id: TokenId| vocabulary.bytes(id).iter().filter(|b| b"[{\"".contains(b)).count();
        let closes = |id: TokenId| id == END || vocabulary.bytes(id).iter().any(|b| b"]}\"".contains(b));
        match self {
            Self::Random(seed) => allowed[shuffled(seed, allowed.len())],
            Self::Longest => *allowed.iter().max_by_key(|&&id| vocabulary.bytes(id).len()).expect("one"),
            Self::Opening => *allowed.iter().max_by_key(|&&id| (!closes(id), opens(id))).expect("one"),
            Self::Highest => *allowed.last().expect("one"),
            Self::Lowest => allowed[0],
            Self::NeverClosing(seed) => {
                let open: Vec<TokenId> = allowed.iter().copied().filter(|&id| !closes(id)).collect();
                if open.is_empty() {
                    allowed[shuffled(seed, allowed.len())]
                } else {
                    open[shuffled(seed, open.len())]
                }
            }
        }
    }
}

/// Writes a reply as the chooser would; panics where a promise of [`Grammar`] is broken.
fn write(grammar: &mut Grammar, mut chooser: Chooser, budget: usize) -> String {
    let vocabulary = Arc::clone(&grammar.vocabulary);
    let mut tokens: Vec<TokenId> = Vec::new();
    while !grammar.is_finished() {
        let forced = grammar.forced().expect("forced tokens");
        if !forced.is_empty() {
            tokens.extend(forced);
            continue;
        }
        let mask = grammar.mask().expect("a mask");
        let allowed: Vec<TokenId> = (0..320).filter(|&id| mask.allows(id)).collect();
        assert!(!allowed.is_empty(), "nothing allowed after {tokens:?}");
        let chosen = chooser.choose(&allowed, &vocabulary);
        let taken = grammar.accept(chosen).expect("a token taken");
        assert!(allowed.contains(&taken), "took {taken}, allowed {allowed:?}");
        tokens.push(taken);
        assert!(tokens.len() <= budget, "{} tokens, budget {budget}", tokens.len());
    }
    assert!(tokens.len() <= budget, "{} tokens, budget {budget}", tokens.len());
    if let Some(end) = tokens.iter().position(|&token| token == END) {
        assert_eq!(end, tokens.len() - 1, "something follows the end");
    }
    let bytes = tokens.iter().flat_map(|&id| vocabulary.bytes(id).to_vec()).collect();
    String::from_utf8(bytes).expect("UTF-8")
}

/// Compiles with the smallest budget that does, and says what it is.
fn smallest_budget(compiler: &GrammarCompiler, spec: &GrammarSpec) -> usize {
    match compiler.compile(spec, 0) {
        Err(GrammarError::BudgetTooSmall { shortest, budget: 0 }) => shortest,
        Err(error) => panic!("{spec:?}: {error}"),
        Ok(_) => panic!("{spec:?} needs no token"),
    }
}

/// Every chooser on budgets from the smallest up.
fn check(compiler: &GrammarCompiler, spec: &GrammarSpec, fits: impl Fn(&str) -> bool) {
    let shortest = smallest_budget(compiler, spec);
    assert!(matches!(
        compiler.compile(spec, shortest - 1),
        Err(GrammarError::BudgetTooSmall { shortest: s, budget }) if s == shortest && budget == shortest - 1
    ));
    for slack in [0, 1, 3, 9, 50] {
        for chooser in CHOOSERS {
            let budget = shortest + slack;
            let mut grammar = compiler.compile(spec, budget).expect("within the budget");
            let reply = write(&mut grammar, chooser, budget);
            assert!(fits(&reply), "{spec:?} {chooser:?} budget {budget}: {reply}");
        }
    }
}

fn check_schema(compiler: &GrammarCompiler, schema: Value) {
    let validator =
        jsonschema::options().should_validate_formats(false).build(&schema).expect("a sound schema");
    check(compiler, &GrammarSpec::JsonSchema(schema), |reply| {
        serde_json::from_str(reply).is_ok_and(|document| validator.is_valid(&document))
    });
}

#[test]
fn every_reply_fits_its_schema_and_its_budget() {
    let compiler = compiler();
    for schema in schemas() {
        check_schema(&compiler, schema);
    }
}

/// How much the lexer has learnt that the next reply begins with.
fn known_bytes(compiler: &GrammarCompiler, spec: &GrammarSpec, budget: usize) -> usize {
    let grammar = compiler.compile(spec, budget).expect("within the budget");
    grammar.parser.parser.lexer_stats().num_bytes
}

#[test]
fn replies_learn_for_those_after_them_and_what_is_allowed_stays_the_same() {
    let compiler = compiler();
    let (mut n_grammars, mut n_learnt) = (0, 0);
    for spec in schemas().into_iter().map(GrammarSpec::JsonSchema) {
        let budget = smallest_budget(&compiler, &spec) + 30;
        let at_first = known_bytes(&compiler, &spec, budget);
        for chooser in CHOOSERS {
            let mut known = compiler.compile(&spec, budget).expect("within the budget");
            let new = compiler.compile_anew(&spec, 1 << 14).expect("sound");
            let mut new = Grammar::new(&new, Arc::clone(&known.vocabulary), budget);
            let mut chooser = chooser;
            while !new.is_finished() {
                assert_eq!(known.forced().unwrap(), new.forced().unwrap(), "{spec:?}");
                if new.is_finished() {
                    break;
                }
                assert_eq!(known.mask().unwrap().words(), new.mask().unwrap().words(), "{spec:?}");
                let allowed: Vec<TokenId> = (0..320).filter(|&id| new.mask.allows(id)).collect();
                let chosen = chooser.choose(&allowed, &new.vocabulary);
                assert_eq!(known.accept(chosen).unwrap(), new.accept(chosen).unwrap(), "{spec:?}");
            }
            assert!(known.is_finished());
        }
        n_grammars += 1;
        n_learnt += usize::from(known_bytes(&compiler, &spec, budget) > at_first);
    }
    // Of a few numbers the compiler has seen all there is.
    assert!(2 * n_learnt > n_grammars, "{n_learnt} of {n_grammars}");
}

#[test]
fn a_reply_whose_parser_gave_up_leaves_nothing() {
    let compiler = compiler();
    let spec = GrammarSpec::JsonObject;
    let at_first = known_bytes(&compiler, &spec, 50);
    let mut grammar = compiler.compile(&spec, 50).unwrap();
    grammar.mask().unwrap();
    assert!(grammar.guarded(|_| -> anyhow::Result<()> { anyhow::bail!("told to") }).is_none());
    drop(grammar);
    assert_eq!(known_bytes(&compiler, &spec, 50), at_first);
    compiler.compile(&spec, 50).unwrap().mask().unwrap();
    assert!(known_bytes(&compiler, &spec, 50) > at_first);
}

#[test]
fn the_grammars_used_last_are_kept_whatever_the_budget() {
    let compiler = compiler();
    let spec = |idx: usize| GrammarSpec::Regex(format!("{idx}[a-z]{{5,50}}"));
    let knows_more = |idx: usize, budget: usize| {
        let at_first = known_bytes(&compiler, &spec(idx), budget);
        write(&mut compiler.compile(&spec(idx), budget + 1).unwrap(), Chooser::NeverClosing(1), budget + 1);
        known_bytes(&compiler, &spec(idx), budget) > at_first
    };
    assert!(knows_more(0, 100) && !knows_more(0, 100), "one reply meets all that there is");
    assert!(knows_more(0, 2_000) && !knows_more(0, 1_500), "an ending is looked for as far");
    // Used in between, the first one stays; the second does not.
    assert!(knows_more(1, 100));
    for idx in 2..20 {
        assert!(knows_more(idx, 100));
        assert!(!knows_more(0, 100));
    }
    assert!(knows_more(1, 100));
    // The same text is another grammar in another language.
    let lark = GrammarSpec::Lark("start: \"a\"".to_owned());
    let regex = GrammarSpec::Regex("start: \"a\"".to_owned());
    assert_eq!(write(&mut compiler.compile(&lark, 50).unwrap(), Chooser::Lowest, 50), "a");
    assert_eq!(write(&mut compiler.compile(&regex, 50).unwrap(), Chooser::Lowest, 50), "start: \"a\"");
}

#[test]
fn schemas_that_differ_in_the_order_of_properties_are_two() {
    let compiler = compiler();
    for [first, second] in [["a", "b"], ["b", "a"]] {
        let spec = json!({"type": "object", "properties": {first: {"const": 1}, second: {"const": 2}},
                          "required": [first, second], "additionalProperties": false});
        let mut grammar = compiler.compile(&GrammarSpec::JsonSchema(spec), 50).unwrap();
        let reply = write(&mut grammar, Chooser::Lowest, 50);
        assert_eq!(reply, format!("{{\n  \"{first}\": 1,\n  \"{second}\": 2\n}}"));
    }
}

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object"}),
        json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"],
               "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "object",
               "properties": {"c": {"type": "integer"}}, "required": ["c"]}}, "required": ["b"]}},
               "required": ["a"], "additionalProperties": false}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 6}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}, "minItems": 1}}),
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false,
               "minItems": 2}),
        json!({"enum": ["a rather long first choice", "b", "another long one", 12, null, true]}),
        json!({"const": {"a": [1, "two", null], "b": {"c": 1.5}}}),
        json!({"anyOf": [{"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}},
               "required": ["k"]}, "minItems": 4}, {"type": "string", "minLength": 5}]}),
        json!({"anyOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}},
               "required": ["kind", "r"]}, {"type": "object", "properties": {"kind": {"const": "square"},
               "side": {"type": "number"}}, "required": ["kind", "side"]}]}),
        json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
               "value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
               "required": ["value", "children"], "additionalProperties": false}}}),
        json!({"$ref": "#/$defs/list", "$defs": {"list": {"anyOf": [{"type": "object", "properties": {
               "next": {"$ref": "#/$defs/list"}}, "required": ["next"], "additionalProperties": false},
               {"type": "null"}]}}}),
        json!({"type": "string"}),
        json!({"type": "string", "minLength": 20, "maxLength": 30}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"}),
        json!({"type": "string", "pattern": "foo"}),
        json!({"type": "string", "pattern": "é$"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": "string", "format": "ipv4"}),
        json!({"type": "string", "format": "email"}),
        json!({"type": "integer", "minimum": 1000, "maximum": 1234}),
        json!({"type": "integer", "exclusiveMinimum": -50, "exclusiveMaximum": 7}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 15}),
        json!({"type": "number", "minimum": 0.25, "maximum": 0.75}),
        json!({"type": "number"}),
        json!({"type": "boolean"}),
        json!({"type": ["string", "null", "integer"]}),
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"},
               "c": {"type": "boolean"}, "d": {"type": "null"}}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
               "required": ["b"]}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}),
        json!({"type": "object", "patternProperties": {"^x_": {"type": "integer"}},
               "additionalProperties": false}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
               {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}]}),
        json!({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}]}),
        json!({"type": "object", "properties": {"question": {"type": "string", "minLength": 1, "maxLength": 200},
               "choices": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 40},
               "minItems": 4, "maxItems": 4}, "answer": {"type": "integer", "minimum": 0, "maximum": 3}},
               "required": ["question", "choices", "answer"], "additionalProperties": false}),
        json!({"type": "object", "title": "with \"annotations\"", "description": "ignored", "properties": {
               "title": {"type": "string", "description": "a property called title"}}, "required": ["title"],
               "additionalProperties": false, "uniqueItems": false}),
        json!({"type": "object", "properties": {"日本": {"type": "string", "enum": ["東京", "大阪"]}},
               "required": ["日本"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"t": {"type": "array", "items": {"type": "array", "items":
               {"type": "number"}, "minItems": 2, "maxItems": 2}, "minItems": 2}}, "required": ["t"]}),
        json!(true),
    ]
}

#[test]
fn any_object_is_json_without_many_blanks() {
    let compiler = compiler();
    check(&compiler, &GrammarSpec::JsonObject, |reply| {
        let document: Option<Value> = serde_json::from_str(reply).ok();
        document.is_some_and(|document| document.is_object())
            && !reply.contains("\n\n")
            && !reply.contains(&" ".repeat(33))
    });
}

#[test]
fn expressions_match_from_end_to_end() {
    let compiler = compiler();
    type Fits = fn(&str) -> bool;
    let cases: [(&str, Fits); 6] = [
        ("a+", |s| !s.is_empty() && s.bytes().all(|b| b == b'a')),
        ("yes|no", |s| s == "yes" || s == "no"),
        ("[0-9]{3}-[0-9]{4}", |s| s.len() == 8 && s.as_bytes()[3] == b'-'),
        ("(?s:.*)", |_| true),
        ("(the )*answer\\.", |s| s.ends_with("answer.")),
        ("[^\"/]{5,}", |s| s.chars().count() >= 5 && !s.contains(['"', '/'])),
    ];
    for (regex, fits) in cases {
        if regex == "(?s:.*)" {
            continue; // needs no token but the end: below
        }
        check(&compiler, &GrammarSpec::Regex(regex.to_owned()), fits);
    }
    assert_eq!(smallest_budget(&compiler, &GrammarSpec::Regex("(?s:.*)".to_owned())), 1);
}

#[test]
fn lark_grammars_recurse_and_end() {
    let compiler = compiler();
    let balanced = |s: &str| {
        let mut depth = 0i64;
        s.bytes().all(|b| {
            depth += match b {
                b'(' => 1,
                b')' => -1,
                _ => 0,
            };
            depth >= 0
        }) && depth == 0
    };
    check(&compiler, &GrammarSpec::Lark("start: \"(\" start \")\" | \"x\"".to_owned()), balanced);
    check(&compiler, &GrammarSpec::Lark("start: \"a\" start \"b\" | \"zzz\"".to_owned()), |s| {
        s.contains("zzz")
    });
    check(
        &compiler,
        &GrammarSpec::Lark("start: item (\",\" item)*\nitem: /[a-z]+/ | \"[\" start \"]\"".to_owned()),
        |s| !s.is_empty() && !s.ends_with(','),
    );
}

#[test]
fn the_reply_ends_well_even_if_the_parser_gives_up() {
    let compiler = compiler();
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
                        "required": ["a", "b"], "additionalProperties": false});
    let mut grammar = compiler.compile(&GrammarSpec::JsonSchema(schema), 60).expect("it compiles");
    let mut text = grammar.forced().expect("forced tokens");
    let n_forced: usize = text.iter().map(|&id| grammar.vocabulary.bytes(id).len()).sum();
    for &byte in &b"{\n  \"a\": \""[n_forced..] {
        text.push(grammar.accept(u32::from(byte)).expect("what is forced, byte by byte"));
    }
    text.push(grammar.accept(u32::from(b'x')).expect("a letter"));
    let _ = grammar.guarded(|parser| parser.parser.test_trigger_lexer_error());
    let mask = grammar.mask().expect("a mask");
    assert_eq!(mask.words().iter().map(|word| word.count_ones()).sum::<u32>(), 1);
    text.extend(grammar.forced().expect("the ending"));
    assert!(grammar.is_finished());
    let bytes: Vec<u8> = text.iter().flat_map(|&id| grammar.vocabulary.bytes(id).to_vec()).collect();
    assert_eq!(String::from_utf8(bytes).expect("UTF-8"), "{\n  \"a\": \"x\",\n  \"b\": 0\n}");
}

#[test]
fn a_token_the_grammar_does_not_allow_is_not_taken() {
    let compiler = compiler();
    let mut grammar = compiler.compile(&GrammarSpec::Regex("yes|no".to_owned()), 10).expect("it compiles");
    for wrong in [u32::from(b'x'), END, 319, 320, u32::MAX] {
        assert_eq!(grammar.accept(wrong).expect("the ending's"), u32::from(b'n'));
        grammar = compiler.compile(&GrammarSpec::Regex("yes|no".to_owned()), 10).expect("it compiles");
    }
}

#[test]
fn masks_and_tokens_are_refused_when_the_reply_is_over() {
    let compiler = compiler();
    let mut grammar = compiler.compile(&GrammarSpec::Regex("a".to_owned()), 5).expect("it compiles");
    assert_eq!(grammar.forced().expect("forced tokens"), [u32::from(b'a')]);
    assert!(grammar.is_finished() && grammar.forced().expect("none").is_empty());
    assert!(grammar.mask().is_err() && grammar.accept(u32::from(b'a')).is_err());
}

fn refused(compiler: &GrammarCompiler, spec: &GrammarSpec) -> String {
    match compiler.compile(spec, 300) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{spec:?} is not refused"),
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name_and_place() {
    let compiler = compiler();
    let cases = [
        (json!({"type": "array", "uniqueItems": true}), "`uniqueItems` is not supported (at the top)"),
        (
            json!({"properties": {"a/b": {"not": {"type": "null"}}}}),
            "`not` is not supported (at /properties/a~1b)",
        ),
        (
            json!({"type": "string", "format": "idn-email"}),
            "the format `idn-email` is not supported (at the top)",
        ),
        (json!({"type": "string", "maxLenght": 5}), "`maxLenght` is not supported (at the top)"),
        (
            json!({"type": "object", "x-guidance": {"lenient": true}}),
            "`x-guidance` is not supported (at the top)",
        ),
        (json!({"items": [{"if": true}]}), "`if` is not supported (at /items/0)"),
        (json!({"enum": [9_007_199_254_740_993_i64]}), "too large to be exact (at the top)"),
        (
            json!({"type": "object", "minProperties": 3}),
            "up to one more than the required properties (at the top)",
        ),
        (
            json!({"properties": {"a": {"oneOf": [{"type": "number"}, {"type": "number", "minimum": 3}]}}}),
            "(at /properties/a)",
        ),
        (json!({"properties": {"a": {"type": "string", "pattern": "(?=x)"}}}), "(at /properties/a)"),
        (json!({"properties": {"a": {"type": "strin"}}}), "Invalid type: strin (at /properties/a)"),
        (json!({"$ref": "#/$defs/missing"}), "missing"),
        (json!({"$ref": "http://example.com/schema"}), "example.com"),
        (json!({"type": "string", "minLength": 5, "maxLength": 4}), "Unsatisfiable"),
        (json!(false), "allows no document"),
        (json!("string"), "a schema must be an object or a boolean"),
        (
            json!({"$ref": "#/$defs/e", "$defs": {"e": {"type": "object", "properties": {"n": {"$ref": "#/$defs/e"}},
                "required": ["n"]}}}),
            "no reply was found",
        ),
    ];
    for (schema, reason) in cases {
        let message = refused(&compiler, &GrammarSpec::JsonSchema(schema.clone()));
        assert!(message.contains(reason), "{schema}: {message}");
    }
    let cases = [
        ("start: <|im_end|>", "special tokens are not supported"),
        ("start: \"a\" <[65]>", "special tokens are not supported"),
        ("start: a\na[stop=\"x\"]: /[^x]*/", "`stop=` is not supported"),
        ("start: a \"b\"\na[max_tokens=3]: /[^x]*/", "`max_tokens=` is not supported"),
        ("start: a\na[temperature=0.5]: /[^x]*/", "`temperature=` is not supported"),
        ("%llguidance {\"no_forcing\": true}\nstart: \"a\"", "`no_forcing` is not supported"),
        ("%llguidance {\"allow_invalid_utf8\": true}\nstart: \"a\"", "`allow_invalid_utf8` is not supported"),
        (
            "start: %json {\"type\": \"array\", \"uniqueItems\": true, \"x-guidance\": {\"lenient\": true}}",
            "uniqueItems",
        ),
        ("start: unknown", "unknown"),
        ("start: \"a\" start", "no reply was found"),
        ("start: start \"a\"", "cannot be honoured"),
        ("  ", "it is empty"),
    ];
    for (lark, reason) in cases {
        let message = refused(&compiler, &GrammarSpec::Lark(lark.to_owned()));
        assert!(message.contains(reason), "{lark}: {message}");
    }
    for (regex, reason) in [("a(?=b)", "regex"), ("(", "regex"), ("", "it is empty"), ("[^\\s\\S]", "")] {
        let message = refused(&compiler, &GrammarSpec::Regex(regex.to_owned()));
        assert!(message.contains(reason), "{regex}: {message}");
    }
}

/// Answers, or refuses, with bounded work; it must come back at all.
#[test]
fn hostile_grammars_are_refused_or_bounded() {
    let compiler = compiler();
    let nested = |depth: usize, schema: fn(Value) -> Value| {
        (0..depth).fold(json!({"type": "null"}), |inner, _| schema(inner))
    };
    let names: Vec<String> = (0..5_000).map(|n| format!("property number {n}")).collect();
    let properties: Value = names.iter().map(|name| (name.clone(), json!({"type": "string"}))).collect();
    let schemas = [
        nested(50, |inner| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]})),
        nested(1_000, |inner| json!({"type": "array", "items": inner, "minItems": 1})),
        nested(11, |inner| json!({"anyOf": [inner, {"type": "array", "items": inner}]})),
        json!({"type": "array", "items": {"type": "null"}, "minItems": 1_000_000}),
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "string", "maxLength": 1_000_000_000}),
        json!({"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"}),
        json!({"type": "string", "pattern": "^(.*a.{500})(.*b.{500})$"}),
        json!({"enum": names}),
        json!({"type": "object", "properties": properties, "additionalProperties": false}),
        json!({"type": "object", "properties": properties, "required": names}),
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}, {"type": "object"}]}),
        json!({"type": "number", "multipleOf": 1e-300}),
    ];
    for schema in schemas {
        write_if_compiled(&compiler, &GrammarSpec::JsonSchema(schema));
    }
    for regex in [
        "(x+x+)+y",
        "((a*)*)*b",
        ".{0,100000}x",
        "(a|b|ab)*c{5000}",
        "(?s:.)*(abc){2000}",
        &"(".repeat(50_000),
    ] {
        write_if_compiled(&compiler, &GrammarSpec::Regex(regex.to_owned()));
    }
    let deep_rule = format!("start: {}\"a\"{}", "(".repeat(150), ")".repeat(150));
    for lark in [&deep_rule, "start: a* a* a* a* a*\na: \"x\"", "start: a a a\na: start | \"x\""] {
        write_if_compiled(&compiler, &GrammarSpec::Lark(lark.to_owned()));
    }
}

fn write_if_compiled(compiler: &GrammarCompiler, spec: &GrammarSpec) {
    if let Ok(mut grammar) = compiler.compile(spec, 300) {
        write(&mut grammar, Chooser::NeverClosing(3), 300);
    }
}
