//! One test program, so that the crate is linked once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod backtest;
mod behaviours;
mod control;
mod crash;
mod data_port;
mod evil;
mod faults;
mod isolation;
mod live;
mod programs;
mod readme;
mod recorded;
mod sdk;
mod shadow;
mod tidy;
mod world;
