//! Where the lines of a JSON document break.
//!
//! Most JSON that models have read has a property or an element a line, indented. Held to one line, small models
//! write items of which many fewer are usable (docs/performance.md). So objects that name all their properties, and
//! lists, are laid out as `json.dumps(document, indent=2)` does it, and the grammar forces their breaks. llguidance
//! compiles a schema to one line or to blanks anywhere, so these parts are spelled in Lark here. All others, and
//! lists of numbers, are left to it and laid out by the model.

use super::schema::children;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// Parts in parts; what is deeper the model lays out.
const MAX_DEPTH: usize = 16;
/// Definitions may be used at many depths, and each part that llguidance compiles brings those it refers to: past so
/// long a grammar, or so many schemas looked at for what refers to itself, the model lays out the whole document.
const MAX_BYTES: usize = 1 << 19;
const MAX_LOOKS: usize = 300_000;
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// A grammar in Lark for the documents of a schema made ready by [`prepare`](super::schema::prepare). None if it would
/// be large, or a part would mean another where it is put.
pub(super) fn lark(schema: &Value) -> Option<String> {
    if !refers_to_definitions_alone(schema) {
        return None;
    }
    let mut layout = Layout {
        root: schema,
        rules: Vec::new(),
        n_bytes: 0,
        n_looks: 0,
        by_text: HashMap::new(),
        by_part: HashMap::new(),
        by_definition: HashMap::new(),
        recursive: HashMap::new(),
    };
    let start = layout.value(schema, 0);
    let rules = layout.rules.iter().enumerate().map(|(idx, rule)| format!("v{idx}: {rule}\n"));
    (!layout.is_too_large()).then(|| format!("start: {start}\n{}", rules.collect::<String>()))
}

/// The schema with llguidance's options for documents that the model lays out: wherever JSON has room for it, a line
/// break and some indentation, bounded, so that blanks end.
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
    n_bytes: usize,
    n_looks: usize,
    by_text: HashMap<String, String>,
    /// Rules of the parts that the model lays out, by their schemas.
    by_part: HashMap<String, String>,
    by_definition: HashMap<(&'s str, usize), String>,
    /// Whether a definition comes back to itself, by the reference to it.
    recursive: HashMap<&'s str, bool>,
}

impl<'s> Layout<'s> {
    fn is_too_large(&self) -> bool {
        self.n_bytes > MAX_BYTES || self.n_looks > MAX_LOOKS
    }

    /// The rule of a value that begins in a line indented `depth` times.
    fn value(&mut self, schema: &'s Value, depth: usize) -> String {
        if depth == MAX_DEPTH || self.is_too_large() {
            return self.free(schema);
        }
        let rule = match Part::of(schema) {
            Part::Object { properties, required } => self.object(properties, &required, depth),
            Part::List { items, min, max } => self.list(items, min, max, depth),
            Part::AnyOf(parts) => match self.any_of(parts, depth) {
                Some(rule) => rule,
                None => return self.free(schema),
            },
            Part::Reference(reference) => return self.definition(reference, schema, depth),
            Part::Scalar | Part::Other => return self.free(schema),
        };
        self.rule(rule)
    }

    /// The rule of the definition; where there is none, or it comes back to itself, of what the model lays out.
    fn definition(&mut self, reference: &'s str, schema: &'s Value, depth: usize) -> String {
        if let Some(rule) = self.by_definition.get(&(reference, depth)) {
            return rule.clone();
        }
        let rule = match self.find_plain(reference) {
            Some(definition) => self.value(definition, depth),
            None => self.free(schema),
        };
        self.by_definition.insert((reference, depth), rule.clone());
        rule
    }

    /// The definition, if it does not come back to itself.
    fn find_plain(&mut self, reference: &'s str) -> Option<&'s Value> {
        let definition = self.find(reference)?;
        let recursive = match self.recursive.get(reference) {
            Some(&recursive) => recursive,
            None => {
                let recursive = self.references_of(definition).is_none_or(|all| all.contains(reference));
                self.recursive.insert(reference, recursive);
                recursive
            }
        };
        (!recursive).then_some(definition)
    }

    /// What the reference names, if it is a definition by its plain name, not a part of one.
    fn find(&self, reference: &str) -> Option<&'s Value> {
        DEFINITIONS.into_iter().find_map(|keyword| {
            let name = reference.strip_prefix("#/")?.strip_prefix(keyword)?.strip_prefix('/')?;
            self.root.get(keyword)?.get(name).filter(|_| !name.contains(['/', '~', '%']))
        })
    }

