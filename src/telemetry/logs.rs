//! The setting up of `tracing`.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Sends logs to standard error, filtered by `filter` (as `RUST_LOG` has it). Once a process.
pub fn init(filter: &str, logs: Logs) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let base = tracing_subscriber::registry().with(filter);
    let done = match logs {
        Logs::Text => {
            let colours = io::stderr().is_terminal();
            base.with(fmt::layer().with_ansi(colours).with_writer(io::stderr)).try_init()
        }
        Logs::Json => base.with(fmt::layer().json().with_writer(io::stderr)).try_init(),
    };
    // A second call, as in tests, keeps the first one's settings.
    drop(done);
}
