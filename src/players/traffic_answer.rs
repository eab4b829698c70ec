//! Reads an answer the way a strict caller does, and compares it with what was recorded.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Output, RecordedCall, Row,
    traffic_report::{Failure, Matched},
};

/// What an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    text: String,
    tool_calls: Vec<RecordedCall>,
}

impl Said {
    /// Reads a whole body.
    pub(super) fn whole(body: &[u8]) -> Result<Self, Failure> {
        let json: Value = serde_json::from_slice(body).map_err(|_| Failure::Broken)?;
        let message = json["choices"][0]["message"].as_object().ok_or(Failure::Broken)?;
        let calls = message.get("tool_calls").and_then(Value::as_array);
        let calls = calls.into_iter().flatten().map(|it| &it["function"]);
        Ok(Self {
            text: message.get("content").and_then(Value::as_str).unwrap_or_default().to_owned(),
            tool_calls: calls
                .map(|it| RecordedCall {
                    name: text(&it["name"]),
                    arguments: text(&it["arguments"]),
                })
                .collect(),
        })
    }

    /// Reads the events of a stream.
    pub(super) fn stream(body: &[u8]) -> Result<Self, Failure> {
        let body = std::str::from_utf8(body).map_err(|_| Failure::Broken)?;
        let mut said = String::new();
        let mut calls: BTreeMap<u64, RecordedCall> = BTreeMap::new();
        for data in body.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
            if data == "[DONE]" {
                return Ok(Self { text: said, tool_calls: calls.into_values().collect() });
            }
            let chunk: Value = serde_json::from_str(data).map_err(|_| Failure::Broken)?;
            if !chunk["choices"].is_array() {
                return Err(Failure::Broken);
            }
            let delta = &chunk["choices"][0]["delta"];
            said.push_str(delta["content"].as_str().unwrap_or_default());
            for piece in delta["tool_calls"].as_array().into_iter().flatten() {
                let empty = || RecordedCall { name: String::new(), arguments: String::new() };
                let index = piece["index"].as_u64().ok_or(Failure::Broken)?;
                let call = calls.entry(index).or_insert_with(empty);
                call.name.push_str(&text(&piece["function"]["name"]));
                call.arguments.push_str(&text(&piece["function"]["arguments"]));
            }
        }
        Err(Failure::NoDone)
    }

    /// Whether some model gave this answer to the row.
    pub(super) fn matched(&self, row: &Row) -> Matched {
        let same = |it: &Output| it.text() == self.text && it.tool_calls == self.tool_calls;
        if row.outputs.values().any(same) { Matched::Recorded } else { Matched::Foreign }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_is_put_together_and_must_end_with_done() {
        let chunk = |delta: Value| {
            let chunk = json!({"choices": [{"delta": delta}]});
            format!("data: {chunk}\n\n: ping\n\n")
        };
        let call = |function: Value| json!({"tool_calls": [{"index": 0, "function": function}]});
        let stream = [
            chunk(json!({"content": "Hel"})),
            chunk(json!({"content": "lo"})),
            chunk(call(json!({"name": "f", "arguments": ""}))),
            chunk(call(json!({"arguments": "{}"}))),
            "data: {\"choices\":[],\"usage\":{}}\n\n".to_owned(),
        ]
        .concat();
        assert_eq!(Said::stream(stream.as_bytes()), Err(Failure::NoDone));
        let said = Said::stream(format!("{stream}data: [DONE]\n\n").as_bytes()).unwrap();
        assert_eq!(said.text, "Hello");
        assert_eq!((said.tool_calls[0].name.as_str(), &*said.tool_calls[0].arguments), ("f", "{}"));
        let error = "data: {\"error\":{\"message\":\"overloaded\"}}\n\ndata: [DONE]\n\n";
        assert_eq!(Said::stream(error.as_bytes()), Err(Failure::Broken));
        assert_eq!(Said::whole(b"{\"choices\":["), Err(Failure::Broken));
    }
}
