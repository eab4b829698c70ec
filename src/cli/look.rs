//! `list`, `status` and `explain`.

use super::{
    Exit, Problem,
    commands::{Output, StatusArgs},
    ladder,
    out::{Out, harmless},
    review,
};
use crate::api::{Client, proto};

/// Rollouts asked for at a time.
const PAGE_LEN: i32 = 200;

/// One line for each rollout.
pub(super) async fn list(client: &mut Client, out: &mut Out) -> Result<Exit, Problem> {
    let all = all(client).await?;
    if out.output() == Output::Json {
        all.rollouts.iter().try_for_each(|it| out.json("Rollout", it))?;
    } else if all.rollouts.is_empty() {
        out.note("no rollouts yet: `crossfade create NAME --primary A --candidate B`")?;
    } else {
        let header = ["NAME", "FROM", "TO", "STATE", "STAGE", "SERVES", "TIME", "NOW"];
        let mut table = ladder::table(&header);
        table.add_rows(all.rollouts.iter().map(row));
        out.data(&ladder::lines(&table))?;
    }
    if !all.degraded.is_empty() {
        out.note(&format!("warning: nothing can go forward: {}", harmless(&all.degraded)))?;
    }
    if !all.stopped.is_empty() {
        out.note(&format!("warning: {}", harmless(&all.stopped)))?;
    }
    Ok(Exit::Done)
}

/// All pages as one.
async fn all(client: &mut Client) -> Result<proto::ListRolloutsResponse, Problem> {
    let mut request = proto::ListRolloutsRequest { page_size: PAGE_LEN, ..Default::default() };
    let mut all = proto::ListRolloutsResponse::default();
    loop {
        let page = client.list_rollouts(request.clone()).await?;
        all.rollouts.extend(page.rollouts);
        (all.degraded, all.stopped) = (page.degraded, page.stopped);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

fn row(rollout: &proto::Rollout) -> [String; 8] {
    let moving = rollout.stage_elapsed;
    let stage = ladder::current(rollout).filter(|_| 0 < rollout.attempt);
    let serves = stage.filter(|_| moving.is_some()).map_or(0, |it| it.serve_bps);
    [
        ladder::short(&rollout.name).to_owned(),
        ladder::short(&rollout.primary).to_owned(),
        ladder::short(&rollout.candidate).to_owned(),
        ladder::state(rollout.state()).to_owned(),
        stage.map_or_else(String::new, |it| it.stage_id.clone()),
        ladder::percent(serves),
        moving.map_or_else(String::new, |it| ladder::span(crate::api::millis(it))),
        rollout.status_message.clone(),
    ]
}

/// The full picture.
pub(super) async fn status(
    client: &mut Client,
    out: &mut Out,
    args: &StatusArgs,
) -> Result<Exit, Problem> {
    let rollout = fetch(client, &args.name).await?;
    show(out, &rollout)?;
    Ok(exit(args, &rollout))
}

/// One rollout as it is now.
pub(super) async fn fetch(client: &mut Client, name: &str) -> Result<proto::Rollout, Problem> {
    let request = proto::GetRolloutRequest { name: full(name) };
    Ok(client.get_rollout(request).await?)
}

/// Prints a rollout as it is wanted.
pub(super) fn show(out: &mut Out, rollout: &proto::Rollout) -> Result<(), Problem> {
    match out.output() {
        Output::Json => out.json("Rollout", rollout),
        Output::Table => Ok(out.data(&ladder::picture(rollout))?),
    }
}

/// The name the API knows it by.
pub(super) fn full(name: &str) -> String {
    format!("rollouts/{}", name.strip_prefix("rollouts/").unwrap_or(name))
}

/// What `status` exits with.
pub(super) fn exit(args: &StatusArgs, rollout: &proto::Rollout) -> Exit {
    let back = rollout.state() == proto::rollout::State::RolledBack;
    if args.exit_status && back { Exit::RolledBack } else { Exit::Done }
}

/// What the controller would do now, and why.
pub(super) async fn explain(
    client: &mut Client,
    out: &mut Out,
    name: &str,
) -> Result<Exit, Problem> {
    use proto::evaluate_rollout_response::Decision;
    let request = proto::EvaluateRolloutRequest { name: full(name) };
    let answer = client.evaluate_rollout(request).await?;
    if out.output() == Output::Json {
        out.json("EvaluateRolloutResponse", &answer)?;
        return Ok(Exit::Done);
    }
    let decision = match answer.decision() {
        Decision::Hold => "● hold",
        Decision::Advance => "✔ advance",
        Decision::RollBack => "✖ roll back",
        Decision::Unspecified => "unknown",
    };
    let lines: Vec<String> = answer.explanation.lines().map(harmless).collect();
    out.data(&format!("{decision}: {}\n\n", lines.join("\n  ")))?;
    if let Some(rollout) = &answer.rollout {
        out.data(&ladder::picture(rollout))?;
    }
    // Without a store of pairs there is nothing to tell of people, and all else stands.
    let request = proto::GetReviewProgressRequest { parent: full(name) };
    if let Ok(progress) = client.get_review_progress(request).await
        && 0 < progress.reviewed
    {
        out.data(&format!(
            "\npeople  {}",
            review::standing(&progress).replace('\n', "\n        ")
        ))?;
    }
    Ok(Exit::Done)
}
