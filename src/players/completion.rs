//! A recorded output in the words of the chat completions API.

use serde_json::{Value, json};

use super::{Output, RecordedCall, dice::Dice, prompt::Asked};

/// When every completion says it was made (seconds since 1970): players have no clock.
const CREATED: u64 = 1_700_000_000;
/// Letters of tool arguments in one piece of a stream.
const FRAGMENT_LEN: usize = 16;
/// Letters in a token, about, where the row does not tell the number of tokens.
const TOKEN_LEN: usize = 4;

/// An output on its way to whoever asked.
pub(super) struct Completion<'a> {
    asked: &'a Asked,
    output: &'a Output,
    id: String,
    calls: Vec<Value>,
    usage: Value,
}

impl<'a> Completion<'a> {
    /// The output to what was asked; its ids depend on `name` alone.
    pub(super) fn new(asked: &'a Asked, name: &str, output: &'a Output) -> Self {
        let mut dice = Dice::new(0, name);
        let id = format!("chatcmpl-{:016x}", dice.roll());
        let call = |it: &RecordedCall| {
            json!({
                "id": format!("call_{:016x}", dice.roll()),
                "type": "function",
                "function": {"name": it.name, "arguments": it.arguments},
            })
        };
        let calls = output.tool_calls.iter().map(call).collect();
        Self { asked, output, id, calls, usage: usage(asked, output) }
    }

    /// The JSON texts of the answer: one, or those of a stream with `[DONE]` at its end.
    pub(super) fn texts(&self) -> Vec<String> {
        if !self.asked.stream() {
            return vec![self.whole().to_string()];
        }
        let chunks = self.deltas().into_iter().map(|delta| self.chunk(&delta, None));
        let mut texts: Vec<String> = chunks.map(|it| it.to_string()).collect();
        texts.push(self.chunk(&json!({}), Some(self.finish_reason())).to_string());
        if self.asked.include_usage() {
            let mut last = self.chunk(&Value::Null, None);
            last["choices"] = json!([]);
            last["usage"] = self.usage.clone();
            texts.push(last.to_string());
        }
        texts.push("[DONE]".to_owned());
        texts
    }

    fn whole(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.output.content});
        if !self.calls.is_empty() {
            message["tool_calls"] = json!(self.calls);
        }
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": CREATED,
            "model": self.asked.model,
            "choices": [{
                "index": 0,
                "message": message,
                "finish_reason": self.finish_reason(),
                "logprobs": null,
            }],
            "usage": self.usage,
        })
    }

    fn chunk(&self, delta: &Value, finish_reason: Option<&str>) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.asked.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        });
        if self.asked.include_usage() {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The role, then words, then fragments of tool calls.
    fn deltas(&self) -> Vec<Value> {
        let empty = self.output.content.as_ref().map(|_| "");
        let mut deltas = vec![json!({"role": "assistant", "content": empty})];
        let words = self.output.text().split_inclusive(char::is_whitespace);
        deltas.extend(words.map(|word| json!({"content": word})));
        for (index, call) in self.calls.iter().enumerate() {
            let mut opening = call.clone();
            opening["index"] = json!(index);
            opening["function"]["arguments"] = json!("");
            deltas.push(json!({"tool_calls": [opening]}));
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            let fragment = |it| json!({"index": index, "function": {"arguments": it}});
            let fragments = fragments(arguments).into_iter().map(fragment);
            deltas.extend(fragments.map(|it| json!({"tool_calls": [it]})));
        }
        deltas
    }

    fn finish_reason(&self) -> &'static str {
        if self.calls.is_empty() { "stop" } else { "tool_calls" }
    }
}

/// The tokens of an answer: as recorded, or guessed from the length of the texts.
fn usage(asked: &Asked, output: &Output) -> Value {
    let guess = |letters: usize| u64::try_from(letters / TOKEN_LEN).unwrap_or(u64::MAX).max(1);
    let asked = asked.messages.iter().filter_map(|it| it["content"].as_str());
    let called: usize = output.tool_calls.iter().map(|it| it.arguments.len()).sum();
    let input = output.in_tokens.unwrap_or_else(|| guess(asked.map(str::len).sum()));
    let answer = output.out_tokens.unwrap_or_else(|| guess(output.text().len() + called));
    let total = input.saturating_add(answer);
    json!({"prompt_tokens": input, "completion_tokens": answer, "total_tokens": total})
}

fn fragments(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(FRAGMENT_LEN).map(|it| it.iter().collect()).collect()
}
