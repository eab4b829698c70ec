//! Every behaviour of the control plane has a test that names it, and every story comes out as told.
//!
//! A story is a command, `----`, what it must answer, and a blank line; `src/scenario` says
//! which commands there are. After a wanted change run with `UPDATE=1`, read the diff, and commit
//! it only if you can say why every line moved.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use crossfade::scenario::{self, Difference};

/// The behaviours, as the design numbers them.
#[rustfmt::skip]
const IDS: &[(char, &[u32])] = &[
    ('E', &[1, 2, 3, 5, 7, 8, 9, 11, 13, 14, 15, 17, 18, 19, 21, 22, 24]),
    ('V', &[1, 2, 6, 8, 10, 12, 14, 15, 16, 18, 20, 21, 23, 24, 26, 27, 28, 30]),
    ('T', &[1, 3, 5, 6, 7, 8]),
    ('C', &[1, 3, 4, 5, 7, 9, 11]),
    ('F', &[1, 3, 5, 6, 7, 9]),
    ('O', &[1, 2, 4, 5, 7, 9]),
    ('M', &[1, 3, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17]),
];

/// Behaviours without a test, and what is missing for one. Keep it short.
#[rustfmt::skip]
const WITHOUT: &[(&str, &str)] = &[
    ("F9",  "a configuration is read once, at the start; there is no reload to go wrong"),
    ("O7",  "there are no webhooks; approvals come over the API alone"),
    ("O9",  "there are no notifications; whoever wants to know watches the API"),
];

#[test]
fn every_story_comes_out_as_told() {
    let update = env::var_os("UPDATE").is_some();
    let stories = files(Path::new("tests/scenarios"), "txt");
    assert!(!stories.is_empty());
    let mut wrong = Vec::new();
    for path in stories {
        let text = fs::read_to_string(&path).unwrap();
        match scenario::replay(&text) {
            Err(bad) => wrong.push(format!("{}: {bad}", path.display())),
            Ok(replay) if update => fs::write(&path, replay.text).unwrap(),
            Ok(replay) if replay.text == text => {}
            Ok(replay) => {
                let told: Vec<String> = replay.differences.iter().map(Difference::show).collect();
                wrong.push(format!("{}:\n{}", path.display(), told.join("\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "see the head of tests/it/behaviours.rs\n{}", wrong.join("\n"));
}

#[test]
fn every_behaviour_has_a_test_that_names_it() {
    let named = named();
    let mut faults = Vec::new();
    for id in ids() {
        let excused = WITHOUT.iter().any(|(it, _)| *it == id);
        match (named.contains(&id), excused) {
            (true, false) | (false, true) => {}
            (false, false) => faults.push(format!("{id} has no test that names it")),
            (true, true) => faults.push(format!("{id} has a test; take it off the list")),
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(WITHOUT.iter().all(|(id, why)| ids().any(|it| it == *id) && 20 < why.len()));
}

fn ids() -> impl Iterator<Item = String> {
    let all = IDS.iter().flat_map(|(group, numbers)| numbers.iter().map(move |it| (group, it)));
    all.map(|(group, number)| format!("{group}{number}"))
}

/// The ids in the comments above the blocks of stories and in the doc comments of Rust tests.
fn named() -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for path in files(Path::new("tests/scenarios"), "txt") {
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines().filter_map(|it| it.strip_prefix('#')) {
            named.extend(words(line));
        }
    }
    for folder in ["src", "tests"] {
        for path in files(Path::new(folder), "rs") {
            let text = fs::read_to_string(path).unwrap();
            let mut comment = Vec::new();
            for line in text.lines().map(str::trim_start) {
                if let Some(said) = line.strip_prefix("///") {
                    comment.extend(words(said));
                } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    named.extend(std::mem::take(&mut comment));
                } else if !line.starts_with("#[") {
                    comment.clear();
                }
            }
        }
    }
    named
}

fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|it: char| !it.is_ascii_alphanumeric()).map(str::to_owned)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
