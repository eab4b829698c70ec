//! After a restart: evidence from the stored pairs, the day's copies from what was kept.

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use crate::analysis::{Ledger, Observation};
use crate::domain::{Name, Rollout, Timestamp, Window};
use crate::store::Pairs;

use super::{actor::Controller, managed::Managed};

/// Enters the stored pairs of every running attempt in new bets, stage by stage.
///
/// So a restart forgets no evidence; what the store lost (a second at most, and what
/// its limits removed) only makes proofs take longer.
pub(super) async fn evidence(controller: &mut Controller) {
    let Some(pairs) = controller.pairs.clone() else { return };
    for managed in controller.managed.values_mut() {
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
    let mut counted = 0_u64;
    for stage in 0..=rollout.stage_index() {
        let window = Window {
            rollout: rollout.name().clone(),
            attempt: rollout.attempt(),
            stage: u32::try_from(stage).unwrap_or(u32::MAX),
        };
        let mut entered = None;
        let read = pairs.of_window(&window, &mut |pair, score| {
            if entered.is_none() {
                ledger.enter(stage, pair.at);
            }
            // Bets are made once a second of the pairs' own time, as they were when running.
            let second = Timestamp(pair.at.0 / 1_000 * 1_000);
            if entered.replace(second) != Some(second) {
                ledger.tick(pair.at);
            }
            if let Some(observation) = Observation::of(&pair) {
                ledger.observe(observation);
                counted += 1;
            }
            if let Some(score) = score {
                ledger.score(score.primary, score.candidate);
            }
        });
        if let Err(error) = read {
            tracing::error!(rollout = %rollout.name(), stage, %error, "stored pairs of a stage cannot be read");
        }
        if entered.is_none() {
            ledger.enter(stage, rollout.entered());
        }
        if let Some(second) = entered {
            ledger.tick(Timestamp(second.0 + 1_000));
        }
    }
    if rollout.state() == crate::domain::State::Succeeded {
        ledger.guard(rollout.entered());
    }
    tracing::info!(rollout = %rollout.name(), pairs = counted, "evidence rebuilt from stored pairs");
    ledger
}

fn copies_key(rollout: &Name) -> String {
    format!("copies/{rollout}")
}

/// Day and copies made on it, as last kept.
pub(super) fn copies(pairs: Option<&Pairs>, rollout: &Name) -> (u64, u64) {
    let kept = pairs.and_then(|it| it.kept(&copies_key(rollout)));
    let parse = |kept: Vec<u8>| {
        let (day, made) = kept.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*day), u64::from_be_bytes(*made.first_chunk::<8>()?)))
    };
    kept.and_then(parse).unwrap_or((0, 0))
}

/// Keeps the day's copies of every rollout.
pub(super) fn keep_copies(pairs: Option<&Pairs>, managed: &BTreeMap<Name, Managed>) {
    let Some(pairs) = pairs else { return };
    for it in managed.values() {
        let (day, made) = it.live.copies().made();
        let value = [day.to_be_bytes(), made.to_be_bytes()].concat();
        if let Err(error) = pairs.keep(&copies_key(it.rollout.name()), &value) {
            tracing::warn!(rollout = %it.rollout.name(), %error, "the day's copies could not be kept");
        }
    }
}
