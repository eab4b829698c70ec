//! `PairService`: what both sides answered, why requests went where they went, what people say.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use tonic::{Request, Response, Status};

use super::{
    convert, errors,
    feedback::{Answered, GIVEN_LEN_MAX, Given, Scores},
    proto::{self, pair_service_server::PairService},
    request::{Which, actor, page_len, wrong_token},
    reviews::Desks,
};
use crate::controller::Handle;
use crate::domain::{Pair, PairId, Score};
use crate::store::{self, PairsError, Query};
use crate::tasks::Pool;
use crate::telemetry::Metrics;
use crate::traffic::{Fitness, Outbox, Surveyor, Trail};

/// Most reads of the store at a time.
const READS_MAX: usize = 16;

/// What there is to tell of requests.
#[derive(Clone, Debug)]
pub struct Past {
    /// The stored pairs, once they can be read.
    pub pairs: Arc<OnceLock<store::Pairs>>,
    /// The last requests.
    pub trail: Arc<Trail>,
    /// What was asked of late, counted.
    pub surveyor: Arc<Surveyor>,
    /// The way of what is said of them to the evidence.
    pub outbox: Outbox,
    /// Who knows what counts now.
    pub controller: Handle,
    /// What is known of the judge, for whom people speak.
    pub fitness: Arc<Fitness>,
    /// What we count.
    pub metrics: Arc<Metrics>,
}

/// What there is to tell, and places for those who read it from the store.
#[derive(Clone, Debug)]
pub(super) struct Store {
    past: Past,
    reads: Pool,
}

/// The service.
#[derive(Debug)]
pub struct Pairs {
    pub(super) store: Store,
    scores: Scores,
    pub(super) desks: Arc<Desks>,
}

impl Store {
    pub(super) fn new(past: Past) -> Self {
        Self { past, reads: Pool::new(READS_MAX) }
    }

    /// What there is to tell.
    pub(super) fn past(&self) -> &Past {
        &self.past
    }

    /// Reads from the store, away from the threads that must not wait.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&store::Pairs) -> Result<T, PairsError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self
            .past
            .pairs
            .get()
            .cloned()
            .ok_or_else(|| errors::store("it could not be opened"))?;
        let place = self.reads.try_enter();
        let place = place.ok_or_else(|| errors::exhausted("reads of pairs", READS_MAX))?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&store)
        });
        let done = done.await.map_err(|error| errors::store(&error.to_string()))?;
        done.map_err(|error| errors::store(&error.to_string()))
    }
}

impl Pairs {
    /// With nothing asked of it yet.
    pub fn new(past: Past) -> Self {
        let (store, scores) = (Store::new(past), Scores::default());
        Self { store, scores, desks: Arc::default() }
    }

    /// An answer that this process may not have seen given, once it is known what earlier ones were
    /// told of its window.
    async fn recalled(&self, answered: Answered) -> Result<Answered, Status> {
        let window = answered.window().filter(|it| !self.scores.recalls(it)).cloned();
        if let Some(window) = window {
            let of = window.clone();
            let told = self.store.read(move |store| {
                let mut told = VecDeque::new();
                store.notes(&of, &mut |note| {
                    told.extend(Given::noted(note));
                    if GIVEN_LEN_MAX < told.len() {
                        told.pop_front();
                    }
                })?;
                Ok(told)
            });
            self.scores.recall(window, told.await?);
        }
        Ok(answered)
    }

    /// Takes what somebody thinks of an answer.
    pub(super) async fn feedback(
        &self,
        asked: proto::SubmitFeedbackRequest,
    ) -> Result<proto::SubmitFeedbackResponse, Status> {
        let given = Given::read(asked)?;
        let id = given.request;
        let answered = match self.store.past.trail.find(id) {
            Some(trace) => Answered::remembered(&trace),
            None => match self.store.read(move |store| store.get(id)).await? {
                Some((pair, _)) => self.recalled(Answered::paired(&pair)).await?,
                None => return Err(errors::unknown_request(&id.to_string())),
            },
        };
        let late = answered.late(id, &self.store.past.controller.views());
        let to = (&self.store.past.outbox, &*self.store.past.metrics);
        self.scores.give(given, (&answered, late), to)
    }
}

#[tonic::async_trait]
impl PairService for Pairs {
    async fn get_pair(
        &self,
        request: Request<proto::GetPairRequest>,
    ) -> Result<Response<proto::Pair>, Status> {
        let name = request.into_inner().name;
        let (which, id) = pair_name(&name)?;
        let found = self.store.read(move |store| {
            let Some((pair, scores)) = store.get(id)? else { return Ok(None) };
            let review = store.review(&pair)?;
            Ok(Some((pair, scores, review, store.bodies(id)?)))
        });
        let Some((pair, scores, review, bodies)) = found.await? else {
            return Err(errors::unknown_pair(&id.to_string()));
        };
        if !which.includes(&pair.window.rollout) {
            return Err(errors::unknown_pair(&id.to_string()));
        }
        let bodies = bodies.as_ref().filter(|it| !it.is_empty()).map(convert::bodies);
        let comparisons = review.as_ref().map_or_else(Vec::new, convert::comparisons);
        Ok(Response::new(proto::Pair { bodies, comparisons, ..convert::pair(&pair, &scores) }))
    }

