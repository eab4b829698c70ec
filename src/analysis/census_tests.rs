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
        cost_nano_usd: usage.map(|it| it.input.saturating_mul(10)),
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

fn counted(census: &Census, day: u64) -> UsageDay {
    census.days()[&day].counts.clone()
}

#[test]
fn what_is_looked_at_stands_for_what_is_not() {
    let mut census = Census::default();
    for question in 0..30 {
        see(&mut census, DAY_MS, "chat", (question, &format!("answer {question}")));
    }
    let counts = counted(&census, 1);
    assert_eq!((census.days().len(), counts.len()), (1, 1));
    let (kind, count) = counts.iter().next().unwrap();
    assert_eq!((kind.size, kind.feature.as_str()), (PromptSize::Medium, "chat"), "1,100 tokens");
    assert_eq!((count.seen, count.millis, count.streamed), (30, 600_000, 600_000));
    let tokens = [count.input, count.cached, count.output].map(UsageCount::whole);
    assert_eq!(tokens, [540_000, 120_000, 30_000]);
    assert_eq!((count.nano_usd, count.unpriced, count.unmetered), (5_400_000, 0, 0));
    assert!((690.0..710.0).contains(&count.quantile_ms(0.5)));
    assert_eq!(Proposal::of(kind.size, count), Proposal::Migrate);
}

#[test]
fn what_was_counted_with_another_share_keeps_its_weight() {
    let mut census = Census::default();
    let usage = |input| Usage { input, ..Usage::default() };
    let mut tell = |requests: u64, input, weight| {
        for question in 0..requests {
            let (kind, call) =
                (kind("chat"), call(1 + u32::try_from(input).unwrap(), Some(usage(input))));
            let surveyed = Surveyed {
                kind: &kind,
                question: 1_000_000 * weight + question,
                len: 1,
                stream: false,
                json: input == 900,
                answer: None,
                call: &call,
            };
            census.see(Timestamp(0), &surveyed, weight);
        }
    };
    // All of 1,000 dear ones, and one in a hundred of 100,000 cheap ones.
    tell(1_000, 900, 1_000);
    tell(1_000, 1, 100_000);
    let counts = counted(&census, 0);
    let count = counts.values().next().unwrap();
    assert_eq!((count.seen, UsageCount::whole(count.millis)), (2_000, 101_000));
    assert_eq!(UsageCount::whole(count.input), 1_000 * 900 + 100_000);
    assert_eq!((count.nano_usd, UsageCount::whole(count.json)), (10 * 1_000_000, 1_000));
    assert!(count.quantile_ms(0.9) < 3.0, "one in 101 took long");
}

#[test]
fn numbers_without_bound_stand_still_at_the_highest() {
    let mut census = Census::default();
    let most = Usage { input: u64::MAX, cache_read: u64::MAX, cache_write: 1, output: u64::MAX };
    let (kind, mut call) = (kind("chat"), call(1, Some(most)));
    call.cost_nano_usd = Some(u64::MAX);
    for question in 0..3 {
        let surveyed = Surveyed {
            kind: &kind,
            question,
            len: usize::MAX,
            stream: false,
            json: false,
            answer: None,
            call: &call,
        };
        census.see(Timestamp(0), &surveyed, 10_000_000);
    }
    let mut counts = counted(&census, 0);
    add_day(&mut counts, counted(&census, 0));
    let count = counts.values().next().unwrap();
    assert_eq!((count.seen, UsageCount::whole(count.millis)), (6, 60_000));
    assert_eq!([count.input, count.cached, count.output, count.nano_usd], [u64::MAX; 4]);
}

#[test]
fn another_day_begins_anew_and_days_add_up_also_after_they_were_kept() {
    let mut census = Census::default();
    (0..3).for_each(|it| see(&mut census, 0, "chat", (it, "a")));
    let first = counted(&census, 0);
    see(&mut census, DAY_MS, "chat", (9, "b"));
    see(&mut census, DAY_MS, "search", (10, "c"));
    let seen = |census: &Census, day| counted(census, day).values().map(|it| it.seen).sum::<u64>();
    assert_eq!(seen(&census, 1), 2);
    let mut week = decode_day(&encode_day(&first)).unwrap();
    add_day(&mut week, counted(&census, 1));
    let sums: Vec<u64> = week.values().map(|it| it.seen).collect();
    assert_eq!((week.len(), sums), (2, vec![4, 1]));
    assert!(decode_day(b"nonsense").is_none());
    // A restart on the same day goes on, once; of a day that nothing is told of nothing is here.
    census.resume(1, first.clone());
    census.resume(1, first.clone());
    census.resume(7, first);
    assert_eq!((seen(&census, 1), census.days().len()), (5, 2));
}

#[test]
fn a_day_stays_until_it_is_kept_whatever_the_clock_does() {
    let mut census = Census::default();
    let news =
        |census: &Census| census.days().iter().map(|it| (*it.0, it.1.news)).collect::<Vec<_>>();
    see(&mut census, 9 * DAY_MS, "chat", (1, "a"));
    see(&mut census, 10 * DAY_MS, "chat", (2, "b"));
    see(&mut census, 9 * DAY_MS, "chat", (3, "c"));
    assert_eq!(news(&census), [(9, 2), (10, 1)], "the clock was set back over midnight");
    // What was counted while it was written is news still.
    let written = census.days()[&9].news;
    see(&mut census, 9 * DAY_MS, "chat", (4, "d"));
    census.keep(9, written);
    census.keep(10, 1);
    assert_eq!(news(&census), [(9, 1), (10, 0)]);
    see(&mut census, 11 * DAY_MS, "chat", (5, "e"));
    assert_eq!(news(&census), [(9, 1), (11, 1)], "the tenth is kept, and forgotten");
    (20..60).for_each(|day| see(&mut census, day * DAY_MS, "chat", (day, "f")));
    assert_eq!(census.days().len(), DAYS_MAX);
    assert!(census.days().contains_key(&59));
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
        let counts = counted(&census, 0);
        let (kind, count) = counts.iter().find(|(it, _)| it.feature == feature).unwrap();
        (Proposal::of(kind.size, count), count.asked_again / 20_000, count.answered_alike / 20_000)
    };
    assert_eq!(proposal("filter"), (Proposal::Deterministic, 0, 38));
    assert_eq!(proposal("faq"), (Proposal::Deterministic, 36, 0));
    assert_eq!(proposal("chat"), (Proposal::Migrate, 0, 0));
}

#[test]
fn what_is_rare_long_or_calls_tools_stays() {
    let count = |seen: u64, tools: u64| {
        let (millis, tools) = (1_000 * seen, 1_000 * tools);
        UsageCount { seen, millis, tools, ..UsageCount::default() }
    };
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
    let counts = counted(&census, 0);
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
    let counts = counted(&census, 0);
    let (kind, count) = counts.iter().next().unwrap();
    assert_eq!(kind.size, PromptSize::Long);
    assert_eq!([count.unmetered, count.unpriced, count.json, count.millis], [1_000; 4]);
}
