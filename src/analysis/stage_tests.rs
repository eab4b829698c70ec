//! What a stage reckons with: its terms and chances, its first moments, and what counts since when.

use super::*;
use crate::analysis::odds::Alarm;
use crate::analysis::{ledger::tests::plan, tests::call};
use crate::domain::{Excluded, Outcome, Risk};

/// In its first stage since this time.
fn entered(plan: &Plan, at: Timestamp) -> Ledger {
    let mut ledger = Ledger::new(plan);
    ledger.enter(0, at, Chances::PAIRS);
    ledger
}

/// Sees pairs of good calls: one at each of so many times, so far apart.
fn pairs(ledger: &mut Ledger, from: Timestamp, times: u64, apart_ms: u64) {
    let sample = Some(call(Outcome::Ok, 900.0));
    for time in 0..times {
        let at = Timestamp(from.0 + time * apart_ms);
        let watched = String::new();
        ledger.observe(at, &Observation { lot: None, primary: sample, candidate: sample, watched });
    }
}

#[test]
fn an_alarm_at_the_whole_margin_is_the_strict_mode_and_at_a_part_is_not() {
    let alarm =
        |alarm_from_percent| Terms::of(Risk { alarm_from_percent, ..Risk::default() }, 1).alarm;
    assert!(matches!(alarm(100), Alarm::AtMargin));
    assert!(matches!(alarm(99), Alarm::From { part } if (part - 0.99).abs() < 1e-9));
}

#[test]
fn a_side_weighs_as_often_as_it_is_seen_and_one_that_is_never_seen_has_no_weight() {
    let weight = |primary, candidate| {
        format!("{:.3}", Chances { primary, candidate, ..Chances::PAIRS }.weight())
    };
    assert_eq!([weight(1.0, 0.05), weight(0.2, 1.0)], ["20.000", "0.200"]);
    assert_eq!([weight(1.0, 0.0), weight(0.0, 1.0)], ["1.000", "1.000"]);
}

#[test]
fn what_was_asked_in_the_first_moments_is_left_out_where_the_stage_says_so() {
    let mut plan = plan(&[Metric::ErrorRate]);
    plan.stages[0].delay_ms = 30_000;
    let mut ledger = entered(&plan, Timestamp(5_000));
    assert!(ledger.is_early(Timestamp(34_999)) && !ledger.is_early(Timestamp(35_000)));
    ledger.leave_out(Timestamp(6_000));
    ledger.leave_out(Timestamp(7_000));
    assert_eq!(ledger.evidence().excluded, [Excluded { reason: "initial_delay", count: 2 }]);
    ledger.enter(1, Timestamp(60_000), Chances::PAIRS);
    assert!(!ledger.is_early(Timestamp(59_999)));
}

#[test]
fn requests_a_minute_are_those_that_count_since_the_stage_began() {
    let mut ledger = entered(&plan(&[Metric::ErrorRate]), Timestamp(600_000));
    let per_minute = |it: &Ledger| format!("{:.0}", it.evidence().per_minute);
    pairs(&mut ledger, Timestamp(600_000), 1, 0);
    assert_eq!(per_minute(&ledger), "60", "for want of time, as if it were a second");
    pairs(&mut ledger, Timestamp(601_000), 30, 1_000);
    let lot = Some(Lot::Once);
    let (primary, watched) = (Some(call(Outcome::Ok, 900.0)), String::new());
    let solo = Observation { lot, primary, candidate: None, watched };
    ledger.observe(Timestamp(640_000), &solo);
    assert_eq!(per_minute(&ledger), "48", "32 in 40 seconds");
    assert_eq!(format!("{:.0}", ledger.per_minute(Timestamp(720_000))), "16");
}

#[test]
fn while_guarding_counters_start_afresh_every_day_and_in_a_stage_they_do_not() {
    let mut ledger = entered(&plan(&[Metric::ErrorRate]), Timestamp(5_000));
    pairs(&mut ledger, Timestamp(5_000), 49, 3_600_000);
    assert_eq!(ledger.evidence().pairs, 49);
    let day = Timestamp(5_000 + 48 * 3_600_000);
    ledger.guard(day, Chances::PAIRS);
    pairs(&mut ledger, day, 24, 3_600_000);
    assert_eq!(ledger.evidence().pairs, 24);
    let next = Timestamp(day.0 + GUARD_WINDOW_MS);
    pairs(&mut ledger, next, 1, 0);
    assert_eq!(ledger.evidence().pairs, 1);
}

#[test]
fn weather_that_is_told_of_one_metric_changes_its_bets_and_no_others() {
    let metrics = [Metric::ErrorRate, Metric::LatencyP99];
    let harm = |weather: &[Weather]| {
        let mut ledger = entered(&plan(&metrics), Timestamp(0));
        ledger.tell_weather(weather);
        pairs(&mut ledger, Timestamp(0), 6_000, 10);
        metrics.map(|metric| ledger.instrument(metric, None).unwrap().wealth().unwrap().ln_e()[0])
    };
    let calm = harm(&[]);
    for told in metrics {
        let stormy = harm(&[Weather { metric: told, variance_permille: 2_000 }]);
        for ((metric, calm), stormy) in metrics.into_iter().zip(calm).zip(stormy) {
            assert_eq!(1e-9 < (stormy - calm).abs(), metric == told, "{metric:?} told {told:?}");
        }
    }
}

#[test]
fn stakes_are_planned_anew_once_a_second() {
    let mut ledger = entered(&plan(&[Metric::ErrorRate]), Timestamp(0));
    let mut gains = Vec::new();
    for time in 0..30 {
        let safe =
            |it: &Ledger| it.instrument(Metric::ErrorRate, None).unwrap().wealth().unwrap().safe();
        let before = safe(&ledger);
        pairs(&mut ledger, Timestamp(100 * time), 1, 0);
        gains.push(safe(&ledger) - before);
    }
    // Other stakes show in a jump of what each pair gains.
    let planned = (1..30).filter(|it| 1e-6 < gains[*it] - gains[*it - 1]);
    assert_eq!(planned.collect::<Vec<_>>(), [10, 20], "{gains:?}");
}
