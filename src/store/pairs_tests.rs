//! Tests of the pairs as a whole: index, segments, retention, rebuild.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::domain::{Order, Seen, Window};
use crate::store::samples::{self, HOUR_MS, LIMITS};

fn store() -> (TempDir, Pairs) {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    (dir, pairs)
}

/// Stores one pair of that time.
fn put(pairs: &Pairs, rollout: &str, at: u64) -> Pair {
    let pair = samples::pair(rollout, at, at);
    pairs.put_batch(&[(pair.clone(), samples::bodies(&at.to_string()))]).unwrap();
    pair
}

fn times(pairs: &Pairs, query: &Query) -> Vec<u64> {
    pairs.list(query).unwrap().iter().map(|it| it.at.0).collect()
}

fn all() -> Query {
    Query { len_max: PAGE_LEN_MAX, ..Query::default() }
}

fn of(rollout: &str) -> Query {
    Query { rollout: Some(rollout.parse().unwrap()), ..all() }
}

fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir.join("segments")).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<String> = names.map(|it| it.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_pair_its_scores_and_its_bodies_read_back() {
    let (_dir, pairs) = store();
    let pair = put(&pairs, "chat", 1_000);
    let mut score = samples::score(&pair, "judge:a@1");
    pairs.put_score(&score).unwrap();
    score.candidate = 0.25;
    pairs.put_score(&score).unwrap();
    let human = Score { at: Timestamp(9_999), ..samples::score(&pair, "alice") };
    pairs.put_score(&human).unwrap();
    let (back, scores) = pairs.get(pair.id).unwrap().unwrap();
    assert_eq!((back, scores), (pair.clone(), vec![score, human]));
    assert_eq!(pairs.bodies(pair.id).unwrap(), Some(samples::bodies("1000")));
    assert_eq!(pairs.get(PairId(7)).unwrap(), None);
    assert_eq!(pairs.bodies(PairId(7)).unwrap(), None);
    let counters = pairs.counters();
    assert_eq!((counters.pairs, counters.scores, counters.failed), (1, 3, 0));
    assert!(0 < counters.bytes);
}

#[test]
fn lists_come_newest_first_and_in_pages() {
    let (_dir, pairs) = store();
    for at in 1..=7 {
        put(&pairs, if at % 2 == 0 { "chat" } else { "chat-2" }, at * 1_000);
    }
    assert_eq!(times(&pairs, &all()), [7_000, 6_000, 5_000, 4_000, 3_000, 2_000, 1_000]);
    assert_eq!(times(&pairs, &of("chat")), [6_000, 4_000, 2_000]);
    for query in [all(), of("chat-2")] {
        let whole = pairs.list(&query).unwrap();
        let mut paged: Vec<Pair> = Vec::new();
        loop {
            let before = paged.last().map(|it| it.id);
            let page = pairs.list(&Query { before, len_max: 2, ..query.clone() }).unwrap();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, whole);
    }
    let unknown = Some(samples::id(4_500, 0));
    assert_eq!(times(&pairs, &Query { before: unknown, ..of("chat") }), [4_000, 2_000]);
}

#[test]
fn a_page_after_a_pair_that_was_swept_looks_at_none_that_is_newer() {
    let (dir, pairs) = store();
    put(&pairs, "chat", 1_000);
    put(&pairs, "chat", 2_000);
    let segment = dir.path().join("segments").join(&files(dir.path())[0]);
    let old_len = usize::try_from(fs::metadata(&segment).unwrap().len()).unwrap();
    for at in 3..=30 {
        let mut pair = samples::pair("chat", at * 1_000, at * 1_000);
        pair.window.stage = u32::try_from(at).unwrap() % 3;
        pairs.put_batch(&[(pair, Bodies::default())]).unwrap();
    }
    // A look at them would be counted.
    let mut bytes = fs::read(&segment).unwrap();
    bytes[old_len..].fill(0);
    fs::write(&segment, bytes).unwrap();
    let swept = Some(samples::id(2_500, 0));
    assert_eq!(times(&pairs, &Query { before: swept, ..of("chat") }), [2_000, 1_000]);
    assert_eq!(pairs.counters().unreadable, 0);
    assert_eq!(times(&pairs, &of("chat")), [2_000, 1_000]);
    assert_eq!(pairs.counters().unreadable, 28);
}

/// Everything of the window of samples, as places and what stands there.
fn told(pairs: &Pairs) -> Vec<(u64, &'static str)> {
    let mut told = Vec::new();
    let window = samples::pair("chat", 0, 0).window;
    let name = |seen: &Seen| match seen {
        Seen::Pair(_) => "pair",
        Seen::Score(_) => "score",
        Seen::Review(_) => "review",
        Seen::Note(_) => "note",
    };
    pairs.of_window(&window, &mut |it| told.push((it.order().seq, name(&it)))).unwrap();
    told
}

#[test]
fn a_window_is_told_in_the_order_in_which_it_counted() {
    let (_dir, pairs) = store();
    // Asked second by second, and told in the opposite order a minute later.
    let pair = |asked: u64, seq: u64| {
        let order = Some(Order { seq, at: Timestamp(60_000 + seq) });
        Pair { order, ..samples::pair("chat", asked, asked) }
    };
    let (slow, fast) = (pair(1_000, 30), pair(2_000, 20));
    let old = Pair { order: None, lot: None, ..pair(3_000, 0) };
    let mut other = pair(4_000, 4);
    other.window.stage = 1;
    for it in [&slow, &fast, &old, &other] {
        pairs.put_batch(&[(it.clone(), Bodies::default())]).unwrap();
    }
    pairs.put_score(&samples::score(&fast, "judge:a@1")).unwrap();
    let later = samples::notes(&pair(100_000, 0), 40, 2);
    let early = samples::notes(&pair(60_000, 0), 10, 3);
    pairs.put_notes([later, early].concat()).unwrap();
    let expected = [
        (0, "pair"),
        (10, "note"),
        (11, "note"),
        (12, "note"),
        (20, "pair"),
        (21, "score"),
        (30, "pair"),
        (40, "note"),
        (41, "note"),
    ];
    assert_eq!(told(&pairs), expected);
    let begun = |window: &Window| {
        let mut begun = Vec::new();
        pairs.begun(window, &mut |order| begun.push(order.seq)).unwrap();
        begun
    };
    assert_eq!(begun(&slow.window).first(), Some(&10));
    assert!(begun(&other.window).is_empty());
    assert_eq!((pairs.counters().notes, pairs.counters().unreadable), (5, 0));
}

#[test]
fn notes_that_are_too_large_together_are_kept_in_parts() {
    let (dir, pairs) = store();
    let mut pair = samples::pair("chat", 1_000, 1);
    let word = Some("\u{1}".repeat(128));
    (pair.primary.model, pair.primary.finish_reason) = (word.clone(), word);
    let count = 1_024;
    pairs.put_notes(samples::notes(&pair, 1, count)).unwrap();
    assert_eq!((pairs.counters().notes, pairs.counters().failed), (count, 0));
    pairs.flush().unwrap();
    drop(pairs);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    assert_eq!((told(&pairs).len(), pairs.counters().unreadable), (1_024, 0));
}

#[test]
fn notes_are_found_again_without_an_index_and_leave_with_their_segment() {
    let (dir, pairs) = store();
    for hour in 0..3 {
        let pair = put(&pairs, "chat", hour * HOUR_MS + 1_000);
        let mut notes = samples::notes(&pair, 100 * hour, 50);
        for note in &mut notes[..25] {
            note.window.stage = 1;
        }
        pairs.put_notes(notes).unwrap();
    }
    let before = told(&pairs);
    assert_eq!(before.len(), 3 * 26);
    pairs.flush().unwrap();
    drop(pairs);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let limits = Limits { age_ms_max: HOUR_MS, ..LIMITS };
    let pairs = Pairs::open(dir.path(), limits).unwrap();
    assert_eq!(told(&pairs), before);
    pairs.sweep(Timestamp(3 * HOUR_MS + 1)).unwrap();
    assert_eq!(told(&pairs), before[2 * 26..]);
}

#[test]
fn an_index_full_of_garbage_is_rebuilt_from_the_segments() {
    for garbage in [vec![0_u8; 4_096], b"garbage ".repeat(1_000), Vec::new()] {
        let (dir, pairs) = store();
        for at in 1..=300 {
            put(&pairs, "chat", at * HOUR_MS / 100);
        }
        let scored = pairs.list(&all()).unwrap().remove(0);
        pairs.put_score(&samples::score(&scored, "judge:a@1")).unwrap();
        let (list, found) = (pairs.list(&of("chat")).unwrap(), pairs.get(scored.id).unwrap());
        pairs.flush().unwrap();
        drop(pairs);
        for file in fs::read_dir(dir.path().join("sled")).unwrap().map(Result::unwrap) {
            if file.path().is_file() {
                fs::write(file.path(), &garbage).unwrap();
            }
        }
        for _ in 0..2 {
            let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
            assert_eq!(pairs.list(&of("chat")).unwrap(), list);
            assert_eq!(pairs.get(scored.id).unwrap(), found);
            assert!(pairs.bodies(scored.id).unwrap().is_some());
        }
    }
}

#[test]
fn an_index_that_was_deleted_comes_back() {
    let (dir, pairs) = store();
    let pair = put(&pairs, "chat", 1_000);
    drop(pairs);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    assert_eq!(pairs.list(&all()).unwrap(), [pair]);
}

#[test]
fn a_crash_without_a_flush_loses_nothing_the_segments_have() {
    let (dir, pairs) = store();
    put(&pairs, "chat", 1_000);
    pairs.flush().unwrap();
    // What a crash leaves: the index as it was, the segments as they are.
    let before = tempfile::tempdir().unwrap();
    copy(&dir.path().join("sled"), &before.path().join("sled"));
    put(&pairs, "chat", 2_000);
    put(&pairs, "chat", 3_000);
    copy(&dir.path().join("segments"), &before.path().join("segments"));
    let segment = before.path().join("segments").join(&files(dir.path())[0]);
    let len = fs::metadata(&segment).unwrap().len();
    File::options().write(true).open(&segment).unwrap().set_len(len - 1).unwrap();
    for _ in 0..2 {
        let pairs = Pairs::open(before.path(), LIMITS).unwrap();
        assert_eq!(times(&pairs, &all()), [2_000, 1_000], "all but the torn tail");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
}

#[test]
fn damaged_bodies_are_told_and_not_given() {
    let (dir, pairs) = store();
    let pair = put(&pairs, "chat", 1_000);
    let segment = dir.path().join("segments").join(&files(dir.path())[0]);
    let mut bytes = fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&segment, bytes).unwrap();
    let error = pairs.bodies(pair.id).unwrap_err();
    assert!(matches!(error, PairsError::Damaged { offset: 12, .. }), "{error}");
}

#[test]
fn what_is_too_old_goes_with_its_file_and_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { age_ms_max: 2 * HOUR_MS, ..LIMITS };
    let pairs = Pairs::open(dir.path(), limits).unwrap();
    for hour in 10..15 {
        for minute in [0, 30] {
            let pair = put(&pairs, "chat", hour * HOUR_MS + minute * 60_000);
            pairs.put_score(&samples::score(&pair, "judge:a@1")).unwrap();
        }
    }
    let gone = samples::pair("chat", 10 * HOUR_MS, 10 * HOUR_MS);
    assert_eq!(pairs.sweep(Timestamp(13 * HOUR_MS - 1)).unwrap(), Swept::default());
    let bytes = pairs.counters().bytes;
    assert_eq!(pairs.sweep(Timestamp(14 * HOUR_MS)).unwrap().segments, 2);
    assert_eq!(files(dir.path()).len(), 3);
    assert_eq!(times(&pairs, &of("chat")).last(), Some(&(12 * HOUR_MS)));
    assert_eq!(times(&pairs, &all()).len(), 6);
    assert_eq!(pairs.get(gone.id).unwrap(), None);
    assert_eq!(pairs.scores(gone.id).unwrap(), []);
    assert!(pairs.counters().bytes < bytes);
    // Long after, the last one is no longer current and goes too.
    assert_eq!(pairs.sweep(Timestamp(99 * HOUR_MS)).unwrap().segments, 3);
    assert_eq!(files(dir.path()), Vec::<String>::new());
    assert!(times(&pairs, &of("chat")).is_empty());
}

