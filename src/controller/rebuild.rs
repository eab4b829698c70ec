//! After a restart: evidence from the stored pairs, the day's copies from what was kept.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::spawn_blocking;

use crate::analysis::{Chances, Ledger, Observation};
use crate::domain::{Cause, Event, Name, Rollout, State, Timestamp, Visit, Window};
use crate::store::Pairs;

use super::{actor::Controller, managed::Managed};

/// Enters the stored pairs of every running attempt in new bets, visit by visit of its stages.
///
/// So a restart forgets no evidence; what the store lost (a second at most, and what
/// its limits removed) only makes proofs take longer.
pub(super) async fn evidence(controller: &mut Controller) {
    let Some(pairs) = controller.pairs.clone() else { return };
    for managed in controller.managed.values_mut() {
        coverage(Some(&pairs), managed);
        if managed.rollout.window().is_none() {
            continue;
        }
        let (rollout, pairs) = (managed.rollout.clone(), pairs.clone());
        let rebuilt = spawn_blocking(move || ledger(&rollout, &pairs)).await;
        match rebuilt {
            Ok(ledger) => managed.ledger = ledger,
            Err(error) => tracing::error!(%error, "evidence could not be rebuilt; it begins anew"),
        }
    }
}

fn ledger(rollout: &Rollout, pairs: &Pairs) -> Ledger {
    let mut ledger = Ledger::new(rollout.plan());
    let visits = rollout.visits();
    let ends = visits.iter().skip(1).map(|it| it.from).chain([Timestamp(u64::MAX)]);
    let mut counted = 0;
    for (index, (visit, end)) in visits.iter().zip(ends).enumerate() {
        if rollout.state() == State::Succeeded && index + 1 == visits.len() {
            ledger.follow(rollout, visit.from, &Event::Succeeded(Cause::GatesPassed));
        } else {
            let stage = rollout.plan().stages.get(visit.stage);
            let chances = stage.map_or_else(Chances::default, Chances::of);
            ledger.enter(visit.stage, visit.from, chances);
        }
        counted += feed(&mut ledger, rollout, (*visit, end), pairs);
    }
    tracing::info!(rollout = %rollout.name(), pairs = counted, "evidence rebuilt from stored pairs");
    ledger
}

/// Enters what was stored in a visit of a stage, up to its end; how many pairs counted.
fn feed(
    ledger: &mut Ledger,
    rollout: &Rollout,
    (visit, end): (Visit, Timestamp),
    pairs: &Pairs,
) -> u64 {
    let stage = u32::try_from(visit.stage).unwrap_or(u32::MAX);
    let (name, attempt) = (rollout.name(), rollout.attempt());
    let window = Window { rollout: name.clone(), attempt, stage };
    let mut counted = 0;
    let read = pairs.of_window(&window, &mut |pair, score| {
        if !(visit.from..end).contains(&pair.at) {
            return;
        }
        ledger.observe(pair.at, Observation::of(&pair));
        counted += 1;
        if let Some(score) = score {
            ledger.score(pair.at, score.primary, score.candidate);
        }
    });
    if let Err(error) = read {
        tracing::error!(rollout = %name, stage, %error, "stored pairs of a stage cannot be read");
    }
    counted
}

/// What a restart must not forget of a rollout's traffic: the day and its copies, then the window
/// (attempt, stage) with the copies that were due and missing in it.
type Counts = [u64; 6];

fn key(rollout: &Name) -> String {
    format!("traffic/{rollout}")
}

fn kept(pairs: Option<&Pairs>, rollout: &Name) -> Option<Counts> {
    let kept = pairs?.kept(&key(rollout))?;
    let numbers = kept.chunks_exact(8).filter_map(|it| it.try_into().ok().map(u64::from_be_bytes));
    numbers.collect::<Vec<u64>>().try_into().ok()
}

/// Day and copies made on it, as last kept.
pub(super) fn copies(pairs: Option<&Pairs>, rollout: &Name) -> (u64, u64) {
    kept(pairs, rollout).map_or((0, 0), |counts| (counts[0], counts[1]))
}

/// Copies due and missing in the window that is open, as last kept: what could not be trusted
/// before a restart cannot be trusted after it.
fn coverage(pairs: Option<&Pairs>, managed: &mut Managed) {
    let Some(window) = managed.rollout.window() else { return };
    let here = [u64::from(window.attempt), u64::from(window.stage)];
    if let Some([_, _, attempt, stage, due, missing]) = kept(pairs, &window.rollout)
        && [attempt, stage] == here
    {
        managed.live = Arc::new(managed.live.resumed((due, missing)));
    }
}

/// Keeps the counts of every rollout.
pub(super) fn keep_counts(pairs: Option<&Pairs>, managed: &BTreeMap<Name, Managed>) {
    let Some(pairs) = pairs else { return };
    for it in managed.values() {
        let ((day, made), (due, missing)) = (it.live.copies().made(), it.live.coverage());
        let window = it.rollout.window();
        let (attempt, stage) = window.map_or((0, 0), |it| (it.attempt, it.stage));
        let counts: Counts = [day, made, attempt.into(), stage.into(), due, missing];
        let value = counts.map(u64::to_be_bytes).concat();
        if let Err(error) = pairs.keep(&key(it.rollout.name()), &value) {
            tracing::warn!(rollout = %it.rollout.name(), %error, "the day's copies are not kept");
        }
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
