//! `flag`: what operators cap.

use super::{
    Exit, Problem,
    commands::{FlagArgs, FlagCommand, Global, Output},
    ladder,
    out::{Out, harmless},
};
use crate::api::{Client, proto};
use crate::domain::Share;

/// Shows, sets or clears flags.
pub(super) async fn flag(
    client: &mut Client,
    out: &mut Out,
    command: FlagCommand,
    global: &Global,
) -> Result<Exit, Problem> {
    let comment = global.comment.clone().unwrap_or_default();
    match command {
        FlagCommand::List => return list(client, out).await,
        FlagCommand::Set(args) => {
            let flag = Some(proto::Flag { comment, ..asked(args) });
            let set = client.set_flag(proto::SetFlagRequest { flag }).await?;
            if out.output() == Output::Json {
                out.json("Flag", &set)?;
            } else {
                let later = if set.durable { "" } else { "; it is not on disk yet" };
                out.note(&format!("✔ in force{later}"))?;
            }
        }
        FlagCommand::Clear { name } => {
            let name = format!("flags/{name}");
            client.clear_flag(proto::ClearFlagRequest { name, comment }).await?;
            out.note("✔ cleared")?;
        }
    }
    Ok(Exit::Done)
}

fn asked(args: FlagArgs) -> proto::Flag {
    let bps = |share: Option<Share>| share.map(|it| it.basis_points().into());
    proto::Flag {
        name: format!("flags/{}", args.name),
        rollout: args.rollout.map_or_else(String::new, |it| format!("rollouts/{it}")),
        feature: args.feature.unwrap_or_default(),
        segment: args.segment.unwrap_or_default(),
        serve_bps_max: bps(args.serve),
        mirror_bps_max: bps(args.mirror),
        ..proto::Flag::default()
    }
}

async fn list(client: &mut Client, out: &mut Out) -> Result<Exit, Problem> {
    let flags = client.list_flags(proto::ListFlagsRequest {}).await?.flags;
    if out.output() == Output::Json {
        flags.iter().try_for_each(|it| out.json("Flag", it))?;
    } else if flags.is_empty() {
        out.note("no flags: stages are not capped")?;
    } else {
        let header = ["NAME", "ROLLOUT", "FEATURE", "SEGMENT", "SERVES", "MIRRORS", "BY", "WHY"];
        let mut table = ladder::table(&header);
        table.add_rows(flags.iter().map(row));
        out.data(&ladder::lines(&table))?;
    }
    Ok(Exit::Done)
}

fn row(flag: &proto::Flag) -> [String; 8] {
    let cap = |share: Option<i32>| share.map_or_else(|| "–".to_owned(), ladder::percent);
    let any = |text: &str| if text.is_empty() { "any".to_owned() } else { harmless(text) };
    [
        ladder::short(&flag.name).to_owned(),
        any(ladder::short(&flag.rollout)),
        any(&flag.feature),
        any(&flag.segment),
        cap(flag.serve_bps_max),
        cap(flag.mirror_bps_max),
        harmless(&flag.actor),
        harmless(&flag.comment),
    ]
}
