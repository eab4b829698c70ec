//! The ledger: all bets of one attempt, their money, and what they have shown.

use crate::domain::{Evidence, Gate, Margin, Metric, Plan, Risk, Stage, Timestamp};

use super::{
    Observation, Sample,
    bet::{Limits, Wealth},
    errors::Errors,
    gate::Terms,
    latency::{self, Latency},
    money::Money,
    odds::Alarm,
    score::Score,
};

/// While guarding, counters and the proof of safety start afresh so often.
const GUARD_WINDOW_MS: u64 = 86_400_000;
/// How sure it is that regressions below the alarm are not sent back: see [`Alarm::From`].
/// Costs a tenth to a fifth of the speed at twice the margin, nothing at four times.
const CAUTION: f64 = 0.35;
/// Half of the past mean: stakes on safety stay below the best ones for it, which forgives an
/// estimate that is too good. Any part is valid, because it is made from the past alone.
const TRUST: f64 = 0.5;
/// Pairs only: each primary call comes with a candidate call.
const WEIGHT: f64 = 1.0;

/// All bets of one attempt of a rollout.
///
/// Feed it with [`observe`](Self::observe) and [`score`](Self::score), let it bet with
/// [`tick`](Self::tick) every 100 ms or so, and read [`evidence`](Self::evidence). The same
/// inputs give the same evidence.
///
/// Over the whole attempt a candidate that is no worse is called a breach with a chance of
/// at most `risk.harm_bps`; in each stage a gate is called proven though its margin is
/// not kept with a chance of at most `risk.safe_bps`. While guarding, the chance of a false
/// alarm is at most `risk.harm_bps` in any 30 days.
#[derive(Clone, Debug)]
pub struct Ledger {
    stages: Vec<Stage>,
    limits: Limits,
    errors: Errors,
    latency: Latency,
    score: Score,
    money: Money,
    /// After success.
    guarding: bool,
    /// Since when the counters count.
    since: Timestamp,
    /// The gates of the stage.
    gates: Vec<Gate>,
    pairs: u64,
    /// Something came since the last tick.
    stirred: bool,
}

impl Ledger {
    /// The empty ledger of an attempt at a plan.
    pub fn new(plan: &Plan) -> Self {
        let limits = limits(plan);
        let terms = Terms { limits, alarm: alarm(plan.risk), weight: WEIGHT, trust: TRUST };
        Self {
            stages: plan.stages.clone(),
            limits,
            errors: Errors::new(terms),
            latency: Latency::new(terms),
            score: Score::new(terms),
            money: Money::new(plan.stages.len()),
            guarding: false,
            since: Timestamp(0),
            gates: Vec::new(),
            pairs: 0,
            stirred: false,
        }
    }

    /// Begins a stage of the plan, counted from 0: the proof of safety and the counters
    /// start fresh, the proof of harm goes on with more money. A stage that is not in the
    /// plan has no gates.
    pub fn enter(&mut self, stage: usize, at: Timestamp) {
        self.tick(at);
        let (gates, duration_ms_min) = self
            .stages
            .get(stage)
            .map_or_else(Default::default, |it| (it.gates.clone(), it.duration_ms_min));
        self.gates = gates;
        self.guarding = false;
        let money = self.money.enter(at, duration_ms_min);
        self.fund(money);
        self.begin(at);
    }

    /// Takes another plan in its stage, counted from 0. Where that stage's gates are others, the
    /// proof of safety and the counters start fresh; the money and the proof of harm go on.
    pub fn revise(&mut self, plan: &Plan, stage: usize, at: Timestamp) {
        self.tick(at);
        self.stages.clone_from(&plan.stages);
        let gates = self.stages.get(stage).map_or_else(Vec::new, |it| it.gates.clone());
        if !self.gates.is_empty() && self.gates != gates {
            self.gates = gates;
            self.begin(at);
        }
    }

