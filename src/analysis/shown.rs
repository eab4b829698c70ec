//! What a ledger has to show: its evidence, and what is missing in it.

use crate::domain::{Evidence, GateEvidence, Metric, Role, Timestamp, Verdict};

use super::{Ledger, instrument::Instrument, ledger::State};

impl Ledger {
    /// The gates of the stage that must be proven before it is left and are not yet. Says the
    /// same as [`evidence`](Self::evidence), at a thousandth of its cost.
    pub fn unproven(&self) -> impl Iterator<Item = Metric> + '_ {
        let must = self.gates().iter().filter(|gate| gate.role == Role::Prove);
        must.map(|gate| gate.metric()).filter(|metric| {
            let standing = self.instrument(*metric, None).map(Instrument::standing);
            standing.is_none_or(|it| it.verdict != Verdict::Pass)
        })
    }

    /// What is known now: one entry for each gate of the stage, in its order, over all traffic
    /// first and then in each watched slice.
    pub fn evidence(&self) -> Evidence {
        let places = (0..self.watched.len()).map(Some);
        let gates = std::iter::once(None).chain(places).flat_map(|it| self.evidence_of(it));
        let (tally, lost) = (&self.state.tally, self.state.tally.lost());
        let gates = gates.map(|known| match &lost {
            Some(problem) => {
                GateEvidence { verdict: Verdict::Invalid, problem: problem.clone(), ..known }
            }
            None => known,
        });
        Evidence {
            gates: gates.collect(),
            pairs: tally.pairs,
            solos: tally.solos,
            per_minute: self.per_minute(Timestamp(self.state.now_ms)),
            excluded: tally.excluded(),
            problem: lost.clone().or_else(|| self.problem()),
            outage: self.state.footing.outage().or_else(|| tally.outage()),
            unsettled: None,
        }
    }

    /// What is known of the gates of the stage in the watched slice of this place, or over all
    /// traffic.
    fn evidence_of(&self, place: Option<usize>) -> impl Iterator<Item = GateEvidence> + '_ {
        let slice = place.and_then(|it| self.watched.get(it)).map_or("", String::as_str);
        self.gates().iter().filter_map(move |gate| {
            let instrument = self.instrument(gate.metric(), place)?;
            let known = instrument.evidence(*gate, self.terms);
            let (watched, noise) = (slice.to_owned(), self.noise(gate.metric(), place));
            let known = GateEvidence { watched, noise, ..known };
            let stands = match known.verdict {
                // A slice only guards: it need not be fit to prove anything by itself.
                Verdict::Invalid => false,
                Verdict::Breach => self.is_believed(gate.metric()),
                Verdict::Pass | Verdict::Undecided => true,
            };
            if place.is_none() || stands {
                return Some(known);
            }
            let (verdict, problem) = (Verdict::Undecided, String::new());
            Some(GateEvidence { verdict, problem, ..known })
        })
    }

    /// Requests that count a minute, as they came lately.
    pub fn per_minute(&self, now: Timestamp) -> f64 {
        let State { pace, since_ms, now_ms, .. } = &self.state;
        pace.per_minute(Timestamp(*since_ms), Timestamp(now.0.max(*now_ms)))
    }

    /// Why nothing of it can be trusted, if so.
    fn problem(&self) -> Option<String> {
        self.state.lots.problem().or_else(|| self.state.tally.turned_away())
    }
}
