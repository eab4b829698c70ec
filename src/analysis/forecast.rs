//! The forecast of a plan: what each of its gates takes if both sides are alike.

use crate::domain::{Forecast, Foresight, Gate, Kind, Plan, Role, Stage, Timestamp};

use super::{Chances, Climate, float, gate::Terms, instrument::Instrument, ledger::part, whole};

const MINUTE_MS: f64 = 60_000.0;
const DAY_MINUTES: f64 = 1_440.0;

/// What a plan is expected to take by what is known of the primary, where requests come so often.
///
/// By the same bets as the evidence, with the stakes that they begin with. Where it is not known
/// how many requests say something of a metric, all of them are taken to.
pub fn foresee(plan: &Plan, climate: &Climate, per_minute: Option<f64>) -> Foresight {
    let terms = Terms::of(plan.risk, 1);
    let mut gates = Vec::new();
    for stage in &plan.stages {
        for gate in stage.gates.iter().filter(|it| it.role == Role::Prove) {
            let samples = samples(stage, *gate, terms, climate);
            let rate = per_minute.map(|it| rate(plan, stage, *gate, it));
            let ms = samples.zip(rate.filter(|it| 0.0 < *it)).map(|(samples, rate)| {
                whole((float(samples) / rate * MINUTE_MS).ceil()).saturating_add(stage.delay_ms)
            });
            let (stage, ms_max) = (stage.name.clone(), stage.duration_ms_max);
            gates.push(Forecast { stage, metric: gate.metric(), samples, ms, ms_max });
        }
    }
    Foresight { per_minute, gates }
}

/// Samples until a gate is proven.
fn samples(stage: &Stage, gate: Gate, terms: Terms, climate: &Climate) -> Option<u64> {
    let mut instrument = Instrument::new(gate.metric(), terms);
    if !instrument.know(gate.metric(), climate) {
        return None;
    }
    let margin = gate.margin.served(stage.serve);
    instrument.enter(Timestamp::default(), Some(margin), Chances::of(stage));
    instrument.shown(gate.metric()).samples_needed
}

/// Samples of a gate a minute, where requests come so often.
fn rate(plan: &Plan, stage: &Stage, gate: Gate, per_minute: f64) -> f64 {
    let copies_max = float(plan.copies_per_day_max) / DAY_MINUTES;
    let pairs = (per_minute * part(stage.mirror)).min(copies_max);
    match gate.metric().kind() {
        Kind::Rate(_) if gate.metric().is_of_pair() => pairs,
        Kind::Rate(_) | Kind::Quantile => {
            pairs + per_minute * (1.0 - part(stage.mirror)) * part(stage.serve)
        }
        Kind::Score | Kind::Tiers => pairs * part(plan.judge_share),
        // As often as pairs are drawn; how many of them people get to, nobody knows.
        Kind::Preference => pairs * part(plan.review),
        Kind::Ratio | Kind::Likeness => pairs,
        // Who will say something, and how often, nobody knows: at most every caller does.
        // Of two in a row, so many are of different sides.
        Kind::Opinion => per_minute * part(stage.serve) * (1.0 - part(stage.serve)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Sample, tests::Random};
    use crate::domain::{Margin, Metric, Refusal, Risk, Share, Slice, Times, default_ladder};

    fn plan(metric: Metric) -> Plan {
        let mut stages = default_ladder(&[Margin::default_of(metric)], &[], &[]);
        for stage in &mut stages {
            stage.gates.iter_mut().for_each(|it| it.role = Role::Prove);
        }
        Plan {
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice::default(),
            watched: None,
            compared: crate::domain::Compared::default(),
            stages,
            copies_per_day_max: 1_000_000,
            judge_share: Share::from_basis_points(5_000).unwrap(),
            review: Share::NONE,
            noise: Share::NONE,
            risk: Risk::default(),
            times: Times::default(),
        }
    }

    /// A primary that fails so often, by an hour of its calls.
    fn climate(failing: f64) -> Climate {
        let (mut climate, mut random) = (Climate::default(), Random(3));
        for second in 0..3_600 {
            let call: Sample = random.call(failing, 1.0);
            climate.see(Timestamp(second * 1_000), &call);
        }
        climate
    }

    #[test]
    fn what_a_gate_takes_is_what_its_bets_take_and_comes_with_the_traffic() {
        let of = |failing, per_minute| {
            let foresight = foresee(&plan(Metric::ErrorRate), &climate(failing), per_minute);
            (foresight.gates[0].samples.unwrap(), foresight.gates[0].ms)
        };
        let (samples, ms) = of(0.0, Some(6_000.0));
        assert!((600..1_500).contains(&samples), "{samples}");
        // One request in a hundred is copied in the first stage of the ladder.
        assert_eq!(ms, Some(samples * 1_000));
        assert!(2 * samples < of(0.02, None).0, "more where the primary fails more");
        assert_eq!(of(0.0, None).1, None, "no traffic was seen");
        assert_eq!(of(0.0, Some(0.0)).1, None);
    }

    #[test]
    fn what_nothing_is_known_of_is_not_foretold() {
        let latency = |climate| foresee(&plan(Metric::LatencyP99), &climate, Some(600.0)).gates;
        assert_eq!(latency(Climate::default())[0].samples, None);
        assert!(latency(climate(0.0))[0].samples.is_some_and(|it| 500 < it));
    }

    #[test]
    fn copies_are_no_more_than_the_day_has_and_scores_those_that_are_judged() {
        let foretold = |metric, copies_per_day_max| {
            let plan = Plan { copies_per_day_max, ..plan(metric) };
            let it = foresee(&plan, &climate(0.0), Some(6_000.0)).gates.remove(0);
            (it.ms.unwrap(), it.samples.unwrap())
        };
        let minutes = |(ms, samples): (u64, u64)| ms * 10 / (samples * 60_000);
        assert_eq!(minutes(foretold(Metric::Cost, 1_440)), 10, "one a minute");
        assert_eq!(minutes(foretold(Metric::JudgeScore, 1_440)), 20, "half of them");
    }

    #[test]
    fn a_stage_that_is_overdue_before_its_gate_is_proven_is_refused_and_another_is_not() {
        let refusal = |ms_max| {
            let mut plan = plan(Metric::ErrorRate);
            plan.stages[1].duration_ms_max = ms_max;
            foresee(&plan, &climate(0.0), Some(6_000.0)).refusal()
        };
        assert_eq!(refusal(None), None);
        assert_eq!(refusal(Some(86_400_000)), None);
        let refused = refusal(Some(1_000)).unwrap();
        let stage = "read-only";
        assert!(
            matches!(&refused, Refusal::TooSlow { stage: it, ms_max: 1_000, .. } if it == stage),
            "{refused}"
        );
    }
}
