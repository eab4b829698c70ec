//! `FlagService`: what operators cap.

use tonic::{Request, Response, Status};

use super::{
    convert, errors,
    proto::{self, flag_service_server::FlagService},
    request::{Said, actor, requester, rollout, word},
};
use crate::controller::Handle;
use crate::domain::{Event, Flag, Name, Record, Share};

/// The service.
#[derive(Debug)]
pub(super) struct FlagsApi(pub(super) Handle);

#[tonic::async_trait]
impl FlagService for FlagsApi {
    async fn list_flags(
        &self,
        _: Request<proto::ListFlagsRequest>,
    ) -> Result<Response<proto::ListFlagsResponse>, Status> {
        Ok(Response::new(proto::ListFlagsResponse { flags: self.flags() }))
    }

    async fn set_flag(
        &self,
        request: Request<proto::SetFlagRequest>,
    ) -> Result<Response<proto::Flag>, Status> {
        let actor = actor(&request)?;
        let mut asked = request.into_inner().flag.unwrap_or_default();
        let comment = std::mem::take(&mut asked.comment);
        let by = requester(actor, Said { comment, ..Said::default() })?;
        let flag = read(asked)?;
        let name = full(&flag.name);
        self.0.set_flag(flag, by).await.map_err(|error| errors::rejected(&error))?;
        let set = self.flags().into_iter().find(|it| it.name == name);
        // It may be cleared already.
        Ok(Response::new(set.unwrap_or_default()))
    }

    async fn clear_flag(
        &self,
        request: Request<proto::ClearFlagRequest>,
    ) -> Result<Response<proto::ClearFlagResponse>, Status> {
        let actor = actor(&request)?;
        let proto::ClearFlagRequest { name, comment } = request.into_inner();
        let by = requester(actor, Said { comment, ..Said::default() })?;
        let cleared = self.0.clear_flag(flag_name(&name)?, by).await;
        cleared.map_err(|error| errors::rejected(&error))?;
        Ok(Response::new(proto::ClearFlagResponse {}))
    }
}

impl FlagsApi {
    fn flags(&self) -> Vec<proto::Flag> {
        let views = self.0.views();
        views.flags.iter().filter_map(|it| shown(it, views.flags_durable)).collect()
    }
}

fn full(name: &Name) -> String {
    format!("flags/{name}")
}

fn flag_name(text: &str) -> Result<Name, Status> {
    let name = text
        .strip_prefix("flags/")
        .ok_or_else(|| errors::argument("name", &format!("name is `flags/NAME`, not `{text}`")))?;
    name.parse().map_err(|error| errors::argument("name", &format!("{error}")))
}

fn read(asked: proto::Flag) -> Result<Flag, Status> {
    let share = |field: &str, basis_points: Option<i32>| {
        let Some(basis_points) = basis_points else { return Ok(None) };
        let share =
            u16::try_from(basis_points).ok().and_then(|it| Share::from_basis_points(it).ok());
        let problem = format!("{field} is 0 (off) to 10000 basis points, not {basis_points}");
        share.map(Some).ok_or_else(|| errors::argument(field, &problem))
    };
    let serve = share("serve_bps_max", asked.serve_bps_max)?;
    let mirror = share("mirror_bps_max", asked.mirror_bps_max)?;
    if (serve, mirror) == (None, None) {
        let problem = "a flag caps serve_bps_max, mirror_bps_max or both";
        return Err(errors::argument("serve_bps_max", problem));
    }
    let about = Some(asked.rollout.as_str()).filter(|it| !it.is_empty());
    Ok(Flag {
        name: flag_name(&asked.name)?,
        rollout: about.map(|it| rollout("rollout", it)).transpose()?,
        feature: word("feature", asked.feature)?,
        segment: word("segment", asked.segment)?,
        serve,
        mirror,
    })
}

fn shown(record: &Record, durable: bool) -> Option<proto::Flag> {
    let Event::Flagged(flag) = &record.event else { return None };
    Some(proto::Flag {
        name: full(&flag.name),
        rollout: flag.rollout.as_ref().map_or_else(String::new, |it| format!("rollouts/{it}")),
        feature: flag.feature.clone(),
        segment: flag.segment.clone(),
        serve_bps_max: flag.serve.map(|it| it.basis_points().into()),
        mirror_bps_max: flag.mirror.map(|it| it.basis_points().into()),
        update_time: Some(convert::time(record.at)),
        actor: record.actor.clone(),
        comment: record.comment.clone(),
        durable,
    })
}
