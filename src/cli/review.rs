//! `review`: answers compared blind, a key for each.

use std::time::Duration;

use comfy_table::{ContentArrangement, presets};
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    Exit, Problem,
    commands::{Output, ReviewArgs},
    keys::{Keys, Pressed, columns},
    ladder, look,
    out::{Out, harmless},
};
use crate::api::{Client, Failure, FailureKind, proto};
use proto::{LeaseReviewResponse, ReviewedAnswer, submit_review_request::Preference};

/// Columns from which both answers stand side by side.
const WIDE: u16 = 160;
/// What can be pressed.
const HELP: &str =
    "1 first better · 2 second better · 3 both good · 4 both bad · s skip · u undo · q quit";
/// An answer is offered so often to a server that is not there, and so long apart.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// A reviewer at work.
struct Session<'a> {
    client: &'a mut Client,
    out: &'a mut Out,
    keys: Keys,
    parent: String,
    /// The pair that was answered last.
    last: Option<LeaseReviewResponse>,
    /// Pairs answered.
    done: u64,
}

/// What a reviewer is called who has not said: two who sit at one port are two, and each must not
/// take the other's pair from their hands.
pub(super) fn sitting(user: &str) -> String {
    let name: String = user.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let name = if name.is_empty() { "reviewer".to_owned() } else { name };
    let id = Uuid::now_v7().simple().to_string();
    format!("{name}-{}", &id[id.len() - 8..])
}

/// Shows pairs until none waits, or whoever compares them has had enough.
pub(super) async fn review(
    client: &mut Client,
    out: &mut Out,
    args: &ReviewArgs,
) -> Result<Exit, Problem> {
    let parent = look::full(&args.name);
    if !args.progress {
        let keys = Keys::new();
        let mut session =
            Session { client, out, keys, parent: parent.clone(), last: None, done: 0 };
        session.run().await?;
    }
    let progress = client.get_review_progress(proto::GetReviewProgressRequest { parent }).await?;
    match out.output() {
        Output::Json => out.json("ReviewProgress", &progress)?,
        Output::Table => out.data(&standing(&progress))?,
    }
    Ok(Exit::Done)
}

impl Session<'_> {
    async fn run(&mut self) -> Result<(), Problem> {
        loop {
            let request = proto::LeaseReviewRequest { parent: self.parent.clone(), lease: None };
            let lease = self.client.lease_review(request).await?;
            let given = !lease.lease_id.is_empty();
            if !given {
                self.out.note(&harmless(&lease.not_given))?;
            }
            if (!given && self.last.is_none()) || !self.ask(given.then_some(lease)).await? {
                return Ok(());
            }
        }
    }

    /// Asks about a pair, or where there is none whether the last answer is right; says whether
    /// there is more to ask.
    async fn ask(&mut self, next: Option<LeaseReviewResponse>) -> Result<bool, Problem> {
        let mut asked = next.clone();
        self.show(asked.as_ref())?;
        loop {
            let Some(Pressed { key, rest }) = self.keys.next().await? else { return Ok(false) };
            match (key, choice(key), &asked) {
                ('q', ..) => return Ok(false),
                ('u', ..) if self.last.is_some() => {
                    asked.clone_from(&self.last);
                    self.show(asked.as_ref())?;
                }
                (_, Some(choice), Some(lease)) => {
                    let undone = Some(&lease.lease_id) == self.last.as_ref().map(|it| &it.lease_id);
                    let kept = self.submit(lease.lease_id.clone(), choice, rest).await?;
                    if !undone {
                        self.done += u64::from(kept);
                        self.last = asked.filter(|_| kept);
                        return Ok(true);
                    }
                    asked.clone_from(&next);
                    self.show(asked.as_ref())?;
                }
                _ => self.out.note(HELP)?,
            }
        }
    }

    /// Hands an answer in; says whether it was taken. One that cannot be handed over is offered
    /// again, for the server knows it by its lease.
    async fn submit(
        &mut self,
        lease_id: String,
        choice: Preference,
        comment: String,
    ) -> Result<bool, Problem> {
        let request = proto::SubmitReviewRequest { lease_id, preference: choice.into(), comment };
        let mut tries = 1;
        loop {
            let Err(failure) = self.client.submit_review(request.clone()).await else {
                return Ok(true);
            };
            let Failure { kind, message, .. } = &failure;
            match kind {
                FailureKind::NotFound | FailureKind::Precondition => {
                    self.out.note(&format!("not taken: {}", harmless(message)))?;
                    return Ok(false);
                }
                FailureKind::Unreachable | FailureKind::Other if tries < TRIES => {
                    self.out.note(&format!("not taken yet: {}", harmless(message)))?;
                }
                _ => return Err(failure.into()),
            }
            tries += 1;
            sleep(PAUSE).await;
        }
    }

    fn show(&mut self, lease: Option<&LeaseReviewResponse>) -> Result<(), Problem> {
        let Some(lease) = lease else {
            return Ok(self.out.note("u to see your last answer again · q quit")?);
        };
        let head = format!("\n── {} answered · {} wait besides", self.done, lease.waiting);
        let answer = |it: &Option<ReviewedAnswer>| readable(&it.clone().unwrap_or_default());
        let (first, second) = (answer(&lease.answer_a), answer(&lease.answer_b));
        let question = behind("asked", &lease.question);
        let answers = match columns().filter(|it| WIDE <= *it) {
            Some(columns) => beside(&first, &second, columns),
            None => format!("{}\n{}", behind("1", &first), behind("2", &second)),
        };
        Ok(self.out.data(&format!("{head}\n{question}\n{answers}\n{HELP}"))?)
    }
}

