//! `status --watch`: drawn over on a terminal, a line for each change elsewhere.

use std::time::Duration;

use tokio::time;

use super::{
    Exit, Problem,
    commands::{Output, StatusArgs},
    events, ladder, look,
    out::{Out, Screen, harmless},
};
use crate::api::{Client, Watch, proto};

/// How often evidence is fetched between changes.
const REFRESH: Duration = Duration::from_secs(1);

/// Shows a rollout until it ends.
pub(super) async fn status(
    client: &mut Client,
    out: &mut Out,
    args: &StatusArgs,
) -> Result<Exit, Problem> {
    let request = proto::WatchRolloutRequest { name: look::full(&args.name) };
    let watch = client.watch_rollout(request).await?;
    let last = match (out.screen(), out.output()) {
        (Screen::Terminal, Output::Table) => draw(client, out, watch, &args.name).await?,
        (Screen::Terminal | Screen::Lines, _) => print(out, watch).await?,
    };
    Ok(last.map_or(Exit::Done, |it| look::exit(args, &it)))
}

async fn draw(
    client: &mut Client,
    out: &mut Out,
    mut watch: Watch,
    name: &str,
) -> Result<Option<proto::Rollout>, Problem> {
    out.clear()?;
    let mut tick = time::interval(REFRESH);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
    loop {
        let rollout = tokio::select! {
            _ = tick.tick() => Some(look::fetch(client, name).await?),
            next = watch.next() => match next? {
                Some(answer) => answer.rollout,
                None => return Ok(None),
            },
        };
        let Some(rollout) = rollout else { continue };
        out.redraw(&ladder::picture(&rollout))?;
        if ladder::ended(&rollout) {
            return Ok(Some(rollout));
        }
    }
}

async fn print(out: &mut Out, mut watch: Watch) -> Result<Option<proto::Rollout>, Problem> {
    let mut last = None;
    while let Some(answer) = watch.next().await? {
        let Some(rollout) = answer.rollout.clone() else { continue };
        match (out.output(), &answer.event) {
            (Output::Json, _) => out.json("WatchRolloutResponse", &answer)?,
            (Output::Table, Some(event)) => out.data(&events::line(event))?,
            (Output::Table, None) => out.data(&line(&rollout))?,
        }
        let ended = ladder::ended(&rollout);
        last = Some(rollout);
        if ended {
            break;
        }
    }
    Ok(last)
}

fn line(rollout: &proto::Rollout) -> String {
    harmless(&format!(
        "{}  {}  {}  {}",
        ladder::moment(rollout.update_time),
        ladder::short(&rollout.name),
        ladder::state(rollout.state()),
        rollout.status_message
    ))
}
