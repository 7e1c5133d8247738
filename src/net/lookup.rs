//! The addresses of names, as the system's resolver gives them.
//!
//! A lookup blocks: on name servers, and on the files that come before them (`/etc/hosts`), for ever where their disk hangs. So
//! each has a thread of its own, and there is never more than one for a name: whoever asks meanwhile, or after an answer that
//! came too late, gets that one's answer.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;

use super::Peer;
use crate::files::Reader;

type Found = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;
type Names = HashMap<(String, u16), Arc<Reader<Found>>>;

/// The threads are the process's, and so is this: the names that were asked for, which are as few as the settings name.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

/// The addresses of `host`, each with `port`; at most `limit` long.
pub(super) async fn addresses(host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let name = (host.to_owned(), port);
    let reader = {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(names.entry(name.clone()).or_default())
    };
    let found = reader.read(limit, move || {
        let found = name.to_socket_addrs().map(Iterator::collect);
        found.map_err(|error| (error.kind(), error.to_string()))
    });
    match found.await {
        Ok(Ok(addresses)) if addresses.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        }
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err((kind, why))) => Err(io::Error::new(kind, why)),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the resolver has not answered within {}", humantime::format_duration(limit)),
        )),
    }
}
/// Looks up the names of reqwest's URLs. Its own resolver starts another thread for each lookup, beside those that hang.
#[derive(Debug, Clone, Copy)]
pub struct Lookups(Duration);

impl Lookups {
    /// A lookup may take so long.
    pub fn within(limit: Duration) -> Self {
        Self(limit)
    }
}

impl reqwest::dns::Resolve for Lookups {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        // The port is the URL's.
        let (peer, limit) = (Peer::new(name.as_str(), 0), self.0);
        async move {
            let found = super::resolve(&peer, limit).await?;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        }
        .boxed()
    }
}
