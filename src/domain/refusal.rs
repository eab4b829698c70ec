//! Why something was refused, and what would work instead.

use super::{Approval, Metric, Name, Rollout, State, Thaw, Verdict};

/// Why a command was refused. Says what would be possible instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command does not fit the state.
    #[error("it is {} and cannot {verb}; {instead}", state.as_str())]
    WrongState {
        /// What was asked.
        verb: &'static str,
        /// Where the rollout stands.
        state: State,
        /// What is possible.
        instead: &'static str,
    },
    /// The named stage is not the current one.
    #[error("stage `{asked}` is not the current one; that is `{current}`")]
    StageMismatch {
        /// What was asked.
        asked: String,
        /// Where the rollout is.
        current: String,
    },
    /// The named attempt is not the current one.
    #[error("attempt {asked} is not the current one; that is {current}")]
    AttemptMismatch {
        /// What was asked.
        asked: u32,
        /// The attempt of the rollout; 0 before the first.
        current: u32,
    },
    /// A gate stands in the way.
    #[error("gate `{}` of stage `{stage}` is {}: {detail}", metric.as_str(), verdict.as_str())]
    Gate {
        /// The stage.
        stage: String,
        /// The gate.
        metric: Metric,
        /// What it says.
        verdict: Verdict,
        /// The numbers, or the problem.
        detail: String,
    },
    /// The evidence cannot be trusted.
    #[error("the evidence of stage `{stage}` cannot be trusted: {problem}")]
    Untrusted {
        /// The stage.
        stage: String,
        /// Why.
        problem: String,
    },
    /// The primary fails itself: being better than that is no reason to go on unasked.
    #[error("stage `{stage}` has no measure to go by: {problem}")]
    Outage {
        /// The stage.
        stage: String,
        /// What the primary does.
        problem: String,
    },
    /// A judge's opinion is all that is proven of what answers are worth.
    #[error(
        "in stage `{stage}` the judge alone says what answers are worth, and it can be wrong or \
         deceived: a check by rules or what people say has to be proven there too"
    )]
    JudgedAlone {
        /// The stage.
        stage: String,
    },
    /// What was heard of the stage is not all, or not of now.
    #[error("stage `{stage}` is not heard out: {problem}")]
    Unsettled {
        /// The stage.
        stage: String,
        /// What is not heard.
        problem: String,
    },
    /// Too few pairs yet.
    #[error("stage `{stage}` has {have} of at least {need} pairs")]
    Samples {
        /// The stage.
        stage: String,
        /// Pairs that count so far.
        have: u64,
        /// Pairs needed.
        need: u64,
    },
    /// Too early.
    #[error("stage `{stage}` has to last {} more", humantime::format_duration(std::time::Duration::from_secs(left_ms.div_ceil(1_000))))]
    TooEarly {
        /// The stage.
        stage: String,
        /// Milliseconds left.
        left_ms: u64,
    },
    /// The plan cannot be expected to be proven in its time.
    #[error(
        "gate `{}` of stage `{stage}` takes about {} to prove at the traffic seen, and the stage has at most {}",
        metric.as_str(), span(*ms), span(*ms_max)
    )]
    TooSlow {
        /// The stage.
        stage: String,
        /// The gate.
        metric: Metric,
        /// Milliseconds until its samples have come.
        ms: u64,
        /// Milliseconds after which the stage is overdue.
        ms_max: u64,
    },
    /// A freeze holds.
    #[error("stage `{stage}` is frozen until {}", thaw.local)]
    Frozen {
        /// The stage.
        stage: String,
        /// When that ends.
        thaw: Thaw,
    },
    /// The candidate is not known to answer the golden set that stands before the first stage.
    #[error("the golden set `{file}` stands before the first stage: {why}")]
    Golden {
        /// The file of the set.
        file: String,
        /// The candidate.
        candidate: Name,
        /// What is not known.
        why: String,
    },
    /// A person has to agree first.
    #[error("stage `{stage}` needs an approval before it is left")]
    NeedsApproval {
        /// The stage.
        stage: String,
    },
    /// A stage that needs an approval would be passed over.
    #[error("stage `{stage}` needs an approval, and nobody gave one")]
    NeedsConsent {
        /// The stage.
        stage: String,
    },
    /// Stages would be passed over whose gates are not proven.
    #[error("stage `{stage}` would be passed over without proof")]
    NeedsOverride {
        /// The first of them.
        stage: String,
    },
    /// The plan has no such stage.
    #[error("there is no stage `{asked}`; there are {}", known.join(", "))]
    NoStage {
        /// What was asked.
        asked: String,
        /// The plan's stages.
        known: Vec<String>,
    },
    /// What cannot be changed while traffic moves.
    #[error("`{field}` cannot be changed now: {why}")]
    Fixed {
        /// Where, as the API names it: `stages[1].serve_bps`.
        field: String,
        /// Why not.
        why: &'static str,
    },
    /// What still moves traffic cannot be deleted.
    #[error("it is {} and moves traffic; only what moves none can be deleted", state.as_str())]
    Moves {
        /// Where the rollout stands.
        state: State,
    },
    /// What the configuration asks for would be there again after the next start.
    #[error("the configuration asks for it, and the next start would create it again")]
    Configured,
    /// Everything on the node was stopped.
    #[error("everything was stopped by {actor}")]
    Stopped {
        /// Who did it.
        actor: String,
    },
}

