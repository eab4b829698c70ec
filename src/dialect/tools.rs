//! The tools that a request offers, and whether those that an answer calls are among them.

use serde_json::{Value, value::RawValue};

use super::{
    agree::arguments,
    fields::{Fields, Items},
    schema::{Schemas, Wording},
};
use crate::domain::{Endpoint, ToolCall};

/// What a request offers.
#[derive(Debug, Default)]
pub(super) struct Offered<'a> {
    tools: Vec<Tool<'a>>,
    /// Whether some of it cannot be named, so that other names may be right too.
    is_open: bool,
    choice: Choice,
    /// The only ones that may be called, where the request says so.
    only: Vec<String>,
}

#[derive(Debug)]
struct Tool<'a> {
    name: String,
    takes: Takes<'a>,
}

/// What a tool takes for arguments.
#[derive(Debug)]
enum Takes<'a> {
    /// Any text.
    Text,
    /// JSON.
    Json,
    /// JSON by this schema.
    Schema(&'a RawValue, Wording),
}

/// Whether tools have to be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Choice {
    #[default]
    Free,
    Forbidden,
    Required,
}

impl<'a> Offered<'a> {
    pub(super) fn of(endpoint: Endpoint, fields: &Fields<'a>) -> Self {
        let (choice, only) = (choice(endpoint, fields), only(endpoint, fields));
        let mut offered = Self { choice, only, ..Self::default() };
        for name in ["tools", "functions"] {
            let tools = fields.read::<Items<'a>>(name).map_or_else(Vec::new, |it| it.0);
            for tool in tools {
                offered.add(tool);
            }
        }
        offered
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tools.is_empty() && !self.is_open
    }

    /// Takes what one item of a request's tools offers, in any dialect.
    fn add(&mut self, item: &'a RawValue) {
        let Some(item) = Fields::parse(item.get().as_bytes()) else {
            self.is_open = true;
            return;
        };
        let listed = ["functionDeclarations", "function_declarations"];
        if let Some(list) = listed.into_iter().find_map(|it| item.read::<Items<'a>>(it)) {
            for declared in list.0 {
                self.add(declared);
            }
            return;
        }
        let is_custom = item.text("type").as_deref() == Some("custom");
        let inner = ["function", "custom"].into_iter().find_map(|it| item.read::<Fields<'a>>(it));
        let item = inner.unwrap_or(item);
        let Some(name) = item.text("name") else {
            self.is_open = true;
            return;
        };
        let schemas = [
            ("parameters", Wording::Either),
            ("input_schema", Wording::Json),
            ("parametersJsonSchema", Wording::Json),
        ];
        let schema = schemas.into_iter().find_map(|(name, wording)| {
            Some((item.raw(name).filter(|it| it.get() != "null")?, wording))
        });
        let takes = match schema {
            _ if is_custom && item.get("input_schema").is_none() => Takes::Text,
            Some((schema, wording)) => Takes::Schema(schema, wording),
            None => Takes::Json,
        };
        self.tools.push(Tool { name, takes });
    }

    /// Whether an answer calls what it may, as it may; none where nothing was offered and nothing
    /// is called.
    pub(super) fn kept(&self, calls: &[ToolCall], schemas: &Schemas) -> Option<bool> {
        if self.is_empty() {
            return (!calls.is_empty()).then_some(false);
        }
        Some(match (self.choice, calls) {
            (Choice::Free | Choice::Forbidden, []) => true,
            (Choice::Required, []) | (Choice::Forbidden, _) => false,
            (Choice::Free | Choice::Required, calls) => {
                calls.iter().all(|it| self.takes(it, schemas))
            }
        })
    }

    fn takes(&self, call: &ToolCall, schemas: &Schemas) -> bool {
        if !self.only.is_empty() && !self.only.contains(&call.name) {
            return false;
        }
        let Some(tool) = self.tools.iter().find(|it| it.name == call.name) else {
            return self.is_open;
        };
        let read = || serde_json::from_str::<Value>(arguments(call)).ok();
        match tool.takes {
            Takes::Text => true,
            Takes::Json => read().is_some(),
            Takes::Schema(schema, wording) => read()
                .is_some_and(|it| schemas.is_valid(schema.get(), wording, &it).unwrap_or(true)),
        }
    }
}

/// The names of the tools that may be called, where not all of those that are offered may.
fn only(endpoint: Endpoint, fields: &Fields<'_>) -> Vec<String> {
    if endpoint == Endpoint::Gemini {
        let config = inner(fields, ["toolConfig", "tool_config"]);
        let calling =
            config.and_then(|it| inner(&it, ["functionCallingConfig", "function_calling_config"]));
        let names = ["allowedFunctionNames", "allowed_function_names"];
        let listed = |it: Fields<'_>| names.into_iter().find_map(|name| it.read(name));
        return calling.and_then(listed).unwrap_or_default();
    }
    let Some(chosen) = inner(fields, ["tool_choice", "function_call"]) else { return Vec::new() };
    let below = inner(&chosen, ["allowed_tools"; 2]);
    let listed = below.as_ref().unwrap_or(&chosen).read::<Items<'_>>("tools");
    let Some(listed) = listed else { return named(&chosen).into_iter().collect() };
    let names = listed.0.iter().map(|it| named(&Fields::parse(it.get().as_bytes())?));
    // Where one of them cannot be named, others may be right too.
    names.collect::<Option<Vec<String>>>().unwrap_or_default()
}

/// The name of a tool that is chosen; a hosted one has none.
fn named(tool: &Fields<'_>) -> Option<String> {
    inner(tool, ["function", "custom"]).and_then(|it| it.text("name")).or_else(|| tool.text("name"))
}

/// The object of the first of these names that has one.
fn inner<'a>(fields: &Fields<'a>, names: [&str; 2]) -> Option<Fields<'a>> {
    names.into_iter().find_map(|it| fields.read(it))
}

