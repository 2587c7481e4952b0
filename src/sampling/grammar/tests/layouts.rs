use super::*;

#[test]
fn a_property_and_an_item_have_a_line_each() {
    let compiler = compiler();
    let word = json!({"type": "string", "pattern": "^[a-z]+$"});
    let pair = json!({"type": "object", "properties": {"a": word, "b": {"enum": [0, null, true]}},
                      "additionalProperties": false});
    let schemas = [
        json!({"type": "object", "properties": {"question": word, "options": {"type": "array", "items": word,
               "minItems": 2, "maxItems": 4}, "answer": {"enum": [0, 1]}},
               "required": ["question", "options", "answer"], "additionalProperties": false}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": ["boolean", "null"]}, "maxItems": 2}}),
        json!({"$ref": "#/$defs/list", "$defs": {"pair": pair, "list": {"type": "array", "items": {"$ref": "#/$defs/pair"},
               "minItems": 1}}}),
        json!({"anyOf": [pair, {"type": "object", "properties": {"a\"é": pair, "b": word, "c": word},
               "required": ["b"], "additionalProperties": false}]}),
        json!({"type": "object", "properties": {}, "additionalProperties": false}),
        json!({"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/word"}, {"type": "null"}, pair]}, "maxItems": 1,
               "$defs": {"word": word}}),
        json!({"anyOf": [word, {"type": "null"}]}),
    ];
    for schema in schemas {
        check(&compiler, &GrammarSpec::JsonSchema(schema), |reply| {
            let document: Value = serde_json::from_str(reply).expect(reply);
            serde_json::to_string_pretty(&document).expect("JSON") == reply
        });
    }
}

/// A part that cannot be compiled would take the layout from the whole document, and nobody would know.
#[test]
fn every_layout_compiles() {
    let compiler = compiler();
    for schema in schemas() {
        let lark = layout::lark(&Value::Object(schema::prepare(&schema).expect("a sound schema")));
        if let Some(lark) = lark {
            compiler
                .compile(&GrammarSpec::Lark(lark.clone()), 10_000)
                .unwrap_or_else(|error| panic!("{error}: {lark}"));
        }
    }
}

#[test]
fn a_layout_does_not_grow_without_end() {
    let many = |n: usize, property: &dyn Fn(usize) -> Value, more: Value| {
        let properties: serde_json::Map<_, _> =
            (0..n).map(|idx| (format!("p{idx}"), property(idx))).collect();
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        schema.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        layout::lark(&Value::Object(schema::prepare(&schema).expect("a sound schema")))
    };
    let large = json!({"$defs": {"s": {"type": "string"}, "large": {"enum": ["x".repeat(100_000)]}}});
    let list = |idx: usize| json!({"type": ["array"], "minItems": idx, "items": {"$ref": "#/$defs/s"}});
    assert!(many(3, &list, large.clone()).is_some());
    assert!(many(300, &list, large).is_none());
    let chain = (0..1_000).map(|idx| (format!("d{idx}"), json!({"$ref": format!("#/$defs/d{}", idx + 1)})));
    let chain: serde_json::Map<_, _> = chain.chain([("d1000".to_owned(), json!({"const": 1}))]).collect();
    let along = |step: usize| move |idx: usize| json!({"$ref": format!("#/$defs/d{}", step * idx)});
    assert!(many(3, &along(333), json!({"$defs": chain.clone()})).is_none(), "half a million looks");
    assert!(
        many(3, &along(1), json!({"$defs": {"d0": {"const": 0}, "d1": {"const": 1}, "d2": {"const": 2}}}))
            .is_some()
    );
}

