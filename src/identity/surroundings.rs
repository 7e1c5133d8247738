//! What identity is read from: environment, files, hostname, name resolution, interfaces. Behind a trait, so that the
//! rules are tested without a process's own.

use std::{
    collections::HashMap,
    io::{self, Read},
    net::IpAddr,
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use dns_lookup::{AddrInfoHints, LookupErrorKind};

use super::{
    fqdn::Lookup,
    interfaces::{self, Interface},
};

/// Where identity comes from. All methods may block for a moment; none for longer than [`LOOKUP_LIMIT`].
pub trait Surroundings {
    /// An environment variable; one that is blank, or not UTF-8, counts as unset.
    fn var(&self, name: &str) -> Option<String>;
    /// A file's text, at most `limit` bytes of UTF-8.
    fn read(&self, path: &Path, limit: u64) -> io::Result<String>;
    /// The kernel's hostname.
    fn hostname(&self) -> io::Result<String>;
    /// What the system's resolver says of a name.
    fn lookup(&self, name: &str) -> Lookup;
    /// The network interfaces.
    fn interfaces(&self) -> io::Result<Vec<Interface>>;
}

/// How long a name's resolution is waited for at a time; it goes on, and the next question picks its answer up.
pub const LOOKUP_LIMIT: Duration = Duration::from_millis(900);

/// The process's own surroundings.
#[derive(Default)]
pub struct System {
    /// One thread a name: a resolver that hangs must not gather threads.
    running: Mutex<HashMap<String, mpsc::Receiver<Lookup>>>,
}

impl Surroundings for System {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|v| !v.trim().is_empty())
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<String> {
        read_file(path, limit)
    }

    fn hostname(&self) -> io::Result<String> {
        let name = rustix::system::uname();
        let name = name.nodename().to_str().map_err(|_| io::Error::other("the hostname is not UTF-8"))?;
        Ok(name.to_owned())
    }

    fn lookup(&self, name: &str) -> Lookup {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = running.remove(name).map_or_else(|| start_lookup(name), Ok);
        let waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => return Lookup::Failed(format!("no thread to look it up: {error}")),
        };
        match waiting.recv_timeout(LOOKUP_LIMIT) {
            Ok(lookup) => lookup,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                running.insert(name.to_owned(), waiting);
                Lookup::Failed("the resolver has not answered yet".to_owned())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Lookup::Failed("the resolver failed".to_owned()),
        }
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        interfaces::list()
    }
}

/// A regular file's text: at most `limit` bytes of UTF-8.
pub(super) fn read_file(path: &Path, limit: u64) -> io::Result<String> {
    // A FIFO in its place would block the open.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn start_lookup(name: &str) -> io::Result<mpsc::Receiver<Lookup>> {
    let (answer, waiting) = mpsc::sync_channel(1);
    let name = name.to_owned();
    std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = answer.send(resolve(&name));
    })?;
    Ok(waiting)
}

fn resolve(name: &str) -> Lookup {
    /// `AI_CANONNAME` of Linux's `netdb.h`.
    const AI_CANONNAME: i32 = 2;
    /// `SOCK_STREAM`: each address once.
    const SOCK_STREAM: i32 = 1;
    let hints = AddrInfoHints { flags: AI_CANONNAME, address: 0, socktype: SOCK_STREAM, protocol: 0 };
    match dns_lookup::getaddrinfo(Some(name), None, Some(hints)) {
        Ok(found) => {
            let found: Vec<_> = found.flatten().collect();
            let addresses: Vec<IpAddr> = found.iter().map(|a| a.sockaddr.ip()).collect();
            Lookup::Found { canonical: found.into_iter().find_map(|a| a.canonname), addresses }
        }
        Err(error) => match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => Lookup::NoSuchName,
            _ => Lookup::Failed(io::Error::from(error).to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_resolves_to_the_loopback() {
        let Lookup::Found { addresses, .. } = System::default().lookup("localhost") else {
            panic!("localhost does not resolve")
        };
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }

    #[test]
    fn a_file_past_the_limit_or_of_another_kind_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "12345").unwrap();
        let system = System::default();
        assert_eq!(system.read(&file, 5).unwrap(), "12345");
        assert_eq!(system.read(&file, 4).unwrap_err().to_string(), "it is longer than 4 bytes");
        assert_eq!(system.read(dir.path(), 4).unwrap_err().to_string(), "it is not a regular file");
        std::fs::write(&file, [0xff]).unwrap();
        assert_eq!(system.read(&file, 5).unwrap_err().to_string(), "it is not UTF-8 text");
        assert_eq!(system.read(&dir.path().join("x"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_hostname_is_the_kernels() {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(System::default().hostname().unwrap(), kernel.trim());
    }
}
