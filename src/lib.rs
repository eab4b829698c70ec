//! A shadow-traffic canary rollout controller for LLM providers.

pub mod domain;

pub mod analysis;

pub mod tasks;
