//! What a provider answered to a golden set: a file of lines, each on disk before it counts.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    files::{FileError, at, make_dir, sync_dir},
    json::{self, DecodeError},
    pair::CallJson,
};
use crate::domain::{Call, Name, ToolCall, Transcript};

/// The version of its lines.
const VERSION: u32 = 1;
/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 30;

/// Who was asked what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The set's name: what its file is called, without what stands behind a dot.
    pub set: String,
    /// The number of the set's text.
    pub digest: u64,
    /// The provider.
    pub provider: Name,
    /// The number of what is asked of it and where.
    pub identity: u64,
}

/// An answer to a case, whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// How the call went.
    pub call: Call,
    /// What it says; none where the provider would not take the request.
    pub transcript: Option<Transcript>,
}

/// The answers of one provider to one set. No other process adds to them as long as this lives.
#[derive(Debug)]
pub struct Answers {
    file: File,
    path: PathBuf,
    known: HashMap<String, Answered>,
}

/// Why answers cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum AnswersError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process adds to them.
    #[error("another process adds to `{}`", .0.display())]
    Busy(PathBuf),
    /// They are answers to another set.
    #[error("`{}` has answers to another set, or to this one before it was changed", .0.display())]
    OtherSet(PathBuf),
    /// They are answers of another provider, or of one that was configured otherwise.
    #[error("`{}` has answers of `{provider}` as it was configured before", path.display())]
    OtherProvider {
        /// The file.
        path: PathBuf,
        /// The provider.
        provider: Name,
    },
    /// A line of it cannot be read.
    #[error("line {line} of `{}` cannot be read", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        error: DecodeError,
    },
}

#[derive(Serialize, Deserialize)]
struct HeadJson {
    v: u32,
    set: String,
    provider: String,
    identity: String,
}

#[derive(Serialize, Deserialize)]
struct LineJson {
    v: u32,
    case: String,
    call: CallJson,
    answer: Option<TranscriptJson>,
}

#[derive(Serialize, Deserialize)]
struct TranscriptJson {
    text: String,
    tool_calls: Vec<ToolCallJson>,
    refusal: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ToolCallJson {
    id: String,
    name: String,
    arguments: String,
}

impl Answers {
    /// The answers that are kept in this folder, or none yet. A line that was being written when the
    /// machine stopped is left out: its case has no answer.
    ///
    /// # Errors
    /// When they are answers to something else, or somebody adds to them.
    pub fn open(folder: &Path, asked: &Asked) -> Result<Self, AnswersError> {
        make_dir(folder)?;
        let path = folder.join(format!("{}.{}.jsonl", asked.set, asked.provider));
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AnswersError::Busy(path)),
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error).into()),
        }
        sync_dir(folder)?;
        let mut bytes = whole(&mut file).map_err(at("read", &path))?;
        let mut answers = Self { file, path, known: HashMap::new() };
        let Some(end) = bytes.iter().rposition(|it| *it == b'\n') else {
            answers.write(&head(asked), 0)?;
            return Ok(answers);
        };
        bytes.truncate(end + 1);
        let text = String::from_utf8_lossy(&bytes);
        answers.check(&text, asked)?;
        answers.read(&text)?;
        answers.write(&[], u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        Ok(answers)
    }

    /// Puts the answers that are kept aside, if there are any, so that all are asked for again.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn put_aside(folder: &Path, asked: &Asked) -> Result<(), FileError> {
        let path = folder.join(format!("{}.{}.jsonl", asked.set, asked.provider));
        let aside = folder.join(format!("{}.{}.old.jsonl", asked.set, asked.provider));
        match fs::rename(&path, aside) {
            Ok(()) => sync_dir(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at("put aside", &path)(error)),
        }
    }

    /// The answer to a case, if it is kept.
    pub fn get(&self, case: &str) -> Option<&Answered> {
        self.known.get(case)
    }

    /// Keeps the answer to a case; it is on disk when this returns.
    ///
    /// # Errors
    /// When the file system refuses. The answer is not kept then.
    pub fn add(&mut self, case: &str, answered: Answered) -> Result<(), FileError> {
        let transcript = |it: &Transcript| TranscriptJson {
            text: it.text.clone(),
            tool_calls: it.tool_calls.iter().map(ToolCallJson::from).collect(),
            refusal: it.refusal.clone(),
        };
        let line = json::encode(&LineJson {
            v: VERSION,
            case: case.to_owned(),
            call: CallJson::from(&answered.call),
            answer: answered.transcript.as_ref().map(transcript),
        });
        let end = self.file.metadata().map_err(at("measure", &self.path))?.len();
        self.write(&line, end)?;
        self.known.insert(case.to_owned(), answered);
        Ok(())
    }

    /// Writes a line at this place, of which nothing follows.
    fn write(&mut self, line: &[u8], at_byte: u64) -> Result<(), FileError> {
        let file = &mut self.file;
        let mut write = || {
            file.set_len(at_byte)?;
            file.seek(SeekFrom::Start(at_byte))?;
            if !line.is_empty() {
                file.write_all(&[line, b"\n"].concat())?;
            }
            file.sync_data()
        };
        write().map_err(at("write", &self.path))
    }

    /// Whether these are answers to what is asked.
    fn check(&self, text: &str, asked: &Asked) -> Result<(), AnswersError> {
        let first = text.lines().next().unwrap_or_default();
        let head: HeadJson = json::decode(first.as_bytes())
            .map_err(|error| AnswersError::Damaged { path: self.path.clone(), line: 1, error })?;
        if head.set != number(asked.digest) {
            return Err(AnswersError::OtherSet(self.path.clone()));
        }
        if head.provider != asked.provider.as_str() || head.identity != number(asked.identity) {
            let (path, provider) = (self.path.clone(), asked.provider.clone());
            return Err(AnswersError::OtherProvider { path, provider });
        }
        Ok(())
    }

    fn read(&mut self, text: &str) -> Result<(), AnswersError> {
        for (index, line) in text.lines().enumerate().skip(1) {
            let read = json::decode::<LineJson>(line.as_bytes()).and_then(LineJson::answered);
            let (case, answered) = read.map_err(|error| AnswersError::Damaged {
                path: self.path.clone(),
                line: index + 1,
                error,
            })?;
            self.known.insert(case, answered);
        }
        Ok(())
    }
}

