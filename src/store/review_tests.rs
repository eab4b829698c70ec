//! Reviews outlast a crash and the index.

use super::*;
use crate::domain::Window;
use crate::store::{Pairs, samples};

/// A review with every kind of answer, of the pair of this number.
fn review(rollout: &str, at: u64, number: u64) -> Review {
    let pair = samples::pair(rollout, at, number);
    let lease = |(id, choice): (u128, Choice)| Lease {
        id,
        reviewer: format!("ana-{id}"),
        until: Timestamp(at + 9_000),
        first: if id.is_multiple_of(2) { Side::Primary } else { Side::Candidate },
        said: (id != 2).then_some((choice, Timestamp(at + 7))),
        comment: if id == 1 { "terse".to_owned() } else { String::new() },
    };
    Review {
        pair: pair.id,
        window: pair.window,
        watched: "tools".to_owned(),
        weight_millionths: 250_000,
        leases: (u128::MAX - 4..=u128::MAX).zip(Choice::ALL).map(lease).collect(),
        counted: Some(Counted { lease: u128::MAX, order: Order { seq: 7, at: Timestamp(at + 8) } }),
    }
}

#[test]
fn reviews_read_back() {
    let it = review("chat", 1_000, 1);
    assert_eq!(decode(it.pair, &encode(&it)).unwrap(), it);
    let open = Review { counted: None, leases: Vec::new(), ..it };
    assert_eq!(decode(open.pair, &encode(&open)).unwrap(), open);
    assert!(decode(open.pair, br#"{"v":1}"#).is_err());
}

#[test]
fn a_review_is_found_as_it_was_last_after_a_crash_and_with_a_new_index() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp(1_000_000);
    let (first, other) = (review("chat", 1_000, 1), review("chat", 1_000, 2));
    let elsewhere = review("chat-2", 1_000, 3);
    let last = Review { counted: None, ..first.clone() };
    {
        let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
        for it in [&first, &other, &elsewhere, &last] {
            pairs.put_review(it, now).unwrap();
        }
    }
    let chat = "chat".parse().unwrap();
    let kept = || Pairs::open(dir.path(), samples::LIMITS).unwrap().reviews(&chat).unwrap();
    assert_eq!(kept(), [last.clone(), other.clone()]);
    std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
    assert_eq!(kept(), [last, other], "the segments are enough");
}

#[test]
fn what_counted_comes_in_its_place_and_goes_with_its_pair() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
    let window = Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 };
    let batch: Vec<_> =
        (1..=9).map(|it| (samples::pair("chat", 1_000 * it, it), samples::bodies("x"))).collect();
    pairs.put_batch(&batch).unwrap();
    let place = |seq, at| Some(Counted { lease: 1, order: Order { seq, at: Timestamp(at) } });
    let counted = Review { counted: place(5, 5_500), ..review("chat", 1_000, 1) };
    let open = Review { counted: None, ..review("chat", 2_000, 2) };
    for it in [&counted, &open] {
        pairs.put_review(it, Timestamp(9_000)).unwrap();
    }
    let mut places = Vec::new();
    let mut reviewed = Vec::new();
    pairs
        .of_window(&window, &mut |seen| {
            places.push(seen.order().seq);
            if let crate::domain::Seen::Review(it) = seen {
                reviewed.push(*it);
            }
        })
        .unwrap();
    assert!(places.is_sorted() && places.len() == 10, "{places:?}");
    assert_eq!(reviewed, [counted]);
    let newest = pairs.newest_in(&window, Some(batch[4].0.id), 2).unwrap();
    assert_eq!(newest.iter().map(|it| it.id).collect::<Vec<_>>(), [batch[3].0.id, batch[2].0.id]);
}
