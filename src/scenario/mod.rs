//! Stories of rollouts that an operator can write, play and read, in virtual time.
//!
//! ```text
//! # A comment. Blocks stand apart by blank lines.
//! plan
//! shadow least=1h pairs=500 error_rate=+0.5pp
//! half serve=50% least=1h pairs=500 error_rate=+0.5pp latency_p99=max(+200ms,+10%):guard
//! ----
//! +0s | pending
//!
//! start
//! ----
//! +0s stage `shadow` entered (OPERATOR)
//! +0s | running | `shadow` serves 0% | gate `error_rate` of stage `shadow` is undecided: …
//! ```
//!
//! What stands above `----` is asked, what stands below must be answered. The rules, the bets
//! and the tripwire are the real ones; the disk, the clock and the traffic are made up. These
//! commands exist:
//!
//! ```text
//! date 2026-11-20T17:00:00Z       before anything else: when the story begins
//! rollout NAME                    whom the commands below it are about; `chat` at first
//! plan [WORDS] / revise [WORDS]   a plan: words about the whole, then a line for each stage
//! start · supersede · pause · resume · rollback · advance [STAGE] [override]
//! jump STAGE [override] [consent] · complete [consent] · approve STAGE yes|no
//! wait 30m                        time passes and is looked at once a minute
//! down 3h                         time passes while the process is down; then it starts again
//! clock +1d                       the wall clock jumps; only another start of the process sees it
//! restart                         everything is built again from what was written
//! crash before write|after write  the next step is cut off there, and the process starts again
//! evidence WORDS                  says what the gates say: error_rate=pass/500 all=pass pairs=500
//!                                 problem=coverage error_rate@search=breach; in force until the
//!                                 next stage
//! traffic 500 pairs WORDS         feeds the real bets: seed=1 over=10m errors=1%/5% slice=search
//!                                 hang=0%/30%
//! trip                            the candidate simply dies
//! stop · stop lift                everything goes back, and nothing starts until it is lifted
//! status · explain                where it stands; what each gate says
//! ```

mod evidence;
mod managed;
mod plan;
mod tell;
mod traffic;
mod words;
mod world;

#[cfg(test)]
mod histories;

use std::fmt::Write as _;

use world::World;

/// Stands between a command and its answer.
const RULE: &str = "----";
/// Most blocks of a story, so that a file that is none ends soon.
const BLOCKS_LEN_MAX: usize = 2_000;

/// A story that was played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The story with every answer as it was given.
    pub text: String,
    /// Where an answer was expected and another one was given.
    pub differences: Vec<Difference>,
}

/// An answer that is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line of the command, from 1.
    pub line: usize,
    /// What was asked.
    pub command: String,
    /// What the story expects.
    pub expected: String,
    /// What it came to.
    pub given: String,
}

/// A line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadLine {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A part of a story between blank lines.
struct Block<'a> {
    /// The line of its first command, from 1.
    line: usize,
    comment: Vec<&'a str>,
    command: Vec<&'a str>,
    expected: Option<String>,
}

/// Plays a story.
///
/// # Errors
/// Names the first line that cannot be understood. What a command answers is never an error.
pub fn replay(text: &str) -> Result<Replay, BadLine> {
    let mut world = World::new();
    let mut replay = Replay { text: String::new(), differences: Vec::new() };
    for block in blocks(text)? {
        for line in &block.comment {
            push(&mut replay.text, line);
        }
        if !block.command.is_empty() {
            let given = world.run(block.line, &block.command)?;
            for line in block.command.iter().copied().chain([RULE]) {
                push(&mut replay.text, line);
            }
            push(&mut replay.text, &given);
            if let Some(expected) = block.expected.filter(|it| *it != given) {
                let (line, command) = (block.line, block.command.join("\n"));
                replay.differences.push(Difference { line, command, expected, given });
            }
        }
        replay.text.push('\n');
    }
    replay.text.truncate(replay.text.trim_end().len());
    replay.text.push('\n');
    Ok(replay)
}

