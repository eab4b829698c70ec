//! What we count and log: the Prometheus table and the setting up of `tracing`.

mod judging;
mod logs;
mod words;

pub use judging::Judging;
pub use logs::{Logs, init};
pub use words::{Loss, Refusal, Role, Spending, Withheld};

use std::fmt::Write as _;
use std::sync::{PoisonError, RwLock, atomic::AtomicU64};
use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::domain::{Call, Evidence, Name, Outcome, Rollout, Share, Skip, State, Usage, Verdict};

/// A gauge of a real number.
type Real = Gauge<f64, AtomicU64>;

/// A name as a label: shared, because every call has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Named(Name);

impl EncodeLabelValue for Named {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    provider: Named,
    role: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    provider: Named,
    role: &'static str,
    outcome: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: Named,
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BreakerLabels {
    provider: Named,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithheldLabels {
    from: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    rollout: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpendLabels {
    rollout: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    rollout: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    rollout: String,
    gate: &'static str,
    /// Empty for all traffic.
    slice: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    rollout: String,
    gate: &'static str,
    slice: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabels {
    rollout: String,
    from: &'static str,
    to: &'static str,
    reason: &'static str,
}

/// What calls of one kind are counted in: looked for once, and then at hand.
#[derive(Debug)]
struct Meter {
    provider: Name,
    role: Role,
    outcome: Outcome,
    calls: Counter,
    durations: Histogram,
    /// Of calls whose answer began.
    first_bytes: Option<Histogram>,
    /// Of calls that said what they used.
    tokens: Option<[Counter; KINDS.len()]>,
}

/// Kinds of tokens, as [`spent`] counts them.
const KINDS: [&str; 4] = ["input", "cache_read", "cache_write", "output"];

fn spent(usage: &Usage) -> [u64; KINDS.len()] {
    [usage.input, usage.cache_read, usage.cache_write, usage.output]
}

impl Meter {
    fn is_of(&self, call: &Call, role: Role) -> bool {
        self.role == role
            && self.outcome == call.outcome
            && self.first_bytes.is_some() == call.first_byte_ms.is_some()
            && self.tokens.is_some() == call.usage.is_some()
            && self.provider == call.provider
    }

    fn count(&self, call: &Call) {
        self.calls.inc();
        self.durations.observe(f64::from(call.total_ms) / 1e3);
        if let (Some(first_bytes), Some(ms)) = (&self.first_bytes, call.first_byte_ms) {
            first_bytes.observe(f64::from(ms) / 1e3);
        }
        if let (Some(tokens), Some(usage)) = (&self.tokens, &call.usage) {
            for (counter, spent) in tokens.iter().zip(spent(usage)) {
                counter.inc_by(spent);
            }
        }
    }
}

/// Every metric of the program.
#[derive(Debug)]
pub struct Metrics {
    /// One for each kind of call that there was.
    meters: RwLock<Vec<Meter>>,
    calls: Family<CallLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    durations: Family<ProviderLabels, Histogram, fn() -> Histogram>,
    first_bytes: Family<ProviderLabels, Histogram, fn() -> Histogram>,
    skips: Family<ReasonLabels, Counter>,
    losses: Family<ReasonLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    withheld: Family<WithheldLabels, Counter>,
    fallbacks: Family<RolloutLabels, Counter>,
    failovers: Family<BreakerLabels, Counter>,
    serve: Family<RolloutLabels, Real>,
    mirror: Family<RolloutLabels, Real>,
    pairs: Family<RolloutLabels, Gauge>,
    solos: Family<RolloutLabels, Gauge>,
    overdue: Family<RolloutLabels, Gauge>,
    states: Family<StateLabels, Gauge>,
    differences: Family<GateLabels, Real>,
    lowers: Family<GateLabels, Real>,
    uppers: Family<GateLabels, Real>,
    bounds: Family<GateLabels, Real>,
    verdicts: Family<VerdictLabels, Gauge>,
    transitions: Family<TransitionLabels, Counter>,
    degraded: Gauge,
    mirror_busy: Gauge,
    breakers_open: Family<BreakerLabels, Gauge>,
    breakers_opened: Family<BreakerLabels, Counter>,
    healthy: Family<BreakerLabels, Gauge>,
    spent: Family<SpendLabels, Counter<f64, AtomicU64>>,
    unpriced: Family<BreakerLabels, Counter>,
    /// Of the judge.
    pub judging: Judging,
    feedback: Family<BreakerLabels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Buckets of the `OpenTelemetry` conventions for LLM calls, in seconds.
const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    /// The table, with nothing counted.
    pub fn new() -> Self {
        Self {
            meters: RwLock::default(),
            calls: Family::default(),
            tokens: Family::default(),
            durations: Family::new_with_constructor(seconds),
            first_bytes: Family::new_with_constructor(seconds),
            skips: Family::default(),
            losses: Family::default(),
            refusals: Family::default(),
            withheld: Family::default(),
            fallbacks: Family::default(),
            failovers: Family::default(),
            serve: Family::default(),
            mirror: Family::default(),
            pairs: Family::default(),
            solos: Family::default(),
            overdue: Family::default(),
            states: Family::default(),
            differences: Family::default(),
            lowers: Family::default(),
            uppers: Family::default(),
            bounds: Family::default(),
            verdicts: Family::default(),
            transitions: Family::default(),
            degraded: Gauge::default(),
            mirror_busy: Gauge::default(),
            breakers_open: Family::default(),
            breakers_opened: Family::default(),
            healthy: Family::default(),
            spent: Family::default(),
            unpriced: Family::default(),
            judging: Judging::default(),
            feedback: Family::new_with_constructor(|| Histogram::new([0.0, 0.25, 0.5, 0.75, 1.0])),
        }
    }

    /// Counts a call that ended.
    pub fn call(&self, call: &Call, role: Role) {
        let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.iter().find(|it| it.is_of(call, role)) {
            return meter.count(call);
        }
        drop(meters);
        let meter = self.meter(call, role);
        meter.count(call);
        self.meters.write().unwrap_or_else(PoisonError::into_inner).push(meter);
    }

    fn meter(&self, call: &Call, role: Role) -> Meter {
        let (provider, outcome) = (Named(call.provider.clone()), call.outcome);
        let labels = CallLabels {
            provider: provider.clone(),
            role: role.as_str(),
            outcome: outcome.as_str(),
        };
        let calls = self.calls.get_or_create_owned(&labels);
        let CallLabels { role: role_name, outcome: outcome_name, .. } = labels;
        let tokens = call.usage.as_ref().map(|_| {
            KINDS.map(|kind| {
                let (provider, role, outcome) = (provider.clone(), role_name, outcome_name);
                self.tokens.get_or_create_owned(&TokenLabels { provider, role, outcome, kind })
            })
        });
        let labels = ProviderLabels { provider, role: role_name };
        let durations = self.durations.get_or_create_owned(&labels);
        let begun = call.first_byte_ms.map(|_| self.first_bytes.get_or_create_owned(&labels));
        let provider = labels.provider.0;
        Meter { provider, role, outcome, calls, durations, first_bytes: begun, tokens }
    }

    /// Counts a request that is not copied.
    pub fn skip(&self, skip: Skip) {
        self.skips.get_or_create(&ReasonLabels { reason: skip.as_str() }).inc();
    }

    /// Counts something dropped or failed on the side.
    pub fn loss(&self, loss: Loss) {
        self.losses.get_or_create(&ReasonLabels { reason: loss.as_str() }).inc();
    }

    /// Counts what there was no place for.
    pub fn refusal(&self, refusal: Refusal) {
        let reason = refusal.as_str();
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a pair whose texts somebody does not get.
    pub fn withheld(&self, from: Withheld) {
        let from = from.as_str();
        self.withheld.get_or_create(&WithheldLabels { from }).inc();
    }

    /// Counts a candidate replaced by the primary before its first byte.
    pub fn fallback(&self, rollout: &Name) {
        let labels = RolloutLabels { rollout: rollout.to_string() };
        self.fallbacks.get_or_create(&labels).inc();
    }

    /// Counts an answer that a provider gave in place of the primary.
    pub fn failover(&self, provider: &Name) {
        let labels = BreakerLabels { provider: Named(provider.clone()) };
        self.failovers.get_or_create(&labels).inc();
    }

    /// Counts what was spent on copies or scores, in billionths of a US dollar.
    pub fn spent(&self, rollout: &Name, on: Spending, nano_usd: u64) {
        let kind = match on {
            Spending::Mirror => "mirror",
            Spending::Judge => "judge",
        };
        let labels = SpendLabels { rollout: rollout.to_string(), kind };
        let usd = Duration::from_nanos(nano_usd).as_secs_f64();
        self.spent.get_or_create(&labels).inc_by(usd);
    }

    /// Counts an answer of which nobody knows what it cost.
    pub fn unpriced(&self, provider: &Name) {
        let labels = BreakerLabels { provider: Named(provider.clone()) };
        self.unpriced.get_or_create(&labels).inc();
    }

    /// Counts what somebody thinks of an answer of a provider, 0 to 1.
    pub fn feedback(&self, provider: &Name, score: f64) {
        let labels = BreakerLabels { provider: Named(provider.clone()) };
        self.feedback.get_or_create(&labels).observe(score);
    }

    /// Counts a breaker that opened.
    pub fn breaker_opened(&self, provider: &Name) {
        let labels = BreakerLabels { provider: Named(provider.clone()) };
        self.breakers_opened.get_or_create(&labels).inc();
    }

    /// Shows whether the breaker of a provider lets everybody pass (0), a few (1) or nobody (2).
    pub fn breaker(&self, provider: &Name, open: u8) {
        let labels = BreakerLabels { provider: Named(provider.clone()) };
        self.breakers_open.get_or_create(&labels).set(i64::from(open));
    }

    /// Shows what the last health check of a provider found.
    pub fn health(&self, provider: &Name, problem: Option<&str>) {
        let labels = BreakerLabels { provider: Named(provider.clone()) };
        self.healthy.get_or_create(&labels).set(i64::from(problem.is_none()));
    }

    /// Counts a step of a rollout.
    pub fn transition(&self, rollout: &Rollout, from: State) {
        let labels = TransitionLabels {
            rollout: rollout.name().to_string(),
            from: from.as_str(),
            to: rollout.state().as_str(),
            reason: rollout.cause().map_or("NONE", crate::domain::Cause::code),
        };
        self.transitions.get_or_create(&labels).inc();
    }

    /// Shows where a rollout stands, and the shares (serve, mirror) that it moves.
    pub fn rollout(&self, rollout: &Rollout, evidence: &Evidence, shares: (Share, Share)) {
        let name = rollout.name().to_string();
        let labels = RolloutLabels { rollout: name.clone() };
        let ratio = |share: Share| f64::from(share.basis_points()) / 1e4;
        self.serve.get_or_create(&labels).set(ratio(shares.0));
        self.mirror.get_or_create(&labels).set(ratio(shares.1));
        self.overdue.get_or_create(&labels).set(i64::from(rollout.is_overdue()));
        self.pairs.get_or_create(&labels).set(i64::try_from(evidence.pairs).unwrap_or(i64::MAX));
        self.solos.get_or_create(&labels).set(i64::try_from(evidence.solos).unwrap_or(i64::MAX));
        for state in State::ALL {
            let labels = StateLabels { rollout: name.clone(), state: state.as_str() };
            self.states.get_or_create(&labels).set(i64::from(state == rollout.state()));
        }
        for gate in &evidence.gates {
            self.gate(&name, gate);
        }
    }

    /// Shows nothing more of a rollout that is gone.
    pub fn forget(&self, rollout: &Name, gates: &[crate::domain::GateEvidence]) {
        let labels = RolloutLabels { rollout: rollout.to_string() };
        for ratio in [&self.serve, &self.mirror] {
            ratio.remove(&labels);
        }
        for count in [&self.overdue, &self.pairs, &self.solos] {
            count.remove(&labels);
        }
        let rollout = labels.rollout;
        for state in State::ALL {
            let state = state.as_str();
            self.states.remove(&StateLabels { rollout: rollout.clone(), state });
        }
        for known in gates {
            let (gate, slice) = (known.metric.as_str(), known.watched.clone());
            for verdict in [Verdict::Pass, Verdict::Undecided, Verdict::Invalid, Verdict::Breach] {
                let (rollout, slice, verdict) = (rollout.clone(), slice.clone(), verdict.as_str());
                self.verdicts.remove(&VerdictLabels { rollout, gate, slice, verdict });
            }
            let labels = GateLabels { rollout: rollout.clone(), gate, slice };
            for number in [&self.differences, &self.lowers, &self.uppers, &self.bounds] {
                number.remove(&labels);
            }
        }
    }

    fn gate(&self, rollout: &str, known: &crate::domain::GateEvidence) {
        let (gate, rollout, slice) = (known.metric.as_str(), rollout.to_owned(), &known.watched);
        let labels = GateLabels { rollout: rollout.clone(), gate, slice: slice.clone() };
        self.differences.get_or_create(&labels).set(known.difference);
        self.lowers.get_or_create(&labels).set(known.lower);
        self.uppers.get_or_create(&labels).set(known.upper);
        self.bounds.get_or_create(&labels).set(known.bound);
        for verdict in [Verdict::Pass, Verdict::Undecided, Verdict::Invalid, Verdict::Breach] {
            let labels = VerdictLabels {
                rollout: rollout.clone(),
                gate,
                slice: slice.clone(),
                verdict: verdict.as_str(),
            };
            self.verdicts.get_or_create(&labels).set(i64::from(verdict == known.verdict));
        }
    }

    /// Says whether rollouts can be controlled.
    pub fn degraded(&self, why: Option<&str>) {
        self.degraded.set(i64::from(why.is_some()));
    }

    /// Shows how many copies are under way.
    pub fn copying(&self, copies: usize) {
        self.mirror_busy.set(i64::try_from(copies).unwrap_or(i64::MAX));
    }

    /// The page for Prometheus.
    pub fn page(&self, extra: &[(&str, &str, u64)]) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut page, &self.registry());
        page.truncate(page.len() - page.strip_suffix("# EOF\n").map_or(0, |_| 6));
        for (name, help, value) in extra {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        page.push_str("# EOF\n");
        page
    }

    fn registry(&self) -> Registry {
        let mut table = Registry::with_prefix("crossfade");
        let it = &mut table;
        it.register("requests", "Calls to providers", self.calls.clone());
        it.register("tokens", "Tokens that answers which were read say", self.tokens.clone());
        it.register("request_duration_seconds", "Time to the last byte", self.durations.clone());
        it.register("first_byte_seconds", "Time to the first byte", self.first_bytes.clone());
        it.register("mirror_skipped", "Requests not copied, by reason", self.skips.clone());
        it.register("lost", "Dropped or failed on the side, by reason", self.losses.clone());
        it.register("refused", "Callers there was no place for", self.refusals.clone());
        it.register("withheld", "Pairs with texts not for everybody", self.withheld.clone());
        it.register("fallbacks", "Candidates replaced by the primary", self.fallbacks.clone());
        it.register("failovers", "Answers in place of the primary", self.failovers.clone());
        it.register("stage_serve_ratio", "Share the candidate serves", self.serve.clone());
        it.register("stage_mirror_ratio", "Share that is copied", self.mirror.clone());
        it.register("stage_pairs", "Pairs that count in the stage", self.pairs.clone());
        it.register("stage_solos", "Requests seen on one side that count", self.solos.clone());
        it.register("stage_overdue", "1 while a stage lasts too long", self.overdue.clone());
        it.register("rollout_state", "1 for the state a rollout is in", self.states.clone());
        it.register("gate_difference", "Candidate minus primary", self.differences.clone());
        it.register("gate_lower", "Lower end of its interval", self.lowers.clone());
        it.register("gate_upper", "Upper end of its interval", self.uppers.clone());
        it.register("gate_bound", "The difference allowed", self.bounds.clone());
        it.register("gate_verdict", "1 for the verdict of a gate", self.verdicts.clone());
        it.register("transitions", "Steps of rollouts", self.transitions.clone());
        it.register("degraded", "1 while nothing can be controlled", self.degraded.clone());
        it.register(
            "breaker_open",
            "Breakers of providers: 0 closed, 1 trying, 2 open",
            self.breakers_open.clone(),
        );
        it.register("breaker_opened", "Breakers that opened", self.breakers_opened.clone());
        it.register("healthy", "1 if its last health check found it well", self.healthy.clone());
        it.register("spent_usd", "Spent on copies and scores, in US dollars", self.spent.clone());
        it.register("unpriced", "Answers whose cost is not known", self.unpriced.clone());
        it.register("feedback_score", "What was said of answers", self.feedback.clone());
        it.register("mirror_in_flight", "Copies being made", self.mirror_busy.clone());
        self.judging.register(it);
        table
    }
}

#[cfg(test)]
mod tests;
