//! The controller: moves rollouts by evidence and command. Never sees the proxy.

mod handle;

pub use handle::{
    Change, Decision, Evaluation, Handle, Rejected, Requester, View, Views,
};
