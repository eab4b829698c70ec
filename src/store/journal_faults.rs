//! Every fault at every step of opening, appending, renewing and compacting; then a kill -9 or a
//! power cut. Before or after, never between; nothing acknowledged is lost, and nothing that was
//! refused comes back once something else has its place.

use std::collections::{BTreeSet, HashSet};

use super::*;
use crate::store::{
    samples,
    sim::{Errno, Fault, Lasts, Sim},
};

/// So small that eleven records are compacted twice.
const SMALL: Bounds = Bounds {
    records_max: 6,
    bytes_max: usize::MAX,
    records_kept: 3,
    bytes_kept: usize::MAX,
    archives_bytes_max: u64::MAX,
};
/// Times something refused is offered again.
const TRIES: usize = 3;

/// What the journal has said so far.
#[derive(Clone, Debug, Default)]
struct Said {
    acknowledged: Vec<Record>,
    /// Refused for the next position: what is there of them is open.
    refused: Vec<Record>,
}

/// Checks what is on a disk; each distinct case once.
#[derive(Default)]
struct Checker {
    seen: HashSet<(Vec<u8>, Vec<String>, Vec<String>)>,
    images: usize,
}

impl Checker {
    /// Whatever a crash leaves now agrees with what was said.
    fn check(&mut self, sim: &Sim, said: &Said, context: &str) {
        let mut images = sim.after_power_cut(FILE_NAME);
        images.insert(sim.seen().remove(FILE_NAME));
        let archived = archived(sim);
        for image in images {
            let Some(bytes) = image else {
                assert_eq!(said.acknowledged, [], "{context}: the journal is gone");
                continue;
            };
            self.images += 1;
            let [acknowledged, refused] = [&said.acknowledged, &said.refused]
                .map(|it| it.iter().map(|it| it.comment.clone()).collect());
            if self.seen.insert((bytes.clone(), acknowledged, refused)) {
                let files = [(FILE_NAME.to_owned(), bytes)].into();
                let (mut journal, history) = Sim::with(&files)
                    .journal(SMALL)
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                said.agrees(&history, context);
                assert!(
                    (1..=history.forgotten).all(|it| archived.contains(&it)
                        || it > 0 && {
                            // What opening compacts goes to an archive of its own, on that other disk.
                            Log::read(Path::new("sim"), &files[FILE_NAME])
                                .unwrap()
                                .history
                                .forgotten
                                < it
                        }),
                    "{context}: records are in no archive"
                );
                let seq = journal.next_seq();
                journal.append(&samples::record(seq, crate::domain::Event::Resumed)).unwrap();
            }
        }
    }
}

impl Said {
    fn agrees(&self, history: &History, context: &str) {
        let (last, count) = (usize::try_from(history.last_seq()).unwrap(), self.acknowledged.len());
        let most = count + usize::from(!self.refused.is_empty());
        assert!(count <= last && last <= most, "{context}: {last} records, {count} acknowledged");
        for record in &history.records {
            let index = usize::try_from(record.seq).unwrap() - 1;
            let said = self.acknowledged.get(index);
            assert!(
                said.map_or_else(|| self.refused.contains(record), |it| it == record),
                "{context}: record {} is another one",
                record.seq
            );
        }
        let mut expected = History { records: self.acknowledged.clone(), ..History::default() };
        expected.records.extend(self.refused.first().cloned());
        expected.forget(usize::try_from(history.forgotten).unwrap());
        assert_eq!(format!("{:?}", expected.past), format!("{:?}", history.past), "{context}");
    }
}

/// Positions that are in an archive for certain, whatever a power cut does.
fn archived(sim: &Sim) -> BTreeSet<u64> {
    let mut certain = BTreeSet::new();
    for name in sim.seen().into_keys().filter(|it| archive::is_archive(it)) {
        let images = sim.after_power_cut(&name);
        let mut common: Option<BTreeSet<u64>> = None;
        for image in images {
            let bytes = image.unwrap_or_default();
            let held: BTreeSet<u64> = frame::scan(&bytes, frame::HEADER_LEN)
                .map(|found| match found {
                    Found::Frame { payload, .. } => record::decode(payload).unwrap().seq,
                    Found::Damage { .. } | Found::Torn { .. } => panic!("{name} is torn"),
                })
                .collect();
            common = Some(common.map_or(held.clone(), |it| &it & &held));
        }
        certain.extend(common.unwrap_or_default());
    }
    certain
}

/// Opens and writes a rollout's life, and checks after every answer.
fn play(sim: &Sim, checker: &mut Checker, context: &str) -> Said {
    let mut said = Said::default();
    let opened = (0..TRIES).find_map(|_| {
        let opened = sim.journal(SMALL);
        checker.check(sim, &said, context);
        opened.ok()
    });
    let Some((mut journal, _)) = opened else { return said };
    for record in samples::first_life("chat") {
        let written = (0..TRIES).any(|number| {
            // Another record than the refused one, as a rollback is.
            let comment = format!("{} {number}", record.comment);
            let record = Record { comment, ..record.clone() };
            match journal.append(&record) {
                Ok(()) => {
                    said.refused.clear();
                    said.acknowledged.push(record);
                }
                Err(_) => said.refused.push(record),
            }
            checker.check(sim, &said, context);
            said.refused.is_empty()
        });
        if !written {
            break;
        }
    }
    said
}

