//! After a restart: evidence from the stored pairs, the day's copies from what was kept.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use tokio::task::spawn_blocking;

use crate::analysis::{Ledger, Observation};
use crate::domain::{Event, Name, Record, Rollout, Timestamp, Window};
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
        let records = Arc::clone(&controller.records);
        let rebuilt = spawn_blocking(move || ledger(&rollout, &records, &pairs)).await;
        match rebuilt {
            Ok(ledger) => managed.ledger = ledger,
            Err(error) => tracing::error!(%error, "evidence could not be rebuilt; it begins anew"),
        }
    }
}

fn ledger(rollout: &Rollout, records: &[Arc<Record>], pairs: &Pairs) -> Ledger {
    // Steps that move the bets, of the whole life of the rollout: plans may be older than the attempt.
    let moves = |it: &&Arc<Record>| {
        let steered = matches!(it.event, Event::StageEntered { .. } | Event::Succeeded(_));
        it.rollout == *rollout.name() && (steered || it.event.plan().is_some())
    };
    let mut steps = records.iter().filter(moves).peekable();
    let mut ledger = Ledger::new(rollout.plan());
    let mut then = Rollout::new(rollout.name().clone(), rollout.plan().clone());
    let mut counted = 0;
    while let Some(step) = steps.next() {
        let attempt = then.attempt();
        then.apply(step.at, &step.event);
        if then.attempt() != attempt {
            ledger = Ledger::new(then.plan());
        }
        if then.attempt() < rollout.attempt() {
            continue;
        }
        ledger.follow(&then, step.at, &step.event);
        let end = steps.peek().map_or(Timestamp(u64::MAX), |it| it.at);
        counted += feed(&mut ledger, &then, step.at..end, pairs);
    }
    tracing::info!(rollout = %rollout.name(), pairs = counted, "evidence rebuilt from stored pairs");
    ledger
}

/// Enters what was stored in a visit of a stage; how many pairs counted.
fn feed(ledger: &mut Ledger, then: &Rollout, visit: Range<Timestamp>, pairs: &Pairs) -> u64 {
    let stage = u32::try_from(then.stage_index()).unwrap_or(u32::MAX);
    let window = Window { rollout: then.name().clone(), attempt: then.attempt(), stage };
    let mut counted = 0;
    let read = pairs.of_window(&window, &mut |pair, score| {
        if !visit.contains(&pair.at) {
            return;
        }
        ledger.observe(pair.at, Observation::of(&pair));
        counted += 1;
        if let Some(score) = score {
            ledger.score(pair.at, score.primary, score.candidate);
        }
    });
    if let Err(error) = read {
        let rollout = then.name();
        tracing::error!(%rollout, stage, %error, "stored pairs of a stage cannot be read");
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
