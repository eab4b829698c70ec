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
/// Bytes of a text in the document that are a value more.
const TEXT_LEN: usize = 64;
/// Most patterns of a schema, and most that all of them are compiled to, and that one is, in bytes.
const PATTERNS_MAX: usize = 32;
const PATTERNS_SIZE_MAX: usize = 1 << 20;
const PATTERN_SIZE_MAX: usize = 256 << 10;
/// Bytes that a pattern is compiled to for which it takes a step for a value: the slowest ones go
/// through all of it for each letter.
const PATTERN_STEP: usize = 512;
/// Most schemas that are kept read, and most memory that they may take, in bytes.
const KEPT_MAX: usize = 128;
const KEPT_SIZE_MAX: usize = 64 << 20;
/// The most memory that a schema takes for each byte of its text, and for each of what its patterns
/// are compiled to, which is done forwards and backwards.
const TEXT_SIZE: usize = 32;
const PATTERN_TIMES: usize = 2;

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

impl Kept {
    /// The most memory that it takes, in bytes.
    fn size(&self) -> usize {
        let patterns = self.schema.as_ref().map(|it| it.patterns);
        let size = |it| TEXT_SIZE * self.len + PATTERN_TIMES * it * pattern_size_max(it);
        patterns.map_or(0, size)
    }
}

/// A schema, and what it takes to go through a document with it.
struct Schema {
    validator: Validator,
    /// The most steps that a value may take, by how deep the document goes on below it.
    steps: Vec<u64>,
    /// Patterns in it.
    patterns: usize,
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
        let schema = read(text, wording).map(Arc::new);
        let mut kept = lock();
        kept.push(Kept { hash, len: text.len(), schema: schema.clone() });
        while KEPT_MAX < kept.len() || KEPT_SIZE_MAX < size(&kept) {
            kept.remove(0);
        }
        schema
    }
}

fn size(kept: &[Kept]) -> usize {
    kept.iter().map(Kept::size).sum()
}

fn len(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(ENDLESS)
}

/// How many values a text is, or the name of one.
fn values(text: &str) -> u64 {
    len(text.len() / TEXT_LEN)
}

/// How deep a value is, and how many values are in it, where a long text is several; none where it is
/// deeper than `depth_max`.
fn measure(value: &Value, depth_max: usize) -> Option<(usize, u64)> {
    let below = |(depth, values): (usize, u64), value: &Value| {
        let (inner, more) = measure(value, depth_max.checked_sub(1)?)?;
        Some((depth.max(inner + 1), values + more))
    };
    match value {
        Value::Array(items) => items.iter().try_fold((0, 1), below),
        Value::Object(members) => {
            let names = members.keys().map(|it| values(it)).sum::<u64>();
            members.values().try_fold((0, 1 + names), below)
        }
        Value::String(text) => Some((0, 1 + values(text))),
        Value::Null | Value::Bool(_) | Value::Number(_) => Some((0, 1)),
    }
}

/// Most that each of so many patterns is compiled to, in bytes.
fn pattern_size_max(patterns: usize) -> usize {
    PATTERN_SIZE_MAX.min(PATTERNS_SIZE_MAX / patterns.max(1))
}

/// How many patterns a schema has at most.
fn patterns(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(patterns).sum(),
        Value::Object(members) => {
            let own = |(name, value): (&String, &Value)| match (name.as_str(), value) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Object(all)) => all.len() + patterns(value),
                _ => patterns(value),
            };
            members.iter().map(own).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
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
    let patterns = Some(patterns(&value)).filter(|it| *it <= PATTERNS_MAX)?;
    let size_max = pattern_size_max(patterns);
    let steps = Walk::steps(&value, size_max / PATTERN_STEP)?;
    let limits = PatternOptions::regex().size_limit(size_max).dfa_size_limit(size_max);
    let options = jsonschema::options().with_pattern_options(limits).with_retriever(Nowhere);
    Some(Schema { validator: options.build(&value).ok()?, steps, patterns })
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
    /// The steps of a pattern.
    pattern: u64,
    /// The steps of each subschema for values of one depth less.
    below: HashMap<*const Value, u64>,
    here: HashMap<*const Value, u64>,
}

/// Too many.
const ENDLESS: u64 = u64::MAX;

impl<'a> Walk<'a> {
    /// The steps of a value by its depth; none where they cannot be told.
    fn steps(root: &'a Value, pattern: usize) -> Option<Vec<u64>> {
        let (_, values) = measure(root, WAY_LEN_MAX)?;
        if VALUES_MAX < values {
            return None;
        }
        let pattern = len(pattern);
        let mut walk = Self { root, pattern, below: HashMap::new(), here: HashMap::new() };
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
            // What these point to is known only while they are used, and what a text is as a
            // pattern.
            ("$dynamicRef" | "$recursiveRef" | "$id", _) => ENDLESS,
            ("format", Value::String(format)) if format == "regex" => ENDLESS,
            ("pattern", Value::String(_)) => self.pattern,
            // Each value is compared with all of these, or looked through for them.
            ("enum" | "const" | "required" | "dependentRequired", all) => {
                measure(all, WAY_LEN_MAX).map_or(ENDLESS, |(_, values)| values)
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                all.iter().fold(0, |sum: u64, it| sum.saturating_add(self.of(it, way)))
            }
            ("not" | "if" | "then" | "else" | "propertyNames", one) => self.of(one, way),
            ("dependentSchemas" | "dependencies", Value::Object(all)) => {
                let names = |it: &Value| it.as_array().map_or(0, |all| len(all.len()));
                all.values().fold(0, |sum: u64, it| {
                    sum.saturating_add(names(it)).saturating_add(self.of(it, way))
                })
            }
            // Each value below is one of these.
            ("properties", Value::Object(all)) => {
                let most = all.values().map(below).max().unwrap_or(0);
                most.saturating_add(len(all.len()))
            }
            ("items" | "prefixItems", Value::Array(all)) => {
                all.iter().map(below).max().unwrap_or(0)
            }
            ("patternProperties", Value::Object(all)) => {
                let each = all.values().map(|it| below(it).saturating_add(self.pattern));
                each.fold(0, u64::saturating_add)
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
#[path = "schema_tests.rs"]
mod tests;
