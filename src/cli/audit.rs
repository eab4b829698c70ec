//! `audit`: what is asked and what it costs, before anything is moved.

use super::{
    Exit, Problem,
    commands::Format,
    ladder,
    out::Out,
    paper::{Column, Paper},
};
use crate::api::{Client, proto};
use proto::usage_kind::Proposal;

/// Rows of a table; what comes beyond is counted and not shown.
const ROWS_MAX: usize = 20;

/// Tells what was asked in the last days, and what could be done with it.
pub(super) async fn audit(
    client: &mut Client,
    out: &mut Out,
    days: i32,
    format: Format,
) -> Result<Exit, Problem> {
    let told = client.audit_usage(proto::AuditUsageRequest { days }).await?;
    match format {
        Format::Json => out.json("AuditUsageResponse", &told)?,
        Format::Table | Format::Md => out.data(&paper(&told).markdown())?,
        Format::Html => out.data(&paper(&told).html())?,
    }
    Ok(Exit::Done)
}

fn paper(told: &proto::AuditUsageResponse) -> Paper {
    let mut paper = Paper::new("Usage audit");
    let total = told.total.unwrap_or_default();
    let (from, to) = (ladder::moment(told.begin_time), ladder::moment(told.end_time));
    paper.text(&format!(
        "{from} to {to}: about {} requests, by the {} of them that were looked at ({} of all now).",
        ladder::count(total.requests),
        ladder::count(total.seen),
        ladder::percent(told.share_bps)
    ));
    if total.seen == 0 {
        paper.text(
            "Nothing was looked at yet: send requests through the proxy, and see that `audit` in \
             the configuration is not \"0%\".",
        );
        return paper;
    }
    buckets(&mut paper, told);
    let titles = [
        ("model", "By model"),
        ("feature", "By feature"),
        ("segment", "By segment"),
        ("task", "By task"),
        ("prompt_size", "By prompt size (tokens)"),
    ];
    for (by, title) in titles {
        let groups: Vec<_> = told.groups.iter().filter(|it| it.by == by).collect();
        // One group says what the total says.
        if 1 < groups.len() || by == "model" {
            paper.heading(title);
            let named = groups.iter().map(|it| (vec![marked(&it.value)], it.usage));
            usage(&mut paper, &[Column::Words("")], named);
        }
    }
    unknown(&mut paper, &total);
    paper
}

/// What could be done, the dearest first.
fn buckets(paper: &mut Paper, told: &proto::AuditUsageResponse) {
    let all = told.total.unwrap_or_default();
    let titles = [
        (Proposal::Migrate, "Migrate: try a cheaper provider, in a shadow stage first"),
        (Proposal::Deterministic, "Deterministic: a cache or rules may do"),
        (Proposal::Keep, "Keep where they are, for now"),
    ];
    for (proposal, title) in titles {
        let kinds: Vec<_> = told.kinds.iter().filter(|it| it.proposal() == proposal).collect();
        if kinds.is_empty() {
            continue;
        }
        let sum = |field: fn(&proto::UsageCount) -> i64| {
            let each = kinds.iter().filter_map(|it| it.usage.as_ref()).map(field);
            each.fold(0, i64::saturating_add)
        };
        let (requests, cost) = (sum(|it| it.requests), sum(|it| it.cost_nano_usd));
        paper.heading(title);
        let requests = format!("{} of the requests", part(requests, all.requests));
        if 0 < all.cost_nano_usd {
            let cost = part(cost, all.cost_nano_usd);
            paper.text(&format!("{requests}, {cost} of the cost that is known."));
        } else {
            paper.text(&format!("{requests}; what they cost is not known."));
        }
        let head = ["model", "feature", "segment", "task", "prompt", "why"].map(Column::Words);
        let named = kinds.iter().map(|it| {
            let size = it.prompt_size.clone();
            let mut cells =
                [&it.model, &it.feature, &it.segment, &it.task].map(|it| marked(it)).to_vec();
            cells.extend([size, it.reason.clone()]);
            (cells, it.usage)
        });
        usage(paper, &head, named);
    }
    paper.text(
        "These are places to begin to look, by rules of thumb. What may move is proven in a rollout, \
         gate by gate.",
    );
}

/// A table of what was counted, each row with what names it.
fn usage(
    paper: &mut Paper,
    names: &[Column],
    rows: impl Iterator<Item = (Vec<String>, Option<proto::UsageCount>)>,
) {
    let counted = [
        "requests", "cost", "input", "cached", "output", "failed", "stream", "tools", "JSON",
        "p50", "p99",
    ];
    let head: Vec<Column> = names.iter().copied().chain(counted.map(Column::Numbers)).collect();
    let mut rows: Vec<Vec<String>> = rows
        .map(|(mut cells, usage)| {
            cells.extend(figures(&usage.unwrap_or_default()));
            cells
        })
        .collect();
    let left = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    paper.table(&head, rows);
    if 0 < left {
        paper.text(&format!("{left} more are not shown here; `-o json` has them."));
    }
}

