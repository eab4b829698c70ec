//! `UsageService`: what applications ask, and what could be done with it.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};

use super::{
    convert, errors,
    pairs::Store,
    proto::{self, usage_service_server::UsageService},
};
use crate::domain::Timestamp;
use crate::store::usage_key;
use crate::traffic::usage::{
    Hindrance, PromptSize, Proposal, UsageCount, UsageDay, UsageKind, add_day, decode_day,
};
use proto::usage_kind::Proposal as Proposed;

/// Days that can be looked at, and those that are where nobody says.
const DAYS_MAX: i32 = 31;
const DAYS: i32 = 7;
/// Most kinds that are told.
const KINDS_MAX: usize = 200;
/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;

/// The service.
#[derive(Debug)]
pub(super) struct UsageApi(pub(super) Store);

#[tonic::async_trait]
impl UsageService for UsageApi {
    async fn audit_usage(
        &self,
        request: Request<proto::AuditUsageRequest>,
    ) -> Result<Response<proto::AuditUsageResponse>, Status> {
        let days = match request.into_inner().days {
            0 => DAYS,
            days if (1..=DAYS_MAX).contains(&days) => days,
            days => {
                let problem = format!("days is 1 to {DAYS_MAX}, or 0 for {DAYS}, not {days}");
                return Err(errors::argument("days", &problem));
            }
        };
        let surveyor = &self.0.past().surveyor;
        let (now, today) = (surveyor.now(), surveyor.now().day());
        let first = (today + 1).saturating_sub(u64::from(days.unsigned_abs()));
        // Without a store today is all that is known.
        let here = surveyor.counted();
        let whole = |day: &u64| here.get(day).is_some_and(|it| it.is_whole);
        let stored: Vec<u64> = (first..=today).filter(|day| !whole(day)).collect();
        let mut usage = if self.0.past().pairs.get().is_some() {
            self.0.read(move |store| Ok(earlier(store, &stored))).await?
        } else {
            UsageDay::new()
        };
        for (_, day) in here.into_iter().filter(|(day, _)| (first..=today).contains(day)) {
            add_day(&mut usage, day.counts);
        }
        Ok(Response::new(proto::AuditUsageResponse {
            begin_time: Some(convert::time(Timestamp(first * DAY_MS))),
            end_time: Some(convert::time(now)),
            share_bps: surveyor.share().basis_points().into(),
            total: Some(counted(&sum(usage.values()))),
            groups: groups(&usage),
            kinds: kinds(&usage),
        }))
    }
}

/// What was kept of these days.
fn earlier(store: &crate::store::Pairs, days: &[u64]) -> UsageDay {
    let mut usage = UsageDay::new();
    for kept in days.iter().filter_map(|day| store.kept(&usage_key(*day))) {
        if let Some(counts) = decode_day(&kept) {
            add_day(&mut usage, counts);
        } else {
            tracing::warn!("what was counted of a day cannot be read; it is left out");
        }
    }
    usage
}

fn sum<'a>(counts: impl Iterator<Item = &'a UsageCount>) -> UsageCount {
    let mut sum = UsageCount::default();
    counts.for_each(|it| sum.add(it));
    sum
}

/// The dearest first; what costs the same or nothing that is known, the most asked.
fn rank(count: &UsageCount) -> std::cmp::Reverse<(u64, u64)> {
    std::cmp::Reverse((count.nano_usd, count.millis))
}

/// What tells kinds apart: its name and its value.
type Mark = (&'static str, fn(&UsageKind) -> &str);

/// All of it, told apart by one thing at a time.
fn groups(usage: &UsageDay) -> Vec<proto::UsageGroup> {
    let by: [Mark; 5] = [
        ("model", |it| &it.model),
        ("feature", |it| &it.feature),
        ("segment", |it| &it.segment),
        ("task", |it| &it.task),
        ("prompt_size", |it| it.size.as_str()),
    ];
    let grouped = by.into_iter().flat_map(|(by, value)| {
        let mut groups: BTreeMap<&str, UsageCount> = BTreeMap::new();
        for (kind, count) in usage {
            groups.entry(value(kind)).or_default().add(count);
        }
        let mut groups: Vec<(&str, UsageCount)> = groups.into_iter().collect();
        groups.sort_by_key(|(_, count)| rank(count));
        groups.into_iter().map(move |(value, count)| proto::UsageGroup {
            by: by.to_owned(),
            value: value.to_owned(),
            usage: Some(counted(&count)),
        })
    });
    grouped.collect()
}

fn kinds(usage: &UsageDay) -> Vec<proto::UsageKind> {
    let mut kinds: Vec<(&UsageKind, &UsageCount)> = usage.iter().collect();
    kinds.sort_by_key(|(_, count)| rank(count));
    kinds.truncate(KINDS_MAX);
    let told = kinds.into_iter().map(|(kind, count)| {
        let (proposal, reason) = proposed(kind.size, count);
        proto::UsageKind {
            model: kind.model.clone(),
            feature: kind.feature.clone(),
            segment: kind.segment.clone(),
            task: kind.task.clone(),
            prompt_size: kind.size.as_str().to_owned(),
            usage: Some(counted(count)),
            proposal: proposal.into(),
            reason,
        }
    });
    told.collect()
}

fn proposed(size: PromptSize, count: &UsageCount) -> (Proposed, String) {
    let part = |some: u64| u128::from(some) * 100 / u128::from(count.millis.max(1));
    match Proposal::of(size, count) {
        Proposal::Migrate => {
            (Proposed::Migrate, "plain answers to prompts of usual length".to_owned())
        }
        Proposal::Deterministic => (
            Proposed::Deterministic,
            format!(
                "{}% were asked word for word before, {}% got an answer that another question got",
                part(count.asked_again),
                part(count.answered_alike)
            ),
        ),
        Proposal::Keep(Hindrance::Few) => {
            (Proposed::Keep, format!("only {} were looked at", count.seen))
        }
        Proposal::Keep(Hindrance::Long) => {
            (Proposed::Keep, "prompts longer than many models do well with".to_owned())
        }
        Proposal::Keep(Hindrance::Tools) => (
            Proposed::Keep,
            format!("{}% of the answers call tools: averages hide what breaks", part(count.tools)),
        ),
    }
}

fn counted(count: &UsageCount) -> proto::UsageCount {
    let whole = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    let all = |millis: u64| whole(UsageCount::whole(millis));
    proto::UsageCount {
        seen: whole(count.seen),
        requests: all(count.millis),
        failed: all(count.failed),
        throttled: all(count.throttled),
        refused: all(count.refused),
        streamed: all(count.streamed),
        tools: all(count.tools),
        json: all(count.json),
        asked_again: all(count.asked_again),
        answered_alike: all(count.answered_alike),
        input_tokens: all(count.input),
        cached_tokens: all(count.cached),
        output_tokens: all(count.output),
        unmetered: all(count.unmetered),
        estimated: all(count.estimated),
        cost_nano_usd: whole(count.nano_usd),
        unpriced: all(count.unpriced),
        latency_p50_ms: count.quantile_ms(0.5),
        latency_p99_ms: count.quantile_ms(0.99),
    }
}
