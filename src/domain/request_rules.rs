//! What a request must look like for a provider that it was not written for.

use std::ops::RangeInclusive;

/// How requests are changed for a provider. Whatever a rule does not fit stays as it is: the
/// provider may refuse it.
///
/// A *place* is a name at the top of the body, or names with dots between, such as
/// `messages.name`: lists on the way are gone through. Places are those that the provider gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestRules {
    /// Names at the top of the body, and what they are called there; no name is on both sides.
    pub rename: Vec<(String, String)>,
    /// Places of what is left out.
    pub drop: Vec<String>,
    /// Places of numbers, and the least and the most they may be.
    pub clamp: Vec<(String, RangeInclusive<f64>)>,
    /// What is changed in the messages, each at most once.
    pub messages: Vec<MessageRule>,
}

/// What is changed in the messages of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRule {
    /// The role `developer` is `system`.
    DeveloperIsSystem,
    /// Ids of tool calls have nine letters and digits; those that have keep theirs.
    ShortToolIds,
    /// The thinking of models is left out where the primary is the one that answered so far: in
    /// copies, and where a provider stands in for it. What a candidate serves keeps its own.
    NoForeignThinking,
    /// The thinking of models is left out of every request.
    NoThinking,
    /// What called tools has `reasoning_content`, if only an empty one.
    EmptyReasoning,
}

impl RequestRules {
    /// Whether what stands at a place is left out.
    pub fn drops(&self, place: &str) -> bool {
        self.drop.iter().any(|it| it == place)
    }

    /// Whether this is changed in messages.
    pub fn has(&self, rule: MessageRule) -> bool {
        self.messages.contains(&rule)
    }
}
