//! How far the judge of a rollout's answers is believed.

use std::{fmt::Write as _, sync::Arc};

use crate::domain::{Evidence, GateEvidence, Metric, Pair, Plan, Verdict, kinship};
use crate::traffic::Fitness;

/// What holds until the evidence has forgotten what an unfit judge said.
const SET_ASIDE: &str = "what the judge said before it was found unfit is being set aside";

/// Who judges a rollout's answers, if anybody can.
#[derive(Debug, Default)]
pub(super) struct Judging {
    /// Why nobody can judge what it wants judged.
    pub(super) unjudged: Option<String>,
    /// What is known of the judge.
    pub(super) fitness: Arc<Fitness>,
    /// Why it would judge its own kin in this attempt, by who answered; and the models that did,
    /// the primary's first, as they were seen last.
    pub(super) kin: Option<String>,
    met: [Option<String>; 2],
    /// Of how many of its failures the evidence was to be told, and of how many it was.
    pub(super) telling: u64,
    pub(super) told: u64,
}

impl Judging {
    /// Says of the gates on scores why they cannot be trusted, if so. Of a judge that does not do
    /// well where the winner is known nothing is believed, neither for nor against the candidate.
    pub(super) fn doubt(&self, evidence: &mut Evidence) {
        let behind = || (self.told < self.fitness.failures()).then(|| SET_ASIDE.to_owned());
        let unfit = self.kin.clone().or_else(|| self.fitness.problem()).or_else(behind);
        let failed = self.fitness.failed();
        let alone = evidence.problem.is_none();
        let gates = evidence.gates.iter_mut().filter(|it| it.metric.is_judged());
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

    /// Takes who answered a pair that this model is to judge: one that a provider is asked for only
    /// because callers ask for it is known no sooner.
    pub(super) fn meet(&mut self, judge: &str, pair: &Pair) {
        let models = [&pair.primary.model, &pair.candidate.model];
        if self.kin.is_some() || self.met.each_ref() == models {
            return;
        }
        self.met = models.map(Clone::clone);
        let why = kinship(judge, models.map(Option::as_deref));
        self.kin = why.map(|it| {
            format!("{it}; take another model to judge, or write `allow_kin = true` in [judge]")
        });
    }

    /// What is known of the judge, where a gate of the plan asks it.
    pub(super) fn text(&self, plan: &Plan) -> String {
        plan.gated(Metric::is_judged).map_or_else(String::new, |_| self.fitness.text())
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
            tiers: Vec::new(),
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
        let unfit = Judging { fitness: Arc::new(Fitness::untried(7)), ..Judging::default() };
        for verdict in [Verdict::Pass, Verdict::Undecided, Verdict::Breach] {
            let gate = doubted(&unfit, verdict);
            assert_eq!(gate.verdict, Verdict::Invalid);
            assert!(gate.problem.contains("is being tried"), "{}", gate.problem);
            assert_eq!(doubted(&Judging::default(), verdict).verdict, verdict);
        }
        let mut own = Judging::default();
        let mut pair = crate::store::samples::pair("a", 1, 1);
        own.meet("judge-1", &pair);
        assert_eq!(own.kin, None);
        pair.primary.model = Some("judge-1-2026-01-01".to_owned());
        own.meet("judge-1", &pair);
        let gate = doubted(&own, Verdict::Breach);
        assert_eq!(gate.verdict, Verdict::Invalid);
        assert!(gate.problem.starts_with("`judge-1` would judge itself"), "{}", gate.problem);
        pair.primary.model = None;
        own.meet("judge-1", &pair);
        assert!(own.kin.is_some(), "it has judged itself in this attempt");
        let fails = Judging::default();
        fails.fitness.hear(Reply::TimedOut);
        let told = doubted(&fails, Verdict::Invalid).problem;
        assert_eq!(told, "it is lost (its calls since we started: 1 timed out)");
    }
}
