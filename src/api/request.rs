//! What every request has: names, pages, and who asks.

use tonic::{
    Request, Status,
    transport::server::{TcpConnectInfo, UdsConnectInfo},
};

use super::errors;
use crate::controller::{Requester, Slow};
use crate::domain::Name;

/// The metadata that says who asks.
pub(super) const ACTOR_KEY: &str = "x-crossfade-actor";
/// Who the controller's own steps are by; nobody else may say so.
const CONTROLLER: &str = "controller";
/// Most bytes of an actor, a request id, a token or a stage.
const WORD_LEN_MAX: usize = 128;
/// Most bytes of a comment.
const COMMENT_LEN_MAX: usize = 1_000;
/// Most things on a page.
const PAGE_LEN_MAX: usize = 1_000;
/// Things on a page when nothing is said.
const PAGE_LEN: usize = 50;

/// Which rollouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// This one.
    One(Name),
    /// `rollouts/-`.
    All,
}

impl Which {
    /// Reads `rollouts/{rollout}` or `rollouts/-`.
    pub(super) fn read(field: &str, text: &str) -> Result<Self, Status> {
        if text == "rollouts/-" {
            return Ok(Self::All);
        }
        rollout(field, text).map(Self::One)
    }

    /// Whether the rollout is meant.
    pub(super) fn includes(&self, name: &Name) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::All => true,
        }
    }
}

/// Reads `rollouts/{rollout}`.
pub(super) fn rollout(field: &str, text: &str) -> Result<Name, Status> {
    let name = text.strip_prefix("rollouts/").ok_or_else(|| {
        errors::argument(field, &format!("{field} is `rollouts/NAME`, not `{text}`"))
    })?;
    name.parse().map_err(|error| errors::argument(field, &format!("{error}")))
}

/// How many things a page takes.
pub(super) fn page_len(size: i32) -> Result<usize, Status> {
    match usize::try_from(size) {
        Ok(0) => Ok(PAGE_LEN),
        Ok(size) => Ok(size.min(PAGE_LEN_MAX)),
        Err(_) => Err(errors::argument("page_size", "page_size is not negative")),
    }
}

/// Says that a page token is not one of ours.
pub(super) fn wrong_token() -> Status {
    errors::argument("page_token", "page_token comes from the response before; leave it as it is")
}

/// Who asks: what they call themselves, or how they are connected.
pub(super) fn actor<T>(request: &Request<T>) -> Result<String, Status> {
    let Some(said) = request.metadata().get(ACTOR_KEY) else {
        return Ok(peer(request));
    };
    let said = String::from_utf8_lossy(said.as_bytes()).into_owned();
    if said.is_empty() || said == CONTROLLER {
        let problem = format!("{ACTOR_KEY} is your name, neither empty nor `{CONTROLLER}`");
        return Err(errors::argument(ACTOR_KEY, &problem));
    }
    checked(ACTOR_KEY, said, WORD_LEN_MAX)
}

fn peer<T>(request: &Request<T>) -> String {
    let extensions = request.extensions();
    if let Some(unix) = extensions.get::<UdsConnectInfo>() {
        let uid = unix.peer_cred.map(|it| format!(":{}", it.uid()));
        return format!("unix{}", uid.unwrap_or_default());
    }
    let tcp = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    tcp.map_or_else(|| "tcp".to_owned(), |it| format!("tcp:{}", it.ip()))
}

/// What a changing request says about itself.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) comment: String,
    pub(super) request_id: String,
    pub(super) etag: String,
}

/// Puts together who asks, and how.
pub(super) fn requester(actor: String, said: Said) -> Result<Requester, Status> {
    let revision = match said.etag.as_str() {
        "" => None,
        etag => Some(etag.parse().map_err(|_| {
            errors::argument("etag", "etag comes with the rollout; leave it as it is")
        })?),
    };
    Ok(Requester {
        actor,
        comment: checked("comment", said.comment, COMMENT_LEN_MAX)?,
        request_id: checked("request_id", said.request_id, WORD_LEN_MAX)?,
        revision,
        slow: Slow::default(),
    })
}

/// What is done with a plan that cannot be expected to be proven in its time.
pub(super) fn slow(force: bool) -> Slow {
    if force { Slow::Taken } else { Slow::Refused }
}

/// Who asks for a rollback. Nothing said about it is a reason to refuse it: what does not fit is cut.
pub(super) fn rollback_requester<T>(request: &Request<T>, said: &Said) -> Requester {
    let actor = actor(request).unwrap_or_else(|_| peer(request));
    Requester {
        actor,
        comment: fitted(&said.comment, COMMENT_LEN_MAX),
        request_id: fitted(&said.request_id, WORD_LEN_MAX),
        ..Requester::default()
    }
}

/// One line of at most so many bytes.
fn fitted(text: &str, len_max: usize) -> String {
    let line: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    line[..line.floor_char_boundary(len_max)].to_owned()
}

/// A short word of the caller, such as a stage.
pub(super) fn word(field: &str, text: String) -> Result<String, Status> {
    checked(field, text, WORD_LEN_MAX)
}

/// Why somebody did something, in a line.
pub(super) fn comment(text: String) -> Result<String, Status> {
    checked("comment", text, COMMENT_LEN_MAX)
}

/// A text that may stand in a line of the log.
fn checked(field: &str, text: String, len_max: usize) -> Result<String, Status> {
    if len_max < text.len() || text.chars().any(char::is_control) {
        let problem = format!("{field} is one line of at most {len_max} bytes");
        return Err(errors::argument(field, &problem));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_their_collection() {
        let chat: Name = "chat".parse().unwrap();
        assert_eq!(Which::read("name", "rollouts/chat").unwrap(), Which::One(chat.clone()));
        assert!(Which::read("name", "rollouts/-").unwrap().includes(&chat));
        for wrong in ["chat", "rollouts/", "rollouts/Chat", "providers/chat"] {
            assert_eq!(rollout("name", wrong).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn a_page_has_a_limit_and_a_default() {
        assert_eq!(page_len(0).unwrap(), 50);
        assert_eq!(page_len(5_000).unwrap(), 1_000);
        assert!(page_len(-1).is_err());
    }

    #[test]
    fn nobody_passes_for_the_controller() {
        let mut request = Request::new(());
        assert_eq!(actor(&request).unwrap(), "tcp");
        request.metadata_mut().insert(ACTOR_KEY, "ana".parse().unwrap());
        assert_eq!(actor(&request).unwrap(), "ana");
        request.metadata_mut().insert(ACTOR_KEY, "controller".parse().unwrap());
        assert!(actor(&request).is_err());
    }

    #[test]
    fn what_is_said_stays_on_one_line() {
        let said = |comment: &str, etag: &str| Said {
            comment: comment.to_owned(),
            etag: etag.to_owned(),
            ..Said::default()
        };
        let by = requester("ana".to_owned(), said("because", "41")).unwrap();
        assert_eq!((by.comment.as_str(), by.revision), ("because", Some(41)));
        assert!(requester("ana".to_owned(), said("two\nlines", "")).is_err());
        assert!(requester("ana".to_owned(), said("", "W/x")).is_err());
    }
}
