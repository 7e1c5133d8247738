//! Whether another scheduler is gone, before its row is signed off by somebody else: looked at, never guessed.
//!
//! Silent is gone. What answers lives, unless another active row has that ip:port: then the address was reused, and the key
//! is gone all the same.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    key::SchedulerKey,
    manager::{Filter, Manager, Row, State},
    net::Probe,
};

/// How long a look at a scheduler's address may take.
const LIMIT: Duration = Duration::from_secs(1);

/// What there is at a key's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It lives: not to be signed off.
    Lives,
    /// Nothing answers, in words.
    Silent(String),
    /// Another scheduler has the address now, in words.
    Reused(String),
    /// It could not be found out, in words.
    Unclear(String),
}

/// Looks at `key`'s scheduler, which served at `address`.
pub async fn at(manager: &dyn Manager, key: &SchedulerKey, address: SocketAddr) -> Look {
    #[cfg(not(test))]
    let probe = crate::net::probe(address, LIMIT).await;
    // A simulated network is the same one for all of an agent's calls.
    #[cfg(test)]
    let probe = manager.probe(address, LIMIT).await;
    match probe {
        Probe::Silent(why) => return Look::Silent(why),
        Probe::Unclear(why) => return Look::Unclear(why),
        Probe::Answers => {}
    }
    match manager.list(&Filter::Ip(address.ip())).await {
        Err(failure) => Look::Unclear(failure.why),
        Ok(rows) => match rows.iter().find(|row| took(row, key, address)) {
            Some(heir) => Look::Reused(format!("{} serves at {address} now", heir.hostname)),
            None => Look::Lives,
        },
    }
}

/// Whether this row is another scheduler's, which has that address now.
fn took(row: &Row, key: &SchedulerKey, address: SocketAddr) -> bool {
    row.ip.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == address.ip())
        && row.port == i32::from(address.port())
        && row.state == State::Active
        && !row.is(key)
}
