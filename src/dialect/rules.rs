//! The rules of a provider obeyed: its names for members, what it does not take, and the messages
//! it understands.

use std::ops::Range;

use super::{
    adapt::Purpose,
    splices::{Container, Item, Splices},
};
use crate::domain::{Endpoint, MessageRule, RequestRules, hash};

/// What messages of a chat have thinking in, and what ties their tool calls to it.
const CHAT_THINKING: [&str; 4] =
    ["reasoning", "reasoning_details", "thinking_blocks", "tool_calls.extra_content"];
/// Their name for it who also ask for it back.
const REASONING: &str = "reasoning_content";
/// What ties parts of a Gemini message to the thinking before them.
const GEMINI_SIGNATURES: [&str; 2] = ["parts.thoughtSignature", "parts.thought_signature"];

/// Changes what the rules name. What cannot be read, or is of another type, stays as it is, and so
/// do lists that are too long to be looked into.
pub(super) fn obey(
    rules: &RequestRules,
    endpoint: Endpoint,
    purpose: Purpose,
    splices: &mut Splices<'_>,
) {
    let Some(mut top) = Container::top(splices.body) else { return };
    if !rules.messages.is_empty() {
        Messages { rules, endpoint, purpose }.mend(&top, splices);
    }
    rename(&rules.rename, &mut top, splices);
    // A copy that were stored would leave something behind.
    let keeps_store = endpoint == Endpoint::Responses && purpose == Purpose::Copy;
    for place in rules.drop.iter().filter(|it| !(keeps_store && *it == "store")) {
        drop_at(&top, place, splices);
    }
    for (place, range) in &rules.clamp {
        each(splices.body, &top, place, &mut |object, index| {
            let Some(item) = object.items.get(index) else { return };
            let number = serde_json::from_str::<f64>(item.value.get()).ok();
            if let Some(number) = number.filter(|it| !range.contains(it)) {
                let bound = if number < *range.start() { range.start() } else { range.end() };
                splices.replace(item.at.clone(), bound.to_string());
            }
        });
    }
}

/// Renames members at the top. Of those that come to have one name, the first one with a value
/// stays, before all that which has the name already.
fn rename(names: &[(String, String)], top: &mut Container<'_>, splices: &mut Splices<'_>) {
    let mut renamed = Vec::new();
    for (index, item) in top.items.iter_mut().enumerate() {
        if let Some((_, new)) = names.iter().find(|(old, _)| *old == item.name) {
            item.name.clone_from(new);
            renamed.push(index);
        }
    }
    for &index in &renamed {
        let Some(item) = top.items.get(index) else { continue };
        let rank = |(index, item): (usize, &Item<'_>)| {
            (item.value.get() == "null", renamed.contains(&index), index)
        };
        let same = || top.items.iter().enumerate().filter(|(_, it)| it.name == item.name);
        let stays = same().min_by_key(|it| rank(*it)).map_or(index, |(stays, _)| stays);
        for (other, _) in same().filter(|(other, _)| *other != stays) {
            splices.take_out(top, other);
        }
        splices.replace(item.key.clone(), format!("\"{}\"", item.name));
    }
}

fn drop_at(object: &Container<'_>, place: &str, splices: &mut Splices<'_>) {
    each(splices.body, object, place, &mut |object, index| splices.take_out(object, index));
}

/// Finds what stands at a place of an object, by the object that it is a member of.
fn each<'a>(
    body: &'a [u8],
    object: &Container<'a>,
    place: &str,
    found: &mut dyn FnMut(&Container<'a>, usize),
) {
    let (name, rest) = place.split_once('.').map_or((place, None), |(it, rest)| (it, Some(rest)));
    for (index, item) in object.items.iter().enumerate().filter(|(_, it)| it.name == name) {
        let Some(rest) = rest else {
            found(object, index);
            continue;
        };
        let mut below = |at: &Range<usize>| {
            if let Some(inner) = Container::object(body, at) {
                each(body, &inner, rest, found);
            }
        };
        match Container::list(body, &item.at) {
            Some(list) => list.items.iter().for_each(|it| below(&it.at)),
            None => below(&item.at),
        }
    }
}

/// Whether anything is left of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Something,
    Nothing,
}

/// The rules for messages, and what they are obeyed for.
struct Messages<'r> {
    rules: &'r RequestRules,
    endpoint: Endpoint,
    purpose: Purpose,
}

