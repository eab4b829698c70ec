//! Tests of the breaker.

use proptest::prelude::*;

use super::*;

const TERMS: config::Breaker = config::Breaker {
    failed: crate::domain::Share::ALL,
    calls_min: 1_000,
    in_a_row: 3,
    cool_down_ms: 5_000,
};

fn at(ms: u64) -> Timestamp {
    Timestamp(1_700_000_000_000 + ms)
}

fn breaker(terms: config::Breaker) -> Arc<Breaker> {
    Arc::new(Breaker::new(terms))
}

fn opened() -> Arc<Breaker> {
    let breaker = breaker(TERMS);
    let opened = [0, 500, 1_000].map(|ms| breaker.see(at(ms), Went::Badly));
    assert_eq!(opened, [false, false, true]);
    breaker
}

fn probe(breaker: &Arc<Breaker>, ms: u64) -> Option<Probe> {
    match breaker.pass(at(ms)) {
        Passed::Trying(probe) => Some(probe),
        Passed::Freely | Passed::Not => None,
    }
}

#[test]
fn failures_in_a_row_open_it_once_they_last_longer_than_the_tripwire_needs() {
    let burst = breaker(TERMS);
    assert!(!(0..100).any(|ms| burst.see(at(ms), Went::Badly)), "a connection that was lost");
    assert!(burst.see(at(1_000), Went::Badly));
    assert_eq!((burst.standing(), burst.opened()), (Standing::Open, 1));

    let broken = breaker(TERMS);
    for ms in 0..1_000 {
        assert!(!broken.see(at(ms * 700), Went::Badly));
        let went = if ms % 2 == 1 { Went::Well } else { Went::Badly };
        assert!(!broken.see(at(ms * 700 + 1), went), "what goes well ends the row");
    }
}

#[test]
fn a_part_of_enough_calls_opens_it_and_old_calls_do_not_count() {
    let terms = config::Breaker::default();
    let half = breaker(terms);
    let opens = (0..40).position(|it: u64| {
        half.see(at(it), if it.is_multiple_of(2) { Went::Well } else { Went::Badly })
    });
    assert_eq!(opens, Some(19), "with its twentieth call");
    let old = breaker(terms);
    (0..19).for_each(|ms| assert!(!old.see(at(ms), Went::Badly)));
    assert!(!old.see(at(31_000), Went::Well) && !old.see(at(31_001), Went::Badly));
    let calm = breaker(terms);
    // As the worst of the recorded providers in good health.
    let mut dice = crate::domain::Splitmix(7);
    assert!((0..100_000).all(|it: u64| {
        let went = if dice.roll() % 1_000 < 73 { Went::Badly } else { Went::Well };
        !calm.see(at(it * 100), went)
    }));
}

#[test]
fn after_the_cool_down_three_may_try_it_and_three_answers_close_it() {
    let breaker = opened();
    assert!(probe(&breaker, 5_999).is_none());
    let mut probes: Vec<Probe> = (0..5).filter_map(|_| probe(&breaker, 6_000)).collect();
    assert_eq!((probes.len(), breaker.standing()), (3, Standing::HalfOpen));
    let answered: Vec<bool> = probes.drain(..).map(|it| it.ended(at(6_100), Went::Well)).collect();
    assert_eq!(answered, [false, false, true]);
    assert_eq!(breaker.standing(), Standing::Closed);
    assert!(matches!(breaker.pass(at(6_100)), Passed::Freely));
    // What was counted before says nothing any more.
    assert!(!breaker.see(at(6_200), Went::Badly) && !breaker.see(at(7_400), Went::Badly));
}

#[test]
fn one_that_fails_keeps_it_open_and_one_that_leaves_gives_its_place_back() {
    let breaker = opened();
    let probes: Vec<_> = (0..3).filter_map(|_| probe(&breaker, 6_000)).collect();
    assert!(probe(&breaker, 6_000).is_none());
    drop(probes);
    let (first, second) = (probe(&breaker, 6_000).unwrap(), probe(&breaker, 6_000).unwrap());
    assert!(!first.ended(at(6_500), Went::Badly));
    assert_eq!((breaker.standing(), breaker.opened()), (Standing::Open, 1));
    assert!(!second.ended(at(6_600), Went::Well), "what was tried before says nothing");
    assert!(probe(&breaker, 11_499).is_none() && probe(&breaker, 11_500).is_some());
}

#[test]
fn callers_who_leave_unheard_open_it_in_a_row_alone() {
    let silent = breaker(TERMS);
    let opened = [0, 500, 1_000].map(|ms| silent.see(at(ms), Went::Unheard));
    assert_eq!(opened, [false, false, true]);
    let half = breaker(config::Breaker { calls_min: 1, ..TERMS });
    for ms in 0..1_000 {
        assert!(!half.see(at(ms * 700), Went::Unheard), "they are no part of the calls");
        assert!(!half.see(at(ms * 700 + 1), Went::Well));
    }
}

