//! JSON Schemas that callers give: read once, bounded in time, and never looked up anywhere.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value;

use super::form::is_json;

/// Longest schema that is read, in bytes, and most values in it.
const SCHEMA_LEN_MAX: usize = 32 << 10;
const VALUES_MAX: u64 = 4_096;
/// Deepest document that is looked into, and the most steps that one may take: some milliseconds.
const DEPTH_MAX: usize = 32;
const STEPS_MAX: u64 = 1 << 20;
/// Longest way through a schema within one value of the document.
const WAY_LEN_MAX: usize = 256;
/// Most that a pattern is compiled to, in bytes.
const PATTERN_LEN_MAX: usize = 1 << 20;
/// Most schemas that are kept read, and most bytes of them.
const KEPT_MAX: usize = 128;
const KEPT_LEN_MAX: usize = 1 << 20;

/// How a schema is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wording {
    /// As JSON Schema has it.
    Json,
    /// So, or as Gemini has it: types in capitals, and `nullable`.
    Either,
}

/// Schemas that were read lately, newest last.
#[derive(Debug)]
pub struct Schemas {
    hasher: RandomState,
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    hash: u64,
    len: usize,
    /// None where it is no schema that can be used.
    schema: Option<Arc<Schema>>,
}

/// A schema, and what it takes to go through a document with it.
struct Schema {
    validator: Validator,
    /// The most steps that a value may take, by how deep the document goes on below it.
    steps: Vec<u64>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Default for Schemas {
    fn default() -> Self {
        Self { hasher: RandomState::new(), kept: Mutex::default() }
    }
}

impl Schemas {
    /// Whether a text is JSON that is valid by a JSON Schema; none where the schema cannot be used.
    pub fn is_kept(&self, schema: &str, text: &str) -> Option<bool> {
        let value = serde_json::from_str(text).unwrap_or(Value::Null);
        let valid = self.is_valid(schema, Wording::Json, &value)?;
        Some(valid && is_json(text))
    }

    /// Whether a value is valid by a schema; none where that cannot be said: it is no schema, one
    /// that points elsewhere, or one that would take too long.
    pub(super) fn is_valid(&self, schema: &str, wording: Wording, value: &Value) -> Option<bool> {
        let schema = self.schema(schema, wording)?;
        let (depth, values) = measure(value, DEPTH_MAX)?;
        let steps = schema.steps.get(depth)?.saturating_mul(values);
        (steps <= STEPS_MAX).then(|| schema.validator.is_valid(value))
    }

