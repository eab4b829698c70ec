//! What is counted and dropped on the way.

use super::*;
use crate::clock::Clock;

#[test]
fn a_copy_that_was_under_way_counts_under_the_next_cap_too() {
    let clock = Clock::start();
    let outbox = Outbox::new(tokio::sync::mpsc::channel(1).0, clock);
    let live = Arc::new(Live::new(Arc::new(Copies::new(10, (0, 0)))));
    let window = Window { rollout: "a".parse().unwrap(), attempt: 1, stage: 0 };
    let mut due = (0..2).map(|_| live.due(clock.now(), &window, &outbox).unwrap());
    let (lost, excused) = (due.next().unwrap(), due.next().unwrap());
    let next = live.capped(Arc::new(live.copies().capped(20)));
    drop(lost);
    excused.excuse();
    assert_eq!(next.coverage(), (1, 1));
}

#[test]
fn what_is_under_way_is_so_in_the_window_it_began_in() {
    let clock = Clock::start();
    let outbox = Outbox::new(tokio::sync::mpsc::channel(1).0, clock);
    let live = Arc::new(Live::new(Arc::new(Copies::new(10, (0, 0)))));
    let window = Window { rollout: "a".parse().unwrap(), attempt: 1, stage: 0 };
    let later = Timestamp(clock.now().0 + 60_000);
    let (due, solo) = (live.due(clock.now(), &window, &outbox).unwrap(), live.wait(clock.now()));
    let next = live.next();
    assert!(
        live.under_way(later).unwrap().starts_with("2 of the last 2 calls are still under way")
    );
    assert_eq!(next.under_way(later), None);
    due.paired();
    assert!(live.under_way(later).is_some());
    solo.hear();
    drop(solo);
    assert_eq!(live.under_way(later), None);
}
