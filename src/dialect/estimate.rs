//! How many tokens a request and its answer come to, where nobody tells.

use std::iter::from_fn;

use tiktoken_rs::o200k_base_singleton;

use super::{conversation, fields::Fields};
use crate::domain::{Endpoint, Transcript, Usage};

/// Bytes of a text whose tokens are counted: what is beyond them is taken in proportion.
const COUNTED_LEN_MAX: usize = 64 << 10;
/// Bytes that are counted at once: in longer ones a tokenizer may look back too far.
const PIECE_LEN_MAX: usize = 1 << 10;
/// Tokens around each answer and each tool call that no text shows.
const AROUND: u64 = 4;

/// An estimate of the tokens, by the tokenizer of `OpenAI`'s later models whoever answered. What a
/// model thought and did not say is not in it, nor are pictures and sounds.
///
/// The first one reads the tokenizer's words, which takes a quarter of a second and 45 MB; a long
/// text takes milliseconds. So this is no work for threads that others wait on.
pub fn estimate(endpoint: Endpoint, request: &[u8], said: &Transcript) -> Usage {
    let mut input = tokens(&conversation(endpoint, request, usize::MAX)) + AROUND;
    if let Some(fields) = Fields::parse(request) {
        let tools = ["tools", "functions", "response_format"];
        input += tools.iter().filter_map(|it| fields.get(it)).map(tokens).sum::<u64>();
    }
    let mut output = tokens(&said.text) + said.refusal.as_deref().map_or(0, tokens);
    for call in &said.tool_calls {
        output += tokens(&call.name) + tokens(&call.arguments) + 2 * AROUND;
    }
    Usage { input, output, ..Usage::default() }
}

/// The tokens of a text; of a long one its beginning is counted.
fn tokens(text: &str) -> u64 {
    let counted = &text[..text.floor_char_boundary(COUNTED_LEN_MAX)];
    let tokens: usize = pieces(counted).map(|it| o200k_base_singleton().count_ordinary(it)).sum();
    u64::try_from(tokens * text.len() / counted.len().max(1)).unwrap_or(u64::MAX)
}

/// A text in pieces, parted between its words where it has any.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    from_fn(move || {
        let most = text.floor_char_boundary(PIECE_LEN_MAX);
        let word = if most < text.len() { text[..most].rfind(' ').unwrap_or(0) } else { most };
        let (piece, rest) = text.split_at(if word == 0 { most } else { word });
        text = rest;
        Some(piece).filter(|it| !it.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ToolCall;

    #[test]
    fn an_estimate_has_all_that_is_said_and_no_more() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"Where is my order?"}]}"#;
        let said = |text: &str| Transcript { text: text.to_owned(), ..Transcript::default() };
        let short = estimate(Endpoint::Chat, body, &said("It is on its way."));
        assert_eq!(short, Usage { input: 11, output: 6, ..Usage::default() });
        let tools = br#"{"messages":[{"role":"user","content":"Where is my order?"}],
            "tools":[{"type":"function","function":{"name":"order_status"}}]}"#;
        let call = ToolCall { name: "order_status".to_owned(), ..ToolCall::default() };
        let called = Transcript { tool_calls: vec![call], ..Transcript::default() };
        let asked = estimate(Endpoint::Chat, tools, &called);
        assert!(short.input + 8 < asked.input && 8 < asked.output, "{asked:?}");
    }

    #[test]
    fn a_long_text_is_counted_in_part_and_taken_as_a_whole() {
        for text in ["word ", "a", "日本語", "\u{1f600}"] {
            let (one, ten) = (text.repeat(60_000 / text.len()), text.repeat(600_000 / text.len()));
            let (one, ten) = (tokens(&one), tokens(&ten));
            assert!(0 < one && ten.abs_diff(10 * one) <= one / 50, "{text}: {one} {ten}");
        }
    }
    #[test]
    fn parted_texts_come_to_the_same_tokens_and_no_text_is_too_much_for_it() {
        let prose = "It is on its way, and should arrive by Monday.\n".repeat(200);
        let whole = o200k_base_singleton().count_ordinary(&prose);
        let parted: usize =
            pieces(&prose).map(|it| o200k_base_singleton().count_ordinary(it)).sum();
        assert!(prose.len() / PIECE_LEN_MAX < pieces(&prose).count());
        assert_eq!(whole, parted);
        for text in [" ", "\n", "\t \r", " a", "A1'", "a\u{301}", "\u{10ffff}\u{0}"] {
            let text = text.repeat(COUNTED_LEN_MAX);
            assert!(pieces(&text).all(|it| it.len() <= PIECE_LEN_MAX));
            assert_eq!(pieces(&text).collect::<String>(), text);
            assert!(0 < tokens(&text));
        }
    }
}
