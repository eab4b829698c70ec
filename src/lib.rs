//! Crossfade: a shadow-traffic canary rollout controller for LLM providers.
//!
//! It stands between applications and providers. Every request goes to the *primary*; a share is
//! copied to a *candidate*, both answers are kept as a *pair*, pairs are judged, and a *rollout*
//! moves up its *stages* while every *gate* is proven to hold, or back to the primary the moment
//! one is proven broken.
//!
//! # The map
//! Modules stand here in reading order. Each may use only the ones its row in `tests/it/tidy.rs`
//! allows, and those always stand above it.
//!
//! # The path of one request ([`proxy`])
//! ```text
//! 1 facts    head + bounded body -> model, feature, segment, conversation key, data classes
//! 2 route    snapshot.route(&facts)     pure: compliance first, then flags and the stage's shares
//! 3 serve    primary: bytes untouched · candidate: its own model and credential, unless an open
//!            breaker or its own wish keeps callers from it
//! 4 answer   a candidate that fails before its first byte is replaced by the primary, and it counts
//! 5 body     to the caller as it comes; a copy is kept aside, up to a limit and while memory lasts
//! 6 mirror   the other side is asked in a bounded pool; full = dropped and counted, never awaited
//! 7 record   two calls of one request -> pair -> controller, store, judge
//!            one call, where a lot left out the other -> controller, which keeps it too
//! ```
//!
//! # The path of one decision ([`controller`])
//! ```text
//! 1 a pair, or one side by lot, enters the bets     in the order and at the time it was told
//! 2 each tick and each gross failure: evidence now
//! 3 event = rollout.decide(now, input, evidence)    the only place where anything is decided; pure
//! 4 forward: journal, then publish · backward: publish, then journal
//! 5 rollout.apply(event); everyone who watches sees it
//! ```
//!
//! # What always holds
//! 1. Observing never fails, slows or changes what the caller gets. Bytes to and from the primary
//!    are never re-encoded; our own response headers are only added.
//! 2. The proxy knows no controller. With store, judge and controller dead it serves the primary.
//! 3. A request that may not go to a provider by its data classes is never sent there: in no
//!    stage, not as a copy, not to a judge.
//! 4. State changes only by `apply` of an event that `decide` returned. Replaying the journal
//!    gives the same state.
//! 5. Doubt moves nothing: advancing needs proof that every gate holds, rolling back by a gate
//!    needs proof of harm. Missing, stale or strange evidence holds and says so.
//! 6. Going forward is written before it is seen; going back is seen before it is written, gives
//!    up the copies under way, and its answer says whether it is durable yet.
//! 7. Every queue, body, wait, retry and table has a limit with a name; every drop is counted.
//! 8. Channels and long-lived tasks are made in [`app`] alone.
//! 9. A rollback has no precondition, asks nothing and waits for nothing.

// Pure: no async, clock, disk, network or random.

pub mod domain;

pub mod analysis;

pub mod dialect;

pub mod patterns;

// Edges: one foreign thing each.

pub mod clock;

pub mod tasks;

pub mod memory;

pub mod telemetry;

pub mod config;

pub mod listeners;

pub mod store;

pub mod upstream;

pub mod traffic;

// Actors: one loop or server each; they meet only through channels made in `app`.

pub mod controller;

pub mod judge;

pub mod proxy;

pub mod api;

pub mod operations;

// Wiring.

pub mod app;

pub mod golden;

pub mod players;

pub mod rehearsal;

pub mod simulate;

pub mod scenario;

pub mod cli;
