//! `report`: whether a candidate is ready, for a ticket: the answer first, then what it rests on.

use serde_json::{Value, json};

use super::{
    Exit, Problem,
    answer::{Climb, answer, climb},
    audit::money,
    commands::Format,
    ladder,
    look::full,
    out::Out,
    paper::{Column, Paper},
};
use crate::api::{Client, millis, proto};
use proto::{call::Outcome, evaluate_rollout_response::Decision, gate_evidence::Verdict};

/// Pairs that are looked at for the worst ones and for money: the newest.
const PAIRS_MAX: usize = 2_000;
/// Pairs asked for at a time.
const PAGE_LEN: i32 = 1_000;
/// Worst pairs that are named.
const WORST_MAX: usize = 10;
/// Minutes in a month of 30 days.
const MONTH_MINUTES: f64 = 43_200.0;

/// Everything a report is made of.
struct Facts {
    rollout: proto::Rollout,
    decision: Decision,
    climb: Climb,
    /// The newest first.
    pairs: Vec<proto::Pair>,
}

/// Tells whether a rollout's candidate is ready, and what that rests on.
pub(super) async fn report(
    client: &mut Client,
    out: &mut Out,
    name: &str,
    format: Format,
) -> Result<Exit, Problem> {
    let request = proto::EvaluateRolloutRequest { name: full(name) };
    let answer = client.evaluate_rollout(request).await?;
    let decision = answer.decision();
    let rollout = answer.rollout.unwrap_or_default();
    let climb = climb(client, &rollout).await?;
    let mut pairs = newest(client, name).await?;
    pairs.retain(|it| it.attempt == rollout.attempt);
    let facts = Facts { rollout, decision, climb, pairs };
    match format {
        Format::Json => out.data(&facts.json().to_string())?,
        Format::Table | Format::Md => out.data(&facts.paper().markdown())?,
        Format::Html => out.data(&facts.paper().html())?,
    }
    Ok(Exit::Done)
}

async fn newest(client: &mut Client, name: &str) -> Result<Vec<proto::Pair>, Problem> {
    let mut request =
        proto::ListPairsRequest { parent: full(name), page_size: PAGE_LEN, ..Default::default() };
    let mut pairs = Vec::new();
    while pairs.len() < PAIRS_MAX {
        let page = client.list_pairs(request.clone()).await?;
        pairs.extend(page.pairs);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    pairs.truncate(PAIRS_MAX);
    Ok(pairs)
}

/// What pairs cost whose costs are known on both sides, in billionths of a dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Costs {
    pairs: usize,
    primary: i64,
    candidate: i64,
}

impl Costs {
    /// What a request saves on average, in billionths of a dollar.
    fn saved(self) -> f64 {
        let pairs = i32::try_from(self.pairs.max(1)).unwrap_or(i32::MAX);
        dollars(self.primary.saturating_sub(self.candidate)) * 1e9 / f64::from(pairs)
    }
}

/// Billionths of a dollar as dollars, for sums that are only told to a few digits.
fn dollars(nano_usd: i64) -> f64 {
    let halves = (i32::try_from(nano_usd >> 32), u32::try_from(nano_usd & 0xffff_ffff));
    let (high, low) = (halves.0.unwrap_or_default(), halves.1.unwrap_or_default());
    (f64::from(high) * 4_294_967_296.0 + f64::from(low)) / 1e9
}

impl Facts {
    fn costs(&self) -> Costs {
        let known = |pair: &proto::Pair| {
            let cost = |call: &Option<proto::Call>| call.as_ref()?.cost_nano_usd;
            Some((cost(&pair.primary)?, cost(&pair.candidate)?))
        };
        self.pairs.iter().filter_map(known).fold(Costs::default(), |sum, (primary, candidate)| {
            Costs {
                pairs: sum.pairs + 1,
                primary: sum.primary.saturating_add(primary),
                candidate: sum.candidate.saturating_add(candidate),
            }
        })
    }

    /// The gate over all traffic on a metric.
    fn gate(&self, metric: &str) -> Option<&proto::GateEvidence> {
        let mut gates = self.rollout.evidence.iter();
        gates.find(|it| it.metric == metric && it.slice.is_empty() && 0 < it.samples)
    }

    /// The answer, in a sentence.
    fn answer(&self) -> String {
        answer(&self.rollout, self.decision, &self.climb)
    }

