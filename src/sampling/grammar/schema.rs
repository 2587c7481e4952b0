//! JSON schemas made ready for llguidance, and refused where it would not honour them.

use super::GrammarError;
use serde_json::{Map, Value, json};

/// Schemas in schemas; deeper ones are refused.
const MAX_DEPTH: usize = 64;
/// Schemas in all, and properties of one object: llguidance takes about a second for twice as many.
const MAX_SCHEMAS: usize = 5_000;
const MAX_PROPERTIES: usize = 500;
/// Tries to find the part of a schema that llguidance refuses.
const MAX_BLAME_TRIES: usize = 64;
/// llguidance reads numbers as `f64`; integers from here on, 2^53, may lose digits.
const FIRST_INEXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Numbers that the schema leaves unbounded stay below this, so that no reader runs out of digits.
const LARGEST_NUMBER: i64 = 999_999_999_999_999;

/// Keywords that say nothing about which documents fit.
const ANNOTATIONS: [&str; 12] = [
    "$comment",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];
/// Keywords that name a schema or a place, for `$ref`.
const NAMES: [&str; 5] = ["$anchor", "$id", "$ref", "$schema", "id"];
/// Keywords with a value that is no schema.
const ASSERTIONS: [&str; 17] = [
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "type",
];
/// Keywords with a schema, or a list of them.
const SCHEMAS: [&str; 7] =
    ["additionalItems", "additionalProperties", "allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords with schemas by name.
const SCHEMA_MAPS: [&str; 4] = ["$defs", "definitions", "patternProperties", "properties"];
/// Keywords that bring another schema, or literal documents, to the same place.
const APPLICATORS: [&str; 6] = ["$ref", "allOf", "anyOf", "const", "enum", "oneOf"];
/// What llguidance 1.9.1 has regular expressions for.
const FORMATS: [&str; 10] =
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"];

/// The schema without annotations, with bounds that are missing.
///
/// # Errors
/// [`GrammarError::Unsupported`] naming the keyword and its place: one that llguidance ignores or gets
/// wrong, or one that nobody knows. Other keywords that it cannot honour it refuses itself.
pub(super) fn prepare(schema: &Value) -> Result<Map<String, Value>, GrammarError> {
    let mut stripped = strip(schema, &mut Place::default())?;
    if !intersects(&stripped) {
        let (name, definition) = any_value(&stripped);
        spell_out_any(&mut stripped, &json!({"$ref": format!("#/$defs/{name}")}));
        if let Some(definitions) =
            stripped.as_object_mut().map(|object| object.entry("$defs").or_insert(json!({})))
        {
            definitions[name] = definition;
        }
    }
    match stripped {
        Value::Object(schema) => Ok(schema),
        Value::Bool(true) => Ok(Map::new()),
        _ => Err(GrammarError::unsupported("the schema allows no document")),
    }
}

/// The place of the smallest part of `schema` that is `refused` by itself, as a JSON pointer.
pub(super) fn blame(schema: &Value, refused: impl Fn(Map<String, Value>) -> bool) -> Option<String> {
    let definitions: Vec<(&str, Value)> = ["$defs", "definitions"]
        .into_iter()
        .filter_map(|keyword| Some((keyword, schema.get(keyword)?.clone())))
        .collect();
    let refused = |part: &Value| {
        let mut part = part.clone();
        for (keyword, value) in &definitions {
            part.as_object_mut()?.entry(*keyword).or_insert_with(|| value.clone());
        }
        Some(refused(prepare(&part).ok()?))
    };
    let mut place = String::new();
    let mut part = schema;
    let mut n_tries = 0;
    while let Some((step, inner)) = children(part).into_iter().find(|(_, inner)| {
        n_tries += 1;
        n_tries <= MAX_BLAME_TRIES && refused(inner) == Some(true)
    }) {
        place.push_str(&step);
        part = inner;
    }
    (!place.is_empty()).then_some(place)
}

/// The schemas directly in a schema, with the steps of a JSON pointer that lead to them.
pub(super) fn children(schema: &Value) -> Vec<(String, &Value)> {
    let Some(schema) = schema.as_object() else { return Vec::new() };
    let mut children = Vec::new();
    for (keyword, value) in schema {
        match value {
            Value::Array(parts) if SCHEMAS.contains(&keyword.as_str()) => {
                children.extend(parts.iter().enumerate().map(|(i, part)| (format!("/{keyword}/{i}"), part)));
            }
            Value::Object(parts) if SCHEMA_MAPS.contains(&keyword.as_str()) => {
                children
                    .extend(parts.iter().map(|(name, part)| (format!("/{keyword}/{}", escape(name)), part)));
            }
            part if SCHEMAS.contains(&keyword.as_str()) => children.push((format!("/{keyword}"), part)),
            _ => {}
        }
    }
    children
}

/// Where in the schema we are.
#[derive(Default)]
struct Place {
    steps: Vec<String>,
    /// Schemas met so far.
    n_schemas: usize,
}

impl Place {
    fn within<T>(
        &mut self,
        step: &str,
        f: impl FnOnce(&mut Self) -> Result<T, GrammarError>,
    ) -> Result<T, GrammarError> {
        self.steps.push(escape(step));
        let result = if self.steps.len() > 2 * MAX_DEPTH {
            Err(GrammarError::unsupported(format!("the schema nests deeper than {MAX_DEPTH}")))
        } else {
            f(self)
        };
        self.steps.pop();
        result
    }

    fn refuse(&self, reason: impl std::fmt::Display) -> GrammarError {
        let place = self.steps.iter().map(|step| format!("/{step}")).collect::<String>();
        let place = if place.is_empty() { "the top" } else { &place };
        GrammarError::unsupported(format!("{reason} (at {place})"))
    }
}

/// A step of a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn strip(schema: &Value, place: &mut Place) -> Result<Value, GrammarError> {
    let object = match schema {
        Value::Bool(_) => return Ok(schema.clone()),
        Value::Object(object) => object,
        _ => return Err(place.refuse("a schema must be an object or a boolean")),
    };
    place.n_schemas += 1;
    if place.n_schemas > MAX_SCHEMAS {
        return Err(GrammarError::unsupported(format!("it holds more than {MAX_SCHEMAS} schemas")));
    }
    if object.get("properties").and_then(Value::as_object).is_some_and(|named| named.len() > MAX_PROPERTIES) {
        return Err(place.refuse(format!("an object with more than {MAX_PROPERTIES} properties")));
    }
    let mut stripped = Map::new();
    for (keyword, value) in object {
        let keyword = keyword.as_str();
        if ANNOTATIONS.contains(&keyword) || (keyword.starts_with("x-") && keyword != "x-guidance") {
            continue;
        }
        if keyword == "uniqueItems" && value == &Value::Bool(false) {
            continue;
        }
        let value = if SCHEMAS.contains(&keyword) {
            place.within(keyword, |place| strip_schemas(value, place))?
        } else if SCHEMA_MAPS.contains(&keyword) {
            place.within(keyword, |place| strip_map(value, place))?
        } else if ASSERTIONS.contains(&keyword) || NAMES.contains(&keyword) {
            check_assertion(keyword, value, place)?;
            value.clone()
        } else {
            return Err(place.refuse(format!("the keyword `{keyword}` is not supported")));
        };
        stripped.insert(keyword.to_owned(), value);
    }
    check_min_properties(&stripped, place)?;
    bound_numbers(&mut stripped);
    Ok(Value::Object(stripped))
}

