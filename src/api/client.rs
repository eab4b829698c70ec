//! A client of the API, for the command line.

use std::{collections::BTreeMap, time::Duration};

use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{
    proto::{
        self, flag_service_client::FlagServiceClient, pair_service_client::PairServiceClient,
        rollout_service_client::RolloutServiceClient, usage_service_client::UsageServiceClient,
    },
    request::ACTOR_KEY,
};

/// How long a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Most bytes of an answer: a pair comes with its bodies.
const ANSWER_LEN_MAX: usize = 256 << 20;
/// What to do where the system has accepted a connection and nobody answers on it.
const SILENT: &str = "the server may still be opening its store, or wait for the process before it: \
                      see `/readyz` on its operations port, or wait longer with `--timeout`";

/// Who calls, and how long they wait.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the log calls them; none leaves it to the server.
    pub actor: Option<String>,
    /// Most time for one call; a watch lasts as long as it likes.
    pub timeout: Duration,
}

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    rollouts: RolloutServiceClient<Channel>,
    flags: FlagServiceClient<Channel>,
    pairs: PairServiceClient<Channel>,
    usage: UsageServiceClient<Channel>,
    caller: Caller,
}

/// What is happening, as it happens.
#[derive(Debug)]
pub struct Watch(Streaming<proto::WatchRolloutResponse>);

/// What kind of failure it was: what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request makes no sense.
    Usage,
    /// No server answered.
    Unreachable,
    /// The server does not let them.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Not now: a gate, a state, somebody else's change.
    Precondition,
    /// The plan is faulty.
    Plan,
    /// Anything else.
    Other,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// What went wrong.
    pub message: String,
    /// The faults, one on each line.
    pub faults: Vec<String>,
    /// What to do; may be empty.
    pub hint: String,
    /// What the server says about it, by name: `state`, `stage`, `metric` and so on.
    pub about: BTreeMap<String, String>,
}

impl Client {
    /// Connects to `http://HOST:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// When that is no address, or nobody answers there.
    pub async fn connect(server: &str, caller: Caller) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(
                format!("`{server}` is no address of a server"),
                "write `http://127.0.0.1:9090` or `unix:/run/crossfade.sock`",
            )
        };
        if !server.starts_with("http://") && !server.starts_with("unix:") {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|_| wrong())?;
        let endpoint = endpoint.connect_timeout(CONNECT_WAIT);
        let channel = endpoint.connect().await.map_err(|error| unreachable(server, &error))?;
        Ok(Self {
            rollouts: RolloutServiceClient::new(channel.clone()),
            flags: FlagServiceClient::new(channel.clone()),
            usage: UsageServiceClient::new(channel.clone()),
            pairs: PairServiceClient::new(channel).max_decoding_message_size(ANSWER_LEN_MAX),
            caller,
        })
    }

    /// Watches a rollout, or all.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn watch_rollout(
        &mut self,
        request: proto::WatchRolloutRequest,
    ) -> Result<Watch, Failure> {
        let answer = self.rollouts.watch_rollout(request).await;
        answer.map(|it| Watch(it.into_inner())).map_err(|status| Failure::from(&status))
    }
}

impl Watch {
    /// What happens next; none when the server ended it. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<proto::WatchRolloutResponse>, Failure> {
        self.0.message().await.map_err(|status| Failure::from(&status))
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $service:ident.$name:ident($request:ident) -> $answer:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// When the server refuses or does not answer.
                pub async fn $name(
                    &mut self,
                    request: proto::$request,
                ) -> Result<proto::$answer, Failure> {
                    let request = self.caller.request(request)?;
                    self.$service.$name(request).await
                        .map(Response::into_inner)
                        .map_err(|status| Failure::from(&status))
                }
            )*
        }
    };
}

calls! {
    /// One rollout.
    rollouts.get_rollout(GetRolloutRequest) -> Rollout;
    /// A page of rollouts.
    rollouts.list_rollouts(ListRolloutsRequest) -> ListRolloutsResponse;
    /// Creates a rollout.
    rollouts.create_rollout(CreateRolloutRequest) -> Rollout;
    /// Replaces its plan.
    rollouts.update_rollout(UpdateRolloutRequest) -> Rollout;
    /// Deletes it.
    rollouts.delete_rollout(DeleteRolloutRequest) -> DeleteRolloutResponse;
    /// Moves it to another stage.
    rollouts.jump_rollout(JumpRolloutRequest) -> Rollout;
    /// Ends its ladder.
    rollouts.complete_rollout(CompleteRolloutRequest) -> Rollout;
    /// Stops everything.
    rollouts.stop_rollouts(StopRolloutsRequest) -> StopRolloutsResponse;
    /// Lets rollouts start again.
    rollouts.lift_stop(LiftStopRequest) -> LiftStopResponse;
    /// Starts it.
    rollouts.start_rollout(StartRolloutRequest) -> Rollout;
    /// Moves it to its next stage.
    rollouts.advance_rollout(AdvanceRolloutRequest) -> Rollout;
    /// Sends it back to the primary.
    rollouts.rollback_rollout(RollbackRolloutRequest) -> RollbackRolloutResponse;
    /// Holds it.
    rollouts.pause_rollout(PauseRolloutRequest) -> Rollout;
    /// Lets it go on.
    rollouts.resume_rollout(ResumeRolloutRequest) -> Rollout;
    /// Approves a stage, or not.
    rollouts.approve_stage(ApproveStageRequest) -> Rollout;
    /// What the controller would do now.
    rollouts.evaluate_rollout(EvaluateRolloutRequest) -> EvaluateRolloutResponse;
    /// A page of the log.
    rollouts.list_events(ListEventsRequest) -> ListEventsResponse;
    /// The flags in force.
    flags.list_flags(ListFlagsRequest) -> ListFlagsResponse;
    /// Sets a flag.
    flags.set_flag(SetFlagRequest) -> Flag;
    /// Clears a flag.
    flags.clear_flag(ClearFlagRequest) -> ClearFlagResponse;
    /// One pair.
    pairs.get_pair(GetPairRequest) -> Pair;
    /// A page of pairs.
    pairs.list_pairs(ListPairsRequest) -> ListPairsResponse;
    /// Why a request went where it went.
    pairs.explain_request(ExplainRequestRequest) -> ExplainRequestResponse;
    /// What was asked lately.
    usage.audit_usage(AuditUsageRequest) -> AuditUsageResponse;
    /// What somebody thinks of an answer.
    pairs.submit_feedback(SubmitFeedbackRequest) -> SubmitFeedbackResponse;
    /// A pair to compare.
    pairs.lease_review(LeaseReviewRequest) -> LeaseReviewResponse;
    /// What somebody says of it.
    pairs.submit_review(SubmitReviewRequest) -> SubmitReviewResponse;
    /// How far that has come.
    pairs.get_review_progress(GetReviewProgressRequest) -> ReviewProgress;
}