#[test]
fn what_was_counted_of_a_day_goes_with_the_pairs_of_that_day_or_after_a_month() {
    let (day, first) = (24 * HOUR_MS, 1_000);
    for (age_ms_max, oldest) in [(4 * HOUR_MS, 1_039), (90 * day, 1_009)] {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), Limits { age_ms_max, ..LIMITS }).unwrap();
        (first..=1_040).for_each(|it| pairs.keep(&crate::store::usage_key(it), b"x").unwrap());
        pairs.keep("usage/of others", b"x").unwrap();
        pairs.sweep(Timestamp(1_040 * day + HOUR_MS)).unwrap();
        let kept = |it: &u64| pairs.kept(&crate::store::usage_key(*it)).is_some();
        assert_eq!((first..=1_040).find(kept), Some(oldest));
        assert!((oldest..=1_040).all(|it| kept(&it)));
        assert!(pairs.kept("usage/of others").is_some());
    }
}

#[test]
fn what_is_too_much_goes_oldest_first_but_never_the_current_segment() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), Limits { bytes_max: 1, ..LIMITS }).unwrap();
    for hour in 10..15 {
        put(&pairs, "chat", hour * HOUR_MS);
    }
    assert_eq!(pairs.sweep(Timestamp(14 * HOUR_MS + 1)).unwrap().segments, 4);
    assert_eq!(times(&pairs, &all()), [14 * HOUR_MS]);
    assert_eq!(files(dir.path()), ["000000050400000.log"]);
    put(&pairs, "chat", 14 * HOUR_MS + 5);
    assert_eq!(times(&pairs, &all()).len(), 2);
}

