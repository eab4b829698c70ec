//! `create` and `update`: a plan from flags or a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Exit, Problem,
    commands::{CreateArgs, Global, Seen},
    forecast, look, moves,
    out::Out,
};
use crate::api::{Client, from_json, proto};

/// Creates a rollout.
pub(super) async fn create(
    client: &mut Client,
    out: &mut Out,
    args: CreateArgs,
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::CreateRolloutRequest {
        force: args.force,
        request_id: global.request_id.clone().unwrap_or_default(),
        comment: global.comment.clone().unwrap_or_default(),
        ..request(args)?
    };
    forecast::tell(out, &client.create_rollout(request).await?)
}

/// Replaces a rollout's plan. An `etag` in the file is sent on: a plan made from what `status`
/// printed does not undo what somebody else has changed since. A typed one goes before it.
pub(super) async fn update(
    client: &mut Client,
    out: &mut Out,
    (name, file, seen): (String, PathBuf, Seen),
    global: &Global,
) -> Result<Exit, Problem> {
    let mut rollout: proto::Rollout = from_json("Rollout", &read(&file)?)?;
    if seen.etag.is_some() {
        rollout.etag = seen.etag();
    }
    let request = proto::UpdateRolloutRequest {
        rollout: Some(proto::Rollout { name: look::full(&name), ..rollout }),
        request_id: global.request_id.clone().unwrap_or_default(),
        comment: global.comment.clone().unwrap_or_default(),
    };
    moves::tell(out, &client.update_rollout(request).await?)
}

fn request(args: CreateArgs) -> Result<proto::CreateRolloutRequest, Problem> {
    let rollout_id = args.name;
    if let Some(path) = &args.file {
        let rollout = Some(from_json("Rollout", &read(path)?)?);
        return Ok(proto::CreateRolloutRequest { rollout_id, rollout, ..Default::default() });
    }
    let gate = |(metric, max_regression)| proto::Gate { metric, max_regression, role: 0 };
    let gates = args.gate.into_iter().map(gate).collect();
    let slice = proto::TrafficSlice {
        features: args.feature,
        segments: args.segment,
        ..proto::TrafficSlice::default()
    };
    Ok(proto::CreateRolloutRequest {
        rollout_id,
        rollout: Some(proto::Rollout {
            primary: args.primary.unwrap_or_default(),
            candidate: args.candidate.unwrap_or_default(),
            slice: Some(slice),
            copies_per_day: args.copies_per_day,
            ..proto::Rollout::default()
        }),
        default_ladder: Some(proto::DefaultLadder { gates, ..Default::default() }),
        ..proto::CreateRolloutRequest::default()
    })
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| {
        let text = format!("could not read the plan {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}