    fn schema(&self, text: &str, wording: Wording) -> Option<Arc<Schema>> {
        let hash = self.hasher.hash_one((text, wording));
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = lock();
        if let Some(place) = kept.iter().position(|it| it.hash == hash && it.len == text.len()) {
            let found = kept.remove(place);
            let schema = found.schema.clone();
            kept.push(found);
            return schema;
        }
        drop(kept);
        // Whoever needs another one meanwhile does not wait for this.
        let schema = read(text, wording).map(Arc::new);
        let mut kept = lock();
        kept.push(Kept { hash, len: text.len(), schema: schema.clone() });
        while KEPT_MAX < kept.len() || KEPT_LEN_MAX < len(&kept) {
            kept.remove(0);
        }
        schema
    }
}

/// The bytes of the schemas that are kept.
fn len(kept: &[Kept]) -> usize {
    kept.iter().filter(|it| it.schema.is_some()).map(|it| it.len).sum()
}

/// How deep a value is, and how many values are in it; none where it is deeper than `depth_max`.
fn measure(value: &Value, depth_max: usize) -> Option<(usize, u64)> {
    let below = |(depth, values): (usize, u64), value: &Value| {
        let (inner, more) = measure(value, depth_max.checked_sub(1)?)?;
        Some((depth.max(inner + 1), values + more))
    };
    match value {
        Value::Array(items) => items.iter().try_fold((0, 1), below),
        Value::Object(members) => members.values().try_fold((0, 1), below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some((0, 1)),
    }
}

fn read(text: &str, wording: Wording) -> Option<Schema> {
    if SCHEMA_LEN_MAX < text.len() {
        return None;
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    if wording == Wording::Either {
        reword(&mut value);
    }
    let steps = Walk::steps(&value)?;
    let patterns =
        PatternOptions::regex().size_limit(PATTERN_LEN_MAX).dfa_size_limit(PATTERN_LEN_MAX);
    let options = jsonschema::options().with_pattern_options(patterns).with_retriever(Nowhere);
    Some(Schema { validator: options.build(&value).ok()?, steps })
}

/// Nothing is looked up: no file and no network.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("nothing is looked up".into())
    }
}

/// Writes a schema of Gemini's as JSON Schema: its types are in capitals, and what may be null says
/// so aside.
fn reword(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(reword),
        Value::Object(members) => {
            let kind = members.get("type").and_then(Value::as_str);
            let capital = kind.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_uppercase()));
            if let Some(kind) = kind.filter(|_| capital).map(str::to_ascii_lowercase) {
                let nullable = members.get("nullable") == Some(&Value::Bool(true));
                let kind =
                    if nullable { vec![kind, "null".to_owned()].into() } else { kind.into() };
                members.insert("type".to_owned(), kind);
            }
            members.values_mut().for_each(reword);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Counts the steps of a schema: each subschema that is applied to a value is one. Schemas that
/// branch into each other may take more of them than anybody can wait for.
struct Walk<'a> {
    root: &'a Value,
    /// The steps of each subschema for values of one depth less.
    below: HashMap<*const Value, u64>,
    here: HashMap<*const Value, u64>,
}

/// Too many.
const ENDLESS: u64 = u64::MAX;

impl<'a> Walk<'a> {
    /// The steps of a value by its depth; none where they cannot be told.
    fn steps(root: &'a Value) -> Option<Vec<u64>> {
        let (_, values) = measure(root, WAY_LEN_MAX)?;
        if VALUES_MAX < values {
            return None;
        }
        let mut walk = Self { root, below: HashMap::new(), here: HashMap::new() };
        let mut subschemas = Vec::new();
        gather(root, &mut subschemas);
        let mut steps = Vec::new();
        for _ in 0..=DEPTH_MAX {
            for subschema in &subschemas {
                walk.of(subschema, 0);
            }
            steps.push(walk.of(root, 0));
            walk.below = std::mem::take(&mut walk.here);
        }
        (steps[0] != ENDLESS).then_some(steps)
    }

    fn of(&mut self, schema: &'a Value, way: usize) -> u64 {
        let key = std::ptr::from_ref(schema);
        if let Some(known) = self.here.get(&key) {
            return *known;
        }
        let Value::Object(members) = schema else { return 1 };
        if WAY_LEN_MAX < way {
            return ENDLESS;
        }
        // One that leads to itself within a value would never end.
        self.here.insert(key, ENDLESS);
        let mut steps: u64 = 1;
        // What the whole is called changes nothing within it.
        let is_root = std::ptr::eq(schema, self.root);
        for (name, value) in members.iter().filter(|it| !is_root || it.0 != "$id") {
            steps = steps.saturating_add(self.keyword(name, value, way + 1));
        }
        self.here.insert(key, steps);
        steps
    }

