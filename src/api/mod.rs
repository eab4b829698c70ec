//! The gRPC API, and the client that speaks it: the only module that names `tonic`.

mod blind;
mod client;
mod convert;
mod errors;
mod feedback;
mod flags;
mod guests;
mod http;
mod json;
mod pairs;
mod request;
mod review_service;
mod reviews;
mod rollouts;
mod server;
mod usage;
mod watch;

pub use client::{Caller, Client, Failure, FailureKind, Watch};
pub use convert::{PlanDefaults, millis, timestamp};
pub use json::{JsonError, from_json, to_json};
pub use pairs::{Pairs, Past};
pub use prost::Message;
pub use server::{DRAIN, serve};

/// Messages, clients and servers, generated from `proto/`.
pub mod proto {
    pub use prost_types::{Duration, Timestamp};

    pub use generated::*;

    #[expect(warnings, reason = "generated code keeps its own style")]
    mod generated {
        tonic::include_proto!("crossfade.v1");
    }
}

/// What `proto/` was compiled to: for reflection and for JSON.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/crossfade.bin"));
