//! `events`: the log as lines.

use super::{
    Exit, Problem,
    commands::Output,
    ladder,
    look::full,
    out::{Out, harmless},
};
use crate::api::{Client, proto};
use proto::event::Type;

/// The newest events, oldest of them first.
pub(super) async fn events(
    client: &mut Client,
    out: &mut Out,
    name: &str,
    limit: i32,
) -> Result<Exit, Problem> {
    let request =
        proto::ListEventsRequest { parent: full(name), page_size: limit, ..Default::default() };
    let page = client.list_events(request).await?;
    for event in page.events.iter().rev() {
        match out.output() {
            Output::Json => out.json("Event", event)?,
            Output::Table => out.data(&line(event))?,
        }
    }
    if out.output() == Output::Table && !page.next_page_token.is_empty() {
        out.note(&format!("these are the newest {limit}; --limit shows more"))?;
    }
    Ok(Exit::Done)
}

/// One event on a line: when, which, what, why, who.
pub(super) fn line(event: &proto::Event) -> String {
    let rollout = event.name.split('/').nth(1).unwrap_or_default();
    let at = ladder::moment(event.create_time);
    let mut parts = vec![at, rollout.to_owned(), what(event)];
    if let Some(reason) = &event.reason {
        let gate = ladder::gate(&reason.metric, &reason.slice);
        parts.extend([reason.code.clone(), gate].into_iter().filter(|it| !it.is_empty()));
        let said = if reason.comment.is_empty() { "" } else { ": " };
        parts.push(format!("({}{said}{})", reason.actor, reason.comment));
    }
    harmless(&parts.join("  "))
}

fn what(event: &proto::Event) -> String {
    match event.r#type() {
        Type::Unspecified => "unknown".to_owned(),
        Type::Created => "· created".to_owned(),
        Type::Revised => "· has another plan".to_owned(),
        Type::StageEntered => format!("▶ entered {} (attempt {})", event.stage_id, event.attempt),
        Type::ApprovalRequested => "‼ asks for approval".to_owned(),
        Type::Paused => "‼ paused".to_owned(),
        Type::Resumed => "▶ resumed".to_owned(),
        Type::Succeeded => "✔ succeeded".to_owned(),
        Type::RolledBack => "✖ rolled back".to_owned(),
        Type::Loosened => "‼ has a looser plan, its stage began anew".to_owned(),
        Type::Overdue => "‼ overdue".to_owned(),
        Type::Baked => "✔ baked".to_owned(),
        Type::Deleted => "✖ deleted".to_owned(),
        Type::Stopped => "✖ everything stopped".to_owned(),
        Type::Lifted => "▶ stop lifted".to_owned(),
        Type::Flagged => format!("‼ flag {}", event.flag),
        Type::Unflagged => format!("▶ flag {} cleared", event.flag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_when_what_why_and_who() {
        let event = proto::Event {
            name: "rollouts/chat/events/7".to_owned(),
            r#type: Type::StageEntered.into(),
            create_time: Some(proto::Timestamp { seconds: 1, nanos: 0 }),
            reason: Some(proto::Reason {
                code: "OPERATOR".to_owned(),
                actor: "ana".to_owned(),
                comment: "go".to_owned(),
                ..proto::Reason::default()
            }),
            stage_id: "half".to_owned(),
            attempt: 2,
            ..proto::Event::default()
        };
        assert_eq!(
            line(&event),
            "1970-01-01T00:00:01Z  chat  ▶ entered half (attempt 2)  OPERATOR  (ana: go)"
        );
    }
}