    fn keyword(&mut self, name: &str, value: &'a Value, way: usize) -> u64 {
        let below = |value: &Value| -> u64 {
            self.below.get(&std::ptr::from_ref(value)).copied().unwrap_or(1)
        };
        match (name, value) {
            ("$ref", Value::String(to)) => match self.target(to) {
                Some(target) => self.of(target, way),
                None => ENDLESS,
            },
            // What these point to is known only while they are used.
            ("$dynamicRef" | "$recursiveRef" | "$id", _) => ENDLESS,
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                all.iter().fold(0, |sum: u64, it| sum.saturating_add(self.of(it, way)))
            }
            ("not" | "if" | "then" | "else" | "propertyNames", one) => self.of(one, way),
            ("dependentSchemas" | "dependencies", Value::Object(all)) => {
                all.values().fold(0, |sum: u64, it| sum.saturating_add(self.of(it, way)))
            }
            // Each value below is one of these.
            ("properties", Value::Object(all)) => all.values().map(below).max().unwrap_or(0),
            ("items" | "prefixItems", Value::Array(all)) => {
                all.iter().map(below).max().unwrap_or(0)
            }
            ("patternProperties", Value::Object(all)) => {
                all.values().map(below).fold(0, u64::saturating_add)
            }
            (
                "items"
                | "additionalItems"
                | "additionalProperties"
                | "contains"
                | "unevaluatedItems"
                | "unevaluatedProperties",
                one,
            ) => below(one),
            _ => 0,
        }
    }

    /// Where a reference within the schema points.
    fn target(&self, to: &str) -> Option<&'a Value> {
        // A pointer in a fragment may be percent-encoded; such a one is left alone.
        let pointer = to.strip_prefix('#').filter(|it| !it.contains('%'))?;
        self.root.pointer(pointer)
    }
}