fn choice(key: char) -> Option<Preference> {
    match key {
        '1' => Some(Preference::A),
        '2' => Some(Preference::B),
        '3' => Some(Preference::BothGood),
        '4' => Some(Preference::BothBad),
        's' => Some(Preference::Skip),
        _ => None,
    }
}

/// An answer as text: what it says, and the tools it wants called.
fn readable(answer: &ReviewedAnswer) -> String {
    let calls = answer.tool_calls.iter();
    let calls = calls.map(|it| format!("→ {}({})", it.name, it.arguments));
    let parts = [&answer.text, &answer.refusal].map(String::clone).into_iter().chain(calls);
    parts.filter(|it| !it.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A text that is not ours, behind a line of its own.
fn behind(title: &str, text: &str) -> String {
    let lines = text.lines().map(|it| format!("  │ {it}"));
    format!("{title}\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// Two texts side by side.
fn beside(first: &str, second: &str, columns: u16) -> String {
    let plain = |text: &str| text.lines().map(harmless).collect::<Vec<_>>().join("\n");
    let mut table = ladder::table(&["1", "2"]);
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::DynamicFullWidth).set_width(columns - 2);
    table.add_row([plain(first), plain(second)]);
    ladder::lines(&table)
}

/// How far the reviews have come.
pub(super) fn standing(progress: &proto::ReviewProgress) -> String {
    let proto::ReviewProgress { reviewed, waiting, leased, .. } = progress;
    let mut lines =
        vec![format!("{reviewed} reviewed · {waiting} wait for you · {leased} in hands")];
    if let Some(wins) = progress.candidate_wins {
        lines.push(format!("the candidate wins {:.1}% of them, ties half", wins * 100.0));
    }
    let agreements = [
        ("with a second reviewer", &progress.second_reviewer),
        ("with the judge", &progress.judge),
    ];
    for (whom, known) in agreements {
        let Some(known) = known.as_ref().filter(|it| 0 < it.pairs) else { continue };
        let kappa = known.kappa.map_or_else(
            || "too few or too much alike for a kappa".to_owned(),
            |it| format!("κ={it:.2}"),
        );
        lines.push(format!("agreement {whom}: {} of {} pairs, {kappa}", known.agreed, known.pairs));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stand_side_by_side_within_the_width_and_steer_nothing() {
        let long = "word ".repeat(100);
        let text = beside(&format!("{long}\x1b[2J"), "short\nsecond line", 170);
        assert!(text.contains("␛[2J") && !text.contains('\x1b'), "{text}");
        assert!(text.lines().all(|it| it.chars().count() <= 172), "{text}");
        assert!(text.lines().any(|it| it.contains("word") && it.contains("second line")), "{text}");
    }

    #[test]
    fn each_sitting_has_a_name_of_its_own_that_can_be_sent() {
        let (one, other) = (sitting("ana lee\n"), sitting("ana lee\n"));
        assert!(one != other && one.starts_with("analee-") && one.len() == 15, "{one}");
        assert!(sitting("öß").starts_with("reviewer-") || sitting("").starts_with("reviewer-"));
    }

    #[test]
    fn an_answer_is_its_text_its_refusal_and_its_calls() {
        let call = |name: &str| proto::ReviewedToolCall {
            name: name.to_owned(),
            arguments: "{\"id\":7}".to_owned(),
        };
        let answer = ReviewedAnswer {
            text: "Of course.".to_owned(),
            tool_calls: vec![call("search"), call("refund")],
            refusal: String::new(),
        };
        assert_eq!(readable(&answer), "Of course.\n→ search({\"id\":7})\n→ refund({\"id\":7})");
    }

    #[test]
    fn progress_tells_agreement_only_where_there_is_some() {
        let judge = Some(proto::ReviewAgreement { pairs: 30, agreed: 24, kappa: Some(0.71) });
        let second = Some(proto::ReviewAgreement { pairs: 3, agreed: 3, kappa: None });
        let mut progress =
            proto::ReviewProgress { judge, second_reviewer: second, ..Default::default() };
        let text = standing(&progress);
        assert!(text.contains("with the judge: 24 of 30 pairs, κ=0.71"), "{text}");
        assert!(text.contains("second reviewer: 3 of 3 pairs, too few"), "{text}");
        progress.judge = None;
        progress.second_reviewer = Some(proto::ReviewAgreement::default());
        assert_eq!(standing(&progress).lines().count(), 1);
    }
}
