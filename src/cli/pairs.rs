//! `pairs` and `pair`: what both sides answered.

use super::{
    Exit, Problem,
    commands::Output,
    ladder,
    look::full,
    out::{Out, harmless},
};
use crate::api::{Client, millis, proto};
use proto::{call::Outcome, pair::Agreement, pair::Served};

/// The newest pairs, one line each.
pub(super) async fn list(
    client: &mut Client,
    out: &mut Out,
    name: &str,
    limit: i32,
) -> Result<Exit, Problem> {
    let request =
        proto::ListPairsRequest { parent: full(name), page_size: limit, ..Default::default() };
    let page = client.list_pairs(request).await?;
    if out.output() == Output::Json {
        page.pairs.iter().try_for_each(|it| out.json("Pair", it))?;
        return Ok(Exit::Done);
    }
    let header = ["PAIR", "TIME", "FEATURE", "SERVED", "PRIMARY", "", "CANDIDATE", "", "ANSWERS"];
    let mut table = ladder::table(&header);
    table.add_rows(page.pairs.iter().map(row));
    let Some(newest) = page.pairs.first() else {
        out.note("no pairs yet: they are made in stages that mirror")?;
        return Ok(Exit::Done);
    };
    ladder::right(&mut table, &[5, 7]);
    out.data(&ladder::lines(&table))?;
    out.note(&format!("next  crossfade pair {}", ladder::short(&newest.name)))?;
    Ok(Exit::Done)
}

fn row(pair: &proto::Pair) -> [String; 9] {
    let call = |call: &Option<proto::Call>| {
        let call = call.clone().unwrap_or_default();
        (outcome(call.outcome()).to_owned(), latency(&call))
    };
    let (primary, primary_latency) = call(&pair.primary);
    let (candidate, candidate_latency) = call(&pair.candidate);
    [
        ladder::short(&pair.name).to_owned(),
        ladder::moment(pair.create_time),
        harmless(&pair.feature),
        served(pair).to_owned(),
        primary,
        primary_latency,
        candidate,
        candidate_latency,
        told_of(pair),
    ]
}

fn latency(call: &proto::Call) -> String {
    call.latency.map_or_else(|| "–".to_owned(), |it| format!("{} ms", millis(it)))
}

fn served(pair: &proto::Pair) -> &'static str {
    match pair.served() {
        Served::Primary => "primary",
        Served::Candidate => "candidate",
        Served::Unspecified => "unknown",
    }
}

/// Whether the answers agree, and what the candidate's does not keep to.
fn told_of(pair: &proto::Pair) -> String {
    let broken = pair.candidate.as_ref().map_or(&[][..], |it| &it.checks_broken);
    let agreement = agreement(pair.agreement());
    if broken.is_empty() {
        agreement.to_owned()
    } else {
        format!("{agreement}, ✖ {}", broken.join(", "))
    }
}

fn agreement(agreement: Agreement) -> &'static str {
    match agreement {
        Agreement::Exact => "✔ the same",
        Agreement::SameJson => "✔ the same JSON",
        Agreement::Different => "different",
        Agreement::Unknown | Agreement::Unspecified => "–",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "✔ ok",
        Outcome::ProviderError => "✖ provider error",
        Outcome::Throttled => "‼ throttled",
        Outcome::Timeout => "✖ timeout",
        Outcome::Truncated => "✖ truncated",
        Outcome::Refused => "‼ refused",
        Outcome::Incompatible => "‼ incompatible",
        Outcome::Abandoned => "· abandoned",
        Outcome::Unspecified => "unknown",
    }
}

/// One pair with all that is known of it.
pub(super) async fn one(client: &mut Client, out: &mut Out, id: &str) -> Result<Exit, Problem> {
    let name = if id.contains('/') { id.to_owned() } else { format!("rollouts/-/pairs/{id}") };
    let pair = client.get_pair(proto::GetPairRequest { name }).await?;
    match out.output() {
        Output::Json => out.json("Pair", &pair)?,
        Output::Table => out.data(&picture(&pair))?,
    }
    Ok(Exit::Done)
}

