//! What came of a rehearsal, for people and for machines.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::api::proto::{GateEvidence, Rollout, rollout::State};
use crate::players::TrafficReport;

use super::plan::{Expected, Plan};

/// What came of a rehearsal.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Each rollout.
    pub rollouts: Vec<RolloutReport>,
    /// Requests that went wrong for a caller, whatever the reason.
    pub caller_errors: u64,
    /// The same by kind.
    pub failures: BTreeMap<String, u64>,
    /// Requests sent.
    pub requests: u64,
    /// Whether every rollout ended as the plan expects, and no caller saw an error.
    pub as_expected: bool,
}

/// What came of one rollout.
#[derive(Clone, Debug, Serialize)]
pub struct RolloutReport {
    /// Its name.
    pub name: String,
    /// `succeeded`, `rolled_back`, or `undecided`.
    pub outcome: &'static str,
    /// The stage it ended in.
    pub stage: String,
    /// The share the candidate served there, in basis points.
    pub serve_bps: i32,
    /// Why, as a stable code.
    pub reason: String,
    /// The gate that sent it back, if one did.
    pub gate: String,
    /// The numbers, in one line.
    pub evidence: String,
    /// Pairs that counted in its last stage.
    pub pairs: i64,
    /// Whether that is what the plan expects.
    pub as_expected: bool,
}

impl Report {
    /// `rollouts` come with the evidence of their last step.
    pub(super) fn new(plan: &Plan, rollouts: &[Rollout], traffic: &[TrafficReport]) -> Self {
        let mut reports: Vec<RolloutReport> =
            rollouts.iter().map(|it| RolloutReport::new(plan, it)).collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        let caller_errors = traffic.iter().map(TrafficReport::failed).sum();
        let decided = reports.iter().all(|it| it.as_expected);
        let complete = reports.len() == plan.expect.len();
        Self {
            // Injected errors of a primary are its own; a plan that has some says so by its players.
            as_expected: decided && complete && caller_errors == 0,
            failures: failures(traffic),
            requests: traffic.iter().map(|it| it.sent).sum(),
            rollouts: reports,
            caller_errors,
        }
    }
}

fn failures(traffic: &[TrafficReport]) -> BTreeMap<String, u64> {
    let mut failures = BTreeMap::new();
    for (kind, count) in traffic.iter().flat_map(|it| &it.failures) {
        *failures.entry(format!("{kind:?}").to_lowercase()).or_default() += count;
    }
    failures
}

impl RolloutReport {
    fn new(plan: &Plan, rollout: &Rollout) -> Self {
        let name = rollout.name.trim_start_matches("rollouts/").to_owned();
        let stage = usize::try_from(rollout.stage_index).ok();
        let stage = stage.and_then(|it| rollout.stages.get(it));
        let outcome = match rollout.state() {
            State::Succeeded | State::Baked => "succeeded",
            State::RolledBack => "rolled_back",
            State::Unspecified
            | State::Pending
            | State::Running
            | State::Paused
            | State::AwaitingApproval => "undecided",
        };
        let reason = rollout.reason.clone().unwrap_or_default();
        let broken = |it: &&GateEvidence| it.metric == reason.metric && it.slice == reason.slice;
        let gate = rollout.evidence.iter().find(broken);
        let evidence = match (gate, outcome) {
            (Some(gate), _) => one_line(gate),
            (None, "undecided") => rollout.status_message.clone(),
            (None, _) => rollout.evidence.iter().map(one_line).collect::<Vec<_>>().join("; "),
        };
        let mut report = Self {
            outcome,
            stage: stage.map_or_else(String::new, |it| it.stage_id.clone()),
            serve_bps: stage.map_or(0, |it| it.serve_bps),
            reason: reason.code,
            gate: reason.metric,
            evidence,
            pairs: rollout.pairs,
            as_expected: false,
            name,
        };
        let expected = plan.expect.get(&report.name);
        report.as_expected = expected.is_some_and(|it| report.is(it));
        report
    }

    fn is(&self, expected: &Expected) -> bool {
        let serve_max = expected.serve_max.map_or(10_000, |it| i32::from(it.0.basis_points()));
        self.outcome == expected.outcome
            && (expected.gate.is_empty() || self.gate == expected.gate)
            && self.serve_bps <= serve_max
    }
}

/// A gate's numbers.
fn one_line(gate: &GateEvidence) -> String {
    let digits = if gate.unit == "ms" { 0 } else { 3 };
    let slice = if gate.slice.is_empty() { "" } else { " in " };
    let name = format!("{}{slice}{}", gate.metric, gate.slice);
    let mut text = format!("{name} {:+.digits$} {}", gate.difference, gate.unit);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        " [{:+.digits$}, {:+.digits$}], bound {:+.digits$}, n={}",
        gate.lower, gate.upper, gate.bound, gate.samples
    );
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table
            .set_header(["ROLLOUT", "OUTCOME", "STAGE", "REASON", "PAIRS", "EVIDENCE", "EXPECTED"]);
        for it in &self.rollouts {
            let reason = if it.gate.is_empty() { &it.reason } else { &it.gate };
            let expected = if it.as_expected { "yes" } else { "NO" };
            let pairs = it.pairs.to_string();
            table.add_row([
                &it.name,
                it.outcome,
                &it.stage,
                reason,
                &pairs,
                &it.evidence,
                expected,
            ]);
        }
        writeln!(f, "{table}")?;
        write!(f, "{} requests, {} errors seen by callers", self.requests, self.caller_errors)?;
        self.failures.iter().try_for_each(|(kind, count)| write!(f, ", {kind}: {count}"))
    }
}