    /// Guards after success with the gates of the last stage, forgetting all wealth.
    ///
    /// A long good time makes a bettor poor and so slow to see a new fault, hence money
    /// flows in evenly without end (an e-detector: Shin, Ramdas & Rinaldo 2023): the chance
    /// of a false alarm is at most `risk.harm_bps` in any 30 days, and an alarm needs about
    /// three nats more. Counters and the proof of safety start afresh every day. An attempt
    /// does not come back from here.
    pub fn guard(&mut self, at: Timestamp) {
        self.tick(at);
        self.guarding = true;
        self.gates = self.stages.last().map(|it| it.gates.clone()).unwrap_or_default();
        let none = Wealth::new(self.limits);
        self.wealths().into_iter().for_each(|it| it.clone_from(&none));
        let money = self.money.guard(at);
        self.fund(money);
        self.begin(at);
    }

    /// Takes what one request said; it is bet on at the next tick. Only pairs enter:
    /// a request of which one side was seen is passed over, for calls served apart stick
    /// to users and are not independent.
    pub fn observe(&mut self, seen: Observation) {
        let (Some(primary), Some(candidate)) = (seen.primary, seen.candidate) else { return };
        self.stirred = true;
        self.pairs += 1;
        self.errors.observe(Some(primary), Some(candidate));
        // A pair that failed on one side compares no latencies.
        if [primary, candidate].map(Sample::latency_ms).iter().all(Option::is_some) {
            self.latency.observe(Some(primary), Some(candidate));
        }
    }

    /// Takes a pair of scores, 0 to 1 each, of this stage; anything else counts as lost.
    pub fn score(&mut self, primary: f64, candidate: f64) {
        self.stirred = true;
        self.score.observe(primary, candidate);
    }

    /// Takes note of a judgement that was due in this stage and could not be had.
    pub fn score_lost(&mut self) {
        self.score.lose();
    }

    /// Bets on what came since the last tick, with the stakes planned then.
    pub fn tick(&mut self, now: Timestamp) {
        if self.stirred {
            self.stirred = false;
            let money = self.money.due(now);
            self.fund(money);
            self.errors.tick(now);
            self.latency.tick(now);
        }
        let old = GUARD_WINDOW_MS <= now.millis_since(self.since);
        if self.guarding && old {
            self.begin(now);
        }
    }

    /// What is known now: one entry for each gate of the stage, in its order.
    pub fn evidence(&self) -> Evidence {
        let gates = self.gates.iter().map(|gate| match gate.metric() {
            Metric::ErrorRate => self.errors.shown().evidence(*gate, &self.errors.wealth),
            Metric::LatencyP99 => self.latency.shown().evidence(*gate, &self.latency.wealth),
            Metric::JudgeScore => self.score.shown().evidence(*gate, &self.score.wealth),
        });
        Evidence { gates: gates.collect(), pairs: self.pairs, problem: None }
    }

    /// Starts the proof of safety and the counters afresh, for the gates of the stage.
    fn begin(&mut self, at: Timestamp) {
        (self.since, self.pairs) = (at, 0);
        let (mut errors, mut latency, mut score) = (None, None, None);
        for gate in &self.gates {
            match gate.margin {
                Margin::Errors { basis_points } => {
                    errors = Some(f64::from(basis_points) / 10_000.0);
                }
                Margin::Latency { ms, percent } => {
                    let part = f64::from(percent) / 100.0;
                    latency = Some(latency::Margin { ms: f64::from(ms), part });
                }
                Margin::Score { percent } => score = Some(f64::from(percent) / 100.0),
            }
        }
        self.errors.enter(at, errors);
        self.latency.enter(at, latency);
        self.score.enter(score);
    }

    fn fund(&mut self, money: f64) {
        for wealth in self.wealths() {
            wealth.fund(money);
        }
    }

    fn wealths(&mut self) -> [&mut Wealth; 3] {
        [&mut self.errors.wealth, &mut self.latency.wealth, &mut self.score.wealth]
    }
}

/// The wealth that is proof. That of harm is shared by all metrics of the plan.
fn limits(plan: &Plan) -> Limits {
    let used = |metric: &Metric| {
        plan.stages.iter().flat_map(|it| &it.gates).any(|gate| gate.metric() == *metric)
    };
    let mut metrics = 0.0;
    for metric in Metric::ALL {
        metrics += f64::from(u8::from(used(&metric)));
    }
    let chance = |basis_points: u32| f64::from(basis_points) / 10_000.0;
    Limits {
        harm: (f64::max(metrics, 1.0) / chance(plan.risk.harm_bps)).ln(),
        safe: chance(plan.risk.safe_bps).recip().ln(),
    }
}

