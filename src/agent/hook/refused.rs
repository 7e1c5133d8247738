//! Who called the hook, in the log, in a bounded number of lines: a refused hook is a drain that didn't happen, and somebody
//! has to see that; but whoever can reach the port can call as often as he likes, from as many addresses as he has.
//!
//! Within a minute at most [`MOST`] refused addresses are named, each once for each reason. What is refused beyond that is counted, and said in
//! one line at the minute's end, with the address that called last.

use std::{
    mem::Discriminant,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::token::TokenError;
use crate::logging::seldom::{EVERY, Seldom};

/// How many refused addresses are named in a minute.
const MOST: usize = 16;
/// How many calls that were let through are said at once.
const CALLS: u32 = 20;

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Why {
    /// The address is not the node's.
    Address,
    /// The token is missing or wrong.
    Token,
    /// No token can be read to compare with: every call is refused.
    NothingToCompareWith(TokenError),
}

/// What was said of callers. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Refused(Arc<Mutex<Said>>);

#[derive(Debug)]
struct Said {
    /// The addresses that were named in the minute that runs, and for what; empty where none does.
    named: Vec<(IpAddr, Discriminant<Why>)>,
    /// Calls in it that were refused without a line.
    more: u64,
    /// Who made the last of them.
    last: Option<IpAddr>,
    /// Calls that were let through.
    calls: Seldom,
}

impl Default for Said {
    fn default() -> Self {
        Self { named: Vec::new(), more: 0, last: None, calls: Seldom::new(CALLS) }
    }
}

impl Refused {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the caller that is refused, or counts the call. Needs to be called within a tokio runtime.
    pub(super) fn say(&self, peer: IpAddr, why: &Why) {
        if !self.is_news(peer, std::mem::discriminant(why)) {
            return;
        }
        match why {
            Why::Address => tracing::warn!(
                peer = %peer,
                "A pre-stop hook was refused: the address is not this node's; if it is kubelet's, give it as --hook-allow."
            ),
            Why::Token => tracing::warn!(
                peer = %peer,
                "A pre-stop hook was refused: it has not the token, in Authorization: Bearer or X-Signoff-Token."
            ),
            Why::NothingToCompareWith(error) => tracing::error!(
                peer = %peer,
                error = %error,
                "A pre-stop hook was refused, as every one is: there is no token to compare with."
            ),
        }
    }

    fn is_news(&self, peer: IpAddr, why: Discriminant<Why>) -> bool {
        let mut said = self.said();
        if said.named.contains(&(peer, why)) || said.named.len() >= MOST {
            said.more += 1;
            said.last = Some(peer);
            return false;
        }
        if said.named.is_empty() {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(EVERY).await;
                this.end_the_minute();
            });
        }
        said.named.push((peer, why));
        true
    }

    fn end_the_minute(&self) {
        let mut said = self.said();
        said.named.clear();
        let (more, last) = (std::mem::take(&mut said.more), said.last.take());
        drop(said);
        if let Some(last) = last {
            tracing::warn!(
                hook.refused = more,
                peer = %last,
                "More calls of the pre-stop hook were refused within the last minute than are named; this is the last one's address."
            );
        }
    }

    /// A call was let through.
    pub(super) fn came(&self, peer: IpAddr) {
        let turn = self.said().calls.turn(tokio::time::Instant::now());
        match turn {
            Some(turn) => {
                tracing::info!(peer = %peer, log.held_back = turn.held_back, "A pre-stop hook came.");
            }
            None => tracing::debug!(peer = %peer, "A pre-stop hook came."),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::logging::Log;

    fn peer(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    fn unreadable() -> Why {
        let source = Arc::new(std::io::ErrorKind::NotFound.into());
        Why::NothingToCompareWith(TokenError::Unreadable { path: "/token".into(), source })
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_can_not_fill_the_log_whatever_they_are_refused_for_and_from_how_many_addresses() {
        for why in [Why::Address, Why::Token, unreadable()] {
            let (log, _guard) = Log::capture();
            let refused = Refused::default();
            // A hundred a second, each from another address, for ten minutes.
            for n in 0..60_000 {
                refused.say(peer(n), &why);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(EVERY).await;
            let text = log.text();
            let lines = text.lines().count();
            assert!((10 * MOST..=11 * (MOST + 1)).contains(&lines), "{lines} lines");
            // And none of the calls is lost in it.
            let more = text.lines().filter_map(|line| line.split_once("hook.refused=")?.1.split(' ').next());
            let more: usize = more.map(|count| count.parse::<usize>().unwrap()).sum();
            let named = text.lines().filter(|line| line.contains("was refused")).count();
            assert_eq!(named + more, 60_000);
            assert!(text.lines().last().unwrap().contains(&format!("peer={}", peer(59_999))), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_is_named_once_a_minute() {
        let (log, _guard) = Log::capture();
        let refused = Refused::default();
        for _ in 0..100 {
            refused.say(peer(1), &Why::Address);
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        let text = log.text();
        assert_eq!(text.matches("is not this node's").count(), 2, "{text}");
        assert!(text.contains("hook.refused=54"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_call_can_not_fill_the_log_either() {
        let (log, _guard) = Log::capture();
        let refused = Refused::default();
        for _ in 0..3600 {
            refused.came(peer(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let text = log.text();
        let said = text.lines().filter(|line| line.contains("INFO")).count();
        assert!((60..=60 + CALLS as usize).contains(&said), "{said}");
        assert!(text.contains("log.held_back=59"), "{text}");
    }
}
