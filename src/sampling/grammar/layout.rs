//! Where the lines of a JSON document break.
//!
//! Most JSON that models have read has a property or an element a line, indented. Held to one line, small models
//! write items of which many fewer are usable (docs/performance.md). So objects that name all their properties, and
//! lists, are laid out as `json.dumps(document, indent=2)` does it, and the grammar forces every blank. llguidance
//! compiles a schema to one line or to blanks anywhere, so these parts are spelled in Lark here. All others, and
//! lists of numbers, are left to it and laid out by the model.

use super::schema::children;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// Parts in parts, and rules in all, for definitions that are used at many depths. What is beyond the model lays out.
const MAX_DEPTH: usize = 16;
const MAX_RULES: usize = 5_000;
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// A grammar in Lark for the documents of a schema made ready by [`prepare`](super::schema::prepare).
pub(super) fn lark(schema: &Value) -> String {
    let (rules, by_text, by_definition) = <_>::default();
    let mut layout = Layout { root: schema, rules, by_text, by_definition };
    let start =
        if refers_to_definitions_alone(schema) { layout.value(schema, 0) } else { layout.free(schema) };
    let rules = layout.rules.iter().enumerate().map(|(idx, rule)| format!("v{idx}: {rule}\n"));
    format!("start: {start}\n{}", rules.collect::<String>())
}

/// The schema with llguidance's options for documents that the model lays out: wherever JSON has room for it, a line
/// break and some indentation. Bounded, so that blanks end; fixed behind a colon, so that the grammar forces it.
pub(super) fn free(mut schema: Map<String, Value>) -> Value {
    schema.insert(
        "x-guidance".to_owned(),
        json!({"whitespace_pattern": r"\n {0,32}", "item_separator": ", ?", "key_separator": ": "}),
    );
    Value::Object(schema)
}

struct Layout<'s> {
    root: &'s Value,
    /// What the rules say; their names are `v` and the index.
    rules: Vec<String>,
    by_text: HashMap<String, String>,
    by_definition: HashMap<(&'s str, usize), String>,
}

impl<'s> Layout<'s> {
    /// The rule of a value that begins in a line indented `depth` times.
    fn value(&mut self, schema: &'s Value, depth: usize) -> String {
        if depth == MAX_DEPTH || self.rules.len() >= MAX_RULES {
            return self.free(schema);
        }
        let rule = match Part::of(schema) {
            Part::Object { properties, required } => self.object(properties, &required, depth),
            Part::List { items, min, max } => self.list(items, min, max, depth),
            Part::AnyOf(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.value(part, depth)).collect();
                parts.join(" | ")
            }
            Part::Reference(reference) => return self.definition(reference, schema, depth),
            Part::Other => return self.free(schema),
        };
        self.rule(rule)
    }

    /// The rule of the definition; where there is none, or it comes back to itself, of what the model lays out.
    fn definition(&mut self, reference: &'s str, schema: &'s Value, depth: usize) -> String {
        if let Some(rule) = self.by_definition.get(&(reference, depth)) {
            return rule.clone();
        }
        let rule = match self.find(reference) {
            Some(definition) if !self.leads_to(definition, reference) => self.value(definition, depth),
            _ => self.free(schema),
        };
        self.by_definition.insert((reference, depth), rule.clone());
        rule
    }

    fn find(&self, reference: &str) -> Option<&'s Value> {
        DEFINITIONS.into_iter().find_map(|keyword| {
            let name = reference.strip_prefix("#/")?.strip_prefix(keyword)?.strip_prefix('/')?;
            self.root.get(keyword)?.get(name)
        })
    }

    fn leads_to(&self, definition: &'s Value, reference: &str) -> bool {
        let mut known = HashSet::new();
        let mut parts = vec![definition];
        while let Some(part) = parts.pop() {
            if let Some(next) = part.get("$ref").and_then(Value::as_str) {
                if next == reference {
                    return true;
                }
                if known.insert(next) {
                    parts.extend(self.find(next));
                }
            }
            parts.extend(children(part).into_iter().map(|(_, part)| part));
        }
        false
    }

    fn object(&mut self, properties: &'s Map<String, Value>, required: &[&str], depth: usize) -> String {
        let line = new_line(depth + 1);
        let first_required = properties.keys().position(|name| required.contains(&name.as_str()));
        // Any of these may be the first to be written.
        let n_firsts = first_required.map_or(properties.len(), |idx| idx + 1);
        let mut firsts = Vec::new();
        let mut rest = literal(&format!("{}}}", new_line(depth)));
        for (idx, (name, schema)) in properties.iter().enumerate().rev() {
            let key = Value::from(name.as_str());
            let value = self.value(schema, depth + 1);
            if idx < n_firsts {
                firsts.push(format!("{} {value} {rest}", literal(&format!("{{{line}{key}: "))));
            }
            let next = format!("{} {value}", literal(&format!(",{line}{key}: ")));
            rest = match required.contains(&name.as_str()) {
                true => format!("{next} {rest}"),
                false => self.rule(format!("({next})? {rest}")),
            };
        }
        if first_required.is_none() {
            firsts.push(literal("{}"));
        }
        firsts.join(" | ")
    }

    fn list(&mut self, items: &'s Value, min: u64, max: Option<u64>, depth: usize) -> String {
        let line = new_line(depth + 1);
        let item = self.value(items, depth + 1);
        let more =
            format!("{},{}", min.saturating_sub(1), max.map_or(String::new(), |max| (max - 1).to_string()));
        let list = format!(
            "{} {item} ({} {item}){{{more}}} {}",
            literal(&format!("[{line}")),
            literal(&format!(",{line}")),
            literal(&format!("{}]", new_line(depth)))
        );
        if min == 0 { format!("{list} | {}", literal("[]")) } else { list }
    }

    fn free(&mut self, schema: &Value) -> String {
        let mut part = match schema {
            Value::Object(part) => part.clone(),
            Value::Bool(true) => Map::new(),
            _ => Map::from_iter([("enum".to_owned(), json!([]))]),
        };
        let refers = schema.to_string().contains("\"$ref\"");
        for keyword in DEFINITIONS.into_iter().filter(|_| refers).chain(["$schema"]) {
            if let Some(value) = self.root.get(keyword) {
                part.entry(keyword).or_insert_with(|| value.clone());
            }
        }
        self.rule(format!("%json {}", free(part)))
    }

    /// The name of the rule that says `text`.
    fn rule(&mut self, text: String) -> String {
        let Self { rules, by_text, .. } = self;
        let name = by_text.entry(text).or_insert_with_key(|text| {
            rules.push(text.clone());
            format!("v{}", rules.len() - 1)
        });
        name.clone()
    }
}