    /// "So much of the quality at so much of the cost", as far as that is known.
    fn sentence(&self) -> String {
        let quality = self.gate("judge_score").filter(|it| 0.0 < it.primary_value).map(|it| {
            let part = |difference: f64| 100.0 * (it.primary_value + difference) / it.primary_value;
            format!(
                "{:.1}% of the primary's quality (judge_score, [{:.1}%, {:.1}%], {} pairs)",
                part(it.difference),
                part(it.lower),
                part(it.upper),
                ladder::count(it.samples)
            )
        });
        let tier = self.gate("readiness").and_then(|it| it.tiers.first());
        let ready = |found: Option<proto::Found>, what: &str| {
            let proto::Found { value, lower, upper, .. } = found?;
            Some(format!("{value:.1}% of {what} (readiness, [{lower:.1}%, {upper:.1}%])"))
        };
        let quality =
            quality.or_else(|| ready(tier.and_then(|it| it.quality), "the primary's quality"));
        let cost = self.gate("cost").map(|it| {
            format!(
                "{:.1}% of its cost ([{}, {}], {} pairs)",
                it.difference,
                ladder::difference(it, it.lower),
                ladder::difference(it, it.upper),
                ladder::count(it.samples)
            )
        });
        let cost = cost.or_else(|| ready(tier.and_then(|it| it.cost), "its cost"));
        match (quality, cost) {
            (Some(quality), Some(cost)) => format!("{quality} at {cost}."),
            (Some(quality), None) => format!("{quality}; its cost is not measured by a gate."),
            (None, Some(cost)) => format!("Its quality is not measured by a judge; {cost}."),
            (None, None) => {
                "Neither a judge's score nor cost is measured by a gate here.".to_owned()
            }
        }
    }

    fn paper(&self) -> Paper {
        let rollout = &self.rollout;
        let name = ladder::short(&rollout.name);
        let mut paper = Paper::new(&format!("Is `{name}` ready?"));
        paper.text(&self.answer());
        paper.text(&self.sentence());
        paper.text(&format!(
            "{} to {}, attempt {}, plan revision {}, as of {}.",
            ladder::short(&rollout.primary),
            ladder::short(&rollout.candidate),
            rollout.attempt,
            rollout.plan_revision,
            ladder::moment(rollout.update_time)
        ));
        self.gates(&mut paper);
        self.slices(&mut paper);
        self.worst(&mut paper);
        self.money(&mut paper);
        paper.heading("What is not known");
        paper.list(self.unknown());
        paper
    }

    fn gates(&self, paper: &mut Paper) {
        paper.heading("Gates");
        if self.rollout.evidence.is_empty() {
            paper.text("Nothing was measured yet.");
        }
        let head = [
            Column::Words("gate"),
            Column::Words("verdict"),
            Column::Numbers("samples"),
            Column::Numbers("primary"),
            Column::Numbers("candidate"),
            Column::Numbers("difference"),
            Column::Numbers("interval, valid at any time"),
            Column::Numbers("bound"),
            Column::Numbers("for who looks once"),
            Column::Numbers("the primary against itself"),
        ];
        let row = |gate: &proto::GateEvidence| {
            let difference = |it: f64| ladder::difference(gate, it);
            let between = |lower, upper| format!("[{}, {}]", difference(lower), difference(upper));
            let once = gate.fixed_lower.zip(gate.fixed_upper);
            let noise = gate
                .noise
                .map(|it| format!("{} {}", difference(it.difference), between(it.lower, it.upper)));
            vec![
                ladder::gate(&gate.metric, &gate.slice),
                ladder::verdict(&self.rollout, gate),
                ladder::count(gate.samples),
                ladder::value(gate, gate.primary_value),
                ladder::value(gate, gate.candidate_value),
                difference(gate.difference),
                between(gate.lower, gate.upper),
                difference(gate.bound),
                once.map_or_else(String::new, |(lower, upper)| between(lower, upper)),
                noise.unwrap_or_default(),
            ]
        };
        paper.table(&head, ladder::with_claims(&self.rollout.evidence).iter().map(row).collect());
    }

    /// Watched slices in which the candidate is surely not like it is in all traffic.
    fn slices(&self, paper: &mut Paper) {
        let Some(watched) = &self.rollout.slices else { return };
        paper.heading("Slices that differ");
        let differs = |it: &&proto::GateEvidence| {
            let all = self.gate(&it.metric);
            let apart = all.is_some_and(|all| it.upper < all.lower || all.upper < it.lower);
            !it.slice.is_empty() && (apart || it.verdict() == Verdict::Breach)
        };
        let points: Vec<String> = self
            .rollout
            .evidence
            .iter()
            .filter(differs)
            .map(|it| {
                let [difference, lower, upper] =
                    [it.difference, it.lower, it.upper].map(|value| ladder::difference(it, value));
                format!("{}: {difference} [{lower}, {upper}]", ladder::gate(&it.metric, &it.slice))
            })
            .collect();
        if points.is_empty() {
            let by = &watched.by;
            paper.text(&format!("None by {by}: every interval overlaps that of all traffic."));
        }
        paper.list(points);
    }

