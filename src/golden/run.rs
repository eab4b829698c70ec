//! Puts a set to both providers, some cases at a time, and goes on where it was stopped.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::domain::Name;
use crate::store::{Answered, Answers, FileError};

use super::{Asker, Failed, Set};

/// Calls of a provider that fail in a row before no more is asked: it is down, or refuses us.
const FAILED_IN_A_ROW_MAX: u32 = 8;

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Answers that are wanted: a case of the set has two.
    pub wanted: usize,
    /// Answers that are kept.
    pub kept: usize,
    /// Cases that a provider did not answer.
    pub failed: Vec<Failed>,
}

/// Why it cannot go on. What is kept stays.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An answer could not be kept.
    #[error("an answer could not be kept")]
    File(#[from] FileError),
    /// A provider fails again and again.
    #[error("{FAILED_IN_A_ROW_MAX} cases in a row have no answer of {0}")]
    Down(Failed),
}

/// What became of one question.
type Outcome = (usize, usize, Result<Answered, Failed>);

/// Asks for every answer that is not kept, at most so many at a time, and keeps it. `see` is told
/// after each. Dropped, it gives up what is under way.
///
/// # Errors
/// When an answer cannot be kept, or a provider fails too often in a row.
pub async fn run(
    set: &Arc<Set>,
    sides: &mut [(Name, Answers); 2],
    asker: Arc<Asker>,
    concurrency: usize,
    mut see: impl FnMut(&Progress),
) -> Result<Progress, RunError> {
    // Both sides are asked a case about the same time, so that they meet the same weather.
    let all = (0..set.cases.len()).flat_map(|case| [(case, 0), (case, 1)]);
    let todo: Vec<(usize, usize)> = all
        .filter(|(case, side): &(usize, usize)| sides[*side].1.get(&set.cases[*case].id).is_none())
        .collect();
    let mut todo = todo.into_iter();
    let wanted = 2 * set.cases.len();
    let mut progress = Progress { wanted, kept: wanted - todo.len(), failed: Vec::new() };
    let mut in_a_row = [0; 2];
    let mut asking: JoinSet<Outcome> = JoinSet::new();
    see(&progress);
    loop {
        while asking.len() < concurrency
            && let Some((case, side)) = todo.next()
        {
            let (set, asker, name) = (Arc::clone(set), Arc::clone(&asker), sides[side].0.clone());
            asking.spawn(async move { (case, side, asker.ask(&set.cases[case], &name).await) });
        }
        // A question that panicked has no answer.
        let Some(done) = asking.join_next().await else { return Ok(progress) };
        let Ok((case, side, result)) = done else { continue };
        match result {
            Ok(answered) => {
                in_a_row[side] = 0;
                sides[side].1.add(&set.cases[case].id, answered)?;
                progress.kept += 1;
            }
            Err(failed) => {
                in_a_row[side] += 1;
                if in_a_row[side] == FAILED_IN_A_ROW_MAX {
                    return Err(RunError::Down(failed));
                }
                progress.failed.push(failed);
            }
        }
        see(&progress);
    }
}
