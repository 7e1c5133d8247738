//! Whether another scheduler is gone, before its row is signed off by somebody else: looked at, never guessed.
//!
//! Silent is gone. What answers as a scheduler lives, unless another active row of the same cluster has that ip:port, its heir:
//! then the address was reused, and the key is gone all the same. **An heir is believed only if it is the one that has the address
//! now**: an orphan's row may have the same ip:port as that of one that lives. It has where the manager heard of it later than
//! of the key's own, where the list shows that; and it is the younger row, or its time moves while it is looked at.
//!
//! What takes connections and doesn't answer as a scheduler says nothing: see [`Prober`].

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    key::SchedulerKey,
    manager::{
        Filter, Manager, Row, State,
        times::{Times, USUAL_INTERVAL},
    },
    net::{Found, Prober},
};

#[cfg(test)]
mod tests;

/// How long a probe of a scheduler's address may take.
const LIMIT: Duration = Duration::from_secs(1);
/// An heir is looked at for one of its intervals and a bit, at most for so long.
const LONGEST: Duration = Duration::from_secs(20);

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
pub async fn at(prober: &Prober, manager: &dyn Manager, key: &SchedulerKey, address: SocketAddr) -> Look {
    match prober.look(address, LIMIT).await {
        Found::Nobody(why) => Look::Silent(why),
        Found::Proxy(why) | Found::Something { why, .. } | Found::CantLook(why) => Look::Unclear(why),
        Found::Scheduler => whose(manager, key, address).await.unwrap_or_else(Look::Unclear),
    }
}

/// Who answers at `address`: the scheduler of `key`, or an heir. An error says why that can't be told.
async fn whose(manager: &dyn Manager, key: &SchedulerKey, address: SocketAddr) -> Result<Look, String> {
    let list = async || manager.list(&Filter::Ip(address.ip())).await.map_err(|failure| failure.why);
    let rows = list().await?.rows;
    let Some(heir) = rows.iter().find(|row| is_heir(row, key, address)) else { return Ok(Look::Lives) };
    let reused = || Look::Reused(format!("{} serves at {address} now", heir.hostname));
    let Some(own) = rows.iter().find(|row| row.is(key)) else { return Ok(reused()) };
    if was_heard_later(own, heir) {
        return Ok(Look::Lives);
    }
    if heir.id > own.id {
        return Ok(reused());
    }
    let unproven = || {
        format!(
            "{} has {address} too, by an older row, and whether it or {key} answers there can't be told",
            heir.hostname
        )
    };
    if heir.last_keep_alive_at.is_none() {
        return Err(unproven());
    }
    sleep(heir.keep_alive_interval.unwrap_or(USUAL_INTERVAL).mul_f32(1.2).min(LONGEST)).await;
    let later = list().await?.rows;
    let moved = |before: &Row| {
        let now = later.iter().find(|row| row.id == before.id);
        now.is_some_and(|now| Times::from(now).heard_since(before.into()) == Some(true))
    };
    match (moved(heir), moved(own)) {
        (_, true) => Ok(Look::Lives),
        (true, false) => Ok(reused()),
        (false, false) => Err(unproven()),
    }
}

/// Whether the manager heard of `row`'s scheduler later than of `other`'s.
fn was_heard_later(row: &Row, other: &Row) -> bool {
    let heard = |row: &Row| Times::from(row).keep_alive;
    heard(row).zip(heard(other)).is_some_and(|(row, other)| row.is_after(other))
}

/// Whether this row is another scheduler's of the same cluster, which has that address.
fn is_heir(row: &Row, key: &SchedulerKey, address: SocketAddr) -> bool {
    row.ip.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == address.ip().to_canonical())
        && row.port == i32::from(address.port())
        && row.state == State::Active
        && row.cluster_id == key.cluster_id.get()
        && !row.is(key)
}
