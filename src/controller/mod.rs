//! The controller: moves rollouts by evidence and command. Never sees the proxy.
//!
//! ```text
//! 1 a pair enters the stage's evidence                     constant work and memory
//! 2 each tick and each gross failure: evidence now         managed, analysis
//! 3 event = rollout.decide(now, tick | command, evidence)  the only place where anything is decided
//! 4 forward: journal, then publish · backward: publish, then journal
//! 5 rollout.apply(event); everyone who watches sees it
//! ```

mod actor;
mod book;
mod coverage;
mod deletion;
mod explain;
mod flags;
mod foresight;
mod golden;
mod handle;
mod judging;
mod managed;
mod orders;
mod rebuild;
#[cfg(test)]
pub(crate) mod rig;
mod setup;
mod steps;
mod stop;
mod take;

pub use actor::Controller;
pub use golden::Goldens;
pub use handle::{Change, Decision, Evaluation, Handle, Rejected, Requester, Slow, View, Views};
pub use setup::{Budgets, Judged, Setup, Start, Takeover, Wanted};
