//! The journal on a real disk, and what it makes of files that others wrote or changed.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::domain::{Compared, Event, Share, Times};
use crate::store::samples;

fn record(seq: u64) -> Record {
    samples::record(seq, Event::Resumed)
}

fn journal_of(count: u64) -> (TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, history) = Journal::open(dir.path()).unwrap();
    assert_eq!(history.last_seq(), 0);
    for seq in 1..=count {
        journal.append(&record(seq)).unwrap();
    }
    (dir, journal)
}

fn reopened(dir: &Path) -> Vec<u64> {
    let (_, history) = Journal::open(dir).unwrap();
    history.records.iter().map(|it| it.seq).collect()
}

fn ends(path: &Path, log: &[u8]) -> Vec<usize> {
    let log = Log::read(path, log).unwrap();
    log.starts.iter().skip(1).copied().chain([log.len]).collect()
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let (dir, mut journal) = journal_of(0);
    let events = samples::events();
    let records: Vec<Record> =
        (1..).zip(events).map(|(seq, event)| samples::record(seq, event)).collect();
    for record in &records {
        journal.append(record).unwrap();
    }
    drop(journal);
    let (journal, back) = Journal::open(dir.path()).unwrap();
    assert_eq!(back.records, records);
    assert_eq!(usize::try_from(journal.next_seq()).unwrap(), records.len() + 1);
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_and_writing_goes_on() {
    let (dir, journal) = journal_of(3);
    drop(journal);
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    for len in ends(&path, &whole)[1]..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let (mut journal, history) = Journal::open(dir.path()).unwrap();
        assert_eq!(history.records.len(), 2, "cut at {len}");
        journal.append(&record(3)).unwrap();
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {len}");
    }
}

#[test]
fn every_flipped_bit_before_the_last_frame_is_detected() {
    let (dir, journal) = journal_of(3);
    drop(journal);
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    let second_end = ends(&path, &whole)[1];
    for (byte, bit) in (0..second_end).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << bit;
        let Err(error) = Log::read(&path, &flipped) else {
            panic!("bit {bit} of byte {byte} went unseen");
        };
        let in_version = (8..12).contains(&byte);
        let seen = match &error {
            JournalError::Corrupt { offset, .. } => *offset <= byte || in_version,
            other => matches!(other, JournalError::Version { .. }) && in_version,
        };
        assert!(seen, "bit {bit} of byte {byte}: {error}");
    }
}

#[test]
fn a_missing_record_is_corruption() {
    let (dir, journal) = journal_of(3);
    drop(journal);
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    let ends = ends(&path, &whole);
    fs::write(&path, [&whole[..ends[0]], &whole[ends[1]..]].concat()).unwrap();
    let error = Journal::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("record 3 where 2 is next"), "{error}");
}

/// C7
#[test]
fn a_second_opener_is_refused() {
    let (dir, journal) = journal_of(1);
    let error = Journal::open(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with(&format!("process {}", std::process::id())), "{error}");
    drop(journal);
    assert_eq!(reopened(dir.path()), [1]);
}

#[test]
fn a_record_out_of_turn_is_refused() {
    let (_dir, mut journal) = journal_of(1);
    for seq in [1, 3] {
        let error = journal.append(&record(seq)).unwrap_err();
        assert!(matches!(error, JournalError::NotNext { next: 2, .. }), "{error}");
    }
}

#[test]
fn a_later_version_is_refused_and_left_as_it_is() {
    let (dir, journal) = journal_of(1);
    drop(journal);
    let path = dir.path().join(FILE_NAME);
    let mut log = fs::read(&path).unwrap();
    frame::push(&mut log, br#"{"v":99,"seq":2,"whatever":true}"#).unwrap();
    fs::write(&path, &log).unwrap();
    let error = Journal::open(dir.path()).unwrap_err();
    assert!(matches!(error, JournalError::Version { found: 99, .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), log);
}

/// What the first version wrote: no times, watched slices and noise in plans, no cause of a pause,
/// no revision of the plan, nothing but all traffic in evidence.
fn life_of_version_1() -> Vec<Record> {
    let mut life = samples::first_life("chat");
    for record in &mut life {
        record.plan_revision = 0;
        for gate in &mut record.evidence {
            gate.watched.clear();
            gate.noise = None;
        }
        if let Event::Created(plan) | Event::Revised(plan) = &mut record.event {
            (plan.times, plan.watched) = (Times::default(), None);
            (plan.noise, plan.review) = (Share::NONE, Share::NONE);
            plan.compared = Compared::default();
            plan.stages.iter_mut().for_each(|it| (it.duration_ms_max, it.delay_ms) = (None, 0));
        }
    }
    life
}

#[test]
fn a_journal_of_the_first_version_opens_and_is_only_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let old = include_bytes!("../../tests/golden/journal/v1.log");
    fs::write(&path, old).unwrap();
    let (mut journal, history) = Journal::open(dir.path()).unwrap();
    assert_eq!(history.records, life_of_version_1());
    journal.append(&record(12)).unwrap();
    drop(journal);
    let now = fs::read(&path).unwrap();
    assert!(now.starts_with(old), "only added to, the header included");
    let (_, history) = Journal::open(dir.path()).unwrap();
    assert_eq!(history.records.last(), Some(&record(12)));
}

#[test]
fn a_damaged_beginning_of_a_compacted_journal_is_corruption() {
    let mut history = History { records: samples::life("chat"), ..History::default() };
    history.forget(3);
    let (_, whole) = compacted(&history, 0, &[]).unwrap();
    let path = Path::new("sim");
    assert_eq!(Log::read(path, &whole).unwrap().history.forgotten, 3);
    for len in frame::HEADER_LEN..whole.len() {
        let Err(error) = Log::read(path, &whole[..len]) else {
            panic!("a beginning of {len} bytes is no beginning");
        };
        assert!(matches!(error, JournalError::Corrupt { .. }), "{len}: {error}");
    }
    for byte in 8..whole.len() {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1;
        assert!(Log::read(path, &flipped).is_err(), "byte {byte}");
    }
}