#[test]
fn a_disk_below_its_floor_stores_nothing_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { free_bytes_min: u64::MAX, ..LIMITS };
    let pairs = Pairs::open(dir.path(), limits).unwrap();
    let pair = samples::pair("chat", 1_000, 1);
    let error = pairs.put_batch(&[(pair, Bodies::default())]).unwrap_err();
    assert!(matches!(error, PairsError::DiskFull { .. }), "{error}");
    assert_eq!((pairs.counters().pairs, pairs.counters().failed), (0, 1));
}

#[test]
fn small_values_are_kept() {
    let (dir, pairs) = store();
    assert_eq!(pairs.kept("copies"), None);
    pairs.keep("copies", b"20778 17").unwrap();
    drop(pairs);
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    assert_eq!(pairs.kept("copies").as_deref(), Some(&b"20778 17"[..]));
}

#[test]
fn a_second_opener_is_refused() {
    let (dir, _pairs) = store();
    let error = Pairs::open(dir.path(), LIMITS).unwrap_err();
    assert!(matches!(error, PairsError::Locked(_)), "{error}");
}

#[test]
fn an_index_that_is_ahead_of_its_segment_hides_nothing_else() {
    let (dir, pairs) = store();
    let kept = put(&pairs, "chat", 1_000);
    let lost = put(&pairs, "chat", 2_000);
    pairs.flush().unwrap();
    drop(pairs);
    let segment = dir.path().join("segments").join(&files(dir.path())[0]);
    let len = fs::metadata(&segment).unwrap().len();
    File::options().write(true).open(&segment).unwrap().set_len(len - 9).unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    let later = put(&pairs, "chat", 3_000);
    assert_eq!(times(&pairs, &all()), [3_000, 1_000]);
    assert_eq!(times(&pairs, &of("chat")), [3_000, 1_000]);
    assert_eq!(told(&pairs).len(), 2);
    assert!(pairs.get(lost.id).is_err() && 0 < pairs.counters().unreadable);
    for pair in [kept, later] {
        assert_eq!(pairs.get(pair.id).unwrap().unwrap().0, pair);
    }
}

#[test]
fn what_an_older_program_kept_in_its_index_stays() {
    let (dir, pairs) = store();
    let pair = put(&pairs, "chat", 1_000);
    pairs.keep("today", b"7").unwrap();
    pairs.flush().unwrap();
    drop(pairs);
    // Its rows of pairs were others.
    let old = sled::open(dir.path().join("sled")).unwrap();
    old.drop_tree("blocks").unwrap();
    old.open_tree("pairs").unwrap().insert([7; 16], vec![7; 99]).unwrap();
    old.open_tree("windows").unwrap().insert([7; 40], vec![]).unwrap();
    drop(old);
    for _ in 0..2 {
        let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
        assert_eq!(times(&pairs, &of("chat")), [1_000]);
        assert_eq!(pairs.get(pair.id).unwrap().unwrap().0, pair);
        assert_eq!(pairs.kept("today").as_deref(), Some(&b"7"[..]));
    }
}
