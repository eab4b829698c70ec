//! Where the marks of requests come from.

/// Where in the body of a request its marks stand, as names with dots between, like
/// `metadata.feature`. Empty where nothing is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkFields {
    /// Its feature.
    pub feature: String,
    /// The segment of its user.
    pub segment: String,
    /// Its class of task.
    pub task: String,
    /// Its end user.
    pub user: String,
    /// Its data classes.
    pub data: String,
}

/// What the key of a request is made of, if it has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// What a header of this name says.
    Header(String),
    /// The conversation, as the application names it.
    Conversation,
    /// The end user, as the application names them.
    User,
    /// How the conversation begins.
    Opening,
}

impl Sticky {
    /// What is looked for where nothing else is asked for, in this order.
    pub const DEFAULT: [Self; 2] = [Self::Conversation, Self::User];
}
