//! What an agent can be asked: the port, the hook's port, the socket.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinSet,
};
use tracing::info;

use super::super::{
    check,
    command::{Command, Commands},
    degraded::Degraded,
    hook::{
        self, Hook, HookAnswer,
        allow::{AllowList, Network, RouteTables},
        token::TokenFile,
    },
    http::{self, ListenError, Readiness, Served},
    lifecycle::HOOK_WAIT,
    socket::{self, AgentSocket, Request, Response},
};
use super::Agent;
use crate::files;

/// How often a port that is taken is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// How long the answers under way have at the end to reach those who asked.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// What listens for others. It ends with the agent: the answers under way are written, and the socket's file is removed.
pub(super) struct Listeners {
    end: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { end: watch::Sender::new(false), tasks: JoinSet::new() }
    }

    /// Listens as soon as `bound` has something to listen on, and until the end.
    pub(super) fn add<T, F>(
        &mut self,
        bound: impl Future<Output = T> + Send + 'static,
        serve: impl FnOnce(T, BoxFuture<'static, ()>) -> F + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let mut end = self.end.subscribe();
        self.tasks.spawn(async move {
            let listener = tokio::select! {
                listener = bound => listener,
                _ = end.wait_for(|end| *end) => return,
            };
            // A sender that is gone is the end too.
            let end = async move { drop(end.wait_for(|end| *end).await) };
            serve(listener, end.boxed()).await;
        });
    }

    pub(super) async fn end(mut self) {
        self.end.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Who doesn't read its answer can't hold up the exit.
        let _ = tokio::time::timeout(LAST_ANSWERS, ended).await;
    }
}

impl Agent {
    /// Everything that can be asked of the agent, from the start.
    pub(super) fn serve(&self) -> Listeners {
        let settings = &self.settings;
        let mut listeners = Listeners::new();
        let served = Served::new(self.metrics.clone(), self.ready.clone());
        let address = settings.listen;
        let ports = settings.scheduler_ports.clone();
        listeners.add(
            bind("listen", self.degraded.clone(), move || listen("--listen", address, &ports)),
            move |listener, end| http::run(listener, served, end),
        );
        if let Some(address) = settings.hook_listen {
            match settings
                .hook_allow
                .iter()
                .map(|text| text.parse::<Network>())
                .collect::<Result<Vec<_>, _>>()
            {
                Ok(networks) => {
                    let allow = AllowList::new(settings.host_ips.clone(), networks, RouteTables::default());
                    let token = settings.hook_token_file.as_ref().map(TokenFile::new);
                    if let Some(token) = token.clone() {
                        let degraded = self.degraded.clone();
                        tokio::spawn(token.watch(move |token| {
                            degraded.set(
                                "hook-token",
                                token.err().map(|why| format!("{why}; every hook is refused")),
                            );
                        }));
                    }
                    let hook = Hook::new(allow, token);
                    let pre_stop = self.pre_stop(HOOK_WAIT);
                    let answer = move || {
                        let answer = pre_stop();
                        async move {
                            HookAnswer(answer.await.map_or_else(|why| why, |answer| answer.to_string()))
                        }
                        .boxed()
                    };
                    let ports = settings.scheduler_ports.clone();
                    listeners.add(
                        bind("hook-listen", self.degraded.clone(), move || {
                            listen("--hook-listen", address, &ports)
                        }),
                        move |listener, end| hook::run(listener, hook, answer, end),
                    );
                }
                Err(why) => self.degraded.set("hook-allow", Some(why.to_string())),
            }
        }
        let (commands, ready, bound) = (self.commands.clone(), self.ready.clone(), self.bound.clone());
        listeners.add(bind_socket(settings.run_dir.clone(), self.degraded.clone()), move |socket, end| {
            info!(socket.path = %socket.path().display(), "Listening for hooks.");
            bound.send_replace(true);
            let handler = move |request| answer(request, commands.clone(), ready.clone()).boxed();
            socket::serve(socket, socket::server::limits(), handler, end)
        });
        listeners
    }

    /// What a pre-stop call does that is answered within `wait`.
    pub(super) fn pre_stop(
        &self,
        wait: Duration,
    ) -> impl Fn() -> BoxFuture<'static, Result<socket::PreStopAnswer, String>> + Send + Sync + Clone + 'static
    {
        let commands = self.commands.clone();
        move || pre_stop(commands.clone(), Some(wait)).boxed()
    }
}

/// Listens on `address`, but never on a port of the scheduler's, which would then find it taken and not start.
fn listen(flag: &'static str, address: SocketAddr, schedulers: &[u16]) -> Result<TcpListener, ListenError> {
    if schedulers.contains(&address.port()) {
        return Err(ListenError::Schedulers { flag, address });
    }
    http::listen(flag, address)
}

/// Tries until it succeeds; what stands in the way is shown meanwhile. For what never blocks.
pub(super) async fn bind<T, E: std::fmt::Display>(
    reason: &'static str,
    degraded: Degraded,
    listen: impl Fn() -> Result<T, E>,
) -> T {
    loop {
        match listen() {
            Ok(listener) => {
                degraded.set(reason, None);
                return listener;
            }
            Err(why) => degraded.set(reason, Some(why.to_string())),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// The socket, however long its directory's disk takes.
async fn bind_socket(run_dir: PathBuf, degraded: Degraded) -> AgentSocket {
    loop {
        let dir = run_dir.clone();
        let bound = until_done("socket", &degraded, &run_dir, move || socket::server::make(&dir)).await;
        match AgentSocket::of(bound) {
            Ok(socket) => return socket,
            Err(why) => degraded.set("socket", Some(why.to_string())),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Does `work`, which may hang over `path`, until it succeeds; what stands in the way is shown meanwhile. While one hangs no
/// other is begun beside it.
pub(super) async fn until_done<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    reason: &'static str,
    degraded: &Degraded,
    path: &Path,
    work: impl Fn() -> Result<T, E> + Send + Sync + 'static,
) -> T {
    let work = Arc::new(work);
    loop {
        let begun = Arc::clone(&work);
        let unanswered =
            |why: files::Unanswered| degraded.set(reason, Some(format!("{}: {why}", path.display())));
        match files::to_the_end(move || begun(), unanswered).await {
            Ok(Ok(value)) => {
                degraded.set(reason, None);
                return value;
            }
            Ok(Err(why)) => degraded.set(reason, Some(why.to_string())),
            Err(why) => unanswered(why),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

pub(super) async fn pre_stop(
    commands: Commands,
    wait: Option<Duration>,
) -> Result<socket::PreStopAnswer, String> {
    let (answer, answered) = oneshot::channel();
    let stopping = "the agent is stopping";
    commands.send(Command::PreStop { wait, answer }).map_err(|_| stopping.to_owned())?;
    answered.await.map_err(|_| {
        "the agent is stopping, or does not know yet whose row it answers for: see signoff status".to_owned()
    })
}

pub(super) async fn answer(request: Request, commands: Commands, ready: Readiness) -> Response {
    if let Request::PreStop { deadline } = request {
        return match pre_stop(commands, deadline).await {
            Ok(answer) => Response::PreStop(answer),
            Err(why) => Response::Refused(why),
        };
    }
    let (send, status) = oneshot::channel();
    let asked = commands.send(Command::Status(send)).is_ok();
    match status.await {
        Ok(mut status) if asked => {
            status.started = status.started || ready.get();
            if request == Request::Check {
                Response::Check(check::of_status(&status))
            } else {
                Response::Status(status)
            }
        }
        _ => Response::Refused("the agent is stopping".to_owned()),
    }
}

#[cfg(test)]
mod tests;