/// After a kill -9 the next process finds the disk well again, writes, and loses power.
fn go_on(sim: &Sim, mut said: Said, checker: &mut Checker, context: &str) {
    sim.fail(None);
    let (mut journal, history) =
        sim.journal(SMALL).unwrap_or_else(|error| panic!("{context}: {error}"));
    said.agrees(&history, context);
    let came_back = history.records.iter().find(|it| said.refused.contains(it)).cloned();
    said.refused.clear();
    said.acknowledged.extend(came_back);
    for _ in 0..2 {
        let record = samples::record(journal.next_seq(), crate::domain::Event::Resumed);
        journal.append(&record).unwrap();
        said.acknowledged.push(record);
        checker.check(sim, &said, context);
    }
}

#[test]
fn without_faults_a_life_is_compacted_twice_and_nothing_is_lost() {
    let (sim, mut checker) = (Sim::default(), Checker::default());
    let said = play(&sim, &mut checker, "no fault");
    assert_eq!(said.acknowledged.len(), 11);
    let (_, history) = sim.journal(SMALL).unwrap();
    assert_eq!((history.forgotten, history.records.len()), (8, 3));
    assert_eq!(archived(&sim), (1..=8).collect());
    let names: Vec<String> = sim.seen().into_keys().collect();
    let archives = ["journal.00000000000000000001.log", "journal.00000000000000000005.log"];
    assert_eq!(names, [archives[0], archives[1], FILE_NAME]);
}

#[test]
fn b28_b32_b33_every_fault_at_every_step_leaves_before_or_after() {
    let (sim, mut checker) = (Sim::default(), Checker::default());
    play(&sim, &mut checker, "no fault");
    let steps = sim.steps();
    let (mut runs, mut all, mut given_up) = (0, 0, 0);
    for step in 1..=steps {
        for error in [Errno::Io, Errno::Full] {
            for lasts in [Lasts::Once, Lasts::ForEver] {
                let context = format!("step {step}, {error:?}, {lasts:?}");
                let sim = Sim::default();
                sim.fail(Some(Fault { step, error, lasts }));
                let said = play(&sim, &mut checker, &context);
                runs += 1;
                match said.acknowledged.len() {
                    11 => all += 1,
                    _ => given_up += 1,
                }
                assert!(lasts == Lasts::ForEver || said.acknowledged.len() == 11, "{context}");
                go_on(&sim, said, &mut checker, &context);
            }
        }
    }
    println!(
        "{steps} steps, {runs} runs ({all} to the end, {given_up} given up), {} crash images, {} distinct",
        checker.images,
        checker.seen.len()
    );
    assert!(40 < steps && 1_000 < checker.seen.len() && 0 < given_up);
}

#[test]
fn two_faults_in_one_life_leave_before_or_after() {
    let sim = Sim::default();
    let mut checker = Checker::default();
    play(&sim, &mut checker, "no fault");
    for first in 1..=sim.steps() {
        for gap in 1..=6 {
            let context = format!("steps {first} and {}", first + gap);
            let sim = Sim::default();
            let fault = |step| Fault { step, error: Errno::Io, lasts: Lasts::Once };
            sim.fail(Some(fault(first)));
            sim.fail_again(fault(first + gap));
            let said = play(&sim, &mut checker, &context);
            go_on(&sim, said, &mut checker, &context);
        }
    }
}

#[test]
fn a_disk_too_full_for_an_archive_keeps_the_journal_long_and_working() {
    let sim = Sim::default();
    let (mut journal, _) = sim.journal(SMALL).unwrap();
    let life = samples::first_life("chat");
    life[..6].iter().for_each(|it| journal.append(it).unwrap());
    // The next append: write, sync, read, then the archive.
    let full = Fault { step: sim.steps() + 4, error: Errno::Full, lasts: Lasts::Once };
    sim.fail(Some(full));
    life[6..].iter().for_each(|it| journal.append(it).unwrap());
    let (_, history) = sim.endless_journal().unwrap();
    assert_eq!((history.forgotten, history.records.len()), (0, 11));
}

#[test]
fn archives_have_a_bound_and_the_oldest_goes_first() {
    let sim = Sim::default();
    let bounds = Bounds { archives_bytes_max: 8_000, ..SMALL };
    let (mut journal, _) = sim.journal(bounds).unwrap();
    for seq in 1..=60 {
        journal.append(&samples::record(seq, crate::domain::Event::Resumed)).unwrap();
    }
    let archives: Vec<(String, usize)> = sim
        .seen()
        .into_iter()
        .filter(|(name, _)| archive::is_archive(name))
        .map(|(name, bytes)| (name, bytes.len()))
        .collect();
    let bytes: usize = archives.iter().map(|it| it.1).sum();
    assert!(4_000 < bytes && bytes <= 8_000, "{archives:?}");
    let (_, history) = sim.journal(bounds).unwrap();
    let newest = archives.last().unwrap().0.clone();
    assert_eq!(archived(&sim).last(), Some(&history.forgotten), "{newest}");
}
