//! The verbs that change something: each says what changed and what comes next.

use super::{
    Exit, Problem,
    commands::{AdvanceArgs, ApproveArgs, Global, JumpArgs, Output, Seen},
    ladder,
    look::full,
    out::Out,
};
use crate::api::{Client, proto};
use proto::rollout::State;

fn comment(global: &Global) -> String {
    global.comment.clone().unwrap_or_default()
}

fn request_id(global: &Global) -> String {
    global.request_id.clone().unwrap_or_default()
}

/// What begins at the first stage.
pub(super) fn start(name: &str, global: &Global) -> proto::StartRolloutRequest {
    proto::StartRolloutRequest {
        name: full(name),
        request_id: request_id(global),
        comment: comment(global),
        ..Default::default()
    }
}

/// What ends the ladder.
pub(super) fn complete(name: &str, global: &Global) -> proto::CompleteRolloutRequest {
    proto::CompleteRolloutRequest {
        name: full(name),
        request_id: request_id(global),
        comment: comment(global),
        ..Default::default()
    }
}

/// Goes to another stage.
pub(super) async fn jump(
    client: &mut Client,
    out: &mut Out,
    args: JumpArgs,
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::JumpRolloutRequest {
        name: full(&args.name),
        request_id: request_id(global),
        comment: comment(global),
        to_stage_id: args.stage,
        override_undecided: args.override_undecided,
        approve: args.approve,
        etag: args.seen.etag(),
    };
    tell(out, &client.jump_rollout(request).await?)
}

/// Stops everything.
pub(super) async fn stop(
    client: &mut Client,
    out: &mut Out,
    global: &Global,
) -> Result<Exit, Problem> {
    let request =
        proto::StopRolloutsRequest { comment: comment(global), request_id: request_id(global) };
    let answer = client.stop_rollouts(request).await?;
    for rollout in &answer.rollouts {
        tell(out, rollout)?;
    }
    out.note(if answer.stopped.is_empty() {
        "· that stop was lifted since; to stop again leave out its --request-id"
    } else {
        "‼ everything is stopped: no rollout starts\nnext  crossfade stop --lift"
    })?;
    Ok(Exit::Done)
}

/// Lets rollouts start again.
pub(super) async fn lift(
    client: &mut Client,
    out: &mut Out,
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::LiftStopRequest { comment: comment(global), etag: String::new() };
    client.lift_stop(request).await?;
    out.note("✔ rollouts may start again\nnext  crossfade list")?;
    Ok(Exit::Done)
}

/// Leaves the stage.
pub(super) async fn advance(
    client: &mut Client,
    out: &mut Out,
    args: AdvanceArgs,
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::AdvanceRolloutRequest {
        name: full(&args.name),
        request_id: request_id(global),
        comment: comment(global),
        from_stage_id: args.from_stage.unwrap_or_default(),
        override_undecided: args.override_undecided,
        etag: args.seen.etag(),
    };
    let rollout = client.advance_rollout(request).await?;
    let done = tell(out, &rollout)?;
    // A repeated request answers with what has become of the rollout since.
    Ok(if rollout.state() == State::RolledBack { Exit::RolledBack } else { done })
}

/// Holds.
pub(super) async fn pause(
    client: &mut Client,
    out: &mut Out,
    name: String,
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::PauseRolloutRequest {
        name: full(&name),
        request_id: request_id(global),
        comment: comment(global),
    };
    tell(out, &client.pause_rollout(request).await?)
}

/// Goes on.
pub(super) async fn resume(
    client: &mut Client,
    out: &mut Out,
    (name, seen): (String, Seen),
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::ResumeRolloutRequest {
        name: full(&name),
        request_id: request_id(global),
        comment: comment(global),
        etag: seen.etag(),
    };
    tell(out, &client.resume_rollout(request).await?)
}

/// Agrees, or not.
pub(super) async fn approve(
    client: &mut Client,
    out: &mut Out,
    args: ApproveArgs,
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::ApproveStageRequest {
        name: full(&args.name),
        stage_id: args.stage,
        approved: !args.decline,
        comment: comment(global),
        request_id: request_id(global),
        etag: args.seen.etag(),
        attempt: args.attempt.unwrap_or_default(),
    };
    tell(out, &client.approve_stage(request).await?)
}