fn alarm(risk: Risk) -> Alarm {
    if risk.alarm_from_percent < 100 {
        let part = f64::from(risk.alarm_from_percent) / 100.0;
        Alarm::From { part, caution: CAUTION }
    } else {
        Alarm::AtMargin
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::analysis::tests::Random;
    use crate::domain::{Share, Slice, Times, Verdict, default_ladder};

    /// The terms of the reference, for its vectors.
    pub(in crate::analysis) fn reference_terms(weight: f64) -> Terms {
        let limits = Limits { harm: 400.0_f64.ln(), safe: 20.0_f64.ln() };
        Terms { limits, alarm: Alarm::From { part: 0.7, caution: 0.0 }, weight, trust: 0.0 }
    }

    fn plan(metrics: &[Metric]) -> Plan {
        let margins: Vec<Margin> = metrics.iter().map(|it| Margin::default_of(*it)).collect();
        Plan {
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice::default(),
            stages: default_ladder(&margins, &[], &[]),
            copies_per_day_max: 1_000_000,
            judge_share: Share::ALL,
            risk: Risk::default(),
            times: Times::default(),
        }
    }

    /// A stretch of traffic: ten pairs a second, a tick each second.
    struct World {
        random: Random,
        ledger: Ledger,
        at: Timestamp,
    }

    /// Error rates of both sides and the candidate's latency against the primary's.
    #[derive(Clone, Copy)]
    struct Arms(f64, f64, f64);

    impl World {
        fn new(plan: &Plan, seed: u64) -> Self {
            let mut ledger = Ledger::new(plan);
            ledger.enter(0, Timestamp(0));
            Self { random: Random(seed), ledger, at: Timestamp(0) }
        }

        /// Feeds pairs until the metric has a verdict or there are enough; how many it took.
        fn run(&mut self, arms: Arms, metric: Metric, pairs_max: u32) -> u32 {
            for pairs in 1..=pairs_max {
                let (primary, candidate) =
                    (self.random.call(arms.0, 1.0), self.random.call(arms.1, arms.2));
                self.ledger
                    .observe(Observation { primary: Some(primary), candidate: Some(candidate) });
                self.at.0 += 100;
                if pairs % 10 == 0 {
                    self.ledger.tick(self.at);
                    if self.verdict(metric) == Verdict::Breach {
                        return pairs;
                    }
                }
            }
            pairs_max
        }

        /// Feeds scores around 0.8 until there is a verdict; how many it took.
        fn judge(&mut self, reach: f64, scores_max: u32) -> u32 {
            for scores in 1..=scores_max {
                let primary = (0.8 + 0.1 * self.random.normal()).clamp(0.0, 1.0);
                let candidate = (0.8 * reach + 0.1 * self.random.normal()).clamp(0.0, 1.0);
                self.ledger.score(primary, candidate);
                self.at.0 += 1_000;
                self.ledger.tick(self.at);
                if self.verdict(Metric::JudgeScore) != Verdict::Undecided {
                    return scores;
                }
            }
            scores_max
        }

        fn verdict(&self, metric: Metric) -> Verdict {
            match metric {
                Metric::ErrorRate => self.ledger.errors.wealth.verdict(),
                Metric::LatencyP99 => self.ledger.latency.wealth.verdict(),
                Metric::JudgeScore => self.ledger.score.wealth.verdict(),
            }
        }
    }

    #[test]
    fn nothing_known_is_undecided_and_made_of_numbers() {
        let mut ledger = Ledger::new(&plan(&Metric::ALL));
        assert_eq!(ledger.evidence(), Evidence::default());
        ledger.enter(0, Timestamp(5));
        ledger.tick(Timestamp(6));
        let evidence = ledger.evidence();
        assert_eq!((evidence.gates.len(), evidence.pairs), (3, 0));
        for gate in evidence.gates {
            assert_eq!((gate.verdict, gate.samples), (Verdict::Undecided, 0));
            assert!(gate.samples_needed.is_some(), "{gate:?}");
            assert!(!gate.lower.is_nan() && !gate.upper.is_nan(), "{gate:?}");
            let values = [gate.primary, gate.candidate, gate.difference, gate.bound];
            assert!(values.iter().all(|it| it.is_finite()), "{gate:?}");
            assert!(gate.harm + gate.safe < 1e-9, "{gate:?}");
        }
        ledger.enter(99, Timestamp(7));
        assert_eq!(ledger.evidence(), Evidence::default());
    }

    #[test]
    fn numbers_that_are_none_never_enter() {
        let mut world = World::new(&plan(&Metric::ALL), 2);
        for pairs in 0..3_000 {
            let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300][pairs % 5];
            let (answered, late) = (Sample::Answered { ms: odd }, Sample::TimedOut { ms: odd });
            for candidate in [answered, late, Sample::Failed] {
                let (primary, candidate) = (Some(answered), Some(candidate));
                world.ledger.observe(Observation { primary, candidate });
            }
            world.ledger.observe(Observation { primary: Some(late), candidate: None });
            world.ledger.score(odd, 0.5);
            world.ledger.tick(Timestamp(u64::try_from(pairs).unwrap() * 1_000_000));
        }
        let evidence = world.ledger.evidence();
        assert_eq!(evidence.pairs, 9_000);
        for gate in evidence.gates {
            let values = [gate.difference, gate.bound, gate.lower, gate.upper, gate.harm];
            assert!(values.iter().all(|it| !it.is_nan()), "{gate:?}");
        }
    }

    #[test]
    fn identical_arms_are_sent_back_no_more_often_than_the_level() {
        let mut plan = plan(&[Metric::ErrorRate, Metric::LatencyP99]);
        plan.risk.harm_bps = 1_000;
        let mut breaches = 0;
        for seed in 0..300 {
            let mut world = World::new(&plan, seed);
            world.run(Arms(0.02, 0.02, 1.0), Metric::ErrorRate, 1_500);
            breaches += u32::from(world.ledger.evidence().breach().is_some());
        }
        assert!(breaches <= 30, "{breaches} of 300 at a level of 10 %");
    }

    #[test]
    fn two_points_more_errors_are_found_in_a_few_hundred_pairs() {
        let mut pairs: Vec<u32> = (0..21)
            .map(|seed| {
                let mut world = World::new(&plan(&Metric::ALL), seed);
                world.run(Arms(0.002, 0.022, 1.0), Metric::ErrorRate, 5_000)
            })
            .collect();
        pairs.sort_unstable();
        assert!(pairs[10] < 900 && pairs[20] < 5_000, "{pairs:?}");
    }

    #[test]
    fn a_regression_well_below_the_alarm_stays() {
        let mut breaches = 0;
        for seed in 0..20 {
            let mut world = World::new(&plan(&[Metric::ErrorRate]), seed);
            world.run(Arms(0.002, 0.005, 1.0), Metric::ErrorRate, 30_000);
            breaches += u32::from(world.verdict(Metric::ErrorRate) == Verdict::Breach);
        }
        assert!(breaches <= 2, "{breaches} of 20");
    }

    #[test]
    fn the_strict_mode_sends_back_beyond_the_margin_and_not_at_it() {
        let mut plan = plan(&Metric::ALL);
        plan.risk.alarm_from_percent = 100;
        for seed in 0..5 {
            let mut at_margin = World::new(&plan, seed);
            at_margin.run(Arms(0.002, 0.007, 1.0), Metric::ErrorRate, 20_000);
            assert_ne!(at_margin.verdict(Metric::ErrorRate), Verdict::Breach);
            let mut beyond = World::new(&plan, seed);
            beyond.run(Arms(0.002, 0.022, 1.0), Metric::ErrorRate, 10_000);
            assert_eq!(beyond.verdict(Metric::ErrorRate), Verdict::Breach);
            let mut slow = World::new(&plan, seed);
            slow.run(Arms(0.002, 0.002, 3.0), Metric::LatencyP99, 10_000);
            assert_eq!(slow.verdict(Metric::LatencyP99), Verdict::Breach);
            let mut poor = World::new(&plan, seed);
            poor.judge(0.7, 1_000);
            assert_eq!(poor.verdict(Metric::JudgeScore), Verdict::Breach);
        }
    }

    #[test]
    fn tripled_latency_is_a_breach_of_latency_alone() {
        let mut world = World::new(&plan(&Metric::ALL), 7);
        let pairs = world.run(Arms(0.002, 0.002, 3.0), Metric::LatencyP99, 3_000);
        let evidence = world.ledger.evidence();
        assert!(500 < pairs && pairs < 1_000, "{pairs}");
        assert_eq!(evidence.breach().map(|it| it.metric), Some(Metric::LatencyP99));
        let gate = evidence.of(Metric::LatencyP99).unwrap();
        assert!((4_000.0..15_000.0).contains(&gate.difference), "{gate:?}");
        assert!(gate.lower < gate.difference && gate.difference < gate.upper, "{gate:?}");
        assert!((200.0..600.0).contains(&gate.bound), "{gate:?}");
    }

    #[test]
    fn a_worse_judgement_is_a_breach_and_an_equal_one_passes() {
        let mut worse = World::new(&plan(&Metric::ALL), 3);
        assert!(worse.judge(0.7, 500) < 100);
        assert_eq!(worse.verdict(Metric::JudgeScore), Verdict::Breach);
        let mut equal = World::new(&plan(&Metric::ALL), 3);
        assert!(equal.judge(1.0, 1_000) < 500);
        let evidence = equal.ledger.evidence();
        let gate = evidence.of(Metric::JudgeScore).unwrap();
        assert_eq!((gate.verdict, gate.samples_needed), (Verdict::Pass, Some(0)));
        assert!((-0.05..-0.03).contains(&gate.bound), "{gate:?}");
    }

    #[test]
    fn lost_judgements_make_the_gate_invalid_until_the_next_stage() {
        let mut world = World::new(&plan(&Metric::ALL), 3);
        world.judge(1.0, 19);
        world.ledger.score_lost();
        world.ledger.score_lost();
        let gate = world.ledger.evidence().of(Metric::JudgeScore).cloned().unwrap();
        assert_eq!(gate.verdict, Verdict::Invalid);
        assert!(gate.problem.starts_with("2 of 21 scores"), "{}", gate.problem);
        world.ledger.enter(1, world.at);
        let gate = world.ledger.evidence().of(Metric::JudgeScore).cloned().unwrap();
        assert_eq!((gate.verdict, gate.samples), (Verdict::Undecided, 0));
    }

    #[test]
    fn every_stage_must_prove_safety_again() {
        let mut world = World::new(&plan(&[Metric::ErrorRate]), 5);
        world.run(Arms(0.001, 0.001, 1.0), Metric::ErrorRate, 4_000);
        assert_eq!(world.verdict(Metric::ErrorRate), Verdict::Pass);
        let gate = world.ledger.evidence().gates.remove(0);
        assert!(gate.upper < gate.bound + 0.5 && gate.samples == 4_000, "{gate:?}");
        world.ledger.enter(1, world.at);
        let evidence = world.ledger.evidence();
        assert_eq!((evidence.gates[0].verdict, evidence.pairs), (Verdict::Undecided, 0));
    }

    #[test]
    fn guarding_finds_a_new_fault_after_a_long_good_time() {
        let mut world = World::new(&plan(&[Metric::ErrorRate]), 9);
        world.run(Arms(0.002, 0.002, 1.0), Metric::ErrorRate, 20_000);
        world.ledger.guard(world.at);
        world.run(Arms(0.002, 0.002, 1.0), Metric::ErrorRate, 60_000);
        assert_ne!(world.verdict(Metric::ErrorRate), Verdict::Breach);
        let pairs = world.run(Arms(0.002, 0.052, 1.0), Metric::ErrorRate, 5_000);
        assert!(pairs < 1_000, "{pairs}");
        world.ledger.guard(world.at);
        assert_eq!(world.verdict(Metric::ErrorRate), Verdict::Undecided);
        world.at.0 += GUARD_WINDOW_MS;
        world.ledger.tick(world.at);
        assert_eq!(world.ledger.evidence().pairs, 0);
    }

    #[test]
    fn the_same_inputs_give_the_same_evidence() {
        let evidence = || {
            let mut world = World::new(&plan(&Metric::ALL), 11);
            world.run(Arms(0.002, 0.004, 1.2), Metric::ErrorRate, 1_000);
            world.judge(0.98, 50);
            world.ledger.evidence()
        };
        assert_eq!(evidence(), evidence());
    }
}
