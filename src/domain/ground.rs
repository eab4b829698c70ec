//! What stands beside a judge: its opinion alone never lets anything go forward.

use super::{Evidence, Gate, Plan, Role, Stage, Verdict};

impl Plan {
    /// The first stage that is left because a judge's scores are proven, where nothing that is no
    /// opinion of a model has to be proven in it too: see
    /// [`is_ground`](super::Metric::is_ground). What was proven in a stage before says nothing of
    /// this one's evidence.
    pub fn ungrounded(&self) -> Option<&Stage> {
        let proven = |it: &&Gate| it.role == Role::Prove;
        let grounded =
            |it: &Stage| it.gates.iter().filter(proven).any(|it| it.metric().is_ground());
        self.stages.iter().find(|it| it.is_judged() && !grounded(it))
    }
}

impl Stage {
    /// Whether a judge's scores have to be proven before it is left.
    pub fn is_judged(&self) -> bool {
        let proves = |it: &Gate| it.role == Role::Prove && it.metric().is_judged();
        self.gates.iter().any(proves)
    }

    /// Whether the judge alone speaks for leaving it by this evidence: also where a plan was made
    /// when that was allowed.
    pub(super) fn is_judged_alone(&self, evidence: &Evidence) -> bool {
        let proven = |it: &&Gate| {
            evidence.of(it.metric()).is_some_and(|known| known.verdict == Verdict::Pass)
        };
        self.is_judged() && !self.gates.iter().filter(proven).any(|it| it.metric().is_ground())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Margin, Metric, plan::tests::plan};

    #[test]
    fn a_judge_stands_alone_unless_something_else_has_to_be_proven_in_the_same_stage() {
        let mut plan = plan();
        let gate = |metric, role| Gate { margin: Margin::default_of(metric), role };
        let mut asked = |gates: [&[Gate]; 3]| {
            let stage = plan.stages[0].clone();
            plan.stages = gates.map(|it| Stage { gates: it.to_vec(), ..stage.clone() }).to_vec();
            for (place, stage) in plan.stages.iter_mut().enumerate() {
                stage.name = place.to_string();
            }
            plan.ungrounded().map(|it| it.name.clone())
        };
        let judged = gate(Metric::JudgeScore, Role::Prove);
        let errors = gate(Metric::ErrorRate, Role::Prove);
        let refusals = gate(Metric::RefusalRate, Role::Prove);
        let watched = gate(Metric::RefusalRate, Role::Guard);
        assert_eq!(asked([&[errors], &[errors, judged], &[judged]]), Some("1".to_owned()));
        assert_eq!(asked([&[watched, judged], &[refusals], &[]]), Some("0".to_owned()));
        assert_eq!(asked([&[refusals, judged], &[judged], &[judged]]), Some("1".to_owned()));
        assert_eq!(asked([&[refusals], &[errors], &[judged]]), Some("2".to_owned()));
        assert_eq!(asked([&[refusals, judged], &[errors], &[judged, refusals]]), None);
        assert_eq!(asked([&[gate(Metric::JudgeScore, Role::Guard)], &[errors], &[]]), None);
        for worthless in [Metric::EmptyRate, Metric::LengthCutRate, Metric::LanguageSwitchRate] {
            let beside = gate(worthless, Role::Prove);
            assert_eq!(asked([&[judged, beside], &[errors], &[]]), Some("0".to_owned()));
        }
        let ready = gate(Metric::Readiness, Role::Prove);
        assert_eq!(asked([&[errors, ready], &[errors], &[]]), Some("0".to_owned()));
    }

    #[test]
    fn what_stands_beside_a_judge_by_default_is_no_opinion_of_a_model() {
        assert!(Metric::GROUND_DEFAULTS.into_iter().all(Metric::is_ground));
        assert!(!Metric::JudgeScore.is_ground());
    }
}
