//! What is found in watched slices, and what watching them costs.

use super::*;
use crate::analysis::{
    ledger::tests::{LATER, plan},
    tests::Random,
};
use crate::domain::{Mark, Verdict, Watched};

const SLICES: [&str; 4] = ["search", "text", "tools", "vision"];

fn watching(plan: Plan, slices: &[&str]) -> Plan {
    let values = slices.iter().map(|it| (*it).to_owned()).collect();
    Plan { watched: Some(Watched { by: Mark::Task, values }), ..plan }
}

/// Ten pairs a second. One in sixty is in `tools`, the others share what is left.
struct World {
    random: Random,
    ledger: Ledger,
    at: Timestamp,
}

impl World {
    fn new(plan: &Plan, seed: u64) -> Self {
        let mut ledger = Ledger::new(plan);
        ledger.enter(0, Timestamp(0), Chances::PAIRS);
        Self { random: Random(seed), ledger, at: Timestamp(0) }
    }

    /// Feeds pairs until harm is proven or there are enough; how many it took. Both fail at this
    /// rate, and the candidate so much more often in `tools`.
    fn run(&mut self, (rate, worse): (f64, f64), pairs_max: u32) -> u32 {
        for pairs in 1..=pairs_max {
            let tools = self.random.happens(1.0 / 60.0);
            let other = if self.random.happens(0.5) { "search" } else { "text" };
            let watched = if tools { "tools" } else { other }.to_owned();
            let more = if tools { worse } else { 0.0 };
            let (primary, candidate) =
                (self.random.call(rate, 1.0), self.random.call(rate + more, 1.0));
            let (primary, candidate) = (Some(primary), Some(candidate));
            let seen = Observation { lot: None, primary, candidate, watched };
            self.ledger.observe(self.at, &seen);
            self.at.0 += 100;
            if self.ledger.is_broken() {
                return pairs;
            }
        }
        pairs_max
    }
}

#[test]
fn what_is_broken_in_one_slice_is_found_though_the_average_is_within_the_margin() {
    let plan = plan(&[Metric::ErrorRate, Metric::LatencyP99]);
    for seed in 0..10 {
        // 0.3 points more on the whole, where half a point is allowed.
        let mut average = World::new(&plan, seed);
        average.run((0.02, 0.2), 6_000);
        assert!(!average.ledger.is_broken(), "seed {seed}");
        let mut watched = World::new(&watching(plan.clone(), &SLICES), seed);
        let pairs = watched.run((0.02, 0.2), 20_000);
        let evidence = watched.ledger.evidence();
        let broken = evidence.breach().unwrap();
        assert_eq!((broken.metric, broken.watched.as_str()), (Metric::ErrorRate, "tools"));
        assert_ne!(evidence.of(Metric::ErrorRate).unwrap().verdict, Verdict::Breach);
        println!("seed {seed}: after {pairs} pairs, {} in the slice", broken.samples);
    }
}

/// E2
#[test]
fn identical_arms_in_watched_slices_are_sent_back_no_more_often_than_the_level() {
    let mut plan = watching(plan(&[Metric::ErrorRate, Metric::LatencyP99]), &SLICES);
    plan.risk.harm_bps = 1_000;
    let breaches = (0..300).filter(|seed| {
        let mut world = World::new(&plan, *seed);
        world.run((0.02, 0.0), 1_500);
        world.ledger.is_broken()
    });
    let breaches = breaches.count();
    assert!(breaches <= 30, "{breaches} of 300 at a level of 10 %");
}

#[test]
fn the_chance_of_a_false_alarm_is_shared_by_all_that_is_bet_on() {
    let alone = plan(&[Metric::ErrorRate, Metric::LatencyP99]);
    let limits = |plan: &Plan| Ledger::new(plan).terms.limits;
    let harm = |plan: &Plan| limits(plan).harm.exp();
    assert!((harm(&alone) - 200.0).abs() < 1e-6, "{}", harm(&alone));
    let watched = watching(alone.clone(), &SLICES);
    assert!((harm(&watched) - 1_000.0).abs() < 1e-6, "{}", harm(&watched));
    assert!((limits(&watched).safe - limits(&alone).safe).abs() < 1e-12);
}