    fn worst(&self, paper: &mut Paper) {
        let mut worst: Vec<(f64, String, &proto::Pair)> =
            self.pairs.iter().filter_map(|it| bad(it).map(|(how, why)| (how, why, it))).collect();
        // The newest of equals first, as they came.
        worst.sort_by(|one, other| other.0.total_cmp(&one.0));
        paper.heading("Worst pairs");
        if worst.is_empty() {
            let looked_at = ladder::count(i64::try_from(self.pairs.len()).unwrap_or(i64::MAX));
            paper.text(&format!("None among the {looked_at} newest that are stored."));
        }
        let head = ["pair", "when", "feature", "what"].map(Column::Words);
        let row = |(_, why, pair): (f64, String, &proto::Pair)| {
            let id = ladder::short(&pair.name).to_owned();
            vec![id, ladder::moment(pair.create_time), pair.feature.clone(), why]
        };
        paper.table(&head, worst.into_iter().take(WORST_MAX).map(row).collect());
    }

    fn money(&self, paper: &mut Paper) {
        paper.heading("Money");
        paper.text(&self.so_far());
        let costs = self.costs();
        if costs.pairs == 0 {
            paper.text("Not known: no stored pair has a known cost on both sides.");
            return;
        }
        let each = |sum: i64| money(sum / i64::try_from(costs.pairs.max(1)).unwrap_or(i64::MAX));
        let pairs = ladder::count(i64::try_from(costs.pairs).unwrap_or(i64::MAX));
        paper.text(&format!(
            "A request costs {} with the primary and {} with the candidate, by the {pairs} newest \
             pairs whose costs are known on both sides.",
            each(costs.primary),
            each(costs.candidate)
        ));
        if let Some((now, all)) = self.forecast() {
            paper.text(&format!(
                "At today's {:.1} requests a minute that saves ${now:.2} a month at the share that \
                 is served now, and ${all:.2} if all is served.",
                self.rollout.requests_per_minute.unwrap_or_default()
            ));
        }
    }

    /// What was saved so far where the candidate answered, less what copies and scores cost, in
    /// billionths of a dollar; none where that is not known.
    fn saved(&self) -> Option<i64> {
        let savings = self.rollout.savings.filter(|it| 0 < it.priced)?;
        let spent = self.rollout.spending.map_or(0, |it| it.total_nano_usd);
        Some(savings.instead_nano_usd?.saturating_sub(savings.served_nano_usd + spent))
    }

    fn so_far(&self) -> String {
        let savings = self.rollout.savings.unwrap_or_default();
        let spent = self.rollout.spending.map_or(0, |it| it.total_nano_usd);
        let cost = format!("Copies and scores cost {} so far", money(spent));
        if savings.served == 0 {
            return format!("{cost}, and the candidate answered nobody yet.");
        }
        let served = ladder::count(savings.served);
        let (Some(saved), Some(instead)) = (self.saved(), savings.instead_nano_usd) else {
            return format!(
                "{cost}; what was saved by the {served} requests that the candidate answered is \
                 not known."
            );
        };
        let known = if savings.priced == savings.served {
            String::new()
        } else {
            format!(" (what {} of them cost is known)", ladder::count(savings.priced))
        };
        let (word, amount) = if saved < 0 { ("cost", -saved) } else { ("saved", saved) };
        format!(
            "So far the candidate answered {served} requests{known} for {}; with the primary they \
             would have cost about {}, by {} pairs. {cost}: all in all it {word} {}.",
            money(savings.served_nano_usd),
            money(instead),
            ladder::count(savings.pairs),
            money(amount)
        )
    }

    /// Dollars a month that are saved by what is served now, and if all were.
    fn forecast(&self) -> Option<(f64, f64)> {
        let rate = self.rollout.requests_per_minute.filter(|it| 0.0 < *it)?;
        let all = self.costs().saved() / 1e9 * rate * MONTH_MINUTES;
        let moves = self.rollout.stage_elapsed.is_some();
        let stage = ladder::current(&self.rollout).filter(|_| moves);
        let served = f64::from(stage.map_or(0, |it| it.serve_bps)) / 10_000.0;
        Some((all * served, all))
    }

