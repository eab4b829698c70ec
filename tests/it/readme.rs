//! The README tells the truth: its configuration is the shipped one, its commands exist.

use std::{collections::BTreeSet, fs, process::Command};

/// The code blocks of a kind.
fn blocks(readme: &str, kind: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in readme.lines() {
        match (&mut block, line) {
            (None, line) if line == format!("```{kind}") => block = Some(String::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn the_first_rollout_is_the_shipped_configuration() {
    let readme = fs::read_to_string("README.md").unwrap();
    let minimal = fs::read_to_string("config/minimal.toml").unwrap();
    assert!(blocks(&readme, "toml").contains(&minimal), "README and config/minimal.toml differ");
    let lines = minimal.lines().filter(|it| !it.trim().is_empty()).count();
    assert!(lines <= 15, "{lines} lines");
}

#[test]
fn every_crossfade_command_of_the_readme_parses() {
    let readme = fs::read_to_string("README.md").unwrap();
    let commands: BTreeSet<String> = blocks(&readme, "sh")
        .iter()
        .flat_map(|it| it.lines())
        .flat_map(|it| it.split('#').next().unwrap_or("").split(';'))
        .filter_map(|it| it.trim().strip_prefix("crossfade "))
        .map(str::to_owned)
        .collect();
    assert!(10 <= commands.len(), "{commands:?}");
    for command in commands {
        // `--help` after the whole line parses it and does nothing.
        let words = command.split_whitespace().map(|it| it.trim_matches('"'));
        let output = Command::new(env!("CARGO_BIN_EXE_crossfade"))
            .args(words)
            .arg("--help")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "crossfade {command}: {text}");
    }
}

#[test]
fn what_was_measured_is_there_with_its_command() {
    let readme = fs::read_to_string("README.md").unwrap();
    for (section, command) in
        [("## Performance", "scripts/bench"), ("## Rehearse", "scripts/replay")]
    {
        let text = readme.split(section).nth(1).unwrap();
        let text = text.split("\n## ").next().unwrap();
        assert!(text.contains(command), "{section} names no command");
        assert!(
            4 < text.lines().filter(|it| it.starts_with('|')).count(),
            "{section} has no table"
        );
    }
}
