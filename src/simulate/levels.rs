//! Whole rollouts, many of them: how often the promised chances of error are missed.
//!
//! `CROSSFADE_ROLLOUTS` says how many of each kind. What is claimed of all rollouts is held against
//! those played by the binomial distribution: a claim fails when so many misses would be a wonder
//! if it were true.

use std::env;

use super::{
    Numbers, Simulation,
    tests::{Random, news, plan, sample, seen},
};
use crate::analysis::Chances;
use crate::domain::{Event, Lot, State, Timestamp};

/// Rollouts of each kind on every run.
const ROLLOUTS: u64 = 200;
/// How unlikely misses have to be under a claim to disprove it.
const WONDER: f64 = 1e-3;

fn rollouts() -> u64 {
    env::var_os("CROSSFADE_ROLLOUTS").map_or(ROLLOUTS, |it| it.to_str().unwrap().parse().unwrap())
}

/// How a rollout ended, or stands when its requests are used up.
struct Played {
    state: State,
    /// Stages that were left forward.
    left: u64,
    /// Calls of the candidate until then.
    calls: u64,
}

/// Plays a rollout with these stages whose sides fail so often: a hundred requests a second, each
/// drawn as its stage says, looked at after every one, and a tick each second.
fn play(
    (gates, stages): (&str, &[&str]),
    (primary, candidate): (f64, f64),
    (seed, requests_max): (u64, u64),
) -> Played {
    let (name, plan) = plan(gates, stages);
    let chances = |stage: usize| Chances::of(&plan.stages[stage]);
    let mut simulation = Simulation::new(name, plan.clone());
    simulation.start(Timestamp(0), chances(0)).unwrap();
    let (mut random, mut stage) = (Random(seed), chances(0));
    let (mut left, mut calls) = (0, 0);
    for request in 1..=requests_max {
        let at = Timestamp(request * 10);
        let (lot, both) = (random.uniform(), stage.primary + stage.candidate - 1.0);
        let sides = (lot < stage.primary, lot < both || stage.primary <= lot);
        let call = |failing: f64, random: &mut Random| {
            sample(!random.happens(failing), 800.0 * random.spread(0.5), 0.001)
        };
        let drawn = (call(primary, &mut random), call(candidate, &mut random));
        let (ours, theirs) = (sides.0.then_some(drawn.0), sides.1.then_some(drawn.1));
        calls += u64::from(sides.1);
        if simulation.hear(&news(at, seen(Some(Lot::Once), ours, theirs))) {
            break;
        }
        if request % 100 == 0
            && simulation.rollout().state() == State::Running
            && let Ok(event) = simulation.decide(at, Numbers::Spared)
        {
            left += 1;
            if let Event::StageEntered { stage: next, .. } = event {
                stage = chances(next);
            }
            simulation.apply(at, &event, stage);
            if simulation.rollout().state() != State::Running {
                break;
            }
        }
    }
    Played { state: simulation.rollout().state(), left, calls }
}

/// The chance of so many misses or more among so many, where each comes with this chance.
fn tail(misses: u64, of: u64, chance: f64) -> f64 {
    let float = |it: u64| f64::from(u32::try_from(it).unwrap());
    let mut term = (float(of) * (-chance).ln_1p()).exp();
    let mut below = 0.0;
    for count in 0..misses {
        below += term;
        term *= float(of - count) / float(count + 1) * chance / (1.0 - chance);
    }
    1.0 - below
}

/// Whether nothing speaks against misses coming with this chance at most.
fn holds(what: &str, misses: u64, of: u64, chance: f64) {
    let by_chance = tail(misses, of, chance);
    println!(
        "{what}: {misses} of {of}, {chance} claimed; so many or more by chance: {by_chance:.4}"
    );
    assert!(WONDER < by_chance, "{what}: {misses} of {of} where {chance} is claimed");
}

#[test]
fn a_tail_of_the_binomial_distribution_is_what_its_tables_say() {
    assert!((tail(0, 60, 0.01) - 1.0).abs() < 1e-12);
    assert!((tail(1, 60, 0.01) - 0.452_843).abs() < 1e-6);
    assert!((tail(3, 10, 0.5) - 0.945_312_5).abs() < 1e-9);
    assert!(tail(5, 60, 0.01) < WONDER && WONDER < tail(4, 60, 0.01));
}

/// B-20
#[test]
fn whole_rollouts_of_equal_arms_are_sent_back_no_more_often_than_promised() {
    let rollout = ("error_rate = \"+2pp\"", &["25%", "50%", "75%"][..]);
    let all = (0..rollouts()).map(|seed| play(rollout, (0.005, 0.005), (seed, 20_000)));
    let all: Vec<Played> = all.collect();
    let back = all.iter().filter(|it| it.state == State::RolledBack).count();
    let done = all.iter().filter(|it| it.state == State::Succeeded).count();
    println!("{done} of {} reached the end", all.len());
    assert!(all.len() / 2 < done, "they are hardly whole");
    holds("sent back", u64::try_from(back).unwrap(), rollouts(), 0.01);
}

/// B-21
#[test]
fn whole_rollouts_with_two_points_more_errors_are_sent_back() {
    let rollout = ("error_rate = \"+0.5pp\"", &["50%", "100%"][..]);
    let all = (0..rollouts()).map(|seed| play(rollout, (0.002, 0.022), (seed, 20_000)));
    let all: Vec<Played> = all.collect();
    let missed = all.iter().filter(|it| it.state != State::RolledBack).count();
    holds("not sent back", u64::try_from(missed).unwrap(), rollouts(), 0.01);
    let mut calls: Vec<u64> = all.iter().map(|it| it.calls).collect();
    calls.sort_unstable();
    let median = calls[calls.len() / 2];
    println!("median {median} candidate calls, the slowest {}", calls[calls.len() - 1]);
    assert!(median <= 900, "{median}");
}

/// B-21
#[test]
fn whole_rollouts_exactly_at_the_margin_are_seldom_promoted() {
    let rollout = ("error_rate = \"+2pp\"", &["50%", "100%"][..]);
    let promoted = (0..rollouts()).filter(|seed| {
        let played = play(rollout, (0.01, 0.03), (*seed, 6_000));
        0 < played.left
    });
    holds("promoted", u64::try_from(promoted.count()).unwrap(), rollouts(), 0.05);
}