fn strip_schemas(value: &Value, place: &mut Place) -> Result<Value, GrammarError> {
    match value {
        Value::Array(parts) => {
            let strip_part =
                |(i, part): (usize, &Value)| place.within(&i.to_string(), |place| strip(part, place));
            parts.iter().enumerate().map(strip_part).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        part => strip(part, place),
    }
}

fn strip_map(value: &Value, place: &mut Place) -> Result<Value, GrammarError> {
    let Value::Object(parts) = value else { return Err(place.refuse("schemas by name must be an object")) };
    let strip_part =
        |(name, part): (&String, &Value)| Ok((name.clone(), place.within(name, |place| strip(part, place))?));
    parts.iter().map(strip_part).collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn check_assertion(keyword: &str, value: &Value, place: &Place) -> Result<(), GrammarError> {
    match (keyword, value) {
        ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => {
            Err(place.refuse(format!("the format `{format}` is not supported")))
        }
        ("pattern" | "$ref" | "format", value) if !value.is_string() => {
            Err(place.refuse(format!("`{keyword}` must be a string")))
        }
        ("const" | "enum" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum", value)
            if !is_exact(value) =>
        {
            Err(place.refuse(format!("an integer in `{keyword}` is too large to be exact")))
        }
        _ => Ok(()),
    }
}

fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) if !number.is_f64() => {
            number.as_f64().is_some_and(|number| number.abs() < FIRST_INEXACT_INTEGER)
        }
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}

/// Gives numbers the bounds that are missing. Left alone a model may write digits until its budget is
/// used up, and JSON readers refuse numbers past `f64`.
fn bound_numbers(schema: &mut Map<String, Value>) {
    let numeric = |name: &Value| name == "integer" || name == "number";
    let numbers = match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(numeric),
        Some(name) => numeric(name),
        // No type means all types, unless the schema speaks of something else altogether.
        None => schema.keys().any(|keyword| ASSERTIONS.contains(&keyword.as_str())),
    };
    if !numbers || schema.keys().any(|keyword| APPLICATORS.contains(&keyword.as_str())) {
        return;
    }
    for (bound, exclusive, value) in
        [("minimum", "exclusiveMinimum", -LARGEST_NUMBER), ("maximum", "exclusiveMaximum", LARGEST_NUMBER)]
    {
        if !schema.contains_key(bound) && !schema.contains_key(exclusive) {
            schema.insert(bound.to_owned(), value.into());
        }
    }
}

