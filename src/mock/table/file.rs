//! The state file: one JSON object, replaced atomically while `<file>.lock` is held, so that several managers can share it.
//!
//! Reading a large one takes longer than whatever is asked of it: its content is taken once, and again when it is another file
//! or was written since.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
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

/// The file that a content was taken from, or written to.
#[derive(Debug)]
pub(super) struct Taken {
    /// Kept open: no later file has its inode.
    _file: File,
    as_it_was: Version,
}

/// What differs between two files of one name, and between two contents of one file: device, inode, length, time of its last
/// write in seconds and nanoseconds.
type Version = (u64, u64, u64, i64, i64);

fn version(of: &Metadata) -> Version {
    (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec())
}

impl Taken {
    /// Whether that file is still the one at `path`, and nobody has written it since.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| version(&found) == self.as_it_was)
    }
}

/// The file's content, and what it was taken from. An absent or empty file is an empty table.
pub(super) fn read(path: &Path) -> Result<(Content, Option<Taken>), TableError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Content::default(), None)),
        Err(e) => return Err(failed(path)(e)),
    };
    // Its version first: what is written while it is read makes it another one.
    let as_it_was = file.metadata().map(|of| version(&of)).map_err(failed(path))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed(path))?;
    let content = if text.is_empty() {
        Content::default()
    } else {
        serde_json::from_slice(&text)
            .map_err(|source| TableError::Content { path: path.to_owned(), source })?
    };
    Ok((content, Some(Taken { _file: file, as_it_was })))
}

/// Puts a file with that content in the place of the one at `path`.
pub(super) fn replace(path: &Path, content: &Content) -> Result<Taken, TableError> {
    let text = serde_json::to_vec_pretty(content)
        .map_err(|source| TableError::Content { path: path.to_owned(), source })?;
    let new = beside(path, ".new");
    let put = || {
        let mut file = File::create(&new)?;
        io::Write::write_all(&mut file, &text)?;
        fs::rename(&new, path)?;
        let as_it_was = version(&file.metadata()?);
        Ok(Taken { _file: file, as_it_was })
    };
    put().map_err(failed(path))
}