impl Refusal {
    /// The stable code of the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongState { .. } => "WRONG_STATE",
            Self::StageMismatch { .. } => "STAGE_MISMATCH",
            Self::AttemptMismatch { .. } => "ATTEMPT_MISMATCH",
            Self::Gate { verdict: Verdict::Breach, .. } => "GATE_BREACHED",
            Self::Gate { verdict: Verdict::Invalid, .. } => "GATE_INVALID",
            Self::Gate { .. } => "GATE_UNDECIDED",
            Self::Untrusted { .. } => "EVIDENCE_UNTRUSTED",
            Self::Outage { .. } => "PRIMARY_OUTAGE",
            Self::JudgedAlone { .. } => "JUDGED_ALONE",
            Self::Unsettled { .. } => "NOT_HEARD_OUT",
            Self::Samples { .. } => "TOO_FEW_SAMPLES",
            Self::TooEarly { .. } => "TOO_EARLY",
            Self::TooSlow { .. } => "TOO_SLOW",
            Self::Frozen { .. } => "FROZEN",
            Self::Golden { .. } => "GOLDEN_SET",
            Self::NeedsApproval { .. } => "NEEDS_APPROVAL",
            Self::NeedsConsent { .. } => "NEEDS_CONSENT",
            Self::NeedsOverride { .. } => "NEEDS_OVERRIDE",
            Self::NoStage { .. } => "NO_SUCH_STAGE",
            Self::Fixed { .. } => "FIXED_WHILE_ACTIVE",
            Self::Moves { .. } => "MOVES_TRAFFIC",
            Self::Configured => "CONFIGURED",
            Self::Stopped { .. } => "STOPPED",
        }
    }

    /// The next sensible step for whoever was refused by a rollout that stands so, with a command
    /// to type that is not refused for the same.
    pub fn remedy(&self, rollout: &Rollout) -> String {
        self.remedy_when(rollout.name(), Some(rollout))
    }

    /// The same where it may not be known how the rollout stands.
    pub fn remedy_when(&self, name: &Name, stands: Option<&Rollout>) -> String {
        let rollout = name;
        match self {
            Self::WrongState { state, .. } => match state {
                State::Pending | State::RolledBack => format!("`crossfade start {rollout}` begins"),
                State::Paused => format!("`crossfade resume {rollout}` goes on"),
                State::Running | State::AwaitingApproval => {
                    format!("`crossfade explain {rollout}` says what it waits for")
                }
                State::Succeeded | State::Baked => {
                    format!("`crossfade rollback {rollout}` undoes it")
                }
            },
            Self::StageMismatch { .. } | Self::AttemptMismatch { .. } => {
                format!("`crossfade status {rollout}` shows where it stands")
            }
            Self::Gate { verdict: Verdict::Breach, .. } => {
                format!("a broken gate cannot be skipped: `crossfade rollback {rollout}`")
            }
            Self::Gate { verdict: Verdict::Invalid, .. } | Self::Untrusted { .. } => {
                format!("`crossfade explain {rollout}` says more; distrust cannot be skipped")
            }
            Self::Gate { .. }
            | Self::Outage { .. }
            | Self::Unsettled { .. }
            | Self::Samples { .. }
            | Self::TooEarly { .. }
            | Self::Frozen { .. } => match stands.and_then(onward) {
                Some(onward) => {
                    format!("wait, or skip what is undecided (never what is broken): {onward}")
                }
                None => format!("wait; `crossfade status {rollout}` shows where it stands"),
            },
            Self::JudgedAlone { stage } => set_beside(rollout, stage, stands.and_then(onward)),
            Self::TooSlow { .. } => format!(
                "give the stage a longer max_duration or a larger mirror share, or the gate a \
                 wider margin; `--force`, beside what else was said, takes it as it is: \
                 `crossfade {} {rollout} --force`",
                if stands.is_some() { "start" } else { "create" }
            ),
            Self::Golden { file, candidate, .. } => {
                format!("`crossfade replay {file} --candidate {candidate}` says how it answers")
            }
            Self::NeedsApproval { stage } => {
                let attempt = stands.map(|it| format!(" --attempt {}", it.attempt()));
                format!("`crossfade approve {rollout} {stage}{}`", attempt.unwrap_or_default())
            }
            Self::NeedsConsent { stage } => {
                let here = |it: &&Rollout| it.stage().is_some_and(|it| it.name == *stage);
                let onward = stands.filter(here).and_then(onward);
                let onward = onward.unwrap_or_else(|| {
                    format!("`crossfade jump {rollout} STAGE --override --approve --comment \"…\"`")
                });
                format!("wait for its gates and approve it, or with the right to approve: {onward}")
            }
            Self::NeedsOverride { .. } => {
                format!("`crossfade jump {rollout} STAGE --override --comment \"…\"` skips it")
            }
            Self::NoStage { .. } => format!("`crossfade status {rollout}` shows the ladder"),
            Self::Fixed { .. } => format!(
                "keep it as `crossfade status {rollout} -o json` shows it, or put it into a new \
                 rollout: `crossfade start NEW --supersede`"
            ),
            Self::Moves { .. } => format!("`crossfade rollback {rollout}` sends it back first"),
            Self::Configured => format!(
                "take it out of the configuration, start the program again, then \
                 `crossfade delete {rollout}`"
            ),
            Self::Stopped { .. } => "`crossfade stop --lift` lets rollouts start again".to_owned(),
        }
    }
}