    /// What this cannot say.
    fn unknown(&self) -> Vec<String> {
        let rollout = &self.rollout;
        let mut points = Vec::new();
        if !rollout.evidence_problem.is_empty() {
            points.push(format!("Nothing can be trusted now: {}.", rollout.evidence_problem));
        }
        for gate in &rollout.evidence {
            let name = ladder::gate(&gate.metric, &gate.slice);
            match (gate.verdict(), gate.samples_needed) {
                (Verdict::Invalid, _) => points.push(format!("{name}: {}.", gate.problem)),
                (Verdict::Undecided, Some(more)) if 0 < more => {
                    let time = gate.time_needed.map_or_else(String::new, |it| {
                        format!(", {} at today's rate", ladder::span(millis(it)))
                    });
                    points.push(format!(
                        "{name} is not decided: about {} more samples{time}.",
                        ladder::count(more)
                    ));
                }
                (Verdict::Undecided, _) => points.push(format!("{name} is not decided.")),
                (Verdict::Pass | Verdict::Breach | Verdict::Unspecified, _) => {}
            }
        }
        for left_out in &rollout.excluded {
            let (count, reason) = (ladder::count(left_out.count), &left_out.reason);
            points.push(format!("{count} requests are left out of the stage: {reason}."));
        }
        points.push(
            "Whether what was asked in this time is like what will be asked: no gate says that."
                .to_owned(),
        );
        points
    }

    /// The same for programs.
    fn json(&self) -> Value {
        let (costs, forecast) = (self.costs(), self.forecast());
        let found = |it: Option<proto::Found>| {
            it.map(|it| {
                json!({
                    "value": it.value, "lower": it.lower, "upper": it.upper, "bound": it.bound,
                    "verdict": it.verdict().as_str_name(),
                })
            })
        };
        let tier =
            |it: &proto::Tier| json!({ "quality": found(it.quality), "cost": found(it.cost) });
        let gate = |it: &proto::GateEvidence| {
            json!({
                "metric": it.metric, "slice": it.slice, "verdict": it.verdict().as_str_name(),
                "primary": it.primary_value, "candidate": it.candidate_value,
                "difference": it.difference, "lower": it.lower, "upper": it.upper,
                "fixedLower": it.fixed_lower, "fixedUpper": it.fixed_upper,
                "bound": it.bound, "unit": it.unit, "samples": it.samples,
                "samplesNeeded": it.samples_needed, "problem": it.problem,
                "noise": it.noise.map(|it| json!({
                    "samples": it.samples, "difference": it.difference,
                    "lower": it.lower, "upper": it.upper,
                })),
                "tiers": it.tiers.iter().map(tier).collect::<Vec<_>>(),
            })
        };
        json!({
            "rollout": self.rollout.name,
            "attempt": self.rollout.attempt,
            "state": self.rollout.state().as_str_name(),
            "answer": self.answer(),
            "leftWithoutProof": self.climb.skipped.iter().map(|it| &it.0).collect::<Vec<_>>(),
            "sentence": self.sentence(),
            "gates": self.rollout.evidence.iter().map(gate).collect::<Vec<_>>(),
            "money": {
                "pairs": costs.pairs,
                "primaryNanoUsd": costs.primary,
                "candidateNanoUsd": costs.candidate,
                "served": self.rollout.savings.map(|it| it.served),
                "servedNanoUsd": self.rollout.savings.map(|it| it.served_nano_usd),
                "insteadNanoUsd": self.rollout.savings.and_then(|it| it.instead_nano_usd),
                "spentNanoUsd": self.rollout.spending.map(|it| it.total_nano_usd),
                "savedNanoUsd": self.saved(),
                "savedUsdAMonthNow": forecast.map(|it| it.0),
                "savedUsdAMonthIfAllIsServed": forecast.map(|it| it.1),
            },
            "unknown": self.unknown(),
        })
    }
}

/// How bad a pair is for the candidate, and why; none where it is no worse.
fn bad(pair: &proto::Pair) -> Option<(f64, String)> {
    let (primary, candidate) = (pair.primary.as_ref()?, pair.candidate.as_ref()?);
    let failed = |call: &proto::Call| {
        use Outcome::{ProviderError, Timeout, Truncated};
        matches!(call.outcome(), ProviderError | Timeout | Truncated)
    };
    if failed(candidate) && !failed(primary) {
        let name = candidate.outcome().as_str_name().trim_start_matches("OUTCOME_");
        return Some((2.0, format!("the candidate failed: {}", name.to_lowercase())));
    }
    let judged = pair.judgements.last()?;
    let lost = judged.primary_score - judged.candidate_score;
    let (ours, theirs) = (judged.primary_score, judged.candidate_score);
    (0.0 < lost).then(|| (lost, format!("judged {ours:.2} and {theirs:.2}")))
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
