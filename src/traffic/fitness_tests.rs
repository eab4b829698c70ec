//! When a judge is believed, and what is told of it.

use super::*;
use crate::domain::{PairId, Preferred, Review, Window, Winner};

/// Ten rows, each side better in five; so many of them are marked the other way.
fn rows(wrong: usize) -> Vec<Tried> {
    let row = |place: usize| {
        let (expected, right) = match place % 2 {
            0 => (Winner::First, [0.9, 0.4]),
            _ => (Winner::Second, [0.4, 0.9]),
        };
        let marks = if place < wrong { [right[1], right[0]] } else { right };
        Tried { expected, marks: Some(marks) }
    };
    (0..10).map(row).collect()
}

#[test]
fn one_who_is_never_to_be_tried_is_believed() {
    let fitness = Fitness::default();
    assert_eq!(fitness.problem(), None);
    fitness.calibrate("judge:m@r", &rows(10));
    assert_eq!(fitness.problem(), None);
}

#[test]
fn one_who_does_not_find_the_expected_winners_judges_nothing() {
    let fitness = Fitness::untried(7);
    assert!(fitness.problem().unwrap().contains("is being tried"));
    let run = fitness.calibrate("judge:m@r", &rows(2));
    assert_eq!((run.agreed, format!("{:.2}", run.kappa)), (8, "0.60".to_owned()));
    assert!(fitness.problem().is_none_or(|it| it.contains("kappa 0.60")));
    fitness.calibrate("judge:m@r", &rows(3));
    let problem = fitness.problem().unwrap();
    assert!(problem.contains("7 of 10 rows, kappa 0.40") && problem.contains("take another"));
    assert!(!*fitness.fit.borrow());
    fitness.calibrate("judge:m@r", &rows(1));
    assert!(fitness.problem().is_none_or(|it| it.contains("from its first ones")));
}

#[test]
fn of_another_judge_nothing_is_known_before_it_was_tried_too() {
    let fitness = Fitness::untried(7);
    fitness.calibrate("judge:m@r", &rows(0));
    fitness.speak("judge:m@r");
    assert_eq!((fitness.problem(), *fitness.fit.borrow()), (None, true));
    fitness.speak("judge:m-2@r");
    assert!(fitness.problem().unwrap().starts_with("`judge:m-2@r` judges now"));
    assert!(!*fitness.fit.borrow());
    fitness.calibrate("judge:m-2@r", &rows(0));
    assert_eq!((fitness.problem(), *fitness.fit.borrow()), (None, true));
}

#[test]
fn marks_that_drift_and_rows_without_marks_are_told() {
    let fitness = Fitness::untried(7);
    let moved = |by: f64| {
        let moved = |it: Tried| Tried { marks: it.marks.map(|[a, b]| [a - by, b - by]), ..it };
        rows(0).into_iter().map(moved).collect::<Vec<_>>()
    };
    fitness.calibrate("judge:m@r", &moved(0.0));
    let run = fitness.calibrate("judge:m@r", &moved(0.05));
    assert!((run.drift - 0.05).abs() < 1e-9 && fitness.problem().is_none());
    fitness.calibrate("judge:m@r", &moved(0.2));
    assert!(fitness.problem().unwrap().contains("marks 0.20 from its first ones"));
    // Another version has first marks of its own.
    let run = fitness.calibrate("judge:m-2@r", &moved(0.2));
    assert_eq!((run.drift, fitness.problem()), (0.0, None));
    let mut half = rows(0);
    half[..5].iter_mut().for_each(|it| it.marks = None);
    fitness.hear(Reply::TimedOut);
    assert!(!fitness.calibrate("judge:m-2@r", &half).is_whole());
    let problem = fitness.problem().unwrap();
    assert!(problem.contains("marked 5 of the 10 rows") && problem.contains("1 timed out"));
    // One who says nothing at all is still measured by what it said first.
    let silent: Vec<_> = half.iter().map(|it| Tried { marks: None, ..*it }).collect();
    fitness.calibrate("judge:m-3@r", &silent);
    assert!(fitness.calibrate("judge:m-2@r", &moved(0.2)).drift < 1e-9);
    assert!(0.1 < fitness.calibrate("judge:m-2@r", &moved(0.0)).drift);
    fitness.calibrate("judge:m-2@r", &moved(0.2));
    assert_eq!(fitness.problem(), None);
}

#[test]
fn what_is_known_of_it_stands_in_one_line() {
    let fitness = Fitness::default();
    assert_eq!(fitness.text(), "the judge: 0 answers read");
    for reply in [Reply::Read, Reply::Read, Reply::Unreadable] {
        fitness.hear(reply);
    }
    fitness.speak("judge:m@r");
    fitness.place(Some(Placed::Both { lead: 0.5, flipped: true }));
    fitness.place(None);
    fitness.rule();
    let text = "judge:m@r: 2 answers read, 1 unreadable; 1 of 1 pairs had another winner in each \
                order, the first place added +0.500; 1 pairs with empty or repeated answers";
    assert_eq!(fitness.text(), text);
}

