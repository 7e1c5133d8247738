//! Whether the scheduler's health service answers, where and how the agent would ask it.

use std::time::Duration;

use crate::{
    agent::{
        check::{failed, ok},
        scheduler::{Observation, Target},
        socket::Finding,
    },
    identity::Settings,
    net::{self, Peer, Tls, TlsFiles},
};

const NAME: &str = "scheduler";
const LIMIT: Duration = Duration::from_secs(1);

/// One look, as the agent's.
pub(super) async fn check(settings: &Settings) -> Vec<Finding> {
    let Some(addr) = &settings.scheduler_addr else {
        return vec![failed(NAME, "its address is not known", "give --scheduler-addr HOST:PORT")];
    };
    let peer = Peer::new(addr.host(), addr.port());
    let files = settings.scheduler_tls.clone().map(|tls| TlsFiles {
        ca: tls.ca_file,
        cert: tls.cert_file,
        key: tls.key_file,
    });
    let configured = files.is_some();
    let finding = match Target::new(peer.clone(), files).observe().await {
        Observation::Serving(at) | Observation::Reconnected(at) => {
            let how = if configured { " over TLS" } else { "" };
            ok(NAME, format!("its health service says that it serves, at {at}{how}"))
        }
        Observation::Refused(_) => failed(
            NAME,
            format!("nobody listens at {peer}"),
            "start the scheduler, or give --scheduler-addr the address it listens at (server.listenIP and server.port)",
        ),
        Observation::Unclear(why) if wants_certificate(&peer, configured, &why).await => failed(
            NAME,
            format!("it wants a client certificate: {why}"),
            "give --scheduler-config the scheduler's own file, and see that this user may read the certificate and key that \
             its server.tls names: they are shown to its health service",
        ),
        Observation::Unclear(why) => failed(
            NAME,
            format!("it can't be told whether it serves: {why}"),
            "see that the scheduler is well, and that --scheduler-addr is its gRPC port (server.port, usually 8002)",
        ),
    };
    vec![finding]
}

/// Whether the scheduler has `server.tls`: an alert says so, or TLS where none is configured here.
async fn wants_certificate(peer: &Peer, configured: bool, why: &str) -> bool {
    if ["CertificateRequired", "BadCertificate", "UnknownCA", "HandshakeFailure"]
        .iter()
        .any(|alert| why.contains(alert))
    {
        return true;
    }
    if configured {
        return false;
    }
    let tls = Tls::unverified(TlsFiles::default());
    for addr in net::resolve(peer, LIMIT).await.unwrap_or_default() {
        if net::reach(peer, addr, Some(&tls), true, LIMIT).await.is_ok() {
            return true;
        }
    }
    false
}
