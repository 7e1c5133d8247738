//! The hook's token, from a file: read for each request that needs it, so that a rotated one counts at once.
//!
//! A token that can't be read, or doesn't answer, refuses everything. It is compared in constant time, and never shown: not in an answer, an
//! error, a log line or a `Debug`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, header};
use tokio::time::sleep;

use crate::{
    files::{self, Reader},
    secret::Secret,
};

/// The header for a token alone; `Authorization: Bearer` is the other way. (kubelet drops Authorization where it falls
/// back from HTTPS to HTTP.)
pub const HEADER: &str = "x-signoff-token";

/// The largest token's file, in bytes.
const MAX_TOKEN: usize = 4 << 10;

/// How soon a file without a token is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// And one with a token.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why there is no token. Names the file.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// The system's words.
    #[error("--hook-token-file {path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No token, or none that fits in a header.
    #[error(
        "--hook-token-file {path} {what}: it must hold one line of visible ASCII characters, at most 4096"
    )]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        what: &'static str,
    },
}

/// A file with a token.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
    /// One for all clones: what hangs keeps one thread, however many ask.
    reader: Arc<Reader<Result<Secret, TokenError>>>,
}

impl TokenFile {
    /// The file; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reader: Arc::default() }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a token in it now.
    pub async fn check(&self) -> Result<(), TokenError> {
        self.read().await.map(drop)
    }

    /// Tells again and again, for as long as it is polled, whether there is a token, so that it is known before the first hook.
    pub async fn watch(self, tell: impl Fn(Result<(), TokenError>)) {
        loop {
            let read = self.read().await;
            let pause = if read.is_ok() { LOOK_EVERY } else { LOOK_AGAIN };
            tell(read.map(drop));
            sleep(pause).await;
        }
    }

    /// Whether one of the request's headers has the token.
    pub async fn permits(&self, headers: &HeaderMap) -> Result<bool, TokenError> {
        let token = self.read().await?;
        let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
            let (scheme, given) = value.as_bytes().split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(given)
        });
        let bare = headers.get_all(HEADER).iter().map(|value| value.as_bytes());
        // No early end: how many headers there are is the client's own doing, which of them matches isn't told.
        Ok(bearer.chain(bare).fold(false, |matched, given| matched | token.is(given.trim_ascii())))
    }

    async fn read(&self) -> Result<Secret, TokenError> {
        let file = self.path.clone();
        let read = self.reader.read(files::LIMIT, move || read(&file)).await;
        read.unwrap_or_else(|why| Err(unreadable(&self.path, why.into())))
    }
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let unfit = |what| TokenError::Unfit { path: path.to_owned(), what };
    let mut token = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TOKEN as u64 + 1).read_to_end(&mut token))
        .map_err(|source| unreadable(path, source))?;
    if token.len() > MAX_TOKEN {
        return Err(unfit("is too large"));
    }
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(unfit("is empty"));
    }
    match std::str::from_utf8(token) {
        Ok(text) if token.iter().all(u8::is_ascii_graphic) => Ok(Secret::new(text)),
        _ => Err(unfit("has more than a token in it")),
    }
}

fn unreadable(path: &Path, source: io::Error) -> TokenError {
    TokenError::Unreadable { path: path.to_owned(), source: Arc::new(source) }
}