#[test]
fn a_judge_too_much_of_which_cannot_be_read_is_unfit_until_it_is_read_again() {
    let fitness = Fitness::default();
    let hear = |unread: usize, read: usize| {
        (0..unread).for_each(|_| fitness.hear(Reply::Unreadable));
        (0..read).for_each(|_| fitness.hear(Reply::Read));
    };
    hear(49, 0);
    assert_eq!(fitness.problem(), None, "too few to say");
    hear(1, 0);
    let problem = fitness.problem().unwrap();
    assert!(problem.starts_with("50 of the judge's last 50 answers"), "{problem}");
    assert!(problem.contains("more than 10%") && fitness.rests().is_none(), "{problem}");
    // Who is not there says nothing of its form.
    (0..500).for_each(|_| fitness.hear(Reply::TimedOut));
    assert!(fitness.problem().is_some());
    hear(0, 179);
    assert!(fitness.problem().unwrap().starts_with("21 of the judge's last 200"));
    hear(0, 1);
    assert_eq!((fitness.problem(), fitness.failures()), (None, 0));
}

/// What people say of so many pairs of which a judge finds the same winner in so many; those
/// with another one raise this much doubt.
fn compared(pairs: u64, agreed: u64, weight_millionths: u32) -> Agreed {
    let mut all = Agreed::default();
    for number in 0..pairs {
        let same = number < agreed;
        let review = Review {
            pair: PairId(number.into()),
            window: Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 },
            watched: String::new(),
            weight_millionths: if same { 1_000_000 } else { weight_millionths },
            leases: Vec::new(),
            counted: None,
        };
        let people = if number % 2 == 0 { Preferred::Primary } else { Preferred::Candidate };
        let marks = if same == (number % 2 == 0) { [0.9, 0.1] } else { [0.1, 0.9] };
        all.add(&review, people, marks);
    }
    all
}

#[test]
fn a_judge_that_people_do_not_agree_with_is_believed_no_more() {
    let fitness = Fitness::default();
    fitness.speak("judge:m@r");
    let people = |source: &str, agreed| BTreeMap::from([(source.to_owned(), agreed)]);
    fitness.compare(people("judge:m@r", compared(49, 10, 1_000_000)));
    assert_eq!(fitness.problem(), None, "too few to say");
    fitness.compare(people("judge:m@r", compared(50, 35, 1_000_000)));
    let problem = fitness.problem().unwrap();
    assert!(problem.starts_with("people find the judge's winner in 35 of 50 pairs, kappa 0.40"));
    assert!(fitness.rests().is_none(), "it judges on, so that it can be compared");
    assert_eq!(fitness.failures(), 1);
    fitness.compare(people("judge:m@r", compared(60, 40, 1_000_000)));
    assert_eq!(fitness.failures(), 1, "it was unfit already");
    // Pairs that raise doubt are drawn four times as often, and weigh a quarter.
    fitness.compare(people("judge:m@r", compared(50, 35, 250_000)));
    assert_eq!(fitness.problem(), None);
    assert!(fitness.text().contains("35 of 50 pairs, kappa 0.8"), "{}", fitness.text());
    // What was said of another one is none of its own.
    fitness.compare(people("judge:m-2@r", compared(50, 5, 1_000_000)));
    assert_eq!(fitness.problem(), None);
    let mut joined = compared(30, 10, 1_000_000);
    joined.join(&compared(30, 10, 1_000_000));
    assert_eq!((joined.pairs, joined.agreed), (60, 20));
    assert!(joined.kappa().unwrap() < 0.0);
}

#[test]
fn each_judge_keeps_its_first_marks_over_a_restart() {
    let fitness = Fitness::untried(7);
    assert_eq!(fitness.changed(), None);
    fitness.calibrate("judge:m@r", &rows(0));
    fitness.calibrate("judge:n@r", &rows(1));
    let kept = fitness.changed().unwrap();
    assert_eq!(fitness.changed(), None, "they are kept already");
    let again = Fitness::untried(7);
    again.calibrate("judge:m@r", &rows(4));
    assert!(again.resume(&kept) && !again.resume(b"no marks"));
    assert!((again.calibrate("judge:m@r", &rows(4)).drift - 0.2).abs() < 1e-9);
    assert!((again.calibrate("judge:n@r", &rows(1)).drift).abs() < 1e-9);
    let other = Fitness::untried(8);
    assert!(other.resume(&kept));
    assert!(other.calibrate("judge:m@r", &rows(4)).drift.abs() < 1e-9, "of another set");
}
