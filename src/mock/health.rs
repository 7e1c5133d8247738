//! grpc.health.v1, as grpc-go's health server behaves: `Check` answers, `Watch` answers and stays open.

use std::{collections::BTreeSet, pin::Pin};

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::proto::health_v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

/// The health service of a server.
#[derive(Debug)]
pub(super) struct HealthService {
    services: BTreeSet<&'static str>,
    serving: watch::Receiver<bool>,
}

impl HealthService {
    /// Answers for the server as a whole (the empty name) and for these services.
    pub(super) fn new(services: &[&'static str], serving: watch::Receiver<bool>) -> Self {
        Self { services: services.iter().copied().chain([""]).collect(), serving }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.services.contains(request.get_ref().service.as_str()) {
            return Err(Status::not_found("unknown service"));
        }
        let serving = *self.serving.borrow();
        Ok(Response::new(answer(status(serving))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.services.contains(request.get_ref().service.as_str());
        let mut changes = self.serving.clone();
        changes.mark_changed();
        let stream = futures_util::stream::unfold(changes, move |mut changes| async move {
            if changes.changed().await.is_err() {
                // The server as such is gone; only the connection's end ends a Watch.
                std::future::pending::<()>().await;
            }
            let now = *changes.borrow_and_update();
            let said = if known { status(now) } else { ServingStatus::ServiceUnknown };
            Some((Ok(answer(said)), changes))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