/// All that may be a subschema.
fn gather<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|it| gather(it, all)),
        Value::Object(members) => {
            all.push(value);
            members.values().for_each(|it| gather(it, all));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid(schema: &Value, value: &Value) -> Option<bool> {
        Schemas::default().is_valid(&schema.to_string(), Wording::Json, value)
    }

    #[test]
    fn a_value_is_valid_or_not() {
        let schema = json!({"type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {"a": {"enum": ["x", "y"]}, "b": {"type": ["integer", "null"]}}});
        assert_eq!(valid(&schema, &json!({"a": "x", "b": null})), Some(true));
        assert_eq!(valid(&schema, &json!({"a": "x", "b": 1.0})), Some(true));
        for wrong in [json!({"a": "z"}), json!({"b": 1}), json!({"a": "x", "c": 1}), json!([])] {
            assert_eq!(valid(&schema, &wrong), Some(false), "{wrong}");
        }
        let named = json!({"$id": "https://example.com/a", "$schema":
            "https://json-schema.org/draft/2020-12/schema", "type": "null"});
        assert_eq!(valid(&named, &json!(1)), Some(false));
        assert_eq!(valid(&json!(true), &json!(1)), Some(true));
        assert_eq!(valid(&json!(false), &json!(1)), Some(false));
    }

    #[test]
    fn gemini_writes_its_types_in_capitals() {
        let schema = json!({"type": "OBJECT", "properties": {
            "type": {"type": "STRING"}, "n": {"type": "INTEGER", "nullable": true}}});
        let valid = |wording, value: Value| {
            Schemas::default().is_valid(&schema.to_string(), wording, &value)
        };
        assert_eq!(valid(Wording::Either, json!({"type": "A", "n": null})), Some(true));
        assert_eq!(valid(Wording::Either, json!({"type": 1})), Some(false));
        assert_eq!(valid(Wording::Either, json!({"n": "1"})), Some(false));
        assert_eq!(valid(Wording::Json, json!({"n": 1})), None, "no schema at all");
    }

    #[test]
    fn what_points_elsewhere_or_is_no_schema_says_nothing() {
        for schema in [
            json!({"$ref": "https://example.com/a.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"properties": {"a": {"$ref": "other.json#/a"}}}),
            json!({"$ref": "#/$defs/missing"}),
            json!({"not": {"$id": "https://example.com/a"}}),
            json!({"$dynamicRef": "#a"}),
            json!({"type": "nonsense"}),
            json!({"type": "object", "pattern": "(?=a)b"}),
            json!({"pattern": "((a{100}){100}){100}"}),
            json!({"enum": ["x".repeat(SCHEMA_LEN_MAX)]}),
            json!({"enum": vec![1; 5_000]}),
        ] {
            let text: String = schema.to_string().chars().take(80).collect();
            assert_eq!(valid(&schema, &json!({"a": "a"})), None, "{text}");
        }
        let schemas = Schemas::default();
        assert_eq!(schemas.is_valid("{", Wording::Json, &json!(1)), None);
        assert_eq!(schemas.is_valid("[]", Wording::Json, &json!(1)), None);
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!({}), |inner, _| json!({ "a": inner }))
    }

    #[test]
    fn a_schema_may_lead_to_itself_in_what_is_below_and_not_in_place() {
        let tree = json!({"$defs": {"tree": {"type": "object", "properties":
            {"a": {"$ref": "#/$defs/tree"}}, "additionalProperties": false}},
            "$ref": "#/$defs/tree"});
        assert_eq!(valid(&tree, &nested(20)), Some(true));
        assert_eq!(valid(&tree, &json!({"a": {"a": {"b": 1}}})), Some(false));
        assert_eq!(valid(&tree, &nested(DEPTH_MAX + 1)), None, "too deep");
        for endless in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"not": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
                "$ref": "#/$defs/a"}),
        ] {
            assert_eq!(valid(&endless, &json!({"a": 1})), None, "{endless}");
        }
    }

    #[test]
    fn a_schema_that_would_take_for_ever_says_nothing_at_once() {
        // Each definition applies the next one twice: 2^60 steps for a single value.
        let mut all = serde_json::Map::new();
        for step in 0..60 {
            let next = json!({"$ref": format!("#/$defs/d{}", step + 1)});
            all.insert(format!("d{step}"), json!({"allOf": [next, next]}));
        }
        all.insert("d60".to_owned(), json!({"type": "object"}));
        let doubling = json!({"$defs": all, "$ref": "#/$defs/d0"});
        assert_eq!(valid(&doubling, &json!({})), None);
        // Twice what is below at each level: for a flat document it is nothing.
        let branching = json!({"oneOf": [
            {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            {"properties": {"a": {"$ref": "#"}}, "required": ["b"]}]});
        assert_eq!(valid(&branching, &json!({"b": 1})), Some(true));
        assert_eq!(valid(&branching, &nested(30)), None);
    }

    /// On a thread with as much of a stack as the program's have.
    #[test]
    fn the_longest_way_through_a_schema_fits_on_a_stack() {
        let chain = |len: usize| {
            let mut all = serde_json::Map::new();
            for step in 0..len {
                let next = json!({"$ref": format!("#/d{}", step + 1)});
                let inner = if step % 2 == 0 { json!({ "items": next }) } else { next };
                all.insert(format!("d{step}"), inner);
            }
            all.insert(format!("d{len}"), json!({"type": "object"}));
            all.insert("$ref".to_owned(), json!("#/d0"));
            Value::Object(all)
        };
        for len in [10, 120, 400, 1_000] {
            assert!(valid(&chain(len), &json!({})).is_some(), "{len}");
        }
        assert_eq!(valid(&chain(3_000), &json!({})), None);
        let deep = (0..120).fold(json!({}), |inner, _| json!({ "not": inner }));
        let _ = valid(&deep, &nested(DEPTH_MAX));
    }

    #[test]
    fn only_so_many_schemas_are_kept() {
        let schemas = Schemas::default();
        let kept = || schemas.kept.lock().unwrap().len();
        let ask = |number: usize, len: usize| {
            let schema = json!({"const": number, "description": "x".repeat(len)}).to_string();
            schemas.is_valid(&schema, Wording::Json, &json!(number))
        };
        for number in 0..2 * KEPT_MAX {
            assert_eq!(ask(number, 1), Some(true));
        }
        assert_eq!(kept(), KEPT_MAX);
        for number in 0..64 {
            assert_eq!(ask(number, 30_000), Some(true));
        }
        let bytes = len(&schemas.kept.lock().unwrap());
        assert!(kept() < 40 && bytes <= KEPT_LEN_MAX, "{} of {bytes} bytes", kept());
        assert_eq!(ask(63, 30_000), Some(true));
        assert_eq!(schemas.is_valid("{", Wording::Json, &json!(1)), None);
        assert!(schemas.kept.lock().unwrap().len() <= KEPT_MAX);
    }
}