impl LineJson {
    fn answered(self) -> Result<(String, Answered), DecodeError> {
        let transcript = self.answer.map(|it| Transcript {
            text: it.text,
            tool_calls: it.tool_calls.into_iter().map(ToolCall::from).collect(),
            refusal: it.refusal,
        });
        Ok((self.case, Answered { call: self.call.call()?, transcript }))
    }
}

impl From<&ToolCall> for ToolCallJson {
    fn from(call: &ToolCall) -> Self {
        let ToolCall { id, name, arguments } = call.clone();
        Self { id, name, arguments }
    }
}

impl From<ToolCallJson> for ToolCall {
    fn from(ToolCallJson { id, name, arguments }: ToolCallJson) -> Self {
        Self { id, name, arguments }
    }
}

fn head(asked: &Asked) -> Vec<u8> {
    json::encode(&HeadJson {
        v: VERSION,
        set: number(asked.digest),
        provider: asked.provider.as_str().to_owned(),
        identity: number(asked.identity),
    })
}

fn number(number: u64) -> String {
    format!("{number:016x}")
}

fn whole(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|it| it <= BYTES_MAX) {
        return Ok(bytes);
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {BYTES_MAX} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn asked() -> Asked {
        let provider = "cheap".parse().unwrap();
        Asked { set: "chat".to_owned(), digest: 7, provider, identity: 9 }
    }

    fn answered(text: &str) -> Answered {
        let call =
            ToolCall { id: "1".to_owned(), name: "look".to_owned(), arguments: "{".to_owned() };
        let transcript =
            Transcript { text: text.to_owned(), tool_calls: vec![call], refusal: None };
        Answered { call: samples::pair("chat", 1, 1).candidate, transcript: Some(transcript) }
    }

    #[test]
    fn what_was_kept_is_there_again_without_the_line_that_was_torn() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut answers = Answers::open(dir.path(), &asked()).unwrap();
        assert!(matches!(Answers::open(dir.path(), &asked()), Err(AnswersError::Busy(_))));
        for (case, text) in [("a", "line\nfeed"), ("b", "two"), ("c", "ä")] {
            answers.add(case, answered(text)).unwrap();
        }
        drop(answers);
        let path = dir.path().join("chat.cheap.jsonl");
        let bytes = fs::read(&path).unwrap();
        // Wherever the writing stopped.
        let lines: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, it)| **it == b'\n').map(|(at, _)| at).collect();
        for len in (0..=bytes.len()).rev().step_by(11) {
            fs::write(&path, &bytes[..len]).unwrap();
            let mut answers = Answers::open(dir.path(), &asked()).unwrap();
            let kept = lines.iter().filter(|it| **it < len).count().saturating_sub(1);
            assert_eq!(answers.known.len(), kept, "{len}");
            if len == bytes.len() {
                assert_eq!(answers.get("a"), Some(&answered("line\nfeed")));
                assert_eq!(answers.get("d"), None);
            }
            answers.add("d", answered("more")).unwrap();
            drop(answers);
            let again = Answers::open(dir.path(), &asked()).unwrap();
            assert_eq!(again.known.len(), kept + 1, "{len}");
        }
    }

    #[test]
    fn answers_to_something_else_are_refused_until_they_are_put_aside() {
        let dir = tempfile::TempDir::new().unwrap();
        let open = |asked: &Asked| Answers::open(dir.path(), asked).map(drop);
        open(&asked()).unwrap();
        let set = Asked { digest: 8, ..asked() };
        assert!(matches!(open(&set), Err(AnswersError::OtherSet(_))));
        let provider = Asked { identity: 8, ..asked() };
        assert!(matches!(open(&provider), Err(AnswersError::OtherProvider { .. })));
        Answers::put_aside(dir.path(), &set).unwrap();
        Answers::put_aside(dir.path(), &set).unwrap();
        open(&set).unwrap();
        assert!(matches!(open(&asked()), Err(AnswersError::OtherSet(_))));
        let path = dir.path().join("chat.cheap.jsonl");
        let text = fs::read_to_string(&path).unwrap() + "nonsense\n";
        fs::write(&path, text).unwrap();
        assert!(matches!(open(&set), Err(AnswersError::Damaged { line: 2, .. })));
    }
}
