//! What a story answers, in words.

use crate::domain::{Event, Rollout, State, TierEvidence, Verdict};

use super::managed::Managed;

/// An event that is about to happen, in one line.
pub(super) fn event(managed: &Managed, event: &Event) -> String {
    match event {
        Event::Created(_) => "created".to_owned(),
        Event::Revised(_) => "plan replaced".to_owned(),
        Event::Loosened(_) => "plan loosened, and the stage begins anew".to_owned(),
        Event::StageEntered { attempt, stage, cause } => {
            let name = managed.rollout.plan().stages.get(*stage).map_or("", |it| it.name.as_str());
            let again = if *attempt == 1 { String::new() } else { format!(", attempt {attempt}") };
            format!("stage `{name}` entered ({}{again})", cause.code())
        }
        Event::ApprovalRequested => "approval requested".to_owned(),
        Event::Paused(cause) => format!("paused ({})", cause.code()),
        Event::Resumed => "resumed".to_owned(),
        Event::Overdue => "overdue: the stage lasts longer than it should".to_owned(),
        Event::Succeeded(cause) => format!("succeeded ({})", cause.code()),
        Event::Baked => "guarded for long enough: nothing is copied any more".to_owned(),
        Event::Deleted => "deleted".to_owned(),
        Event::Stopped => "everything is stopped".to_owned(),
        Event::Lifted => "the stop is lifted".to_owned(),
        Event::Flagged(flag) => format!("flag {flag}"),
        Event::Unflagged(flag) => format!("flag {flag} is cleared"),
        Event::RolledBack(cause) => {
            let broken = cause.metric().and_then(|it| managed.evidence.with(it, Verdict::Breach));
            let gate = broken.map_or_else(String::new, |it| format!(": {}", it.name()));
            format!("rolled back ({}{gate})", cause.code())
        }
    }
}

/// Where a rollout stands: its state, its stage and share, what it waits for.
pub(super) fn status(managed: &Managed, waits: &str) -> String {
    let rollout = &managed.rollout;
    let Some(stage) = rollout.stage() else {
        return rollout.state().as_str().to_owned();
    };
    let place = format!("`{}` serves {}", stage.name, stage.serve);
    match rollout.state() {
        State::Running => format!("running | {place} | {waits}"),
        State::Paused | State::AwaitingApproval | State::Succeeded | State::Baked => {
            format!("{} | {place}", rollout.state().as_str())
        }
        State::Pending | State::RolledBack => rollout.state().as_str().to_owned(),
    }
}

/// What each gate of the stage says, what does not count, and why nothing may be trusted.
pub(super) fn evidence(managed: &Managed) -> Vec<String> {
    let evidence = &managed.evidence;
    let mut lines = vec![format!("{} pairs, {} solos", evidence.pairs, evidence.solos)];
    lines.extend(evidence.gates.iter().map(|gate| {
        let name = gate.name();
        let (verdict, unit) = (gate.verdict.as_str(), gate.metric.unit());
        if !gate.problem.is_empty() {
            return format!("{name}: {verdict}, {}", gate.problem);
        }
        if !gate.tiers.is_empty() {
            let tiers: Vec<String> = gate.tiers.iter().map(TierEvidence::figures).collect();
            return format!("{name}: {verdict}, {}, {} samples", tiers.join(", or "), gate.samples);
        }
        let noise = gate.noise.map_or_else(String::new, |it| format!("; {}", it.figures(unit)));
        format!(
            "{name}: {verdict}, {:+.2} {unit} in [{:+.2}, {:+.2}], bound {:+.2} {unit}, \
             {} samples{noise}",
            gate.difference, gate.lower, gate.upper, gate.bound, gate.samples
        )
    }));
    let excluded =
        evidence.excluded.iter().map(|it| format!("excluded: {} {}", it.count, it.reason));
    lines.extend(excluded);
    lines.extend(evidence.outage.iter().map(|it| format!("no measure: {it}")));
    lines.extend(evidence.problem.iter().map(|it| format!("not to be trusted: {it}")));
    lines
}

/// The share that callers get from the candidate.
pub(super) fn serves(rollout: &Rollout) -> String {
    rollout.stage().map_or_else(|| "0%".to_owned(), |it| it.serve.to_string())
}
