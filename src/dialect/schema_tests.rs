//! What schemas say, what they may take, and what is kept of them.

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
    let valid =
        |wording, value: Value| Schemas::default().is_valid(&schema.to_string(), wording, &value);
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

#[test]
fn a_pattern_costs_what_it_may_take_and_a_schema_has_only_so_many() {
    let each = |count: usize, pattern: &str| {
        let all: serde_json::Map<String, Value> =
            (0..count).map(|it| (format!("p{it}"), json!({ "pattern": pattern }))).collect();
        json!({ "properties": all })
    };
    assert_eq!(valid(&each(PATTERNS_MAX, "^[a-z]+$"), &json!({"p0": "7"})), Some(false));
    assert_eq!(valid(&each(PATTERNS_MAX + 1, "^[a-z]+$"), &json!({"p0": "7"})), None);
    assert_eq!(valid(&each(700, "^[a-z]{9000}1$"), &json!({"a": 1})), None);
    assert_eq!(valid(&each(1, "^[a-z]{30000}$"), &json!({"a": 1})), None, "too large");
    let names: serde_json::Map<String, Value> =
        (0..=PATTERNS_MAX).map(|it| (format!("^{it}+$"), json!({}))).collect();
    assert_eq!(valid(&json!({ "patternProperties": names }), &json!({})), None);
    assert_eq!(valid(&json!({"format": "regex"}), &json!("a")), None, "any text is compiled");

    for usual in [
        r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}))?$",
        r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$",
        r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        r"^https?://\S+$",
        r"^\+?[1-9]\d{1,14}$",
        r"^[\w\s.,'-]{1,200}$",
        r"^.{1,200}$",
        r"^\p{L}+$",
    ] {
        assert!(valid(&json!({ "pattern": usual }), &json!("x")).is_some(), "{usual}");
    }
    let slow = json!({"items": {"pattern": "[ab]*a[ab]{200}$"}});
    assert!(valid(&slow, &json!(vec!["ab".repeat(20); 500])).is_some());
    assert_eq!(valid(&slow, &json!(["ab".repeat(200_000)])), None, "for ever");
}

#[test]
fn what_a_value_is_compared_with_counts() {
    let members: Vec<Value> = (0..1_000).map(|it| json!([it])).collect();
    let listed = |len: usize| json!(vec![json!([-1]); len]);
    let schema = json!({"items": {"enum": members}});
    assert_eq!(valid(&schema, &listed(100)), Some(false));
    assert_eq!(valid(&schema, &listed(10_000)), None);
    let names: Vec<String> = (0..1_000).map(|it| it.to_string()).collect();
    let properties: serde_json::Map<String, Value> =
        names.iter().map(|it| (it.clone(), json!({}))).collect();
    for many in [json!({ "required": names }), json!({ "properties": properties })] {
        let schema = json!({ "items": many });
        assert!(valid(&schema, &json!(vec![json!({}); 100])).is_some());
        assert_eq!(valid(&schema, &json!(vec![json!({}); 10_000])), None);
    }
    let long = json!({"allOf": vec![json!({"minLength": 1}); 1_000]});
    assert_eq!(valid(&long, &json!("x".repeat(1_000))), Some(true));
    assert_eq!(valid(&long, &json!("x".repeat(1_000_000))), None);
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
    for number in 0..100 {
        assert_eq!(ask(number, 30_000), Some(true));
    }
    let bytes = size(&schemas.kept.lock().unwrap());
    assert!(kept() < 75 && bytes <= KEPT_SIZE_MAX, "{} of {bytes} bytes", kept());
    assert_eq!(ask(99, 30_000), Some(true));
    let pattern = |number: usize| {
        let each = |it: usize| (it.to_string(), json!({ "pattern": format!("{it} {number}") }));
        let all: serde_json::Map<String, Value> = (0..PATTERNS_MAX).map(each).collect();
        schemas.is_valid(&json!({ "properties": all }).to_string(), Wording::Json, &json!({}))
    };
    assert!((0..50).all(|it| pattern(it) == Some(true)));
    assert!(size(&schemas.kept.lock().unwrap()) <= KEPT_SIZE_MAX && kept() <= 32);
    assert_eq!(schemas.is_valid("{", Wording::Json, &json!(1)), None);
    assert!(schemas.kept.lock().unwrap().len() <= KEPT_MAX);
}
