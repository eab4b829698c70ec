//! How providers speak: requests and answers as bytes in, bytes and plain values out.
//!
//! A request is looked at once ([`ask`]), rewritten for another provider by splicing bytes
//! ([`adapt()`]), and its answer is put together again from whatever arrived ([`read()`]).

mod adapt;
mod agree;
mod answer;
mod anthropic;
mod barred;
mod checks;
mod compare;
mod conversation;
mod decode;
mod draft;
mod estimate;
mod fields;
mod form;
mod gemini;
mod json;
mod openai;
mod opening;
mod query;
#[cfg(test)]
mod recorded;
mod request;
mod responses;
mod rules;
#[cfg(test)]
mod rules_tests;
mod schema;
mod splices;
mod sse;
mod tools;

pub use adapt::{Edits, Purpose, Unfit, adapt};
pub use agree::agreement;
pub use answer::{End, Reading, Received, Tail, is_stream, read};
pub use checks::{Answer, Prompt, check};
pub use compare::{compare, rouge_l};
pub use conversation::conversation;
pub use estimate::estimate;
pub use fields::at;
pub use form::Form;
pub use opening::opening;
pub use query::credentials;
pub use request::{Asked, ask, endpoint, path};
pub use schema::Schemas;
pub use sse::Prelude;