#[test]
fn safety_is_proven_over_all_traffic_and_slices_are_listed_after_it() {
    let plan = watching(plan(&[Metric::ErrorRate]), &SLICES);
    let mut world = World::new(&plan, 5);
    world.run((0.001, 0.0), 10_000);
    assert_eq!(world.ledger.unproven().count(), 0);
    let evidence = world.ledger.evidence();
    let listed: Vec<&str> = evidence.gates.iter().map(|it| it.watched.as_str()).collect();
    assert_eq!(listed, ["", "search", "text", "tools", "vision"]);
    let samples: Vec<u64> = evidence.gates.iter().map(|it| it.samples).collect();
    assert_eq!(samples[0], 10_000);
    assert_eq!(samples[1..].iter().sum::<u64>(), 10_000);
    assert_eq!((evidence.gates[3].verdict, samples[4]), (Verdict::Undecided, 0));
}

#[test]
fn scores_count_in_their_slice_and_lost_ones_in_all_traffic_alone() {
    let plan = watching(plan(&[Metric::JudgeScore]), &["tools"]);
    let mut world = World::new(&plan, 1);
    for score in 0..1_000 {
        let (slice, candidate) = if score % 25 == 0 { ("tools", 0.4) } else { ("", 0.81) };
        let noise = 0.1 * world.random.uniform();
        world.ledger.score(
            Timestamp(score * 1_000),
            slice,
            &Marks::unplaced(0.7 + noise, candidate),
        );
    }
    world.ledger.score_lost();
    let evidence = world.ledger.evidence();
    let broken = evidence.breach().unwrap();
    assert_eq!((broken.watched.as_str(), broken.samples), ("tools", 40));
    assert!(evidence.gates.iter().all(|it| it.verdict != Verdict::Invalid), "{evidence:?}");
}

#[test]
fn a_slice_whose_scores_are_all_the_same_holds_nothing() {
    let plan = watching(plan(&[Metric::JudgeScore]), &["easy"]);
    let mut world = World::new(&plan, 1);
    for score in 0..2_000_u32 {
        let marks = match score % 25 {
            0 => Marks::unplaced(1.0, 1.0),
            it => Marks::unplaced(0.8, 0.7 + f64::from(it) / 100.0),
        };
        let slice = if score % 25 == 0 { "easy" } else { "" };
        world.ledger.score(Timestamp(u64::from(score) * 1_000), slice, &marks);
    }
    let verdicts = world.ledger.evidence().gates.into_iter().map(|it| it.verdict);
    assert_eq!(verdicts.collect::<Vec<_>>(), [Verdict::Pass, Verdict::Undecided]);
}

#[test]
fn a_judge_that_fails_breaks_no_slice_either() {
    let plan = watching(plan(&[Metric::JudgeScore]), &["tools"]);
    let mut world = World::new(&plan, 1);
    for score in 0..200 {
        let marks = Marks::unplaced(0.9, if score % 7 == 0 { 0.4 } else { 0.3 });
        world.ledger.score(Timestamp(score * 1_000), "tools", &marks);
        world.ledger.score_lost();
    }
    assert!(!world.ledger.is_broken());
    let verdicts = world.ledger.evidence().gates.into_iter().map(|it| it.verdict);
    assert_eq!(verdicts.collect::<Vec<_>>(), [Verdict::Invalid, Verdict::Undecided]);
}

#[test]
fn bets_on_slices_are_put_back_under_a_plan_that_watches_the_same() {
    let all = plan(&Metric::ALL);
    let plan = watching(all.clone(), &SLICES);
    let mut world = World::new(&plan, 4);
    world.run((0.02, 0.05), 2_000);
    let kept = world.ledger.encode();
    assert!(kept.len() < 512 << 10, "{} bytes", kept.len());
    let mut ledger = Ledger::new(&plan);
    assert!(ledger.decode(LATER, &kept));
    assert_eq!(ledger.evidence(), world.ledger.evidence());
    let before = std::mem::replace(&mut world.ledger, ledger);
    let (random, at) = (Random(world.random.0), world.at);
    world.run((0.02, 0.1), 2_000);
    let after = std::mem::replace(&mut world.ledger, before);
    (world.random, world.at) = (random, at);
    world.run((0.02, 0.1), 2_000);
    assert_eq!(after.evidence(), world.ledger.evidence());
    let mut turned = SLICES;
    turned.reverse();
    let mut other = Ledger::new(&watching(all.clone(), &turned));
    assert!(other.decode(LATER, &kept), "the order of slices is nothing but an order");
    for slices in [&SLICES[..3], &["search", "text", "tools", "visio"]] {
        assert!(!Ledger::new(&watching(all.clone(), slices)).decode(LATER, &kept), "{slices:?}");
    }
    assert!(!Ledger::new(&all).decode(LATER, &kept));
    assert!(!Ledger::new(&plan).decode(LATER, &Ledger::new(&all).encode()));
}
