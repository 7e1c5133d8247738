//! A password or a token, and the file that holds one.

use std::{fmt, io::Read, path::Path};

/// A password file is not longer than this, in bytes.
const FILE_CAP: usize = 4096;

/// A password or token: shown as `***` everywhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

/// Why a file gives no password. Names the file, never what is in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("password file {0}: {1}")]
pub(crate) struct FileError(String, String);

impl Secret {
    /// What is to be kept secret.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What a file holds, without the newline at its end. Refused: an empty file, and one over 4096 bytes.
    pub(crate) fn from_file(path: &Path) -> Result<Self, FileError> {
        let wrong = |why: String| FileError(path.display().to_string(), why);
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
}

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