    /// All references in the part and in the definitions that it leads to; None if it takes too long.
    fn references_of(&mut self, part: &'s Value) -> Option<HashSet<&'s str>> {
        let mut known = HashSet::new();
        let mut parts = vec![part];
        while let Some(part) = parts.pop() {
            self.n_looks += 1;
            if self.is_too_large() {
                return None;
            }
            if let Some(reference) = part.get("$ref").and_then(Value::as_str)
                && known.insert(reference)
            {
                parts.extend(self.find(reference));
            }
            parts.extend(children(part).into_iter().map(|(_, part)| part));
        }
        Some(known)
    }

    /// None if one of the parts is for the model to lay out and may begin as others do: llguidance takes the longest
    /// text that any of them may begin with, and what the model began would decide among them. Scalars are one part, as
    /// blanks might precede one of several.
    fn any_of(&mut self, parts: &'s [Value], depth: usize) -> Option<String> {
        let mut scalars = Vec::new();
        let mut rules = Vec::new();
        for part in parts {
            let mut plain = part;
            while let Part::Reference(reference) = Part::of(plain) {
                plain = self.find_plain(reference)?;
            }
            match Part::of(plain) {
                Part::Object { .. } | Part::List { .. } => rules.push(self.value(part, depth)),
                Part::Scalar => scalars.push(plain.clone()),
                _ => return None,
            }
        }
        if !scalars.is_empty() {
            rules.push(self.free(&json!({"anyOf": scalars})));
        }
        Some(rules.join(" | "))
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
        let last = literal(&format!("{}]", new_line(depth)));
        let next = format!("{} {item}", literal(&format!(",{line}")));
        let next = match max {
            Some(1) => String::new(),
            Some(max) => format!("({next}){{{},{}}}", min.saturating_sub(1), max - 1),
            None => format!("({next}){{{},}}", min.saturating_sub(1)),
        };
        let list = format!("{} {item} {next} {last}", literal(&format!("[{line}")));
        if min == 0 { format!("{list} | {}", literal("[]")) } else { list }
    }

    fn free(&mut self, schema: &Value) -> String {
        if self.is_too_large() {
            return String::new();
        }
        let key = schema.to_string();
        if let Some(rule) = self.by_part.get(&key) {
            return rule.clone();
        }
        let mut part = match schema {
            Value::Object(part) => part.clone(),
            Value::Bool(true) => Map::new(),
            _ => Map::from_iter([("enum".to_owned(), json!([]))]),
        };
        // What references mean is the root's to say.
        let refers = key.contains("\"$ref\"");
        for keyword in DEFINITIONS.into_iter().chain(["$schema"]) {
            part.remove(keyword);
            if let Some(value) = self.root.get(keyword).filter(|_| refers || keyword == "$schema") {
                part.insert(keyword.to_owned(), value.clone());
            }
        }
        let rule = self.rule(format!("%json {}", free(part)));
        self.by_part.insert(key, rule.clone());
        rule
    }

    /// The name of the rule that says `text`.
    fn rule(&mut self, text: String) -> String {
        let Self { rules, by_text, n_bytes, .. } = self;
        let name = by_text.entry(text).or_insert_with_key(|text| {
            *n_bytes += text.len();
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
    /// Neither objects nor lists.
    Scalar,
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
        let is_scalar = |value: &Value| !value.is_object() && !value.is_array();
        let is_scalar_type = |name: &Value| name != "object" && name != "array";
        let scalar = match (schema.get("type"), schema.get("enum"), schema.get("const")) {
            (_, Some(Value::Array(values)), _) => values.iter().all(is_scalar),
            (_, _, Some(value)) => is_scalar(value),
            (Some(Value::Array(names)), ..) => names.iter().all(is_scalar_type),
            (Some(name), ..) => is_scalar_type(name),
            _ => false,
        };
        if scalar {
            return Some(Self::Scalar);
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
