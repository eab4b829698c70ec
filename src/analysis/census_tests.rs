//! What is counted of what is asked, and what is proposed for it.

use super::*;
use crate::domain::Usage;

const DAY_MS: u64 = 86_400_000;

fn call(total_ms: u32, usage: Option<Usage>) -> Call {
    Call {
        provider: "gpt".parse().unwrap(),
        model: None,
        status: 200,
        outcome: Outcome::Ok,
        first_byte_ms: None,
        total_ms,
        usage,
        finish_reason: None,
        cost_nano_usd: usage.map(|it| 10 * it.input),
        checks: crate::domain::Checks::default(),
        answer_chars: None,
        rouge_l_bps: None,
        estimated: false,
    }
}

fn kind(feature: &str) -> UsageKind {
    UsageKind { model: "gpt-4o".to_owned(), feature: feature.to_owned(), ..UsageKind::default() }
}

fn says(text: &str) -> Transcript {
    Transcript { text: text.to_owned(), ..Transcript::default() }
}

fn see(census: &mut Census, at: u64, feature: &str, (question, answer): (u64, &str)) {
    let usage = Usage { input: 900, cache_read: 200, output: 50, ..Usage::default() };
    let (kind, answer, call) = (kind(feature), says(answer), call(700, Some(usage)));
    let surveyed = Surveyed {
        kind: &kind,
        question,
        len: 10,
        stream: true,
        json: false,
        answer: Some(&answer),
        call: &call,
    };
    census.see(Timestamp(at), &surveyed, 20_000);
}

#[test]
fn what_is_looked_at_stands_for_what_is_not() {
    let mut census = Census::default();
    for question in 0..30 {
        see(&mut census, DAY_MS, "chat", (question, &format!("answer {question}")));
    }
    let (day, counts) = census.today();
    assert_eq!((day, counts.len()), (1, 1));
    let (kind, count) = counts.iter().next().unwrap();
    assert_eq!((kind.size, kind.feature.as_str()), (PromptSize::Medium, "chat"), "1,100 tokens");
    assert_eq!((count.seen, count.requests(), count.streamed), (30, 600, 30));
    assert_eq!((count.input, count.cached, count.scaled(count.output)), (27_000, 6_000, 30_000));
    assert_eq!((count.nano_usd, count.unpriced, count.unmetered), (270_000, 0, 0));
    assert!((690.0..710.0).contains(&count.quantile_ms(0.5)));
    assert_eq!(Proposal::of(kind.size, count), Proposal::Migrate);
}

#[test]
fn another_day_begins_anew_and_days_add_up_also_after_they_were_kept() {
    let mut census = Census::default();
    (0..3).for_each(|it| see(&mut census, 0, "chat", (it, "a")));
    let first = census.today().1.clone();
    see(&mut census, DAY_MS, "chat", (9, "b"));
    see(&mut census, DAY_MS, "search", (10, "c"));
    assert_eq!(census.today().1.values().map(|it| it.seen).sum::<u64>(), 2);
    let mut week = decode_day(&encode_day(&first)).unwrap();
    add_day(&mut week, census.today().1.clone());
    let seen: Vec<u64> = week.values().map(|it| it.seen).collect();
    assert_eq!((week.len(), seen), (2, vec![4, 1]));
    assert!(decode_day(b"nonsense").is_none());
    // A restart on the same day goes on, on another day it does not.
    census.resume(1, first.clone());
    assert_eq!(census.today().1.values().map(|it| it.seen).sum::<u64>(), 5);
    census.resume(0, first);
    assert_eq!(census.today().1.values().map(|it| it.seen).sum::<u64>(), 5);
}

#[test]
fn answers_that_repeat_need_no_model() {
    let mut census = Census::default();
    for question in 0..40 {
        let label = ["spam", "ham"][usize::from(question % 2 == 0)];
        see(&mut census, 0, "filter", (question, label));
        see(&mut census, 0, "faq", (1_000 + question % 4, &format!("never twice {question}")));
        see(&mut census, 0, "chat", (2_000 + question, &format!("about {question}")));
    }
    let proposal = |feature: &str| {
        let (_, counts) = census.today();
        let (kind, count) = counts.iter().find(|(it, _)| it.feature == feature).unwrap();
        (Proposal::of(kind.size, count), count.asked_again, count.answered_alike)
    };
    assert_eq!(proposal("filter"), (Proposal::Deterministic, 0, 38));
    assert_eq!(proposal("faq"), (Proposal::Deterministic, 36, 0));
    assert_eq!(proposal("chat"), (Proposal::Migrate, 0, 0));
}

#[test]
fn what_is_rare_long_or_calls_tools_stays() {
    let count = |seen, tools| UsageCount { seen, tools, ..UsageCount::default() };
    let of = |size, count: UsageCount| Proposal::of(size, &count);
    assert_eq!(of(PromptSize::Short, count(19, 0)), Proposal::Keep(Hindrance::Few));
    assert_eq!(of(PromptSize::Short, count(20, 1)), Proposal::Migrate);
    assert_eq!(of(PromptSize::Short, count(20, 2)), Proposal::Keep(Hindrance::Tools));
    assert_eq!(of(PromptSize::Long, count(20, 0)), Proposal::Migrate);
    assert_eq!(of(PromptSize::Large, count(20, 0)), Proposal::Keep(Hindrance::Long));
}

#[test]
fn no_caller_fills_the_memory_with_kinds() {
    let mut census = Census::default();
    for it in 0..1_000 {
        see(&mut census, 0, &format!("feature {it}"), (it, "x"));
    }
    let (_, counts) = census.today();
    assert_eq!(counts.len(), KINDS_MAX + 1);
    let other = counts.iter().find(|(it, _)| it.feature == OTHER).unwrap().1;
    assert_eq!(other.seen, 800);
    let mut known = Known::default();
    (0..100_000).for_each(|it| assert!(!known.knows(it)));
    assert!(known.new.len() + known.old.len() <= KNOWN_MAX && known.knows(99_999));
}

#[test]
fn without_a_word_on_its_tokens_a_prompt_is_as_long_as_its_body() {
    let (kind, call) = (kind("chat"), call(1, None));
    let surveyed = Surveyed {
        kind: &kind,
        question: 1,
        len: 20_000,
        stream: false,
        json: true,
        answer: None,
        call: &call,
    };
    let mut census = Census::default();
    census.see(Timestamp(0), &surveyed, 1_000);
    let (kind, count) = census.today().1.iter().next().unwrap();
    assert_eq!(kind.size, PromptSize::Long);
    assert_eq!((count.unmetered, count.unpriced, count.json, count.requests()), (1, 1, 1, 1));
}
