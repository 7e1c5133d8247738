//! A password or a token, and the file that holds one.
//!
//! It is never shown, and compared in a time that doesn't tell where two differ; only whether they are of one length.

use std::{fmt, io::Read, path::Path};

use subtle::ConstantTimeEq;

/// A password file is not longer than this, in bytes.
const FILE_CAP: usize = 4096;

/// A password or token: shown as `***` everywhere.
#[derive(Clone)]
pub(crate) struct Secret(String);

/// Why a file gives no password. Names the file, never what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("password file {0}: {1}")]
pub(crate) struct FileError(String, String);

impl FileError {
    /// What is wrong with this file.
    pub(crate) fn new(path: &Path, why: &dyn fmt::Display) -> Self {
        Self(path.display().to_string(), why.to_string())
    }
}

impl Secret {
    /// What is to be kept secret.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What a file holds, without the newline at its end. Refused: an empty file, and one over 4096 bytes. Blocks for as long
    /// as the file doesn't answer.
    pub(crate) fn from_file(path: &Path) -> Result<Self, FileError> {
        let wrong = |why: String| FileError::new(path, &why);
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_CAP as u64 + 1).read_to_end(&mut bytes))
            .map_err(|e| wrong(e.to_string()))?;
        if bytes.len() > FILE_CAP {
            return Err(wrong(format!("it is larger than {FILE_CAP} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is no UTF-8".to_owned()))?;
        let password = text.trim_end_matches(['\n', '\r']);
        if password.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        Ok(Self::new(password))
    }

    /// The secret itself, to be sent and nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is it.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }

    #[test]
    fn only_the_whole_secret_is_it() {
        let secret = Secret::new("hunter2");
        assert!(secret.is(b"hunter2") && secret == Secret::new("hunter2"));
        for other in ["", "hunter", "hunter22", "Hunter2", "hunter3", "1unter2", "hunter\0"] {
            assert!(!secret.is(other.as_bytes()) && secret != Secret::new(other), "{other:?}");
        }
    }

    #[test]
    fn the_time_of_a_comparison_does_not_tell_where_two_differ() {
        let secret = Secret::new("x".repeat(FILE_CAP));
        let differs_at = |at: usize| {
            let mut given = vec![b'x'; FILE_CAP];
            given[at] = b'y';
            given
        };
        let guesses = [differs_at(0), differs_at(FILE_CAP - 1)];
        let time = |guess: &[u8]| {
            let began = std::time::Instant::now();
            for _ in 0..20 {
                assert!(!std::hint::black_box(&secret).is(std::hint::black_box(guess)));
            }
            began.elapsed()
        };
        // The least of many is what it takes when nothing else is on; one that ends early takes a hundredth at the start.
        let mut least = [std::time::Duration::MAX; 2];
        for _ in 0..200 {
            for (least, guess) in least.iter_mut().zip(&guesses) {
                *least = time(guess).min(*least);
            }
        }
        assert!(least[1] < least[0] * 3 && least[0] < least[1] * 3, "{least:?}");
    }

    #[test]
    fn a_file_is_taken_up_to_its_newline_and_refused_where_it_is_no_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, " hunter2 \r\n").unwrap();
        assert_eq!(Secret::from_file(&path).unwrap().expose(), " hunter2 ");
        let huge = "x".repeat(FILE_CAP + 1);
        for (content, why) in [(&b"\n"[..], "empty"), (b"\xff", "UTF-8"), (huge.as_bytes(), "4096")] {
            std::fs::write(&path, content).unwrap();
            let said = Secret::from_file(&path).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(&path.display().to_string()), "{said}");
        }
    }
}
