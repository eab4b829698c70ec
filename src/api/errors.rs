//! What callers of the API are told when something is not done.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::controller::Rejected;
use crate::domain::{Late, Name, PlanFault, Refusal};

/// The domain of every reason.
const DOMAIN: &str = "crossfade.dev";
/// Most faults told at once: they travel in a header, which has a limit.
const FAULTS_MAX: usize = 32;
/// Most characters told of one of them.
const FAULT_LEN_MAX: usize = 200;

/// A failure in the making: the reason, what it is about, and what to do.
struct Told {
    code: Code,
    reason: &'static str,
    hint: String,
    metadata: Vec<(&'static str, String)>,
}

impl Told {
    fn new(code: Code, reason: &'static str, hint: impl Into<String>) -> Self {
        Self { code, reason, hint: hint.into(), metadata: Vec::new() }
    }

    fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// The details that every failure has.
    fn details(&self) -> ErrorDetails {
        let hint = ("hint", self.hint.clone());
        let pairs = self.metadata.iter().cloned().chain([hint]);
        let metadata: HashMap<String, String> = pairs
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        ErrorDetails::with_error_info(self.reason, DOMAIN, metadata)
    }
}

/// Says why the controller did not do what it was asked.
pub(super) fn rejected(rejected: &Rejected) -> Status {
    let message = rejected.to_string();
    let told = match rejected {
        Rejected::Plan(faults) => return plan(faults),
        Rejected::ReusedRequestId(_) => return argument("request_id", &message),
        Rejected::Unknown(name) => return unknown("rollout", "rollouts", name.as_str(), &message),
        Rejected::Refused { rollout, refusal, remedy } => {
            return refused(rollout, (refusal, remedy), &message);
        }
        Rejected::Exists(name) => return exists(name, &message),
        Rejected::Stale { rollout, seen, now } => {
            let hint = format!("`crossfade status {rollout}` shows what changed");
            Told::new(Code::Aborted, "ETAG_MISMATCH", hint)
                .with("rollout", rollout.to_string())
                .with("seen", seen.to_string())
                .with("now", now.to_string())
        }
        Rejected::Overlap { rollout, other } => {
            let hint = format!(
                "`crossfade start {rollout} --supersede`, beside what else was said, rolls `{other}` \
                 back and takes its place"
            );
            let told = Told::new(Code::FailedPrecondition, "SLICE_OVERLAP", hint)
                .with("rollout", rollout.to_string())
                .with("other", other.to_string());
            return precondition(&told, rollout, &message);
        }
        Rejected::Unavailable(_) => Told::new(
            Code::Unavailable,
            "CONTROLLER_UNAVAILABLE",
            "traffic is not affected, and a rollback still works",
        ),
    };
    Status::with_error_details(told.code, message, told.details())
}

/// Says what is wrong with a plan, all of it.
pub(super) fn plan(faults: &[PlanFault]) -> Status {
    let told = Told::new(Code::InvalidArgument, "PLAN_INVALID", "")
        .with("faults", faults.len().to_string());
    let mut details = told.details();
    for fault in faults.iter().take(FAULTS_MAX) {
        let field = if is_of_request(&fault.field) {
            fault.field.clone()
        } else {
            format!("rollout.{}", fault.field)
        };
        details.add_bad_request_violation(field, short(&fault.problem));
    }
    let message = match faults {
        [fault] => format!("the plan has a fault: {}", short(&fault.to_string())),
        [] | [_, _, ..] => format!("the plan has {} faults", faults.len()),
    };
    Status::with_error_details(told.code, message, details)
}

/// Fields that are not in the rollout of a request, but beside it.
fn is_of_request(field: &str) -> bool {
    field == "rollout_id" || field.starts_with("rollout.") || field.starts_with("default_ladder")
}

/// Says what is wrong with one field of a request.
pub(super) fn argument(field: &str, problem: &str) -> Status {
    let told = Told::new(Code::InvalidArgument, "INVALID_ARGUMENT", "").with("field", field);
    let mut details = told.details();
    details.add_bad_request_violation(field, short(problem));
    Status::with_error_details(told.code, short(problem), details)
}

/// Says that there is no pair of that id.
pub(super) fn unknown_pair(id: &str) -> Status {
    let message = format!("there is no pair `{id}`; old pairs are removed after a while");
    unknown("pair", "pairs", id, &message)
}

/// Says that a request is not remembered.
pub(super) fn unknown_request(id: &str) -> Status {
    let message = format!(
        "there is no request `{id}`: either it was never seen here, or it was too long ago: the \
         last {} are remembered until a restart, and older ones only if they became pairs",
        crate::traffic::REQUESTS_LEN_MAX
    );
    unknown("request", "requests", id, &message)
}

/// Says that there is no lease of that id.
pub(super) fn unknown_lease(id: &str) -> Status {
    let message = format!(
        "there is no lease `{id}`: it was not answered in time, and its pair was given to somebody else"
    );
    unknown("lease", "leases", id, &message)
}

/// Says that a lease is somebody else's.
pub(super) fn not_their_lease() -> Status {
    let hint = "answer as who it was given to: `--actor`, or `x-crossfade-actor`";
    let told = Told::new(Code::PermissionDenied, "NOT_YOUR_LEASE", hint);
    Status::with_error_details(told.code, "the lease was given to another reviewer", told.details())
}

/// Says that an answer cannot be changed any more.
pub(super) fn review_is_final(rollout: &Name, late: Late) -> Status {
    let message = match late {
        Late::Final => "the answer to this pair stands: the time to change it is over",
        Late::Passed => "the answer to this pair stands: only the last one may be changed",
    };
    let told = Told::new(Code::FailedPrecondition, "REVIEW_FINAL", "lease the next pair")
        .with("rollout", rollout.as_str());
    precondition(&told, rollout, message)
}

/// Says that the store of pairs cannot be read.
pub(super) fn store(problem: &str) -> Status {
    let hint = "rollouts and traffic are not affected; the server's log says why";
    let told = Told::new(Code::Unavailable, "PAIRS_UNAVAILABLE", hint);
    let message = format!("the store of pairs is not usable: {problem}");
    Status::with_error_details(told.code, message, told.details())
}

/// Says that there are as many of something as there may be.
pub(super) fn exhausted(what: &str, len_max: usize) -> Status {
    let told = Told::new(Code::ResourceExhausted, "TOO_MANY", "close some, or try again later");
    let message = format!("there are {len_max} {what} already, which is the most");
    Status::with_error_details(told.code, message, told.details())
}

/// Says that there is no room for something now.
pub(super) fn busy() -> Status {
    let told = Told::new(Code::Unavailable, "BUSY", "try again in a moment");
    Status::with_error_details(told.code, "the controller has no room for it now", told.details())
}

/// Says that the server goes down.
pub(super) fn stopping() -> Status {
    let told = Told::new(Code::Unavailable, "STOPPING", "try again when it is up");
    Status::with_error_details(told.code, "the server is stopping", told.details())
}

fn unknown(kind: &'static str, collection: &str, name: &str, message: &str) -> Status {
    let told = Told::new(Code::NotFound, "NOT_FOUND", "").with(kind, name);
    let mut details = told.details();
    details.set_resource_info(kind, format!("{collection}/{name}"), "", message);
    Status::with_error_details(told.code, message, details)
}

fn exists(name: &Name, message: &str) -> Status {
    let hint = format!("take another name, or `crossfade start {name}` to begin it anew");
    let told =
        Told::new(Code::AlreadyExists, "ROLLOUT_EXISTS", hint).with("rollout", name.as_str());
    let mut details = told.details();
    details.set_resource_info("rollout", format!("rollouts/{name}"), "", message);
    Status::with_error_details(told.code, message, details)
}

fn refused(rollout: &Name, (refusal, remedy): (&Refusal, &str), message: &str) -> Status {
    let told = Told::new(Code::FailedPrecondition, refusal.code(), remedy.to_owned())
        .with("rollout", rollout.to_string());
    let told = match refusal {
        Refusal::WrongState { state, .. } => told.with("state", state.as_str()),
        Refusal::StageMismatch { current, .. } => told.with("current_stage", current.as_str()),
        Refusal::AttemptMismatch { current, .. } => {
            told.with("current_attempt", current.to_string())
        }
        Refusal::TooSlow { stage, metric, ms, ms_max } => told
            .with("stage", stage.as_str())
            .with("metric", metric.as_str())
            .with("needed_ms", ms.to_string())
            .with("max_ms", ms_max.to_string()),
        Refusal::Gate { stage, metric, verdict, .. } => told
            .with("stage", stage.as_str())
            .with("metric", metric.as_str())
            .with("verdict", verdict.as_str()),
        Refusal::Untrusted { stage, .. }
        | Refusal::Outage { stage, .. }
        | Refusal::JudgedAlone { stage }
        | Refusal::Unsettled { stage, .. }
        | Refusal::NeedsApproval { stage }
        | Refusal::NeedsConsent { stage }
        | Refusal::NeedsOverride { stage }
        | Refusal::NoStage { asked: stage, .. } => told.with("stage", stage.as_str()),
        Refusal::Samples { stage, have, need } => told
            .with("stage", stage.as_str())
            .with("have", have.to_string())
            .with("need", need.to_string()),
        Refusal::TooEarly { stage, left_ms } => {
            told.with("stage", stage.as_str()).with("left_ms", left_ms.to_string())
        }
        Refusal::Frozen { stage, thaw } => {
            told.with("stage", stage.as_str()).with("until", thaw.local.as_str())
        }
        Refusal::Fixed { field, .. } => told.with("field", field.as_str()),
        Refusal::Moves { state } => told.with("state", state.as_str()),
        Refusal::Configured => told,
        Refusal::Golden { file, .. } => told.with("golden_set", file.as_str()),
        Refusal::Stopped { actor } => told.with("actor", actor.as_str()),
    };
    precondition(&told, rollout, message)
}

fn precondition(told: &Told, rollout: &Name, message: &str) -> Status {
    let mut details = told.details();
    details.add_precondition_failure_violation(told.reason, format!("rollouts/{rollout}"), message);
    Status::with_error_details(told.code, message, details)
}

fn short(text: &str) -> String {
    match text.char_indices().nth(FAULT_LEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Metric, State, Verdict};

    fn name() -> Name {
        "chat".parse().unwrap()
    }

    fn refusal(refusal: Refusal) -> Status {
        let remedy = refusal.remedy_when(&name(), None);
        rejected(&Rejected::Refused { rollout: name(), refusal: Box::new(refusal), remedy })
    }

    #[test]
    fn every_rejection_has_its_code_and_always_a_reason() {
        let busy = || Rejected::Unavailable("disk full".to_owned());
        let stale = Rejected::Stale { rollout: name(), seen: 1, now: 2 };
        let overlap = Rejected::Overlap { rollout: name(), other: name() };
        for (given, code, reason) in [
            (Rejected::Unknown(name()), Code::NotFound, "NOT_FOUND"),
            (Rejected::Exists(name()), Code::AlreadyExists, "ROLLOUT_EXISTS"),
            (stale, Code::Aborted, "ETAG_MISMATCH"),
            (overlap, Code::FailedPrecondition, "SLICE_OVERLAP"),
            (busy(), Code::Unavailable, "CONTROLLER_UNAVAILABLE"),
            (Rejected::Plan(vec![]), Code::InvalidArgument, "PLAN_INVALID"),
            (Rejected::ReusedRequestId("x".to_owned()), Code::InvalidArgument, "INVALID_ARGUMENT"),
        ] {
            let status = rejected(&given);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (code, reason));
            assert_eq!(info.domain, DOMAIN);
        }
    }

