//! What stands beside a judge: its opinion alone never lets anything go forward.

use super::{Gate, Metric, Plan, Role, Stage};

impl Plan {
    /// The first stage that is left because a judge's scores are proven, where nothing that is no
    /// opinion of a model has to be proven too, in it or before: see [`Metric::is_ground`].
    pub fn ungrounded(&self) -> Option<&Stage> {
        let proves = |stage: &Stage, wanted: fn(Metric) -> bool| {
            let proven = |it: &&Gate| it.role == Role::Prove;
            stage.gates.iter().filter(proven).any(|it| wanted(it.metric()))
        };
        let aloft = self.stages.iter().take_while(|it| !proves(it, Metric::is_ground));
        aloft.into_iter().find(|it| proves(it, Metric::is_judged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Margin, plan::tests::plan};

    #[test]
    fn a_judge_stands_alone_until_something_else_has_to_be_proven() {
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
        assert_eq!(asked([&[refusals, judged], &[judged], &[judged]]), None);
        assert_eq!(asked([&[refusals], &[errors], &[judged]]), None);
        assert_eq!(asked([&[gate(Metric::JudgeScore, Role::Guard)], &[errors], &[]]), None);
        let ready = gate(Metric::Readiness, Role::Prove);
        assert_eq!(asked([&[errors, ready], &[errors], &[]]), Some("0".to_owned()));
    }

    #[test]
    fn what_stands_beside_a_judge_by_default_is_no_opinion_of_a_model() {
        assert!(Metric::GROUND_DEFAULTS.into_iter().all(Metric::is_ground));
        assert!(!Metric::JudgeScore.is_ground());
    }
}
