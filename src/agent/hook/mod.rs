//! The opt-in hook listener: `GET /pre-stop`, for kubelet's `httpGet` preStop hook on the scheduler's own container.
//!
//! kubelet ignores the status, sets no time-out, and may call twice: so the answer comes when the sign-off is settled,
//! or queued once the callback has waited for long enough, and calling again is the callback's to make harmless. It is the only listener that writes, so it answers only the node's own
//! addresses ([`allow`]) and, with a token's file, only requests with the token ([`token`]). Who is refused is logged
//! with the address, since a hook that was refused is a drain that didn't happen.
//!
//! A call that was taken is carried through even if kubelet gives up on it.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use self::{allow::AllowList, token::TokenFile};
use crate::agent::{
    http::{
        connections::{self, Handle, Limits},
        http1::{self, Answer, HttpLimits},
    },
    socket::PreStopAnswer,
};

pub mod allow;
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

/// Who was turned away within the last second: each address is said once in it, and [`Refused::MOST`] at most, so that
/// strangers can't fill the log, nor hide kubelet's address in it for long.
#[derive(Debug, Default)]
struct Refused(Mutex<Vec<(IpAddr, Instant)>>);

impl Refused {
    const MOST: usize = 16;

    fn is_news(&self, peer: IpAddr) -> bool {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|(_, at)| at.elapsed() < Duration::from_secs(1));
        let news = refused.len() < Self::MOST && !refused.iter().any(|(ip, _)| *ip == peer);
        if news {
            refused.push((peer, Instant::now()));
        }
        news
    }
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
            if self.refused.is_news(peer) {
                tracing::warn!(
                    peer = %peer,
                    "A pre-stop hook was refused: the address is not this node's; if it is kubelet's, give it as --hook-allow."
                );
            }
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
                if self.refused.is_news(peer) {
                    tracing::warn!(
                        peer = %peer,
                        "A pre-stop hook was refused: it has not the token, in Authorization: Bearer or X-Signoff-Token."
                    );
                }
                Some(http1::text(StatusCode::UNAUTHORIZED, "the token is missing or wrong"))
            }
            Err(error) => {
                tracing::error!(
                    peer = %peer,
                    error = %error,
                    "A pre-stop hook was refused, as every one is: there is no token to compare with."
                );
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
    tracing::info!(peer = %peer, "A pre-stop hook came.");
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