impl Messages<'_> {
    fn mend(&self, top: &Container<'_>, splices: &mut Splices<'_>) {
        let name = match self.endpoint {
            Endpoint::Chat | Endpoint::Messages => "messages",
            Endpoint::Responses => "input",
            Endpoint::Gemini => "contents",
            Endpoint::Completions | Endpoint::Embeddings => return,
        };
        let list = top.get(name).and_then(|it| Container::list(splices.body, &it.at));
        let Some(list) = list else { return };
        for (index, item) in list.items.iter().enumerate() {
            let Some(message) = Container::object(splices.body, &item.at) else { continue };
            if self.strips() && self.strip(&message, splices) == Left::Nothing {
                splices.take_out(&list, index);
                continue;
            }
            if self.rules.has(MessageRule::DeveloperIsSystem) {
                self.name_system(&message, splices);
            }
            if self.rules.has(MessageRule::ShortToolIds) {
                self.shorten_ids(&message, splices);
            }
            if self.needs_reasoning(&message) {
                self.reason(&message, splices);
            }
        }
    }

    /// Where the primary has answered so far, thinking is another's. What a candidate serves sticks
    /// to it, so the thinking there is its own, and it may need it.
    fn strips(&self) -> bool {
        let foreign = match self.purpose {
            Purpose::Copy | Purpose::StandIn => self.rules.has(MessageRule::NoForeignThinking),
            Purpose::Serve => false,
        };
        foreign || self.rules.has(MessageRule::NoThinking)
    }

    fn strip(&self, message: &Container<'_>, splices: &mut Splices<'_>) -> Left {
        match self.endpoint {
            Endpoint::Responses if message.text("type").as_deref() == Some("reasoning") => {
                Left::Nothing
            }
            Endpoint::Chat if is_models(message) => self.strip_chat(message, splices),
            Endpoint::Messages if is_models(message) => strip_parts(message, "content", splices),
            Endpoint::Gemini if is_models(message) => {
                for place in GEMINI_SIGNATURES {
                    drop_at(message, place, splices);
                }
                strip_parts(message, "parts", splices)
            }
            Endpoint::Responses
            | Endpoint::Chat
            | Endpoint::Messages
            | Endpoint::Gemini
            | Endpoint::Completions
            | Endpoint::Embeddings => Left::Something,
        }
    }

    fn strip_chat(&self, message: &Container<'_>, splices: &mut Splices<'_>) -> Left {
        let parts = strip_parts(message, "content", splices);
        // What is needed is emptied later.
        let needless = (!self.needs_reasoning(message)).then_some(REASONING);
        for place in CHAT_THINKING.into_iter().chain(needless) {
            drop_at(message, place, splices);
        }
        let thought = CHAT_THINKING.into_iter().chain([REASONING]).any(|it| message.says(it));
        let acts = ["tool_calls", "function_call", "refusal", "audio"];
        let acts = acts.into_iter().any(|it| message.says(it));
        match (parts, message.get("content")) {
            (Left::Nothing, Some(content)) if acts => {
                splices.replace(content.at.clone(), "null");
                Left::Something
            }
            (Left::Nothing, _) => Left::Nothing,
            (Left::Something, _) if thought && !acts && !message.says("content") => Left::Nothing,
            (Left::Something, _) => Left::Something,
        }
    }

    fn name_system(&self, message: &Container<'_>, splices: &mut Splices<'_>) {
        match self.endpoint {
            Endpoint::Chat | Endpoint::Responses => {
                let role = message.get("role");
                if let Some(role) = role.filter(|it| it.text().as_deref() == Some("developer")) {
                    splices.replace(role.at.clone(), r#""system""#);
                }
            }
            Endpoint::Messages
            | Endpoint::Gemini
            | Endpoint::Completions
            | Endpoint::Embeddings => {}
        }
    }

    /// The same id becomes the same one wherever it stands, in every turn.
    fn shorten_ids(&self, message: &Container<'_>, splices: &mut Splices<'_>) {
        let places: &[&str] = match self.endpoint {
            Endpoint::Chat => &["tool_calls.id", "tool_call_id"],
            Endpoint::Messages => &["content.id", "content.tool_use_id"],
            Endpoint::Responses => &["call_id"],
            Endpoint::Gemini | Endpoint::Completions | Endpoint::Embeddings => &[],
        };
        for place in places {
            each(splices.body, message, place, &mut |object, index| {
                let Some(item) = object.items.get(index) else { return };
                if let Some(id) = item.text().filter(|it| !is_short(it)) {
                    splices.replace(item.at.clone(), format!("\"{}\"", short(&id)));
                }
            });
        }
    }

    /// Whether a message is to have `reasoning_content`.
    fn needs_reasoning(&self, message: &Container<'_>) -> bool {
        self.endpoint == Endpoint::Chat
            && self.rules.has(MessageRule::EmptyReasoning)
            && is_models(message)
            && message.says("tool_calls")
    }

    fn reason(&self, message: &Container<'_>, splices: &mut Splices<'_>) {
        match message.get(REASONING) {
            None => splices.add(message, REASONING, r#""""#),
            Some(it) if self.strips() || it.value.get() == "null" => {
                splices.replace(it.at.clone(), r#""""#);
            }
            Some(_) => {}
        }
    }
}

/// Whether a model said it.
fn is_models(message: &Container<'_>) -> bool {
    message.text("role").is_some_and(|it| it == "assistant" || it == "model")
}

/// Takes thinking out of the parts of a message.
fn strip_parts(message: &Container<'_>, name: &str, splices: &mut Splices<'_>) -> Left {
    let parts = message.get(name).and_then(|it| Container::list(splices.body, &it.at));
    let Some(parts) = parts else { return Left::Something };
    let body = splices.body;
    let thinks = |it: &Item<'_>| Container::object(body, &it.at).is_some_and(|it| is_thinking(&it));
    let gone: Vec<usize> =
        parts.items.iter().enumerate().filter(|(_, it)| thinks(it)).map(|(at, _)| at).collect();
    for index in &gone {
        splices.take_out(&parts, *index);
    }
    let is_left = gone.is_empty() || gone.len() < parts.items.len();
    if is_left { Left::Something } else { Left::Nothing }
}

fn is_thinking(part: &Container<'_>) -> bool {
    let kind = part.text("type");
    matches!(kind.as_deref(), Some("thinking" | "redacted_thinking" | "reasoning"))
        || part.get("thought").is_some_and(|it| it.value.get() == "true")
}

/// The length of an id that every provider takes; Mistral takes no other.
const ID_LEN: u32 = 9;

fn is_short(id: &str) -> bool {
    id.len() == 9 && id.bytes().all(|it| it.is_ascii_alphanumeric())
}

/// Nine letters and digits for an id: two of a conversation meet once in 10¹⁶.
fn short(id: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = hash("tool_call", id);
    let digit = |_| {
        let digit = usize::try_from(rest % 62).ok().and_then(|it| DIGITS.get(it));
        rest /= 62;
        char::from(digit.copied().unwrap_or(b'0'))
    };
    (0..ID_LEN).map(digit).collect()
}
