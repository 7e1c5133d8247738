//! The opt-in hook listener: `GET /pre-stop`, for kubelet's `httpGet` preStop hook on the scheduler's own container.
//!
//! kubelet ignores the status, sets no time-out, and may call twice: so the answer comes when the sign-off is settled,
//! or queued once the callback has waited for long enough, and calling again is the callback's to make harmless. It is the only listener that writes, so it answers only the node's own
//! addresses ([`allow`]) and, with a token's file, only requests with the token ([`token`]). Who is refused is logged
//! with the address, since a hook that was refused is a drain that didn't happen; how many lines that may take is bounded ([`refused`]).
//!
//! A call that was taken is carried through even if kubelet gives up on it.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};

use self::{
    allow::AllowList,
    refused::{Refused, Why},
    token::TokenFile,
};
use crate::agent::{
    http::{
        connections::{self, Handle, Limits},
        http1::{self, Answer, HttpLimits},
    },
    socket::PreStopAnswer,
};

pub mod allow;
mod refused;
pub mod token;

/// The one path served.
pub const PATH: &str = "/pre-stop";

/// What a hook is answered: one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookAnswer(pub String);

impl From<&PreStopAnswer> for HookAnswer {
    fn from(answer: &PreStopAnswer) -> Self {
        Self(answer.to_string())
    }
}

/// Who may call, and within which limits.
#[derive(Debug)]
pub struct Hook {
    /// The peers that may.
    pub allow: AllowList,
    /// The token they must have, if any.
    pub token: Option<TokenFile>,
    /// Of all connections.
    pub limits: Limits,
    /// Of each connection.
    pub http: HttpLimits,
    refused: Refused,
}

impl Hook {
    /// With the default limits.
    pub fn new(allow: AllowList, token: Option<TokenFile>) -> Self {
        Self {
            allow,
            token,
            limits: Limits::default(),
            http: HttpLimits::default(),
            refused: Refused::default(),
        }
    }

    /// `None` if the request may go on. What is said doesn't tell a stranger what is here.
    async fn refuse(&self, peer: IpAddr, request: &Request<Incoming>) -> Option<Answer> {
        if !self.allow.permits(peer) {
            self.refused.say(peer, &Why::Address);
            return Some(http1::text(StatusCode::FORBIDDEN, "this address may not call the hook"));
        }
        if request.uri().path() != PATH {
            return Some(http1::text(StatusCode::NOT_FOUND, "here is /pre-stop"));
        }
        if let Some(refused) = http1::refuse(request, &[Method::GET], "GET") {
            return Some(refused);
        }
        match self.token.as_ref()?.permits(request.headers()).await {
            Ok(true) => None,
            Ok(false) => {
                self.refused.say(peer, &Why::Token);
                Some(http1::text(StatusCode::UNAUTHORIZED, "the token is missing or wrong"))
            }
            Err(error) => {
                self.refused.say(peer, &Why::NothingToCompareWith(error));
                Some(http1::text(StatusCode::SERVICE_UNAVAILABLE, "the agent has no token to compare with"))
            }
        }
    }
}

/// Serves until the shutdown; resolves when the answers under way are written, or `limits.linger` is over. `pre_stop` is
/// called for each hook that is let through, and its future runs to its end in a task of its own.
pub async fn run<C>(listener: TcpListener, hook: Hook, pre_stop: C, shutdown: impl Future<Output = ()>)
where
    C: Fn() -> BoxFuture<'static, HookAnswer> + Send + Sync + 'static,
{
    let Hook { limits, http, .. } = hook;
    let shared = Arc::new((hook, pre_stop));
    let connection = move |stream: TcpStream, peer: SocketAddr, handle: Handle| {
        let shared = shared.clone();
        async move {
            http1::connection(stream, handle, http, |request| answer(shared.clone(), peer, request)).await;
        }
    };
    connections::serve("hook", listener, limits, shutdown, connection).await;
}

pub(crate) async fn answer<C>(shared: Arc<(Hook, C)>, peer: SocketAddr, request: Request<Incoming>) -> Answer
where
    C: Fn() -> BoxFuture<'static, HookAnswer> + Send + Sync + 'static,
{
    let (hook, pre_stop) = &*shared;
    let peer = peer.ip().to_canonical();
    if let Some(refused) = hook.refuse(peer, &request).await {
        return refused;
    }
    hook.refused.came(peer);
    match tokio::spawn(pre_stop()).await {
        Ok(HookAnswer(line)) => http1::text(StatusCode::OK, &line),
        Err(error) => {
            tracing::error!(error = %error, "A pre-stop hook failed.");
            http1::text(StatusCode::INTERNAL_SERVER_ERROR, "the agent failed to answer; its log says why")
        }
    }
}

#[cfg(test)]
mod tests;
