//! The keeper of the warm connection.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::Shared;
use crate::{
    manager::{backoff::Backoff, outcome},
    net::Connection,
    proto::health_v1::{HealthCheckRequest, health_client::HealthClient},
};

/// How long a new connection may take to answer before it is replaced.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The longest wait between two tries while no manager answers.
pub(crate) const CAP: Duration = Duration::from_secs(10);

/// The waits between two tries.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200))
}

/// Runs until aborted: connects, sees that the manager answers, waits for the connection's end, counts it, starts over.
pub(super) async fn keep_warm(shared: Arc<Shared>) {
    let mut backoff = backoff();
    let mut away = false;
    loop {
        let why = match shared.connection(false).await {
            Err(failure) => failure.why,
            Ok(connection) => match timeout(ANSWER_LIMIT, answers(&connection)).await {
                Ok(true) => {
                    if away {
                        tracing::info!(manager.address = %connection.peer(), "The manager answers again.");
                    }
                    away = false;
                    backoff.reset();
                    shared.answered(&connection);
                    shared.contact.send_modify(|c| c.gains += 1);
                    loop {
                        tokio::select! {
                            why = connection.ended() => {
                                tracing::debug!(manager.address = %connection.peer(), reason = why, "The warm connection has ended.");
                                break;
                            }
                            // Told of an earlier one, perhaps: what is warm now decides.
                            () = shared.put_aside.notified() => {
                                if shared.warm().is_none_or(|w| w.id() != connection.id()) {
                                    break;
                                }
                            }
                        }
                    }
                    drop(connection);
                    shared.contact.send_modify(|c| c.losses += 1);
                    continue;
                }
                Ok(false) => {
                    shared.put_aside(&connection);
                    format!("{} ended the connection without an answer", connection.peer())
                }
                Err(_) => {
                    shared.put_aside(&connection);
                    format!("{} is silent", connection.peer())
                }
            },
        };
        shared.note_failure(&why);
        if !away {
            tracing::warn!(reason = why, "No manager answers; it is tried again.");
            away = true;
        }
        sleep(backoff.next(CAP, fastrand::f64(), None, None)).await;
    }
}

/// Whether the manager says anything at all: any status counts, only a cut call doesn't.
async fn answers(connection: &Connection) -> bool {
    let mut health = HealthClient::with_origin(connection.clone(), connection.origin());
    match health.check(HealthCheckRequest::default()).await {
        Ok(_) => true,
        Err(status) => outcome::call_error(&status).is_none(),
    }
}
