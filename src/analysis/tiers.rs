//! The instrument of readiness: enough of the quality at little enough of the cost, in one of two
//! ways.
//!
//! A tier is proven when both its claims are, each by bets of its own: who wrongly believes the tier
//! wrongly believes a claim of it that does not hold, so the two need not share the chance of that.
//! Two tiers do, because either is enough. Harm is proven when a claim of each tier is refuted by its
//! margin: while a tier holds both its claims do, and they share the chance of that.

use serde::{Deserialize, Serialize};

use crate::domain::{Basis, Found, TierEvidence, Verdict};

use super::{
    bet::{Standing, Wealth},
    float,
    gate::{Shown, Terms},
    odds::Alarm,
    ratio::{self, Ratio},
    score::Score,
};

/// All is said in percent of the primary's.
const PERCENT: f64 = 100.0;

/// The bets of both tiers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tiers {
    tiers: [Tier; 2],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tier {
    quality: Score,
    cost: Ratio,
}

impl Tiers {
    pub(super) fn new(terms: Terms) -> Self {
        // What is ready to the margin is as good as it has to be.
        let terms = Terms { limits: terms.limits.halved(), alarm: Alarm::AtMargin, ..terms };
        let tier = Tier { quality: Score::new(terms), cost: Ratio::new(terms) };
        Self { tiers: [tier.clone(), tier] }
    }

    /// Begins a stage: the proofs of safety and the counters start fresh.
    pub(super) fn enter(&mut self, margins: Option<[(f64, ratio::Margin); 2]>) {
        let margins = margins.map_or([None; 2], |it| it.map(Some));
        for (tier, margin) in self.tiers.iter_mut().zip(margins) {
            tier.quality.enter(margin.map(|it| it.0));
            tier.cost.enter(margin.map(|it| it.1));
        }
    }

    /// What scores go into.
    pub(super) fn qualities(&mut self) -> impl Iterator<Item = &mut Score> {
        self.tiers.iter_mut().map(|it| &mut it.quality)
    }

    /// What amounts go into.
    pub(super) fn costs(&mut self) -> impl Iterator<Item = &mut Ratio> {
        self.tiers.iter_mut().map(|it| &mut it.cost)
    }

    /// Whether the judge can be believed; both tiers hear the same one.
    pub(super) fn is_believed(&self) -> bool {
        self.tiers.iter().all(|it| it.quality.problem().is_none())
    }

    /// Whether no tier can hold.
    pub(super) fn is_breached(&self) -> bool {
        self.tiers.iter().all(|it| it.wealths().into_iter().any(Wealth::is_breached))
    }

    pub(super) fn standing(&self) -> Standing {
        let [first, second] = self.tiers.each_ref().map(Tier::standing);
        let verdict = if self.is_breached() {
            Verdict::Breach
        } else if [first, second].iter().any(|it| it.verdict == Verdict::Pass) {
            Verdict::Pass
        } else {
            Verdict::Undecided
        };
        let (harm, safe) = (first.harm.min(second.harm), first.safe.max(second.safe));
        Standing { verdict, harm, safe }
    }

    /// What the amounts of the stage rest on.
    pub(super) fn basis(&self) -> Basis {
        self.nearest().cost.basis()
    }

    /// What is known of each tier.
    pub(super) fn found(&self) -> Vec<TierEvidence> {
        self.tiers.iter().map(Tier::found).collect()
    }

    /// The cost of the tier that is nearer to its proof, and the samples of what takes longer there.
    pub(super) fn shown(&self) -> Shown {
        let Tier { quality, cost } = self.nearest();
        let (quality, cost) = (quality.shown(), cost.shown());
        let wait = |it: &Shown| {
            let more = it.samples_needed.map_or(f64::INFINITY, float);
            more / float(it.samples.max(1))
        };
        let slower = if wait(&cost) <= wait(&quality) { &quality } else { &cost };
        let (samples, samples_needed) = (slower.samples, slower.samples_needed);
        Shown { samples, samples_needed, problem: quality.problem.or(cost.problem), ..cost }
    }

