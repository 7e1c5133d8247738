//! The hook's token, from a file: read for each request that needs it, so that a rotated one counts at once.
//!
//! A token that can't be read refuses everything. It is compared in constant time, and never shown: not in an answer, an
//! error, a log line or a `Debug`.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderMap, header};
use subtle::ConstantTimeEq;
use tokio::{io::AsyncReadExt, time::timeout};

/// The header for a token alone; `Authorization: Bearer` is the other way. (kubelet drops Authorization where it falls
/// back from HTTPS to HTTP.)
pub const HEADER: &str = "x-signoff-token";

/// The largest token's file, in bytes.
const MAX_TOKEN: usize = 4 << 10;

/// How long a read may take: a Secret's volume is in memory.
const READ_TIME: Duration = Duration::from_secs(2);

/// Why there is no token. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The system's words.
    #[error("--hook-token-file {path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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
}

impl TokenFile {
    /// The file; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a token in it now: to say so at the start rather than at the first hook.
    pub async fn check(&self) -> Result<(), TokenError> {
        self.read().await.map(drop)
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
        Ok(bearer
            .chain(bare)
            .fold(false, |matched, given| matched | bool::from(given.trim_ascii().ct_eq(token.as_slice()))))
    }

    async fn read(&self) -> Result<Vec<u8>, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: self.path.clone(), source };
        let unfit = |what| TokenError::Unfit { path: self.path.clone(), what };
        let read = async {
            let mut token = Vec::new();
            let file = tokio::fs::File::open(&self.path).await?;
            file.take(MAX_TOKEN as u64 + 1).read_to_end(&mut token).await?;
            Ok(token)
        };
        let read = timeout(READ_TIME, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let token = read.map_err(unreadable)?;
        if token.len() > MAX_TOKEN {
            return Err(unfit("is too large"));
        }
        let token = token.trim_ascii();
        if token.is_empty() {
            return Err(unfit("is empty"));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(unfit("has more than a token in it"));
        }
        Ok(token.to_vec())
    }
}