#[test]
fn a_probe_whose_caller_waited_in_vain_keeps_it_open() {
    let breaker = opened();
    let mut waited = probe(&breaker, 6_000).unwrap();
    waited.since = instant().checked_sub(UNHEARD).map(|since| (at(6_000), since));
    drop(waited);
    assert_eq!((breaker.standing(), breaker.opened()), (Standing::Open, 1));
    assert!(probe(&breaker, 13_999).is_none());
    let mut told = probe(&breaker, 14_100).unwrap();
    told.since = instant().checked_sub(UNHEARD).map(|since| (at(14_000), since));
    told.left();
    assert_eq!(breaker.standing(), Standing::HalfOpen);
}

#[test]
fn health_checks_open_it_where_no_call_goes_well_and_close_it_where_no_caller_does() {
    let silent = breaker(TERMS);
    let opened = [0, 1, 2].map(|it| silent.check(at(it * 30_000), Went::Badly));
    assert_eq!(opened, [None, None, Some(Standing::Open)]);
    silent.check(at(60_001), Went::Well);
    assert_eq!(silent.standing(), Standing::Open);
    silent.check(at(64_000), Went::Badly);
    assert!(probe(&silent, 68_999).is_none() && probe(&silent, 69_000).is_some());
    // Callers try it, so what checks find is not asked for; and then none comes any more.
    let trying = probe(&silent, 69_100).unwrap();
    (0..5).for_each(|_| assert_eq!(silent.check(at(69_200), Went::Well), None));
    assert_eq!(silent.standing(), Standing::HalfOpen);
    assert!(!trying.ended(at(69_300), Went::Badly));
    let told = [99_000, 129_000, 159_000, 189_000].map(|ms| silent.check(at(ms), Went::Well));
    assert_eq!(told, [None, None, Some(Standing::Closed), None]);
    assert_eq!(silent.standing(), Standing::Closed);
    // One that fails between them begins it anew.
    let tried = self::opened();
    for went in [Went::Well, Went::Well, Went::Badly, Went::Well, Went::Well] {
        assert_eq!(tried.check(at(99_000), went), None);
    }
    assert_eq!((tried.standing(), tried.opened()), (Standing::Open, 1));

    let served = breaker(TERMS);
    for minute in 0..10 {
        assert_eq!(served.check(at(minute * 60_000), Went::Badly), None);
        assert!(!served.see(at(minute * 60_000 + 1), Went::Well));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    See(Went),
    Check(Went),
    Pass,
    End(Went),
    Leave,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let went = || prop_oneof![Just(Went::Well), Just(Went::Badly), Just(Went::Unheard)];
    let step = prop_oneof![
        (0_u64..4_000).prop_map(Step::Wait),
        went().prop_map(Step::See),
        Just(Step::See(Went::Badly)),
        went().prop_map(Step::Check),
        Just(Step::Pass),
        went().prop_map(Step::End),
        Just(Step::Leave),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// Whatever comes: never more than three try it, nobody passes before the cool-down is
    /// over, and it closes by answers alone.
    #[test]
    fn whatever_comes_few_try_it_and_answers_alone_close_it(steps in steps()) {
        let breaker = breaker(TERMS);
        let (mut now, mut probes, mut shut_at) = (0, Vec::new(), None);
        for step in steps {
            let before = breaker.standing();
            match step {
                Step::Wait(ms) => now += ms,
                Step::See(went) => _ = breaker.see(at(now), went),
                Step::Check(went) => _ = breaker.check(at(now), went),
                Step::Pass => match breaker.pass(at(now)) {
                    Passed::Freely => prop_assert_eq!(before, Standing::Closed),
                    Passed::Trying(probe) => {
                        prop_assert!(shut_at.is_none_or(|it| it + 5_000 <= now));
                        probes.push(probe);
                    }
                    Passed::Not => prop_assert_ne!(before, Standing::Closed),
                },
                Step::End(went) => {
                    let closes = probes.pop().is_some_and(|it: Probe| it.ended(at(now), went));
                    prop_assert!(!closes || went == Went::Well);
                }
                Step::Leave => drop(probes.pop()),
            }
            let after = breaker.standing();
            if after == Standing::Open && before != Standing::Open {
                shut_at = Some(now);
            }
            if after == Standing::Closed && before != Standing::Closed {
                prop_assert!(before == Standing::HalfOpen);
            }
            let state = breaker.state();
            if let Phase::HalfOpen { trying, answered } = state.phase {
                prop_assert!(trying + answered <= PROBES, "{trying} and {answered}");
            }
        }
        drop(probes);
        let state = breaker.state();
        if let Phase::HalfOpen { trying, .. } = state.phase {
            prop_assert_eq!(trying, 0);
        }
    }
}

#[test]
fn many_threads_at_once_get_three_places() {
    let breaker = opened();
    let got: usize = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..100).filter_map(|_| probe(&breaker, 9_000)).collect()))
            .collect();
        let all: Vec<Vec<Probe>> = all.into_iter().map(|it| it.join().unwrap()).collect();
        all.iter().map(Vec::len).sum()
    });
    assert_eq!(got, 3);
}