impl Difference {
    /// The difference as people read it: `-` was expected, `+` was given.
    pub fn show(&self) -> String {
        let mut text = format!("line {}: {}\n", self.line, self.command);
        let lines = |marked: char, all: &str, others: &str, text: &mut String| {
            for line in all.lines() {
                let mark = if others.lines().any(|it| it == line) { ' ' } else { marked };
                // Writing into a text cannot fail.
                let _ = writeln!(text, "{mark} {line}");
            }
        };
        lines('-', &self.expected, &self.given, &mut text);
        lines('+', &self.given, &self.expected, &mut text);
        text
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn blocks(text: &str) -> Result<Vec<Block<'_>>, BadLine> {
    let lines: Vec<(usize, &str)> = text.lines().map(str::trim_end).enumerate().collect();
    let parts = lines.split(|(_, line)| line.is_empty()).filter(|it| !it.is_empty());
    let blocks: Vec<Block<'_>> = parts.map(block).collect();
    if BLOCKS_LEN_MAX < blocks.len() {
        let problem = format!("a story has at most {BLOCKS_LEN_MAX} blocks");
        return Err(BadLine { line: blocks[BLOCKS_LEN_MAX].line, problem });
    }
    Ok(blocks)
}

fn block<'a>(lines: &[(usize, &'a str)]) -> Block<'a> {
    let comments = lines.iter().take_while(|(_, line)| line.starts_with('#')).count();
    let (comment, rest) = lines.split_at(comments);
    let mut halves = rest.splitn(2, |(_, line)| *line == RULE);
    let texts = |half: &[(usize, &'a str)]| half.iter().map(|(_, line)| *line).collect();
    let command = halves.next().unwrap_or(&[]);
    Block {
        line: command.first().map_or(0, |(index, _)| index + 1),
        comment: texts(comment),
        command: texts(command),
        expected: halves.next().map(|half| {
            let lines: Vec<&str> = texts(half);
            lines.join("\n")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = "# One.\n\nplan\nfirst pairs=5\n----\n+0s | pending\n\nstart\n";

    #[test]
    fn a_story_without_answers_gets_them_and_then_agrees_with_itself() {
        let first = replay(STORY).unwrap();
        assert_eq!(first.differences, []);
        assert!(first.text.contains("stage `first` entered"), "{}", first.text);
        let again = replay(&first.text).unwrap();
        assert_eq!(again, first);
    }

    #[test]
    fn another_answer_than_the_expected_one_is_shown_by_line() {
        let wrong = STORY.replace("+0s | pending", "+0s | running");
        let replay = replay(&wrong).unwrap();
        let [difference] = replay.differences.as_slice() else { panic!("{replay:?}") };
        assert_eq!(
            difference.show(),
            "line 3: plan\nfirst pairs=5\n- +0s | running\n+ +0s | pending\n"
        );
        assert!(replay.text.contains("+0s | pending"));
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named() {
        for (story, line, part) in [
            ("dance", 1, "dance"),
            ("\n\nplan\nfirst pears=5", 4, "pears"),
            ("plan\nfirst pairs=many", 2, "many"),
            ("start", 1, "plan"),
            ("plan\nfirst\n\nadvance one two", 4, "two"),
            ("plan\nfirst\n\nwait long", 4, "long"),
            ("plan\nfirst\n\nwait 20000d", 4, "at most"),
            ("plan\nfirst\n\ntraffic 5 pairs latency=fast", 4, "fast"),
            ("plan\nfirst\n\ntraffic 999999999 pairs", 4, "at most"),
            ("plan\nfirst\n\nevidence error_rate=good", 4, "good"),
            ("plan\nfirst\n\ncrash during write", 4, "crash"),
        ] {
            let bad = replay(story).unwrap_err();
            assert_eq!(bad.line, line, "{bad}");
            assert!(bad.problem.contains(part), "{bad}");
        }
    }
}