/// What there is to do where the judge alone speaks for leaving a stage.
fn set_beside(rollout: &Name, stage: &str, onward: Option<String>) -> String {
    let skip = onward
        .unwrap_or_else(|| format!("`crossfade jump {rollout} STAGE --override --comment \"…\"`"));
    format!(
        "have a gate like repeated_rate proven in `{stage}` too: change its plan, or where it has \
         no such gate go back and start with one (`crossfade rollback {rollout}`); or answer for \
         it yourself: {skip}"
    )
}

/// A span of time in its two largest units.
fn span(ms: u64) -> String {
    let seconds = std::time::Duration::from_secs(ms.div_ceil(1_000));
    let text = humantime::format_duration(seconds).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// What goes on from the stage whatever is undecided; none where there is none to go on from.
fn onward(rollout: &Rollout) -> Option<String> {
    let (name, stage) = (rollout.name(), rollout.stage()?);
    let next = rollout.plan().stages.get(rollout.stage_index() + 1);
    let plain = rollout.state() == State::Running && stage.approval == Approval::NotNeeded;
    Some(match next {
        _ if plain => {
            format!("`crossfade advance {name} --override-undecided --comment \"…\"`")
        }
        Some(next) => {
            format!("`crossfade jump {name} {} --override --approve --comment \"…\"`", next.name)
        }
        None => format!("`crossfade complete {name} --approve --comment \"…\"`"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::Timestamp;

    fn every() -> Vec<Refusal> {
        let stage = || "half".to_owned();
        let wrong = |state| Refusal::WrongState { verb: "advance", state, instead: "not now" };
        let gate = |verdict| {
            let (metric, detail) = (Metric::ErrorRate, "12 samples".to_owned());
            Refusal::Gate { stage: stage(), metric, verdict, detail }
        };
        let thaw = Thaw { at: Timestamp(7), local: "2026-11-22 08:00 UTC".to_owned() };
        let mut all: Vec<_> = State::ALL.into_iter().map(wrong).collect();
        all.extend([Verdict::Breach, Verdict::Invalid, Verdict::Undecided].map(gate));
        all.extend([
            Refusal::StageMismatch { asked: "full".to_owned(), current: stage() },
            Refusal::AttemptMismatch { asked: 1, current: 2 },
            Refusal::Untrusted { stage: stage(), problem: "copies are missing".to_owned() },
            Refusal::Outage { stage: stage(), problem: "it fails".to_owned() },
            Refusal::JudgedAlone { stage: stage() },
            Refusal::Unsettled { stage: stage(), problem: "calls are under way".to_owned() },
            Refusal::Samples { stage: stage(), have: 3, need: 9 },
            Refusal::TooEarly { stage: stage(), left_ms: 60_000 },
            Refusal::TooSlow { stage: stage(), metric: Metric::Cost, ms: 90_000, ms_max: 60_000 },
            Refusal::Frozen { stage: stage(), thaw },
            Refusal::Golden {
                file: "chat.jsonl".to_owned(),
                candidate: "cheap".parse().unwrap(),
                why: "it was not put to them".to_owned(),
            },
            Refusal::NeedsApproval { stage: stage() },
            Refusal::NeedsConsent { stage: stage() },
            Refusal::NeedsOverride { stage: stage() },
            Refusal::NoStage { asked: "ful".to_owned(), known: vec![stage()] },
            Refusal::Fixed { field: "slice".to_owned(), why: "it runs" },
            Refusal::Moves { state: State::Paused },
            Refusal::Configured,
            Refusal::Stopped { actor: "ana".to_owned() },
        ]);
        all
    }

    #[test]
    fn every_refusal_names_a_command_that_is_the_next_sensible_step() {
        let name: Name = "chat".parse().unwrap();
        let verbs = [
            "create", "start", "status", "explain", "advance", "approve", "jump", "resume",
            "rollback", "stop", "delete", "replay",
        ];
        for refusal in every() {
            let remedy = refusal.remedy_when(&name, None);
            let verb =
                remedy.split("`crossfade ").nth(1).and_then(|it| it.split([' ', '`']).next());
            assert!(verb.is_some_and(|it| verbs.contains(&it)), "{refusal}: {remedy}");
        }
    }

    #[test]
    fn the_codes_of_refusals_stay_as_they_are() {
        let codes: BTreeSet<&str> = every().iter().map(Refusal::code).collect();
        let known = [
            "ATTEMPT_MISMATCH",
            "CONFIGURED",
            "EVIDENCE_UNTRUSTED",
            "FIXED_WHILE_ACTIVE",
            "FROZEN",
            "GATE_BREACHED",
            "GATE_INVALID",
            "GATE_UNDECIDED",
            "GOLDEN_SET",
            "JUDGED_ALONE",
            "MOVES_TRAFFIC",
            "NEEDS_APPROVAL",
            "NEEDS_CONSENT",
            "NEEDS_OVERRIDE",
            "NOT_HEARD_OUT",
            "NO_SUCH_STAGE",
            "PRIMARY_OUTAGE",
            "STAGE_MISMATCH",
            "STOPPED",
            "TOO_EARLY",
            "TOO_FEW_SAMPLES",
            "TOO_SLOW",
            "WRONG_STATE",
        ];
        assert_eq!(codes, BTreeSet::from(known));
    }

    #[test]
    fn a_refusal_by_state_never_advises_what_that_state_refuses() {
        let name: Name = "chat".parse().unwrap();
        let remedy = |state| {
            Refusal::WrongState { verb: "jump", state, instead: "" }.remedy_when(&name, None)
        };
        assert!(remedy(State::RolledBack).contains("crossfade start chat"));
        assert!(remedy(State::Paused).contains("crossfade resume chat"));
        assert!(remedy(State::Baked).contains("crossfade rollback chat"));
    }
}