#[test]
fn what_has_no_layout_of_its_own_is_laid_out_by_the_model() {
    let compiler = compiler();
    let write = |schema: &Value, text: &str| {
        let mut grammar =
            compiler.compile(&GrammarSpec::JsonSchema(schema.clone()), 200).expect("it compiles");
        let mut written = Vec::new();
        while !grammar.is_finished() {
            let mut tokens = grammar.forced().expect("forced tokens");
            if tokens.is_empty() {
                let byte = *text.as_bytes().get(written.len()).unwrap_or_else(|| panic!("{text} goes on"));
                tokens.push(grammar.accept(u32::from(byte)).expect("a token"));
            }
            written.extend(tokens.iter().flat_map(|&token| grammar.vocabulary.bytes(token).to_vec()));
        }
        String::from_utf8(written).expect("UTF-8")
    };
    let numbers = json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 3, "maxItems": 3});
    for text in ["[1, 2, 3]", "[1,2,3]", "[\n  1,\n  2,\n  3\n]"] {
        assert_eq!(write(&numbers, text), text);
    }
    let open = json!({"type": "object", "properties": {"a": numbers}, "required": ["a"]});
    for text in ["{\"a\": [1, 2, 3]}", "{\n \"a\": [1, 2, 3],\n \"b\": {}\n}"] {
        assert_eq!(write(&open, text), text);
    }
    // A property that no value fits is left out.
    let odd = json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 4}, "b": {"const": 1}},
                     "required": ["b"], "additionalProperties": false});
    assert_eq!(write(&odd, "{\"b\": 1}"), "{\"b\": 1}");
    // What comes back to itself has no lines of its own, what is around it has.
    let node = json!({"type": "object", "properties": {"in": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                      "required": ["in"], "additionalProperties": false});
    let tree = json!({"type": "object", "properties": {"tree": {"$ref": "#/$defs/node"}}, "required": ["tree"],
                      "additionalProperties": false, "$defs": {"node": node}});
    let text = "{\n  \"tree\": {\"in\": {\"in\": null}}\n}";
    assert_eq!(write(&tree, text), text);
    // One of two objects may begin as the other does.
    let closed = json!({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": false});
    let either =
        json!({"anyOf": [closed, {"type": "object", "properties": {"b": {"const": 2}}, "required": ["b"]}]});
    for text in ["{\n  \"b\": 2\n}", "{\n  \"a\": 1\n}"] {
        assert_eq!(write(&either, text), text);
    }
    // References mean what they do from the root.
    let inner = json!({"$defs": {"x": {"const": "s"}}, "type": "array", "prefixItems": [{"$ref": "#/$defs/x"}],
                       "items": false, "minItems": 1});
    let outer = json!({"$defs": {"x": {"const": 1}}, "type": "object", "properties": {"p": inner}, "required": ["p"],
                       "additionalProperties": false});
    assert_eq!(write(&outer, "{\n  \"p\": [1]\n}"), "{\n  \"p\": [1]\n}");
    let escaped = json!({"$defs": {"a/b": {"const": 1}, "a~1b": {"const": "s"}}, "$ref": "#/$defs/a~1b"});
    assert_eq!(write(&escaped, "1"), "1");
}

/// Definitions that hold one another have one rule, others one for each depth they are used at.
#[test]
fn definitions_do_not_multiply() {
    let compiler = compiler();
    let definitions = |refers: &dyn Fn(usize, usize) -> bool| -> Value {
        let definition = |idx| {
            let fields = (0..20).filter(|&other| refers(idx, other)).map(|other| {
                (
                    format!("p{other}"),
                    json!({"anyOf": [{"$ref": format!("#/$defs/d{other}")}, {"type": "null"}]}),
                )
            });
            (
                format!("d{idx}"),
                json!({"type": "object", "properties": fields.collect::<serde_json::Map<_, _>>(),
                                       "required": [], "additionalProperties": false}),
            )
        };
        json!({"$ref": "#/$defs/d0", "$defs": (0..20).map(definition).collect::<serde_json::Map<_, _>>()})
    };
    let all: &dyn Fn(usize, usize) -> bool = &|_, _| true;
    let later: &dyn Fn(usize, usize) -> bool = &|idx, other| idx < other;
    for (refers, most_rules) in [(all, 1), (later, 20 * 20)] {
        let schema = definitions(refers);
        let lark = layout::lark(&Value::Object(schema::prepare(&schema).expect("a sound schema")));
        let lark = lark.expect("it is small");
        assert!(lark.lines().count() <= 1 + most_rules * 3, "{lark}");
        let mut grammar = compiler.compile(&GrammarSpec::JsonSchema(schema), 20).expect("it compiles");
        assert_eq!(write(&mut grammar, Chooser::Highest, 20), "{}");
    }
}
