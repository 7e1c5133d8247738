//! The state file: one JSON object, replaced atomically while `<file>.lock` is held, so that several managers can share it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{Content, TableError};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> TableError {
    move |source| TableError::File { path: path.to_owned(), source }
}

/// Waits for the other processes, for the length of one transaction each.
pub(super) fn lock(path: &Path) -> Result<File, TableError> {
    let open = || {
        let file = File::options().create(true).truncate(false).write(true).open(beside(path, ".lock"))?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(failed(path))
}

/// An absent or empty file is an empty table.
pub(super) fn read(path: &Path) -> Result<Content, TableError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        Err(e) => return Err(failed(path)(e)),
    };
    if text.is_empty() {
        return Ok(Content::default());
    }
    serde_json::from_slice(&text).map_err(|source| TableError::Content { path: path.to_owned(), source })
}

pub(super) fn replace(path: &Path, content: &Content) -> Result<(), TableError> {
    let text = serde_json::to_vec_pretty(content)
        .map_err(|source| TableError::Content { path: path.to_owned(), source })?;
    let new = beside(path, ".new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(failed(path))
}
