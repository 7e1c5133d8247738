//! Whether a probe of another scheduler's address is worth anything from here: succession and `signoff reconcile` rest on it.

use std::{net::SocketAddr, time::Duration};

use crate::{
    agent::{
        check::{ok, warning},
        socket::Finding,
    },
    identity::Settings,
    key::SchedulerIp,
    net::{EXCLUDE, Prober},
};

pub(super) const NAME: &str = "probes";
const LIMIT: Duration = Duration::from_secs(1);

/// Connects to addresses where nobody can be, at the schedulers' port.
pub(super) async fn check(settings: &Settings) -> Vec<Finding> {
    let Some(ip) = settings.ip.map(SchedulerIp::get).or(settings.pod_ip) else { return Vec::new() };
    let like = SocketAddr::new(ip, settings.advertise_port);
    match Prober::network().answers_for_nobody(like, LIMIT).await {
        None => vec![ok(NAME, format!("nobody answers at port {} where nobody can be", like.port()))],
        Some(why) => vec![warning(NAME, why, EXCLUDE)],
    }
}