/// What a schema allows, as far as its lines go.
enum Part<'s> {
    Object {
        properties: &'s Map<String, Value>,
        required: Vec<&'s str>,
    },
    /// Between `min` and `max` items, and `max` is not 0.
    List {
        items: &'s Value,
        min: u64,
        max: Option<u64>,
    },
    AnyOf(&'s [Value]),
    Reference(&'s str),
    Other,
}

impl<'s> Part<'s> {
    fn of(schema: &'s Value) -> Self {
        Self::known(schema).unwrap_or(Self::Other)
    }

    fn known(schema: &'s Value) -> Option<Self> {
        let says_only = |keywords: &[&str]| {
            let beside = |keyword: &str| keyword == "$schema" || DEFINITIONS.contains(&keyword);
            let mut said = schema.as_object().into_iter().flat_map(Map::keys);
            said.all(|keyword| keywords.contains(&keyword.as_str()) || beside(keyword))
        };
        let count = |keyword| match schema.get(keyword) {
            Some(count) => count.as_u64().map(Some),
            None => Some(None),
        };
        if let Some(parts) = schema.get("anyOf") {
            let parts = parts.as_array().filter(|parts| !parts.is_empty())?;
            return says_only(&["anyOf"]).then_some(Self::AnyOf(parts));
        }
        if let Some(reference) = schema.get("$ref") {
            return says_only(&["$ref"]).then_some(Self::Reference(reference.as_str()?));
        }
        match schema.get("type")?.as_str()? {
            "object" if says_only(&["type", "properties", "required", "additionalProperties"]) => {
                let properties = schema.get("properties")?.as_object()?;
                let required = match schema.get("required") {
                    Some(names) => names.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?,
                    None => Vec::new(),
                };
                let closed = schema.get("additionalProperties") == Some(&Value::Bool(false))
                    && required.iter().all(|name| properties.contains_key(*name));
                closed.then_some(Self::Object { properties, required })
            }
            "array" if says_only(&["type", "items", "minItems", "maxItems"]) => {
                let items = schema.get("items")?;
                let (min, max) = (count("minItems")?.unwrap_or(0), count("maxItems")?);
                let of_numbers =
                    ["integer", "number"].map(Value::from).contains(items.get("type").unwrap_or(items));
                let some = max.is_none_or(|max| max >= min.max(1));
                (some && items.is_object() && !of_numbers).then_some(Self::List { items, min, max })
            }
            _ => None,
        }
    }
}

/// No part means another when it stands elsewhere: nothing refers to the document's root, or by another name.
fn refers_to_definitions_alone(schema: &Value) -> bool {
    let refers_elsewhere = schema.get("$ref").and_then(Value::as_str).is_some_and(|reference| {
        !DEFINITIONS.iter().any(|keyword| reference.starts_with(&format!("#/{keyword}/")))
    });
    let named = ["$id", "id", "$anchor"].iter().any(|keyword| schema.get(keyword).is_some());
    !refers_elsewhere && !named && children(schema).iter().all(|(_, part)| refers_to_definitions_alone(part))
}

fn new_line(depth: usize) -> String {
    format!("\n{}", "  ".repeat(depth))
}

/// A text in Lark.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}