fn figures(usage: &proto::UsageCount) -> [String; 11] {
    let cost = if usage.unpriced == usage.requests {
        "unknown".to_owned()
    } else {
        format!("{}{}", if 0 < usage.unpriced { ">= " } else { "" }, money(usage.cost_nano_usd))
    };
    [
        ladder::count(usage.requests),
        cost,
        ladder::count(usage.input_tokens),
        ladder::count(usage.cached_tokens),
        ladder::count(usage.output_tokens),
        part(usage.failed, usage.requests),
        part(usage.streamed, usage.requests),
        part(usage.tools, usage.requests),
        part(usage.json, usage.requests),
        format!("{:.0} ms", usage.latency_p50_ms),
        format!("{:.0} ms", usage.latency_p99_ms),
    ]
}

/// What these figures leave out.
fn unknown(paper: &mut Paper, total: &proto::UsageCount) {
    let mut points = Vec::new();
    if 0 < total.unpriced {
        points.push(format!(
            "The cost of {} of the requests: their model has no price in the configuration, or the \
             provider did not say their tokens.",
            part(total.unpriced, total.requests)
        ));
    }
    if 0 < total.unmetered {
        points.push(format!(
            "The tokens of {} of the requests: ask for `stream_options.include_usage` in streams.",
            part(total.unmetered, total.requests)
        ));
    }
    if 0 < total.estimated {
        points.push(format!(
            "The tokens of {} of the requests are estimates, as the provider did not say them.",
            part(total.estimated, total.requests)
        ));
    }
    if 0 < total.throttled {
        points.push(format!("{} were throttled.", part(total.throttled, total.requests)));
    }
    if !points.is_empty() {
        paper.heading("What is not known");
        paper.list(points);
    }
}

fn marked(text: &str) -> String {
    if text.is_empty() { "(unmarked)".to_owned() } else { text.to_owned() }
}

/// A part in percent, with a digit after the point.
fn part(some: i64, all: i64) -> String {
    let tenths = i128::from(some) * 1_000 / i128::from(all.max(1));
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// Billionths of a dollar as dollars: cents from a dollar on, else to the millionth.
pub(super) fn money(nano_usd: i64) -> String {
    let cents = nano_usd.saturating_add(5_000_000) / 10_000_000;
    let millionths = nano_usd.saturating_add(500) / 1_000;
    if 1_000_000_000 <= nano_usd {
        format!("${}.{:02}", ladder::count(cents / 100), cents % 100)
    } else {
        format!("$0.{millionths:06}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_parts_can_be_read() {
        for (it, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-12_345, "-12,345")] {
            assert_eq!(ladder::count(it), text);
        }
        let amounts = [0, 1_499, 999_000_000, 1_234_567_890_123].map(money);
        assert_eq!(amounts, ["$0.000000", "$0.000001", "$0.999000", "$1,234.57"]);
        assert_eq!([part(1, 3), part(0, 0), part(5, 5)], ["33.3%", "0.0%", "100.0%"]);
    }

    #[test]
    fn an_audit_says_what_could_be_done_and_what_is_not_known() {
        let usage = proto::UsageCount {
            seen: 50,
            requests: 1_000,
            cost_nano_usd: 2_500_000_000,
            input_tokens: 1_234_567,
            unpriced: 100,
            latency_p50_ms: 812.4,
            ..proto::UsageCount::default()
        };
        let kind = |proposal: Proposal, feature: &str| proto::UsageKind {
            model: "gpt-4o".to_owned(),
            feature: feature.to_owned(),
            prompt_size: "<= 4k".to_owned(),
            usage: Some(usage),
            proposal: proposal.into(),
            reason: "because".to_owned(),
            ..proto::UsageKind::default()
        };
        let told = proto::AuditUsageResponse {
            share_bps: 500,
            total: Some(proto::UsageCount {
                requests: 2_000,
                cost_nano_usd: 5_000_000_000,
                ..usage
            }),
            kinds: vec![kind(Proposal::Migrate, "chat"), kind(Proposal::Deterministic, "")],
            ..proto::AuditUsageResponse::default()
        };
        let text = paper(&told).markdown();
        assert!(text.contains("50.0% of the requests, 50.0% of the cost"), "{text}");
        assert!(
            text.contains("(unmarked) | (unmarked) | (unmarked) | \\<= 4k | because"),
            "{text}"
        );
        assert!(text.contains("1,234,567") && text.contains("812 ms"), "{text}");
        assert!(text.contains("## What is not known"), "{text}");
        assert!(!text.contains("Keep where"), "{text}");
        let total = proto::UsageCount { requests: 50, unpriced: 50, estimated: 25, ..usage };
        let total = Some(proto::UsageCount { cost_nano_usd: 0, ..total });
        let mut free = proto::AuditUsageResponse { total, ..told };
        free.kinds.iter_mut().for_each(|it| it.usage = total);
        let text = paper(&free).markdown();
        assert!(text.contains("what they cost is not known") && !text.contains("$0.0"), "{text}");
        assert!(text.contains("The tokens of 50.0% of the requests are estimates"), "{text}");
        assert_eq!(money(i64::MAX), "$9,223,372,036.85");
        let nothing = paper(&proto::AuditUsageResponse::default()).markdown();
        assert!(nothing.contains("Nothing was looked at yet"), "{nothing}");
    }
}
