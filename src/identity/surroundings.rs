//! What identity is read from: environment, files, hostname, name resolution, interfaces. Behind a trait, so that the
//! rules are tested without a process's own.

use std::{
    collections::HashMap,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use dns_lookup::{AddrInfoHints, LookupErrorKind};

use super::{
    fqdn::Lookup,
    interfaces::{self, Interface},
};
use crate::files::{self, Reader};

/// Where identity comes from. All methods may block for a moment; none for longer than [`LOOKUP_LIMIT`] or
/// [`files::LIMIT`], and while one of those hangs, not again.
pub trait Surroundings {
    /// An environment variable, without white space around it; one that is blank, or not UTF-8, counts as unset.
    fn var(&self, name: &str) -> Option<String>;
    /// A file's text, at most `limit` bytes of UTF-8.
    fn read(&self, path: &Path, limit: u64) -> io::Result<String>;
    /// The kernel's hostname.
    fn hostname(&self) -> io::Result<String>;
    /// What the system's resolver says of a name. One that has not answered within [`LOOKUP_PATIENCE`] has failed.
    fn lookup(&self, name: &str) -> Lookup;
    /// Whether something that is `amiss` is to be waited for: until it was so for [`PATIENCE`] without a break.
    fn waits_for(&self, what: &'static str, amiss: bool) -> bool;
    /// The network interfaces.
    fn interfaces(&self) -> io::Result<Vec<Interface>>;
}

/// How long a name's resolution is waited for at a time; it goes on, and the next question picks its answer up.
pub const LOOKUP_LIMIT: Duration = Duration::from_millis(900);

/// How long an answer of the resolver's is waited for in all. Go's resolver gives up after 10 s a name server and name; a scheduler
/// that waits for longer than this is registered late, and under its plain hostname, which is what is taken then.
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(15);

/// How long something that should be over in a moment is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An answer to a question that was asked longer ago than this is of another time.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// The process's own surroundings. A file or a resolver that hangs keeps one thread.
#[derive(Default)]
pub struct System {
    /// One thread a name.
    running: Mutex<HashMap<String, Question>>,
    /// One thread a file.
    files: Mutex<HashMap<PathBuf, Arc<Reader<Text>>>>,
    /// Since when something is amiss.
    amiss: Mutex<HashMap<&'static str, Instant>>,
}

type Text = Result<String, (io::ErrorKind, String)>;

struct Question {
    since: Instant,
    answer: mpsc::Receiver<Lookup>,
}

impl Surroundings for System {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<String> {
        let file = path.to_owned();
        let reader = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(files.entry(file.clone()).or_default())
        };
        let read = reader.read_blocking(files::LIMIT, move || {
            read_file(&file, limit).map_err(|error| (error.kind(), error.to_string()))
        });
        read?.map_err(|(kind, why)| io::Error::new(kind, why))
    }

    fn hostname(&self) -> io::Result<String> {
        let name = rustix::system::uname();
        let name = name.nodename().to_str().map_err(|_| io::Error::other("the hostname is not UTF-8"))?;
        Ok(name.to_owned())
    }

    fn lookup(&self, name: &str) -> Lookup {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of_use =
            |question: &Question| question.since.elapsed() <= GOOD_FOR || question.answer.try_recv().is_err();
        let question = match running.remove(name).filter(is_of_use) {
            Some(question) => question,
            None => match start_lookup(name) {
                Ok(answer) => Question { since: Instant::now(), answer },
                Err(error) => return Lookup::Failed(format!("no thread to look it up: {error}")),
            },
        };
        match question.answer.recv_timeout(LOOKUP_LIMIT) {
            Ok(lookup) => lookup,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let late = question.since.elapsed() >= LOOKUP_PATIENCE;
                running.insert(name.to_owned(), question);
                if late {
                    Lookup::Failed(format!(
                        "the resolver has not answered within {} s",
                        LOOKUP_PATIENCE.as_secs()
                    ))
                } else {
                    Lookup::NotYet
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Lookup::Failed("the resolver failed".to_owned()),
        }
    }

    fn waits_for(&self, what: &'static str, amiss: bool) -> bool {
        let mut all = self.amiss.lock().unwrap_or_else(PoisonError::into_inner);
        if !amiss {
            all.remove(what);
            return false;
        }
        all.entry(what).or_insert_with(Instant::now).elapsed() < PATIENCE
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        interfaces::list()
    }
}

/// A regular file's text: at most `limit` bytes of UTF-8. Blocks for as long as its disk hangs.
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
