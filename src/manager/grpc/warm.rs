//! The keeper of the warm connection: connects, asks whether the manager is healthy, waits for news of the connection, and starts
//! over. It counts what may have changed a row: a *loss*, the end of a connection on which the manager was healthy, and a *gain*,
//! the manager's first healthy answer, or its first after it was lost or not healthy.
//!
//! Whatever the far end does, the keeper is never in a hurry for long: only the end of a connection that has lived for [`STABLE`] is
//! followed by a new one at once. All other tries wait for a backoff of up to [`CAP`].

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use crate::{
    manager::{backoff::Backoff, outcome},
    net::Connection,
    proto::health_v1::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
};

/// How long a new connection may take to answer before it is replaced.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The longest wait between two tries while no manager answers.
pub(crate) const CAP: Duration = Duration::from_secs(10);
/// A connection that lived for so long was a good one.
const STABLE: Duration = Duration::from_secs(10);

/// The waits between two tries.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200))
}

/// What became of a try, or of the connection since.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    /// The manager says that it is healthy.
    Healthy,
    /// It says otherwise, or something else answered, or nothing did.
    Unhealthy,
    /// A call got an answer that was not the manager's.
    Doubt,
    /// The connection on which the manager was healthy ended after so long, or is not used any more.
    Lost(Duration),
}

/// What follows from news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Step {
    /// A connection to a manager was lost: count it.
    loss: bool,
    /// The manager is there, for the first time or again: count it.
    gain: bool,
    /// It was not healthy before: say that it is back.
    back: bool,
    /// It is not healthy any more: say so.
    away: bool,
    /// Wait for so long before the next try.
    wait: Duration,
}

/// How the manager was when it was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    /// Never heard of.
    New,
    Healthy,
    Lost,
    Unhealthy,
}

/// Decides when to try again, and what counts. Pure: time and chance are arguments.
struct Keeper {
    manager: Manager,
    backoff: Backoff,
}

impl Keeper {
    fn new() -> Self {
        Self { manager: Manager::New, backoff: backoff() }
    }

    /// `roll` (0 to 1) draws the wait.
    fn hears(&mut self, news: &News, roll: f64) -> Step {
        let before = self.manager;
        match news {
            News::Healthy => {
                self.manager = Manager::Healthy;
                Step {
                    gain: before != Manager::Healthy,
                    back: before == Manager::Unhealthy,
                    ..Step::default()
                }
            }
            News::Unhealthy => {
                self.manager = Manager::Unhealthy;
                Step { away: before != Manager::Unhealthy, wait: self.delay(roll), ..Step::default() }
            }
            News::Doubt => Step { wait: self.delay(roll), ..Step::default() },
            News::Lost(lived) => {
                self.manager = Manager::Lost;
                let wait = if *lived >= STABLE {
                    self.backoff.reset();
                    Duration::ZERO
                } else {
                    self.delay(roll)
                };
                Step { loss: true, wait, ..Step::default() }
            }
        }
    }

    fn delay(&mut self, roll: f64) -> Duration {
        self.backoff.next(CAP, roll, None, None)
    }
}

/// Runs until aborted.
pub(super) async fn keep_warm(shared: Arc<Shared>) {
    let mut keeper = Keeper::new();
    // Since when the connection is there on which the manager was healthy last.
    let mut good: Option<(u64, Instant)> = None;
    loop {
        let (why, connection) = look(&shared).await;
        let news = if why.is_none() { News::Healthy } else { News::Unhealthy };
        let step = keeper.hears(&news, fastrand::f64());
        if let Some(why) = &why {
            shared.note_failure(why);
            if step.away {
                tracing::warn!(reason = why, "No manager answers; it is tried again.");
            }
        }
        let Some(connection) = connection.filter(|_| why.is_none()) else {
            sleep(step.wait).await;
            continue;
        };
        shared.answered(&connection);
        if step.back {
            tracing::info!(manager.address = %connection.peer(), "The manager answers again.");
        }
        if step.gain {
            shared.contact.send_modify(|contact| contact.gains += 1);
        }
        let since =
            good.filter(|(id, _)| *id == connection.id()).map_or_else(Instant::now, |(_, since)| since);
        good = Some((connection.id(), since));
        let news = watch(&shared, &connection, since).await;
        drop(connection);
        let step = keeper.hears(&news, fastrand::f64());
        if step.loss {
            shared.contact.send_modify(|contact| contact.losses += 1);
        }
        sleep(step.wait).await;
    }
}

