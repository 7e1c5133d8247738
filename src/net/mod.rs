//! One HTTP/2 connection at a time: connecting, TLS, knowing its end.
//!
//! What this promises: a [`Connection`] is one TCP connection and never quietly becomes another; its end is news
//! ([`Connection::ended`]), also while no call is open on it; a call that fails says whether the peer can have seen it
//! ([`CallError::surely_not_seen`]). No HTTP/2 pings are sent (a gRPC server cuts clients that ping oftener than every
//! 5 min); a lost peer is found by TCP keep-alive and `TCP_USER_TIMEOUT`, in the kernel, at no cost here.

mod connection;
mod dial;
mod lookup;
mod probe;
mod prober;
mod tls;

pub use connection::{CallError, Connection, HTTP_STATUS, NoHttp2, ResponseBody};
pub use dial::{ConnectError, Peer, connect, reach, resolve};
pub use lookup::Lookups;
pub use probe::{Probe, probe};
pub use prober::{EXCLUDE, Found, Prober, Reach};
pub use tls::{Tls, TlsError, TlsFiles};

#[cfg(test)]
#[cfg(feature = "mock")]
pub(crate) mod testing;
#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

/// An error with its causes on one line, since the outermost words alone (`http2 error`) say too little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    // rustls' words for a first byte that no record of TLS begins with.
    text.replace("received corrupt message of type InvalidContentType", NO_TLS)
}

/// How [`chain`] says that a peer answered a TLS handshake with something else: plain text.
pub(crate) const NO_TLS: &str = "what answers there does not speak TLS";
