//! Providers, a judge and callers on loopback, to rehearse a rollout without spending a token.
//!
//! A player answers from rows: real prompts with the answers several models gave
//! to them, one JSON object per line. Write such a file from your own traffic and
//! a whole rollout runs against it, errors and delays included.
//!
//! ```json
//! {
//!   "id": "refund-17",
//!   "primary": "gpt-4o",
//!   "messages": [{"role": "user", "content": "Where is my refund?"}],
//!   "tools": [{"type": "function", "function": {"name": "refund_status"}}],
//!   "outputs": {
//!     "gpt-4o": "It left us on Monday.",
//!     "small": {
//!       "tool_calls": [{"name": "refund_status", "arguments": "{\"id\":17}"}],
//!       "latency_s": 0.41, "in_tokens": 117, "out_tokens": 19
//!     },
//!     "flaky": {"error": "Internal error occurred."}
//!   },
//!   "judge": {"by_model": {"small": {"pref": 0.62}}}
//! }
//! ```
//!
//! - `messages` are those of a chat completion request. A request is known again by
//!   its last user text and the names of its tools; spacing does not count.
//! - An output is a text, or an object with `content`, `tool_calls`, `error` (the
//!   provider failed: HTTP 500), `latency_s`, `in_tokens` and `out_tokens`, none of them
//!   required. A `.` in the name of a called tool becomes `_`, as the wire allows none.
//! - `judge.by_model` (optional) has one mark per model: `pref`, 0 to 1, the chance that
//!   the model's answer is better than the primary's; `score`, 0 to 1; `scores`, each 1 to
//!   10, of which the mean counts; or `correct`, true or false. A row without marks may
//!   have `verdict`, per model `{"valid": true}`, which counts like `correct`.
//! - Unknown fields are ignored. A line that is not a row is an error with its place.
//!
//! The judge reads the prompt described at [`JudgePlayer`].

mod completion;
mod dice;
mod judge;
mod opinions;
mod plan;
mod prompt;
mod provider;
mod reply;
mod row;
mod rows;
mod server;
mod synthetic;
mod traffic;
mod traffic_answer;
mod traffic_report;

pub use judge::{JudgeFault, JudgePlayer};
pub use plan::{Fault, Latency, ProviderPlan};
pub use provider::Provider;
pub use row::{Output, RecordedCall, Row};
pub use rows::{Delivery, Rows, RowsError};
pub use server::{Seen, Stats};
pub use synthetic::{SyntheticModel, synthetic};
pub use traffic::{Pace, Traffic, TrafficError};
pub use traffic_report::{Failure, Times, TrafficReport};