fn choice(endpoint: Endpoint, fields: &Fields<'_>) -> Choice {
    let word = match endpoint {
        Endpoint::Gemini => {
            let mode = |outer: &str, inner: &str| {
                fields.read::<Fields<'_>>(outer)?.read::<Fields<'_>>(inner)?.text("mode")
            };
            mode("toolConfig", "functionCallingConfig")
                .or_else(|| mode("tool_config", "function_calling_config"))
        }
        Endpoint::Messages => {
            fields.read::<Fields<'_>>("tool_choice").and_then(|it| it.text("type"))
        }
        Endpoint::Chat | Endpoint::Completions | Endpoint::Embeddings | Endpoint::Responses => {
            // An object names the tool to call, or those that may be.
            let named = |it: Fields<'_>| {
                let kind = it.text("type")?;
                if kind != "allowed_tools" {
                    return Some("required".to_owned());
                }
                it.text("mode").or_else(|| it.read::<Fields<'_>>("allowed_tools")?.text("mode"))
            };
            let choice = fields.text("tool_choice").or_else(|| fields.text("function_call"));
            choice.or_else(|| fields.read::<Fields<'_>>("tool_choice").and_then(named))
        }
    };
    match word.as_deref() {
        Some("none" | "NONE") => Choice::Forbidden,
        Some("required" | "any" | "tool" | "ANY") => Choice::Required,
        Some(_) | None => Choice::Free,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: String::new(), name: name.to_owned(), arguments: arguments.to_owned() }
    }

    #[track_caller]
    fn check(endpoint: Endpoint, body: &Value, calls: &[(&str, &str)], expected: Option<bool>) {
        let body = body.to_string();
        let fields = Fields::parse(body.as_bytes()).unwrap();
        let calls: Vec<ToolCall> = calls.iter().map(|(name, it)| call(name, it)).collect();
        let offered = Offered::of(endpoint, &fields);
        assert_eq!(offered.kept(&calls, &Schemas::default()), expected, "{body} {calls:?}");
    }

    fn schema() -> Value {
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
    }

    const RIGHT: (&str, &str) = ("look", r#"{"city":"Oslo"}"#);
    const WRONG: (&str, &str) = ("look", r#"{"city":7}"#);

    #[test]
    fn every_dialect_offers_tools_in_its_own_words() {
        let (name, parameters) = ("look", schema());
        let upper = json!({"type": "OBJECT", "properties": {"city": {"type": "STRING"}},
            "required": ["city"]});
        let bodies = [
            (
                Endpoint::Chat,
                json!({"tools": [{"type": "function", "function":
                    {"name": name, "parameters": parameters}}]}),
            ),
            (Endpoint::Chat, json!({"functions": [{"name": name, "parameters": parameters}]})),
            (
                Endpoint::Responses,
                json!({"tools": [{"type": "function", "name": name, "parameters": parameters}]}),
            ),
            (Endpoint::Messages, json!({"tools": [{"name": name, "input_schema": parameters}]})),
            (
                Endpoint::Messages,
                json!({"tools": [{"type": "custom", "name": name, "input_schema": parameters}]}),
            ),
            (
                Endpoint::Gemini,
                json!({"tools": [{"functionDeclarations": [{"name": name, "parameters": upper}]}]}),
            ),
            (
                Endpoint::Gemini,
                json!({"tools": [{"function_declarations":
                    [{"name": name, "parametersJsonSchema": parameters}]}]}),
            ),
        ];
        for (endpoint, body) in &bodies {
            check(*endpoint, body, &[RIGHT], Some(true));
            check(*endpoint, body, &[RIGHT, RIGHT], Some(true));
            check(*endpoint, body, &[RIGHT, WRONG], Some(false));
            check(*endpoint, body, &[("look", "")], Some(false));
            check(*endpoint, body, &[("look", "{\"city\":\"Os")], Some(false));
            check(*endpoint, body, &[("find", RIGHT.1)], Some(false));
            check(*endpoint, body, &[], Some(true));
        }
    }

    #[test]
    fn none_is_called_where_none_may_be_and_some_where_some_must() {
        let chat = |choice: Value| {
            let function = json!({"name": "look", "parameters": schema()});
            json!({"tools": [{"type": "function", "function": function}], "tool_choice": choice})
        };
        let required =
            [json!("required"), json!({"type": "function", "function": {"name": "look"}})];
        for choice in required {
            check(Endpoint::Chat, &chat(choice.clone()), &[], Some(false));
            check(Endpoint::Chat, &chat(choice), &[RIGHT], Some(true));
        }
        check(Endpoint::Chat, &chat(json!("none")), &[], Some(true));
        check(Endpoint::Chat, &chat(json!("none")), &[RIGHT], Some(false));
        let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}});
        check(Endpoint::Chat, &chat(allowed), &[], Some(true));
        let messages = |kind: &str| {
            json!({"tools": [{"name": "look", "input_schema": schema()}],
                "tool_choice": {"type": kind}})
        };
        check(Endpoint::Messages, &messages("any"), &[], Some(false));
        check(Endpoint::Messages, &messages("none"), &[RIGHT], Some(false));
        check(Endpoint::Messages, &messages("auto"), &[], Some(true));
        let gemini = |mode: &str| {
            json!({"tools": [{"functionDeclarations": [{"name": "look"}]}],
                "toolConfig": {"functionCallingConfig": {"mode": mode}}})
        };
        check(Endpoint::Gemini, &gemini("ANY"), &[], Some(false));
        check(Endpoint::Gemini, &gemini("NONE"), &[RIGHT], Some(false));
        check(Endpoint::Gemini, &gemini("AUTO"), &[WRONG], Some(true));
    }

    #[test]
    fn what_was_not_offered_is_not_to_be_called() {
        check(Endpoint::Chat, &json!({}), &[RIGHT], Some(false));
        check(Endpoint::Chat, &json!({"tools": []}), &[RIGHT], Some(false));
    }

    #[test]
    fn only_those_that_are_named_may_be_called() {
        let tool = |name: &str| json!({"name": name, "parameters": schema()});
        let function = |name: &str| json!({"type": "function", "function": tool(name)});
        let named = |name: &str| json!({"type": "function", "function": {"name": name}});
        let chat = |choice: Value| json!({"tools": [function("look"), function("find")], "tool_choice": choice});
        let list = json!({"type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [named("find")]}});
        let plain = |name: &str| json!({"type": "function", "name": name});
        let responses = |choice: Value| {
            json!({"tools": [{"type": "function", "name": "look", "parameters": schema()},
                {"type": "function", "name": "find", "parameters": schema()}],
                "tool_choice": choice})
        };
        let flat = json!({"type": "allowed_tools", "mode": "auto", "tools": [plain("find")]});
        let gemini = json!({"tools": [{"functionDeclarations": [tool("look"), tool("find")]}],
            "toolConfig": {"functionCallingConfig":
                {"mode": "ANY", "allowedFunctionNames": ["find"]}}});
        let messages = json!({"tools": [{"name": "look", "input_schema": schema()},
            {"name": "find", "input_schema": schema()}],
            "tool_choice": {"type": "tool", "name": "find"}});
        let old = json!({"functions": [tool("look"), tool("find")],
            "function_call": {"name": "find"}});
        for (endpoint, body) in [
            (Endpoint::Chat, chat(named("find"))),
            (Endpoint::Chat, chat(list)),
            (Endpoint::Chat, old),
            (Endpoint::Responses, responses(plain("find"))),
            (Endpoint::Responses, responses(flat)),
            (Endpoint::Gemini, gemini),
            (Endpoint::Messages, messages),
        ] {
            check(endpoint, &body, &[("find", RIGHT.1)], Some(true));
            check(endpoint, &body, &[RIGHT], Some(false));
        }
        let open = json!({"type": "allowed_tools", "mode": "auto",
            "tools": [plain("find"), {"type": "web_search"}]});
        check(Endpoint::Responses, &responses(open), &[RIGHT], Some(true));
    }

    #[test]
    fn what_is_not_known_is_not_wrong() {
        check(Endpoint::Chat, &json!({}), &[], None);
        check(Endpoint::Chat, &json!({"tools": []}), &[], None);
        // A custom tool takes any text, and what a hosted one is called nobody says.
        let custom = json!({"tools": [{"type": "custom", "custom": {"name": "sql"}}]});
        check(Endpoint::Chat, &custom, &[("sql", "select 1")], Some(true));
        let hosted = json!({"tools": [{"type": "web_search"}]});
        check(Endpoint::Responses, &hosted, &[RIGHT], Some(true));
        let odd = json!({"tools": [{"type": "function", "function":
            {"name": "look", "parameters": {"type": "nonsense"}}}]});
        check(Endpoint::Chat, &odd, &[WRONG], Some(true));
        check(Endpoint::Chat, &odd, &[("look", "{")], Some(false));
    }
}
