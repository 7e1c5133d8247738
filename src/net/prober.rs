//! Probes, and what they are worth here.
//!
//! Where something takes every connection, as a service mesh's proxy does, a connection that was taken says nothing. **A control
//! probe** finds that out: at addresses where nobody can be, and at the same port, since a mesh excludes ports. They are taken
//! from the networks that documentation has for itself (RFC 5737, RFC 3849, RFC 9637), which are routed nowhere, so that a
//! connection there is refused or swallowed; of the discard-only prefix of IPv6 (RFC 6666), and of the unique local addresses
//! under a global id drawn for this (RFC 4193). A mesh's rules in the pod's network redirect them like any other. More than half
//! of them have to be taken, so that one odd network doesn't decide.
//!
//! It is made only where an address took a connection: a refusal needs no control.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{sync::watch, time::Instant};

use super::{Probe, probe};

#[cfg(test)]
mod tests;

/// What to do where probes are worthless.
pub const EXCLUDE: &str = "exclude the schedulers' port from the mesh (docs/meshes.md), or give a REST endpoint with a user, whose \
     keep-alive times decide then";

/// A control's answer is believed for so long.
const BELIEVED: Duration = Duration::from_secs(60);

const DOCUMENTATION: [&str; 3] = ["192.0.2.219", "198.51.100.219", "203.0.113.219"];
/// No mesh redirects these, but a process that listens everywhere answers for all of them.
const LOOPBACK: [&str; 3] = ["127.192.0.219", "127.198.51.219", "127.203.0.219"];
const GLOBAL: [&str; 3] = ["2001:db8:c7d1::219", "3fff:c7d:1::219", "100::219"];
const LOCAL: [&str; 3] = ["fd5c:9d1e:7a43::219", "fdb2:61f8:0c97::219", "fde7:34a0:d15b::219"];

/// Where nobody can be, of the kind that `ip` is.
fn nowhere(ip: IpAddr) -> &'static [&'static str] {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => &LOOPBACK,
        IpAddr::V4(_) => &DOCUMENTATION,
        IpAddr::V6(ip) if ip.is_unique_local() => &LOCAL,
        // There is one of the former, and each link has its own of the latter.
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unicast_link_local() => &[],
        IpAddr::V6(_) => &GLOBAL,
    }
}

/// What is made of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A scheduler lives there.
    Scheduler,
    /// Nobody is there, or a process that hangs. In words.
    Nobody(String),
    /// A service mesh's proxy, of whoever has that address: it can't be told whether that is a scheduler. In words.
    Proxy(String),
    /// Something takes connections there, and it can't be told whether a scheduler is behind it. In words.
    Something {
        /// What it did.
        why: String,
        /// It does so where nobody can be, too: probes are worthless here.
        everywhere: bool,
    },
    /// It is this machine that can't look. In words.
    CantLook(String),
}

/// What was found where nobody can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Nobody,
    /// Connections are taken.
    Takes,
    /// They are even answered as a scheduler would.
    Answers,
}

/// When each control was made, and what it found: by the kind of address and the port.
type Controls = HashMap<(&'static str, u16), (Instant, Control)>;

/// Who makes a single probe.
#[async_trait]
pub trait Reach: Send + Sync {
    /// Looks what is at an address; `limit` as in [`probe()`].
    async fn probe(&self, addr: SocketAddr, limit: Duration) -> Probe;
}

struct Network;

#[async_trait]
impl Reach for Network {
    async fn probe(&self, addr: SocketAddr, limit: Duration) -> Probe {
        probe(addr, limit).await
    }
}

/// Probes addresses, and knows what that is worth.
pub struct Prober {
    reach: Box<dyn Reach>,
    controls: Mutex<Controls>,
    worthless: watch::Sender<Option<String>>,
}

impl Prober {
    /// Over this machine's network.
    pub fn network() -> Self {
        Self::new(Network)
    }

    /// Over another one.
    pub fn new(reach: impl Reach + 'static) -> Self {
        Self { reach: Box::new(reach), controls: Mutex::default(), worthless: watch::Sender::new(None) }
    }

    /// Why probes are worthless here, in words; none where they aren't, as far as anybody had to know.
    pub fn worthless(&self) -> watch::Receiver<Option<String>> {
        self.worthless.subscribe()
    }

    /// Looks who is at `addr`; `limit` as in [`probe()`], and as long again for a control.
    pub async fn look(&self, addr: SocketAddr, limit: Duration) -> Found {
        let found = self.reach.probe(addr, limit).await;
        let control = if found.is_taken() { self.control(addr, limit).await } else { Control::Nobody };
        let everywhere = control != Control::Nobody;
        match found {
            Probe::Scheduler if control == Control::Answers => {
                Found::Something { why: format!("{addr}: it answers as a scheduler does"), everywhere }
            }
            Probe::Scheduler => Found::Scheduler,
            // A stopped process, whose kernel takes connections.
            Probe::Mute(why) if !everywhere => Found::Nobody(why),
            Probe::Proxy(why) if !everywhere => Found::Proxy(why),
            Probe::Proxy(why) | Probe::Mute(why) | Probe::Foreign(why) => {
                Found::Something { why, everywhere }
            }
            Probe::Nobody(why) => Found::Nobody(why),
            Probe::CantLook(why) => Found::CantLook(why),
        }
    }

    /// Whether something answers where nobody can be, at the port of `like` and among addresses like it. In words.
    pub async fn answers_for_nobody(&self, like: SocketAddr, limit: Duration) -> Option<String> {
        self.control(like, limit).await;
        self.worthless.borrow().clone()
    }

    async fn control(&self, like: SocketAddr, limit: Duration) -> Control {
        let nowhere = nowhere(like.ip());
        let Some(kind) = nowhere.first() else { return Control::Nobody };
        let known = |control: &(Instant, Control)| (control.0.elapsed() < BELIEVED).then_some(control.1);
        let at = (*kind, like.port());
        if let Some(control) = self.controls().get(&at).and_then(known) {
            return control;
        }
        let addresses = nowhere.iter().filter_map(|ip| Some(SocketAddr::new(ip.parse().ok()?, like.port())));
        let asked: Vec<SocketAddr> = addresses.collect();
        let found = join_all(asked.iter().map(|addr| self.reach.probe(*addr, limit))).await;
        let most =
            |what: fn(&Probe) -> bool| 2 * found.iter().filter(|probe| what(probe)).count() > found.len();
        let control = if most(|probe| *probe == Probe::Scheduler) {
            Control::Answers
        } else if most(Probe::is_taken) {
            Control::Takes
        } else {
            Control::Nobody
        };
        self.controls().insert(at, (Instant::now(), control));
        self.say(&asked);
        control
    }

    fn say(&self, asked: &[SocketAddr]) {
        let some = self
            .controls()
            .values()
            .any(|(at, control)| at.elapsed() < BELIEVED && *control != Control::Nobody);
        let why = some.then(|| {
            let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
            format!(
                "something takes connections to addresses where nobody is ({}), as a service mesh's proxy does: whether a \
                 scheduler lives can't be told by a connection from here",
                asked.join(", ")
            )
        });
        self.worthless.send_if_modified(|known| {
            let news = known.is_some() != why.is_some();
            if news {
                *known = why;
            }
            news
        });
    }

    fn controls(&self) -> std::sync::MutexGuard<'_, Controls> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
