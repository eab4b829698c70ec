//! A ledger as bytes, for whoever keeps it over a restart.

use crate::domain::{Gate, Metric};

use super::{
    gate::Terms,
    ledger::{Ledger, State},
};

/// Which form [`Ledger::encode`] gives.
const FORMAT: u8 = 1;

impl Ledger {
    /// All that observations have changed, and the terms of the attempt's first plan, to be
    /// kept outside.
    pub fn encode(&self) -> Vec<u8> {
        let metrics: Vec<&str> = self.metrics.iter().map(|it| it.as_str()).collect();
        // Only a length that cannot be known makes this fail, and there is none.
        postcard::to_allocvec(&(FORMAT, metrics, self.terms, &self.state)).unwrap_or_default()
    }

    /// Puts back what [`encode`](Self::encode) gave, under the plan that holds now. Says
    /// whether it could: what is damaged, of another format or another ladder changes nothing.
    pub fn decode(&mut self, bytes: &[u8]) -> bool {
        type Kept = (u8, Vec<String>, Terms, State);
        let Ok((FORMAT, metrics, terms, state)) = postcard::from_bytes::<Kept>(bytes) else {
            return false;
        };
        let metrics = metrics.iter().filter_map(|it| Metric::from_name(it));
        let metrics: Vec<Metric> = metrics.collect();
        let measured = |gate: &Gate| metrics.contains(&gate.metric());
        let fits = state.instruments.len() == metrics.len()
            && metrics.iter().zip(&state.instruments).all(|(metric, it)| it.is_of(*metric))
            && self.stages.iter().flat_map(|it| &it.gates).all(measured)
            && state.stage.is_none_or(|it| it < self.stages.len());
        if fits {
            (self.metrics, self.terms, self.state) = (metrics, terms, state);
        }
        fits
    }
}
