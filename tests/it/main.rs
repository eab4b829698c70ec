//! One test program, so that the crate is linked once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod audit;
mod backtest;
mod behaviours;
mod breaker;
mod checked_data;
mod checks;
mod control;
mod crash;
mod data_port;
mod evil;
mod expected;
mod faults;
mod feedback;
mod flags;
mod golden;
mod hygiene;
mod inert;
mod isolation;
mod judged;
mod leave;
mod life;
mod live;
mod money;
mod noise;
mod programs;
mod readme;
mod recorded;
mod reviews;
mod rules;
mod sdk;
mod shadow;
mod tidy;
mod upstream;
mod world;