/// Goes back: one rollout, or all when no name is given.
pub(super) async fn rollback(
    client: &mut Client,
    out: &mut Out,
    name: Option<String>,
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::RollbackRolloutRequest {
        name: full(name.as_deref().unwrap_or("-")),
        request_id: request_id(global),
        comment: comment(global),
    };
    let answer = client.rollback_rollout(request).await?;
    for rollout in &answer.rollouts {
        tell(out, rollout)?;
    }
    if answer.rollouts.is_empty() {
        out.note("nothing to roll back: no rollout moves traffic")?;
    }
    Ok(Exit::Done)
}

/// Deletes.
pub(super) async fn delete(
    client: &mut Client,
    out: &mut Out,
    (name, seen): (String, Seen),
    global: &Global,
) -> Result<Exit, Problem> {
    let request = proto::DeleteRolloutRequest {
        name: full(&name),
        request_id: request_id(global),
        comment: comment(global),
        etag: seen.etag(),
    };
    client.delete_rollout(request).await?;
    out.note(&format!("✔ {name} is deleted; its pairs stay until they are too old"))?;
    Ok(Exit::Done)
}

/// Says what changed and what comes next.
pub(super) fn tell(out: &mut Out, rollout: &proto::Rollout) -> Result<Exit, Problem> {
    match out.output() {
        Output::Json => out.json("Rollout", rollout)?,
        Output::Table => out.note(&summary(rollout))?,
    }
    Ok(Exit::Done)
}

fn summary(rollout: &proto::Rollout) -> String {
    let name = ladder::short(&rollout.name);
    let (primary, candidate) = (ladder::short(&rollout.primary), ladder::short(&rollout.candidate));
    let stage = ladder::current(rollout);
    let id = stage.map_or("", |it| it.stage_id.as_str());
    let serves = ladder::percent(stage.map_or(0, |it| it.serve_bps));
    let pairs = ladder::percent(stage.map_or(0, |it| it.mirror_bps));
    let mut text = match rollout.state() {
        State::Pending => format!(
            "· {name} is there: {primary} → {candidate}; no traffic moves yet\n\
             next  crossfade start {name}"
        ),
        State::Running => format!(
            "▶ {name} is at `{id}`: {candidate} serves {serves}, pairs from {pairs}\n\
             next  crossfade status {name} --watch"
        ),
        State::Paused => format!(
            "‼ {name} is paused at `{id}`: {candidate} keeps serving {serves}, gates still guard\n\
             next  crossfade resume {name}"
        ),
        State::AwaitingApproval => format!(
            "‼ {name} is proven at `{id}` and asks for approval\n\
             next  crossfade approve {name} {id} --attempt {}",
            rollout.attempt
        ),
        State::Succeeded => format!(
            "✔ {name} SUCCEEDED: {candidate} serves {serves}, gates still guard\n\
             undo  crossfade rollback {name}"
        ),
        State::Baked => format!(
            "✔ {name} is BAKED: {candidate} serves {serves}, nothing is copied any more\n\
             undo  crossfade rollback {name}"
        ),
        State::RolledBack => format!(
            "✖ {name} is rolled back: {primary} serves 100%\n\
             next  crossfade events {name}      crossfade pairs {name}"
        ),
        State::Unspecified => format!("{name} has changed\nnext  crossfade status {name}"),
    };
    if !rollout.durable {
        text.push_str(
            "\nwarning: in force, but not on disk yet; after a restart it may have to be done again",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_followed_by_the_next_sensible_command() {
        let of = |state: State, durable| {
            summary(&proto::Rollout {
                name: "rollouts/chat".to_owned(),
                primary: "providers/gpt".to_owned(),
                state: state.into(),
                durable,
                ..proto::Rollout::default()
            })
        };
        assert!(of(State::Pending, true).ends_with("crossfade start chat"));
        assert!(of(State::Paused, true).ends_with("crossfade resume chat"));
        let back = of(State::RolledBack, false);
        assert!(back.contains("gpt serves 100%") && back.contains("not on disk yet"), "{back}");
    }
}