/// A definition of any JSON value, numbers bounded, and a name for it that `schema` does not use.
fn any_value(schema: &Value) -> (String, Value) {
    let mut name = "value".to_owned();
    while schema.get("$defs").is_some_and(|definitions| definitions.get(&name).is_some()) {
        name.push('_');
    }
    let value = json!({"$ref": format!("#/$defs/{name}")});
    let mut scalar = Map::from_iter([("type".to_owned(), json!(["null", "boolean", "number", "string"]))]);
    bound_numbers(&mut scalar);
    let definition = json!({"anyOf": [
        scalar,
        {"type": "array", "items": value},
        {"type": "object", "additionalProperties": value},
    ]});
    (name, definition)
}

/// Writes `any` wherever the schema allows any value, said or unsaid, for its numbers to be bounded.
fn spell_out_any(schema: &mut Value, any: &Value) {
    let Value::Object(object) = schema else {
        if *schema == Value::Bool(true) {
            *schema = any.clone();
        }
        return;
    };
    let is_definition = |keyword: &String| ["$defs", "definitions", "$schema"].contains(&keyword.as_str());
    let says_nothing = object.keys().all(is_definition);
    for (keyword, value) in object.iter_mut() {
        match value {
            Value::Array(parts) if SCHEMAS.contains(&keyword.as_str()) => {
                parts.iter_mut().for_each(|part| spell_out_any(part, any));
            }
            Value::Object(parts) if SCHEMA_MAPS.contains(&keyword.as_str()) => {
                parts.values_mut().for_each(|part| spell_out_any(part, any));
            }
            part if SCHEMAS.contains(&keyword.as_str()) => spell_out_any(part, any),
            _ => {}
        }
    }
    if says_nothing {
        object.extend(any.as_object().expect("a reference is an object").clone());
    } else if !object.keys().any(|keyword| APPLICATORS.contains(&keyword.as_str())) {
        let allows = |name: &str| match object.get("type") {
            Some(Value::Array(names)) => names.iter().any(|allowed| allowed == name),
            Some(allowed) => allowed == name,
            None => true,
        };
        let (objects, arrays) = (allows("object"), allows("array"));
        if objects {
            object.entry("additionalProperties").or_insert_with(|| any.clone());
        }
        if arrays {
            let list = object.get("items").is_some_and(Value::is_array);
            object.entry(if list { "additionalItems" } else { "items" }).or_insert_with(|| any.clone());
        }
    }
}

/// Whether llguidance must intersect schemas, or resolve references against names: it cannot intersect
/// two that recurse, so nothing recursive may be added.
fn intersects(schema: &Value) -> bool {
    let keywords = schema.as_object().into_iter().flat_map(|object| object.keys());
    let (mut n_applicators, mut n_others) = (0, 0);
    for keyword in keywords.map(String::as_str) {
        match keyword {
            "allOf" | "$id" | "id" => return true,
            "patternProperties" if schema.get("properties").is_some() => return true,
            _ if APPLICATORS.contains(&keyword) => n_applicators += 1,
            "$defs" | "definitions" | "$schema" | "$anchor" => {}
            _ => n_others += 1,
        }
    }
    let literal = schema.get("const").or(schema.get("enum")).is_some();
    (n_applicators > 1 || (n_applicators == 1 && n_others > 0 && !literal))
        || children(schema).iter().any(|(_, part)| intersects(part))
}

/// llguidance counts free properties without telling their names apart, so it would let two equal
/// names pass for two properties.
fn check_min_properties(schema: &Map<String, Value>, place: &Place) -> Result<(), GrammarError> {
    let n_required = schema.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    match schema.get("minProperties").and_then(Value::as_u64) {
        Some(least) if least > n_required + 1 => {
            Err(place.refuse("`minProperties` is supported only up to one more than the required properties"))
        }
        _ => Ok(()),
    }
}