    fn nearest(&self) -> &Tier {
        let [first, second] = &self.tiers;
        if second.standing().safe <= first.standing().safe { first } else { second }
    }
}

impl Tier {
    fn wealths(&self) -> [&Wealth; 2] {
        [&self.quality.wealth, &self.cost.wealth]
    }

    /// It is proven as far as the slower of its claims, and refuted as far as the faster.
    fn standing(&self) -> Standing {
        let [quality, cost] = self.wealths().map(Wealth::standing);
        let both = [quality.verdict, cost.verdict];
        let verdict = if both.contains(&Verdict::Breach) {
            Verdict::Breach
        } else if both == [Verdict::Pass; 2] {
            Verdict::Pass
        } else {
            Verdict::Undecided
        };
        let (harm, safe) = (quality.harm.max(cost.harm), quality.safe.min(cost.safe));
        Standing { verdict, harm, safe }
    }

    fn found(&self) -> TierEvidence {
        let (quality, cost) = (self.quality.shown(), self.cost.shown());
        let verdict = |shown: &Shown, wealth: &Wealth| match shown.problem {
            Some(_) => Verdict::Invalid,
            None => wealth.verdict(),
        };
        let (judged, paid) =
            (verdict(&quality, &self.quality.wealth), verdict(&cost, &self.cost.wealth));
        let part = |difference: f64| PERCENT * (1.0 + difference / quality.primary);
        let quality = if 0.0 < quality.primary {
            let [value, lower, upper, bound] =
                [quality.difference, quality.lower, quality.upper, quality.bound].map(part);
            Found { value, lower: lower.max(0.0), upper, bound, verdict: judged }
        } else {
            let bound = PERCENT * self.quality.reach.unwrap_or(1.0);
            Found { value: 0.0, lower: 0.0, upper: f64::INFINITY, bound, verdict: judged }
        };
        let Shown { difference: value, lower, upper, bound, .. } = cost;
        TierEvidence { quality, cost: Found { value, lower, upper, bound, verdict: paid } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{
        Sample,
        chances::Chances,
        gate::Stream,
        instrument::Instrument,
        ledger::tests::reference_terms,
        score::Marks,
        tests::{Random, call},
    };
    use crate::domain::{Gate, GateEvidence, Margin, Metric, Outcome, Role, Timestamp};

    const GATE: fn() -> Gate =
        || Gate { margin: Margin::default_of(Metric::Readiness), role: Role::Prove };

    /// A candidate of so much of the primary's quality at so much of its cost.
    struct World {
        random: Random,
        instrument: Instrument,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let mut instrument = Instrument::new(Metric::Readiness, reference_terms());
            instrument.enter(Timestamp(0), Some(GATE().margin), Chances::PAIRS);
            instrument.tend(|it| it.fund(0.4));
            Self { random: Random(seed), instrument }
        }

        fn pair(&mut self, quality: f64, cost: f64) {
            let mut near = |mean: f64| (mean + 0.1 * self.random.normal()).clamp(0.0, 1.0);
            let marks = Marks::unplaced(near(0.8), near(0.8 * quality));
            let (ours, theirs) = (self.random.normal(), self.random.normal());
            let usd = |it: f64, part: f64| Some(0.05 * part * (0.3 * it).exp());
            let paid = |usd| Some(Sample { usd, ..call(Outcome::Ok, 900.0) });
            let sides = (paid(usd(ours, 1.0)), paid(usd(theirs, cost)));
            self.instrument.observe(Metric::Readiness, Stream::Paired, sides);
            self.instrument.judge(|it| it.observe(&marks));
        }

        fn known(&self) -> GateEvidence {
            self.instrument.evidence(GATE(), reference_terms())
        }

        /// Pairs until there is a verdict.
        fn run(&mut self, quality: f64, cost: f64) -> Verdict {
            for _ in 0..4_000 {
                self.pair(quality, cost);
                let verdict = self.instrument.standing().verdict;
                if verdict != Verdict::Undecided {
                    return verdict;
                }
            }
            Verdict::Undecided
        }
    }

    #[test]
    fn either_tier_is_enough_and_a_part_of_each_is_not() {
        for seed in 0..6 {
            for (quality, cost, verdict) in [
                (0.99, 0.25, Verdict::Pass),
                (0.925, 0.10, Verdict::Pass),
                (0.99, 0.10, Verdict::Pass),
                (0.90, 0.30, Verdict::Breach),
                (0.80, 0.05, Verdict::Breach),
                (1.00, 0.80, Verdict::Breach),
            ] {
                let run = World::new(seed).run(quality, cost);
                assert_eq!(run, verdict, "{quality} at {cost}, seed {seed}");
            }
        }
    }

    #[test]
    fn at_the_edge_of_a_tier_hardly_anybody_is_called_ready_nor_harmful() {
        let count = |quality, cost| {
            let (mut ready, mut harmful) = (0, 0);
            for seed in 100..120 {
                let verdict = World::new(seed).run(quality, cost);
                ready += u32::from(verdict == Verdict::Pass);
                harmful += u32::from(verdict == Verdict::Breach);
            }
            (ready, harmful)
        };
        // Each lacks a hair of both tiers.
        for (quality, cost) in [(0.949, 0.201), (0.899, 0.10), (0.99, 0.401)] {
            let (ready, harmful) = count(quality, cost);
            assert!(ready <= 3 && harmful <= 3, "{quality} at {cost}: {ready}, {harmful} of 20");
        }
        let (_, harmful) = count(0.951, 0.399);
        assert!(harmful <= 3, "{harmful} of 20");
    }

    #[test]
    fn both_tiers_are_shown_by_their_claims_in_percent_of_the_primary() {
        let mut world = World::new(3);
        let unknown = world.known();
        assert_eq!((unknown.verdict, unknown.samples), (Verdict::Undecided, 0));
        assert_eq!(unknown.tiers.len(), 2);
        (0..2_000).for_each(|_| world.pair(0.925, 0.10));
        let known = world.known();
        let [dear, cheap] = known.tiers.as_slice() else { panic!("{known:?}") };
        let bounds = |it: &TierEvidence| [it.quality.bound, it.cost.bound].map(|it| it.to_string());
        assert_eq!(
            (bounds(dear), bounds(cheap)),
            (["95", "40"].map(str::to_owned), ["90", "20"].map(str::to_owned))
        );
        assert!((dear.quality.value - 92.5).abs() < 1.0 && (dear.cost.value - 10.0).abs() < 1.0);
        assert!(cheap.quality.lower < 92.5 && 92.5 < cheap.quality.upper);
        assert_eq!([cheap.quality.verdict, cheap.cost.verdict], [Verdict::Pass; 2]);
        assert_ne!(dear.quality.verdict, Verdict::Pass);
        assert_eq!((known.verdict, known.bound.to_string()), (Verdict::Pass, "20".to_owned()));
        assert!((known.safe - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_judge_that_cannot_be_believed_and_unknown_costs_prove_nothing_and_harm_nobody() {
        let mut world = World::new(4);
        for _ in 0..300 {
            world.pair(0.5, 0.9);
            world.instrument.judge(Score::lose);
        }
        let known = world.known();
        assert!(world.instrument.is_breached() && !world.instrument.is_believed());
        assert_eq!(known.verdict, Verdict::Invalid);
        assert!(known.problem.contains("scores due in this stage were lost"), "{}", known.problem);
        let mut world = World::new(5);
        let free = Some(call(Outcome::Ok, 900.0));
        for _ in 0..600 {
            world.pair(0.99, 0.1);
            world.instrument.observe(Metric::Readiness, Stream::Paired, (free, free));
        }
        assert_eq!(world.known().verdict, Verdict::Invalid, "half of the costs are unknown");
    }
}
