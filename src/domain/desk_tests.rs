//! A reviewer answers, changes their mind, and is evidence in the end.

use super::*;
use crate::domain::{
    Agreement, Share, Side,
    review::tests::{lease, pair},
};

const PRIMARY: Choice = Choice::Better(Side::Primary);
const CANDIDATE: Choice = Choice::Better(Side::Candidate);

fn drawn(number: u128) -> Review {
    Review::draw(Share::ALL, &pair(number, Agreement::Different), None).unwrap()
}

/// A desk at which ana has answered a pair, and has another in hands.
fn desk() -> Desk {
    let mut desk = Desk::default();
    for (number, said) in [(1, Some((PRIMARY, Timestamp(10)))), (2, None)] {
        desk.draw(drawn(number));
        let mut review = desk.reviews[&drawn(number).pair].clone();
        review.give(Lease { said, ..lease(number, "ana", 1_000) }, Timestamp(1));
        desk.put(review);
    }
    desk
}

fn say(desk: &mut Desk, id: u128, choice: Choice, now: u64) -> Result<(), Late> {
    let review = desk.said(id, (choice, ""), Timestamp(now)).unwrap()?;
    desk.put(review);
    Ok(())
}

fn choice(desk: &Desk, id: u128) -> Option<Choice> {
    desk.find(id).unwrap().1.said.map(|it| it.0)
}

#[test]
fn the_last_answer_may_be_changed_while_its_lease_lasts() {
    let mut desk = desk();
    assert_eq!(say(&mut desk, 1, CANDIDATE, 500), Ok(()));
    assert_eq!(choice(&desk, 1), Some(CANDIDATE));
    assert_eq!(say(&mut desk, 1, CANDIDATE, 9_000), Ok(()), "a retry changes nothing");
    assert_eq!(say(&mut desk, 1, PRIMARY, 1_000), Err(Late::Final));
    assert_eq!(say(&mut desk, 2, PRIMARY, 600), Ok(()));
    assert_eq!(say(&mut desk, 1, PRIMARY, 601), Err(Late::Passed), "another one came after it");
    assert_eq!(say(&mut desk, 1, CANDIDATE, 601), Ok(()));
    assert_eq!(desk.said(7, (PRIMARY, ""), Timestamp(1)), None);
}

#[test]
fn an_answer_that_comes_late_is_taken_while_nobody_else_was_shown_the_pair() {
    let mut desk = desk();
    assert_eq!(say(&mut desk, 2, PRIMARY, 90_000), Ok(()));
    assert_eq!(choice(&desk, 2), Some(PRIMARY));
}

#[test]
fn an_answer_is_evidence_once_it_can_be_changed_no_more() {
    let mut desk = desk();
    let due = |desk: &Desk, now| -> Vec<u128> {
        desk.due(Timestamp(now)).iter().map(|it| it.counted.unwrap().lease).collect()
    };
    assert_eq!(due(&desk, 999), [0; 0]);
    assert_eq!(due(&desk, 1_000), [1], "its time is over");
    say(&mut desk, 2, Choice::Skipped, 20).unwrap();
    assert_eq!(due(&desk, 21), [1], "another one was answered");
    for review in desk.due(Timestamp(21)) {
        desk.put(review);
    }
    assert_eq!(due(&desk, 9_000), [0; 0], "once; and what was passed over is none");
    assert_eq!(say(&mut desk, 1, CANDIDATE, 22), Err(Late::Final));
}

#[test]
fn of_too_many_pairs_that_wait_the_oldest_go_and_none_that_was_shown() {
    let mut desk = desk();
    for number in 0..1_200 {
        desk.draw(drawn(100 + number));
    }
    assert_eq!(desk.waiting, WAITING_LEN_MAX);
    assert_eq!(desk.reviews.len(), WAITING_LEN_MAX + 2);
    assert_eq!((desk.full_from(), Desk::default().full_from()), (Some(drawn(300).pair), None));
    assert!(desk.find(1).is_some() && !desk.has(drawn(299).pair) && desk.has(drawn(300).pair));
    let window = drawn(1).window;
    let next = desk.waiting_for("ben", (&window, Timestamp(0)), Timestamp(1)).next().unwrap();
    assert_eq!(next.pair, drawn(300).pair, "the oldest first");
    let later = desk.waiting_for("ben", (&window, Timestamp(5_000)), Timestamp(1)).next();
    assert_eq!(later, None, "of an earlier visit of the stage");
}

#[test]
fn progress_counts_pairs_and_who_agrees() {
    let mut desk = desk();
    let mut review = desk.find(1).unwrap().0.clone();
    let said = Some((CANDIDATE, Timestamp(11)));
    review.leases.push(Lease { said, ..lease(9, "ben", 1_000) });
    desk.put(review);
    desk.draw(drawn(50));
    let window = drawn(1).window;
    let progress = desk.progress("ben", Some((&window, Timestamp(0))), Timestamp(12));
    assert_eq!((progress.reviewed, progress.leased), (1, 1));
    assert_eq!(progress.second, [[0, 0, 1], [0; 3], [0; 3]]);
    assert!(1 <= progress.waiting, "{progress:?}");
    assert_eq!(desk.winners().map(|it| it.1).collect::<Vec<_>>(), [Preferred::Primary]);
    assert_eq!(desk.held("ana", Timestamp(12)).unwrap().1.id, 2);
    assert_eq!(desk.held("ben", Timestamp(12)), None);
}

#[test]
fn what_somebody_said_is_not_forgotten_where_the_texts_are_gone() {
    let mut desk = desk();
    desk.draw(drawn(3));
    (1..=3).for_each(|it| desk.forget(drawn(it).pair));
    assert_eq!([1, 2, 3].map(|it| desk.has(drawn(it).pair)), [true, true, false]);
    assert_eq!(desk.due(Timestamp(90_000)).len(), 1, "it is evidence all the same");
    desk.draw(drawn(4));
    assert!(desk.full_from().is_none() && desk.has(drawn(4).pair));
}
