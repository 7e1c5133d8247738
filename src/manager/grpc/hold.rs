//! A hold: a KeepAlive stream of our own that stays open, on a connection of its own.
//!
//! Nothing is sent after the first message: the scheduler's own stream proves that it lives, and a gRPC server cuts
//! clients that ping often. The kernel's keep-alive finds a lost manager.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tonic::Status;

use super::{Shared, TURNS, at, drain, keep_alive};
use crate::{
    key::SchedulerKey,
    manager::{Failure, Held, HoldStart, Outcome, endpoints::OpenOn, outcome},
};

/// How long a stream must stay open to count as opened: a manager that refuses does so at once. From one that is far away the
/// refusal takes longer, as its connection did: it is waited for three times as long, [`FAR`] at most.
const MOMENT: Duration = Duration::from_millis(250);
const FAR: Duration = Duration::from_secs(2);

struct Hold {
    call: BoxFuture<'static, Result<(), Status>>,
    half_close: Option<oneshot::Sender<()>>,
    /// How the stream ended, where it did so unasked.
    ended: Option<Outcome>,
    at: String,
    shared: Arc<Shared>,
    open: OpenOn,
}

/// Opens a hold of `key`.
pub(super) async fn open(shared: &Arc<Shared>, key: &SchedulerKey) -> Result<HoldStart, Failure> {
    let mut last = Failure::new("no connection was made");
    for _ in 0..TURNS {
        let begun = Instant::now();
        let connection = shared.dialer.connect(false).await?;
        let moment = (begun.elapsed() * 3).clamp(MOMENT, FAR);
        let at = at(&connection);
        let open = shared.dialer.open_on(connection.peer());
        let (half_close, asked) = oneshot::channel::<()>();
        let rest = stream::once(asked).filter_map(|_| ready(None));
        let requests = stream::iter([keep_alive(key)]).chain(rest);
        let call = async move { drain(&connection, requests).await }.boxed();
        let mut hold =
            Hold { call, half_close: Some(half_close), ended: None, at, shared: shared.clone(), open };
        match timeout(moment, &mut hold.call).await {
            Err(_) => return Ok(HoldStart::Open(Box::new(hold))),
            Ok(result) => {
                let unseen = matches!(&result, Err(status)
                    if outcome::call_error(status).is_some_and(|e| e.surely_not_seen()));
                match hold.unasked(result) {
                    Outcome::Absent => return Ok(HoldStart::Absent),
                    Outcome::Rejected(f) | Outcome::Failed(f) | Outcome::Unknown(f) => last = f,
                    Outcome::Confirmed => {}
                }
                if !unseen {
                    return Err(last);
                }
            }
        }
    }
    Err(last)
}

impl Hold {
    /// What an end means that nobody asked for.
    fn unasked(&self, result: Result<(), Status>) -> Outcome {
        match result {
            Ok(()) => Outcome::Unknown(Failure::new(format!("{}: ended the stream unasked", self.at))),
            Err(status) => {
                if outcome::call_error(&status).is_some() {
                    self.shared.dialer.in_trouble(self.open.addr());
                }
                outcome::of_status(&self.at, &status)
            }
        }
    }
}

#[async_trait]
impl Held for Hold {
    async fn lost(&mut self) -> Failure {
        if self.ended.is_none() {
            let result = (&mut self.call).await;
            self.ended = Some(self.unasked(result));
        }
        match &self.ended {
            Some(Outcome::Rejected(f) | Outcome::Failed(f) | Outcome::Unknown(f)) => f.clone(),
            _ => Failure::new(format!("{}: the manager has no such row", self.at)),
        }
    }

    async fn release(mut self: Box<Self>, limit: Duration) -> Outcome {
        // An end that is there already is not the answer to the half-close.
        if self.ended.is_none()
            && let Some(result) = (&mut self.call).now_or_never()
        {
            self.ended = Some(self.unasked(result));
        }
        if let Some(ended) = self.ended {
            return ended;
        }
        drop(self.half_close.take());
        match timeout(limit, &mut self.call).await {
            Ok(Ok(())) => Outcome::Confirmed,
            Ok(Err(status)) => outcome::of_status(&self.at, &status),
            Err(_) => Outcome::Unknown(Failure::new(format!(
                "{}: the hold's end was not acknowledged within {limit:?}",
                self.at
            ))),
        }
    }
}