fn picture(pair: &proto::Pair) -> String {
    let mut parts = vec![format!(
        "{}   {}   {}   attempt {} stage {}\nserved by {}   answers {}\n",
        ladder::short(&pair.name),
        ladder::moment(pair.create_time),
        harmless(&pair.path),
        pair.attempt,
        pair.stage_index + 1,
        served(pair),
        agreement(pair.agreement()),
    )];
    parts.extend(pair.primary.as_ref().map(|it| line("primary", it)));
    parts.extend(pair.candidate.as_ref().map(|it| line("candidate", it)));
    parts.extend(pair.judgements.iter().map(judged));
    match &pair.bodies {
        Some(bodies) => parts.extend([
            quoted("request", &bodies.request),
            quoted("primary", &bodies.primary),
            quoted("candidate", &bodies.candidate),
        ]),
        None => parts.push("\nthe texts were not kept".to_owned()),
    }
    parts.join("\n")
}

/// One call in a line.
pub(super) fn line(side: &str, call: &proto::Call) -> String {
    let tokens = call.usage.map_or_else(String::new, |it| {
        let cached = match (it.cache_read_tokens, it.cache_write_tokens) {
            (0, 0) => String::new(),
            (read, 0) => format!(" and {read} cached"),
            (read, written) => format!(" and {read} cached, {written} put there"),
        };
        format!("   {} tokens in{cached}, {} out", it.input_tokens, it.output_tokens)
    });
    let cost = call.cost_nano_usd.map_or_else(String::new, |it| format!("   {}", dollars(it)));
    let cost = if call.estimated { format!("{cost} (estimated)") } else { cost };
    let broken = match call.checks_broken.as_slice() {
        [] if call.checks_kept.is_empty() => String::new(),
        [] => format!("   ✔ {} checks", call.checks_kept.len()),
        broken => format!("   ✖ {}", broken.join(", ")),
    };
    let first = call
        .time_to_first_byte
        .map_or_else(String::new, |it| format!(" (first byte {} ms)", millis(it)));
    format!(
        "{side:<10} {}/{}   {}   HTTP {}   {}{first}{tokens}{cost}{broken}   {}",
        ladder::short(&call.provider),
        harmless(&call.model),
        outcome(call.outcome()),
        call.http_status,
        latency(call),
        harmless(&call.finish_reason),
    )
}

/// Billionths of a dollar as dollars, to the last of them.
fn dollars(nano_usd: i64) -> String {
    let (whole, rest) = (nano_usd / 1_000_000_000, nano_usd % 1_000_000_000);
    format!("${whole}.{rest:09}")
}

fn judged(judgement: &proto::Judgement) -> String {
    let parts = judgement
        .parts
        .iter()
        .map(|it| format!("{} {:.2}→{:.2}", it.dimension, it.primary_score, it.candidate_score));
    let parts: Vec<String> = parts.collect();
    format!(
        "\njudged     {:.2} → {:.2}   {}   ({})\n{}",
        judgement.primary_score,
        judgement.candidate_score,
        harmless(&parts.join("  ")),
        harmless(&judgement.source),
        quoted("why", judgement.rationale.as_bytes()),
    )
}

/// A text that is not ours, behind a line of its own so that nobody takes it for ours.
fn quoted(title: &str, text: &[u8]) -> String {
    let readable = serde_json::from_slice::<serde_json::Value>(text)
        .and_then(|it| serde_json::to_string_pretty(&it))
        .unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned());
    let lines = readable.lines().map(|line| format!("  │ {line}"));
    format!("\n{title}\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WIRE 52
    #[test]
    fn what_came_of_the_providers_cache_is_told() {
        let told = |cache_read_tokens, cache_write_tokens| {
            let (input_tokens, output_tokens) = (7, 3);
            let usage =
                proto::Usage { input_tokens, cache_read_tokens, cache_write_tokens, output_tokens };
            line("primary", &proto::Call { usage: Some(usage), ..proto::Call::default() })
        };
        assert!(told(0, 0).contains("   7 tokens in, 3 out "));
        assert!(told(90, 0).contains("   7 tokens in and 90 cached, 3 out "));
        assert!(told(0, 5).contains("   7 tokens in and 0 cached, 5 put there, 3 out "));
    }

    #[test]
    fn the_texts_of_a_pair_stand_behind_a_line() {
        let bodies = proto::Bodies {
            request: br#"{"model":"gpt"}"#.to_vec(),
            primary: b"data: hello\n\nerror: not ours".to_vec(),
            candidate: vec![0xff],
        };
        let text = picture(&proto::Pair { bodies: Some(bodies), ..proto::Pair::default() });
        assert!(text.contains("  │   \"model\": \"gpt\""), "{text}");
        assert!(text.contains("  │ error: not ours"), "{text}");
        assert!(text.lines().all(|it| !it.starts_with("error:")));
    }
}
