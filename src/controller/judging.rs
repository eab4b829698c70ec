//! How far the judge of a rollout's answers is believed.

use std::{fmt::Write as _, sync::Arc};

use crate::domain::{Evidence, GateEvidence, Metric, Plan, Verdict};
use crate::traffic::Fitness;

/// Who judges a rollout's answers, if anybody can.
#[derive(Debug, Default)]
pub(super) struct Judging {
    /// Why nobody can judge what it wants judged.
    pub(super) unjudged: Option<String>,
    /// What is known of the judge.
    pub(super) fitness: Arc<Fitness>,
}

impl Judging {
    /// Says of the gates on scores why they cannot be trusted, if so. Of a judge that does not do
    /// well where the winner is known nothing is believed, neither for nor against the candidate.
    pub(super) fn doubt(&self, evidence: &mut Evidence) {
        let (unfit, failed) = (self.fitness.problem(), self.fitness.failed());
        let alone = evidence.problem.is_none();
        let gates = evidence.gates.iter_mut().filter(|it| it.metric == Metric::JudgeScore);
        for gate in gates {
            let stands = gate.verdict == Verdict::Breach;
            match (&unfit, &self.unjudged) {
                (_, Some(why)) if !stands => invalidate(gate, why),
                (Some(why), _) => invalidate(gate, why),
                (None, Some(_) | None) => {
                    if alone && gate.verdict == Verdict::Invalid && !failed.is_empty() {
                        // Writing to a string cannot fail.
                        let _ = write!(gate.problem, " (its calls since we started: {failed})");
                    }
                }
            }
        }
    }

    /// What is known of the judge, where a gate of the plan asks it.
    pub(super) fn text(&self, plan: &Plan) -> String {
        if plan.gates(Metric::JudgeScore) { self.fitness.text() } else { String::new() }
    }
}

fn invalidate(gate: &mut GateEvidence, why: &str) {
    gate.verdict = Verdict::Invalid;
    why.clone_into(&mut gate.problem);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Reply;

    fn gate(metric: Metric, verdict: Verdict) -> GateEvidence {
        let problem = if verdict == Verdict::Invalid { "it is lost" } else { "" }.to_owned();
        GateEvidence {
            metric,
            watched: String::new(),
            verdict,
            alarm_from_percent: 70,
            problem,
            samples: 300,
            samples_needed: None,
            primary: 0.9,
            candidate: 0.8,
            difference: -0.1,
            lower: -0.2,
            upper: 0.1,
            bound: -0.05,
            harm: 0.5,
            safe: 0.5,
            noise: None,
            basis: None,
            fixed: None,
        }
    }

    #[test]
    fn of_a_judge_that_is_unfit_nothing_is_believed() {
        let (scores, errors) = (Metric::JudgeScore, Metric::ErrorRate);
        let doubted = |judging: &Judging, verdict| {
            let gates = vec![gate(scores, verdict), gate(errors, verdict)];
            let mut evidence = Evidence { gates, ..Evidence::default() };
            judging.doubt(&mut evidence);
            assert_eq!(evidence.gates[1], gate(errors, verdict), "it is no judge's");
            evidence.gates.swap_remove(0)
        };
        let unfit = Judging { unjudged: None, fitness: Arc::new(Fitness::untried()) };
        for verdict in [Verdict::Pass, Verdict::Undecided, Verdict::Breach] {
            let gate = doubted(&unfit, verdict);
            assert_eq!(gate.verdict, Verdict::Invalid);
            assert!(gate.problem.contains("is being tried"), "{}", gate.problem);
            assert_eq!(doubted(&Judging::default(), verdict).verdict, verdict);
        }
        let fails = Judging::default();
        fails.fitness.hear(Reply::TimedOut);
        let told = doubted(&fails, Verdict::Invalid).problem;
        assert_eq!(told, "it is lost (its calls since we started: 1 timed out)");
    }
}