    #[test]
    fn a_refusal_says_what_stands_in_the_way_and_what_to_do() {
        let status = refusal(Refusal::Gate {
            stage: "half".to_owned(),
            metric: Metric::LatencyP99,
            verdict: Verdict::Undecided,
            detail: "900 more".to_owned(),
        });
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "GATE_UNDECIDED");
        assert_eq!(info.metadata["metric"], "latency_p99");
        assert!(info.metadata["hint"].starts_with("wait"), "{info:?}");
        assert_eq!(details.precondition_failure().unwrap().violations[0].subject, "rollouts/chat");

        let state = State::RolledBack;
        let status = refusal(Refusal::WrongState { verb: "advance", state, instead: "start it" });
        assert_eq!(status.get_details_error_info().unwrap().metadata["state"], "rolled_back");
    }

    #[test]
    fn a_plan_full_of_faults_still_fits_into_a_header() {
        let fault = PlanFault { field: "stages[0].gates".to_owned(), problem: "x".repeat(9_000) };
        let status = plan(&vec![fault; 500]);
        let details = status.get_error_details();
        let told = &details.bad_request().unwrap().field_violations;
        assert_eq!(told.len(), FAULTS_MAX);
        assert_eq!(told[0].field, "rollout.stages[0].gates");
        assert!(status.details().len() < 10_000, "{}", status.details().len());
    }
}
