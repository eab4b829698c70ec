//! A shadow-traffic canary rollout controller for LLM providers.

pub mod domain;

pub mod analysis;

pub mod clock;

pub mod tasks;

pub mod store;

pub mod traffic;

pub mod controller;

pub mod api;

pub mod cli;