    async fn list_pairs(
        &self,
        request: Request<proto::ListPairsRequest>,
    ) -> Result<Response<proto::ListPairsResponse>, Status> {
        let asked = request.into_inner();
        let rollout = match Which::read("parent", &asked.parent)? {
            Which::One(name) => Some(name),
            Which::All => None,
        };
        let len = page_len(asked.page_size)?;
        let before = match asked.page_token.as_str() {
            "" => None,
            token => Some(token.parse::<PairId>().map_err(|_| wrong_token())?),
        };
        // One more than the page, to see whether it is the last.
        let query = Query { rollout, before, len_max: len + 1 };
        let read = self.store.read(move |store| {
            let mut pairs = store.list(&query)?;
            let more = len < pairs.len();
            pairs.truncate(len);
            let marks = |it: &Pair| Ok((it.clone(), marks(store.scores(it.id)?)));
            Ok((pairs.iter().map(marks).collect::<Result<Vec<_>, PairsError>>()?, more))
        });
        let (pairs, more) = read.await?;
        let next = pairs.last().filter(|_| more).map(|(it, _)| it.id.to_string());
        Ok(Response::new(proto::ListPairsResponse {
            pairs: pairs.iter().map(|(it, scores)| convert::pair(it, scores)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn explain_request(
        &self,
        request: Request<proto::ExplainRequestRequest>,
    ) -> Result<Response<proto::ExplainRequestResponse>, Status> {
        let asked = request.into_inner().request_id;
        let id: PairId = asked
            .trim()
            .parse()
            .map_err(|error| errors::argument("request_id", &format!("{error}")))?;
        if let Some(trace) = self.store.past.trail.find(id) {
            return Ok(Response::new(convert::trace(&trace)));
        }
        match self.store.read(move |store| store.get(id)).await? {
            Some((pair, _)) => Ok(Response::new(convert::trace_of_pair(&pair))),
            None => Err(errors::unknown_request(&id.to_string())),
        }
    }

    async fn submit_feedback(
        &self,
        request: Request<proto::SubmitFeedbackRequest>,
    ) -> Result<Response<proto::SubmitFeedbackResponse>, Status> {
        self.feedback(request.into_inner()).await.map(Response::new)
    }

    async fn lease_review(
        &self,
        request: Request<proto::LeaseReviewRequest>,
    ) -> Result<Response<proto::LeaseReviewResponse>, Status> {
        let reviewer = actor(&request)?;
        self.lease(request.into_inner(), reviewer).await.map(Response::new)
    }

    async fn submit_review(
        &self,
        request: Request<proto::SubmitReviewRequest>,
    ) -> Result<Response<proto::SubmitReviewResponse>, Status> {
        let reviewer = actor(&request)?;
        self.submit(request.into_inner(), reviewer).await.map(Response::new)
    }

    async fn get_review_progress(
        &self,
        request: Request<proto::GetReviewProgressRequest>,
    ) -> Result<Response<proto::ReviewProgress>, Status> {
        let reviewer = actor(&request)?;
        self.progress(&request.into_inner().parent, reviewer).await.map(Response::new)
    }
}

#[cfg(test)]
impl Past {
    /// With nothing in it.
    pub(super) async fn none() -> Self {
        let setup = crate::controller::rig::setup(Err(String::new()));
        let (outbox, setup_clock) = (setup.outbox.clone(), setup.clock);
        let (_, controller) = crate::controller::Controller::new(setup).await;
        let surveyor = Arc::new(Surveyor::new(crate::domain::Share::NONE, setup_clock));
        let (pairs, trail, metrics) = (Arc::default(), Arc::default(), Arc::default());
        let fitness = Arc::default();
        Self { pairs, trail, surveyor, outbox, controller, fitness, metrics }
    }
}

/// Scores as a list has them: a page of reasons would be a long one.
fn marks(scores: Vec<Score>) -> Vec<Score> {
    let bare = |it| Score { rationale: String::new(), parts: Vec::new(), ..it };
    scores.into_iter().map(bare).collect()
}

/// Reads `rollouts/{rollout}/pairs/{pair}`.
fn pair_name(name: &str) -> Result<(Which, PairId), Status> {
    let (parent, id) = name.split_once("/pairs/").ok_or_else(|| {
        errors::argument("name", &format!("name is `rollouts/NAME/pairs/ID`, not `{name}`"))
    })?;
    let id = id.parse().map_err(|error| errors::argument("name", &format!("{error}")))?;
    Ok((Which::read("name", parent)?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_store_pairs_are_unavailable_and_say_so() {
        let request = proto::GetPairRequest { name: format!("rollouts/-/pairs/{}", PairId(1)) };
        let pairs = Pairs::new(Past::none().await);
        let status = pairs.get_pair(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("store of pairs is not usable"));
    }

    #[test]
    fn a_pair_is_named_with_or_without_its_rollout() {
        let id = PairId(77);
        assert_eq!(pair_name(&format!("rollouts/-/pairs/{id}")).unwrap(), (Which::All, id));
        assert!(pair_name(&id.to_string()).is_err());
        assert!(pair_name("rollouts/chat/pairs/1").is_err());
    }
}