impl Caller {
    fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        if let Some(actor) = &self.actor {
            let value = actor.parse().map_err(|_| {
                Failure::usage(format!("`{actor}` cannot be sent"), "use plain letters for --actor")
            })?;
            request.metadata_mut().insert(ACTOR_KEY, value);
        }
        Ok(request)
    }
}

impl Failure {
    fn usage(message: String, hint: &str) -> Self {
        let kind = FailureKind::Usage;
        let hint = hint.to_owned();
        Self { kind, message, faults: Vec::new(), hint, about: BTreeMap::new() }
    }
}

fn unreachable(server: &str, error: &dyn std::error::Error) -> Failure {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Failure {
        kind: FailureKind::Unreachable,
        message: format!("no server answers at {server}: {cause}"),
        faults: Vec::new(),
        hint: "start one with `crossfade serve` or `crossfade demo`, or name another: \
               `--server URL` or CROSSFADE_SERVER"
            .to_owned(),
        about: BTreeMap::new(),
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().cloned();
        let kind = kind(status.code(), info.as_ref().map(|it| it.reason.as_str()));
        let about = info.map(|it| it.metadata).unwrap_or_default();
        let mut about: BTreeMap<String, String> = about.into_iter().collect();
        let faults = details.bad_request().map(|it| it.field_violations.as_slice());
        let faults = faults.unwrap_or_default().iter();
        let hint = match status.code() {
            Code::Cancelled | Code::DeadlineExceeded if kind == FailureKind::Unreachable => SILENT,
            _ => "",
        };
        Self {
            kind,
            message: status.message().to_owned(),
            faults: faults.map(|it| format!("{}: {}", it.field, it.description)).collect(),
            hint: about.remove("hint").unwrap_or_else(|| hint.to_owned()),
            about,
        }
    }
}

/// A server's own answer has a reason; one that the connection made up has none.
fn kind(code: Code, reason: Option<&str>) -> FailureKind {
    match code {
        Code::InvalidArgument if reason == Some("PLAN_INVALID") => FailureKind::Plan,
        Code::InvalidArgument => FailureKind::Usage,
        Code::NotFound => FailureKind::NotFound,
        Code::FailedPrecondition | Code::Aborted => FailureKind::Precondition,
        Code::PermissionDenied | Code::Unauthenticated => FailureKind::Forbidden,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled if reason.is_none() => {
            FailureKind::Unreachable
        }
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller { actor: None, timeout: Duration::from_secs(1) }
    }

    #[tokio::test]
    async fn where_nobody_answers_the_failure_says_so() {
        let failure = Client::connect("http://127.0.0.1:1", caller()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.message.contains("127.0.0.1:1"), "{failure}");
        let failure = Client::connect("unix:/nowhere/x.sock", caller()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        let failure = Client::connect("https://127.0.0.1:1", caller()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage);
    }

    #[tokio::test]
    async fn where_nobody_accepts_the_failure_says_where_to_look() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let caller = Caller { timeout: Duration::from_millis(100), ..caller() };
        let mut client = Client::connect(&server, caller).await.unwrap();
        let failure = client.list_rollouts(proto::ListRolloutsRequest::default()).await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.hint.contains("/readyz"), "{failure:?}");
    }

    #[test]
    fn a_server_that_answers_is_not_unreachable() {
        let answered = kind(Code::Unavailable, Some("CONTROLLER_UNAVAILABLE"));
        assert_eq!(answered, FailureKind::Other);
        assert_eq!(kind(Code::Unavailable, None), FailureKind::Unreachable);
        assert_eq!(kind(Code::Aborted, Some("ETAG_MISMATCH")), FailureKind::Precondition);
        assert_eq!(kind(Code::InvalidArgument, Some("PLAN_INVALID")), FailureKind::Plan);
    }
}
