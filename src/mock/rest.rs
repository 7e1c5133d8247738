//! The REST API.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use super::{
    listener::{Body, boxed},
    node::Node,
};

/// The REST API of one life of a manager.
#[derive(Debug, Clone)]
pub(super) struct RestPort {
    #[allow(dead_code)]
    node: Arc<Node>,
}

impl RestPort {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

impl Service<Request<Incoming>> for RestPort {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Incoming>) -> Self::Future {
        Box::pin(async move { Ok(boxed(Response::new(axum::body::Body::from("\"OK\"")))) })
    }
}
