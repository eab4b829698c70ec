//! What the service does for reviewers: pairs out, answers in.

use std::{sync::Arc, time::Duration};

use tonic::Status;
use uuid::Uuid;

use super::{
    convert, errors,
    pairs::Pairs,
    proto::{self, submit_review_request::Preference},
    request::{comment, rollout},
    reviews::{Asks, Given, Standing, Submitted},
};
use crate::analysis::kappa;
use crate::controller::Rejected;
use crate::domain::{Choice, Name, Rollout, Side};
use crate::store;

/// How long a pair is a reviewer's, in milliseconds: unless they say, and at most.
const LEASE_MS: u64 = 15 * 60_000;
const LEASE_MS_MAX: u64 = 60 * 60_000;
/// Pairs before there is a kappa.
const KAPPA_FROM: u64 = 20;
/// How often it is looked for answers that can be changed no more.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

const NOT_UNDER_WAY: &str = "its rollout is not under way, so no pair is evidence";
const NONE_DRAWN: &str = "its plan has no `review`, so no pair is drawn";
const NONE_WAITS: &str =
    "no pair waits for you: they are drawn from what is mirrored, once the judge has had its time";

impl Pairs {
    pub(super) async fn lease(
        &self,
        asked: proto::LeaseReviewRequest,
        reviewer: String,
    ) -> Result<proto::LeaseReviewResponse, Status> {
        let rollout = self.rollout(&asked.parent)?;
        let lease_ms = asked.lease.map_or(LEASE_MS, convert::millis);
        if !(1..=LEASE_MS_MAX).contains(&lease_ms) {
            return Err(errors::argument("lease", "lease is more than 0 s and at most an hour"));
        }
        let not_given = match (rollout.guarded(), rollout.plan().review.is_none()) {
            (None, _) => NOT_UNDER_WAY,
            (Some(_), true) => NONE_DRAWN,
            (Some(_), false) => NONE_WAITS,
        };
        let now = self.store.past().outbox.now();
        let given = self.desk(move |desks, store| {
            let asks = Asks { rollout: &rollout, reviewer: &reviewer, now };
            desks.lease(asks, lease_ms, store)
        });
        let Given { shown, waiting } = given.await?;
        let Some((lease, texts)) = shown else {
            let not_given = not_given.to_owned();
            return Ok(proto::LeaseReviewResponse { not_given, ..Default::default() });
        };
        let (question, [a, b]) = texts.answers(lease.first);
        Ok(proto::LeaseReviewResponse {
            lease_id: Uuid::from_u128(lease.id).to_string(),
            question,
            answer_a: Some(a),
            answer_b: Some(b),
            expire_time: Some(convert::time(lease.until)),
            waiting: convert::long(waiting),
            not_given: String::new(),
        })
    }

    pub(super) async fn submit(
        &self,
        asked: proto::SubmitReviewRequest,
        reviewer: String,
    ) -> Result<proto::SubmitReviewResponse, Status> {
        let id: Uuid = asked.lease_id.trim().parse().map_err(|_| {
            errors::argument("lease_id", "lease_id comes from LeaseReview; leave it as it is")
        })?;
        let choose: fn(Side) -> Choice = match asked.preference() {
            Preference::A => Choice::Better,
            Preference::B => |first: Side| Choice::Better(first.other()),
            Preference::BothGood => |_| Choice::BothGood,
            Preference::BothBad => |_| Choice::BothBad,
            Preference::Skip => |_| Choice::Skipped,
            Preference::Unspecified => {
                return Err(errors::argument("preference", "preference says who is better"));
            }
        };
        let comment = comment(asked.comment)?;
        let (names, now) = (self.names(), self.store.past().outbox.now());
        let submitted = self.desk(move |desks, store| {
            let said = (choose, comment.as_str());
            desks.submit((id.as_u128(), &reviewer), said, now, (&names, store))
        });
        match submitted.await? {
            Submitted::Kept(until) => {
                Ok(proto::SubmitReviewResponse { final_time: Some(convert::time(until)) })
            }
            Submitted::Refused(rollout, late) => Err(errors::review_is_final(&rollout, late)),
            Submitted::NotTheirs => Err(errors::not_their_lease()),
            Submitted::Unknown => Err(errors::unknown_lease(&id.to_string())),
        }
    }

    pub(super) async fn progress(
        &self,
        parent: &str,
        reviewer: String,
    ) -> Result<proto::ReviewProgress, Status> {
        let (rollout, now) = (self.rollout(parent)?, self.store.past().outbox.now());
        let standing = self.desk(move |desks, store| {
            desks.standing(Asks { rollout: &rollout, reviewer: &reviewer, now }, store)
        });
        let Standing { progress, wins, judge } = standing.await?;
        Ok(proto::ReviewProgress {
            reviewed: convert::long(progress.reviewed),
            waiting: convert::long(progress.waiting),
            leased: convert::long(progress.leased),
            candidate_wins: wins,
            second_reviewer: Some(agreement(&progress.second)),
            judge: Some(proto::ReviewAgreement {
                pairs: convert::long(judge.pairs),
                agreed: convert::long(judge.agreed),
                kappa: judge.kappa().filter(|_| KAPPA_FROM <= judge.pairs),
            }),
        })
    }

    /// Hands answers to the evidence once they can be changed no more. Does not end.
    pub(super) async fn settle(&self) {
        loop {
            tokio::time::sleep(SETTLE_EVERY).await;
            if self.store.past().pairs.get().is_none() {
                continue;
            }
            let (names, outbox) = (self.names(), self.store.past().outbox.clone());
            let settled = self.desk(move |desks, store| {
                desks.settle(&names, (&outbox, outbox.now()), store)?;
                Ok(desks.people())
            });
            match settled.await {
                Ok(people) => self.store.past().fitness.compare(people),
                Err(error) => {
                    let so = "reviews wait: they cannot be handed to the evidence now";
                    tracing::warn!(%error, "{so}");
                }
            }
        }
    }

    /// Does something at the desks, away from the threads that must not wait.
    async fn desk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&super::reviews::Desks, &store::Pairs) -> Result<T, store::PairsError>
        + Send
        + 'static,
    ) -> Result<T, Status> {
        let desks = Arc::clone(&self.desks);
        self.store.read(move |store| act(&desks, store)).await
    }

    fn rollout(&self, parent: &str) -> Result<Rollout, Status> {
        let name = rollout("parent", parent)?;
        let views = self.store.past().controller.views();
        let found = views.rollouts.iter().find(|it| *it.rollout.name() == name);
        let found = found.map(|it| it.rollout.clone());
        found.ok_or_else(|| errors::rejected(&Rejected::Unknown(name)))
    }

    fn names(&self) -> Vec<Name> {
        let views = self.store.past().controller.views();
        views.rollouts.iter().map(|it| it.rollout.name().clone()).collect()
    }
}

fn agreement(table: &[[u64; 3]; 3]) -> proto::ReviewAgreement {
    let (pairs, agreed): (u64, u64) =
        (table.iter().flatten().sum(), (0..3).map(|it| table[it][it]).sum());
    proto::ReviewAgreement {
        pairs: convert::long(pairs),
        agreed: convert::long(agreed),
        kappa: kappa(table).filter(|_| KAPPA_FROM <= pairs),
    }
}