/// A connection, and why the manager is not healthy on it, if it isn't.
async fn look(shared: &Shared) -> (Option<String>, Option<Connection>) {
    let connection = match shared.connection(false).await {
        Err(failure) => return (Some(failure.why), None),
        Ok(connection) => connection,
    };
    let mut health = HealthClient::with_origin(connection.clone(), connection.origin());
    let why = match timeout(ANSWER_LIMIT, health.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => None,
        Ok(Ok(answer)) => {
            shared.doubt(&connection);
            Some(format!("{}: health check: {}", connection.peer(), answer.get_ref().status().as_str_name()))
        }
        Ok(Err(status)) if outcome::call_error(&status).is_some() => {
            shared.put_aside(&connection);
            Some(format!("{} ended the connection without an answer", connection.peer()))
        }
        Ok(Err(status)) => {
            shared.doubt(&connection);
            Some(format!("{}: health check: {:?}: {}", connection.peer(), status.code(), status.message()))
        }
        Err(_) => {
            shared.put_aside(&connection);
            Some(format!("{} is silent", connection.peer()))
        }
    };
    (why, Some(connection))
}

/// Waits for news of the connection on which the manager was healthy.
async fn watch(shared: &Shared, connection: &Connection, since: Instant) -> News {
    loop {
        tokio::select! {
            why = connection.ended() => {
                tracing::debug!(manager.address = %connection.peer(), reason = why, "The warm connection has ended.");
                return News::Lost(since.elapsed());
            }
            // Told of an earlier one, perhaps: what is warm now decides.
            () = shared.changed.notified() => match shared.warm() {
                Some((warm, in_doubt)) if warm.id() == connection.id() => {
                    if in_doubt {
                        return News::Doubt;
                    }
                }
                _ => return News::Lost(since.elapsed()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many tries in a minute of a far end that does the same each time, and how many of them count as the manager's return.
    fn in_a_minute(mut happens: impl FnMut(&mut Keeper, f64) -> Step) -> (usize, usize) {
        let (mut keeper, mut dice) = (Keeper::new(), fastrand::Rng::with_seed(7));
        let (mut at, mut tries, mut gains) = (Duration::ZERO, 0, 0);
        // Where it has settled in.
        while at < Duration::from_secs(120) {
            let step = happens(&mut keeper, dice.f64());
            // Each try takes a moment.
            at += step.wait + Duration::from_millis(2);
            if at >= Duration::from_secs(60) {
                tries += 1;
                gains += usize::from(step.gain);
            }
        }
        (tries, gains)
    }

    #[test]
    fn g3_a_peer_that_closes_after_each_answer_is_not_connected_to_in_a_hurry() {
        let (tries, _) = in_a_minute(|keeper, roll| {
            let healthy = keeper.hears(&News::Healthy, roll);
            let lost = keeper.hears(&News::Lost(Duration::from_millis(5)), roll);
            Step { gain: healthy.gain, ..lost }
        });
        assert!((6..=30).contains(&tries), "{tries} connections in a minute");
    }

    #[test]
    fn g3_a_proxy_that_answers_for_the_manager_is_asked_seldom_and_is_no_return() {
        let (tries, gains) = in_a_minute(|keeper, roll| keeper.hears(&News::Unhealthy, roll));
        assert!((6..=30).contains(&tries) && gains == 0, "{tries} tries, {gains} gains");
    }

    #[test]
    fn g3_a_healthy_manager_whose_calls_a_proxy_answers_is_no_return() {
        let mut keeper = Keeper::new();
        assert!(keeper.hears(&News::Healthy, 0.5).gain);
        let (tries, gains) = in_a_minute(|keeper, roll| {
            let healthy = keeper.hears(&News::Healthy, roll);
            let doubt = keeper.hears(&News::Doubt, roll);
            Step { gain: healthy.gain && !doubt.loss, ..doubt }
        });
        assert!((6..=30).contains(&tries) && gains == 0, "{tries} looks, {gains} gains");
    }

    #[test]
    fn g3_a_manager_that_was_lost_or_unhealthy_is_back_with_its_first_healthy_answer() {
        let mut keeper = Keeper::new();
        assert!(keeper.hears(&News::Healthy, 1.0).gain);
        assert!(!keeper.hears(&News::Healthy, 1.0).gain);
        let lost = keeper.hears(&News::Lost(Duration::from_secs(600)), 1.0);
        assert_eq!((lost.loss, lost.wait), (true, Duration::ZERO));
        assert!(keeper.hears(&News::Unhealthy, 1.0).away);
        assert!(!keeper.hears(&News::Unhealthy, 1.0).away, "said once");
        let back = keeper.hears(&News::Healthy, 1.0);
        assert!(back.gain && back.back);
    }
}
