//! A ledger as bytes, for whoever keeps it over a restart.

use crate::domain::{Gate, Metric, Timestamp};

use super::{
    gate::Terms,
    instrument::Instrument,
    ledger::{Ledger, Measured, State},
};

/// Which form [`Ledger::encode`] gives.
const FORMAT: u8 = 10;
/// Stands between a metric and the watched slice that it is measured in. No metric has one.
const IN: char = '@';

impl Ledger {
    /// All that observations have changed, and the terms of the attempt's first plan, to be
    /// kept outside.
    pub fn encode(&self) -> Vec<u8> {
        let measured: Vec<String> = self.measured.iter().map(|it| self.name(*it)).collect();
        // Only a length that cannot be known makes this fail, and there is none.
        postcard::to_allocvec(&(FORMAT, measured, self.terms, &self.state)).unwrap_or_default()
    }

    /// Puts back what [`encode`](Self::encode) gave, under the plan that holds now and by the
    /// clock as it is now: where that went back, no time has passed. Says whether it could: what
    /// is damaged, of another format or another ladder changes nothing.
    pub fn decode(&mut self, now: Timestamp, bytes: &[u8]) -> bool {
        type Kept = (u8, Vec<String>, Terms, State);
        let Ok((FORMAT, names, terms, state)) = postcard::from_bytes::<Kept>(bytes) else {
            return false;
        };
        let measured: Vec<Measured> = names.iter().filter_map(|it| self.named(it)).collect();
        let places = || (0..self.watched.len()).map(Some).chain([None]);
        let covered = |gate: &Gate| {
            let metric = gate.metric();
            places().all(|watched| measured.contains(&Measured { metric, watched }))
        };
        let matching = |made: &Vec<Instrument>| {
            measured.iter().zip(made).all(|(it, made)| made.is_of(it.metric))
        };
        let fits = names.len() == measured.len()
            && state.instruments.len() == measured.len()
            && [0, measured.len()].contains(&state.noise.len())
            && [&state.instruments, &state.noise].into_iter().all(matching)
            && self.stages.iter().flat_map(|it| &it.gates).all(covered)
            && state.stage.is_none_or(|it| it < self.stages.len());
        if fits {
            (self.measured, self.terms, self.state) = (measured, terms, state);
            self.set_back(now);
        }
        fits
    }

    /// Goes on from a time that the clock has gone back to: what was left of any time still is.
    fn set_back(&mut self, now: Timestamp) {
        let state = &mut self.state;
        let back_ms = state.now_ms.saturating_sub(now.0);
        for ms in [&mut state.now_ms, &mut state.since_ms, &mut state.counts_from_ms] {
            *ms = ms.saturating_sub(back_ms);
        }
        state.money.set_back(back_ms);
        state.pace.set_back(back_ms);
        state.lots.set_back(back_ms);
        let instruments = state.instruments.iter_mut().chain(&mut state.noise);
        instruments.for_each(|it| it.set_back(back_ms));
    }

    /// `error_rate`, or `error_rate@search`.
    fn name(&self, measured: Measured) -> String {
        let metric = measured.metric.as_str();
        match measured.watched.and_then(|it| self.watched.get(it)) {
            None => metric.to_owned(),
            Some(slice) => format!("{metric}{IN}{slice}"),
        }
    }

    fn named(&self, name: &str) -> Option<Measured> {
        let (metric, slice) = match name.split_once(IN) {
            None => (name, None),
            Some((metric, slice)) => (metric, Some(slice)),
        };
        let place = |slice: &str| self.watched.iter().position(|it| it == slice);
        let watched = match slice {
            None => None,
            Some(slice) => Some(place(slice)?),
        };
        Some(Measured { metric: Metric::from_name(metric)?, watched })
    }
}
