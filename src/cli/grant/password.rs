//! The new user's password: drawn, and where it is kept.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::secret::{FileError, Secret};

/// A manager takes passwords of so many characters.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=20;
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A password of 20 letters and digits, 119 bits, from the system's random source. Fails where that can't be asked.
pub(super) fn drawn() -> io::Result<Secret> {
    let mut password = String::new();
    while password.len() < *LENGTHS.end() {
        let mut bytes = [0; 32];
        let read = getrandom(&mut bytes, GetRandomFlags::empty())?;
        // 248 is the largest multiple of 62: what is beyond would make some letters likelier.
        let fair = bytes[..read].iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < 248);
        let left = LENGTHS.end() - password.len();
        password.extend(fair.map(|byte| char::from(LETTERS[byte % LETTERS.len()])).take(left));
    }
    Ok(Secret::new(password))
}

/// The password that a file holds; none where there is no file. Blocks.
pub(super) fn read(path: &Path) -> Result<Option<Secret>, FileError> {
    // A link that leads nowhere is no place for a password.
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let password = Secret::from_file(path)?;
    let length = password.expose().chars().count();
    if !LENGTHS.contains(&length) {
        return Err(FileError::new(
            path,
            &format!("it holds {length} characters, and a manager takes 8 to 20"),
        ));
    }
    Ok(Some(password))
}

/// Writes a file that isn't there, mode 0600, and makes sure of it on disk. Blocks.
pub(super) fn write(path: &Path, password: &Secret) -> Result<(), FileError> {
    let put = || -> io::Result<()> {
        // Never in another's place, whoever was faster.
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let whole = (|| {
            // Whatever the umask.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            writeln!(file, "{}", password.expose())?;
            file.sync_all()
        })();
        whole.inspect_err(|_| drop(fs::remove_file(path)))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    };
    put().map_err(|error| FileError::new(path, &format!("it can't be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_password_is_one_that_a_manager_takes_and_another_each_time() {
        let drawn: Vec<String> = (0..200).map(|_| drawn().unwrap().expose().to_owned()).collect();
        for password in &drawn {
            assert_eq!(password.len(), 20);
            assert!(password.bytes().all(|byte| LETTERS.contains(&byte)));
        }
        let mut seen = drawn.concat().into_bytes();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), LETTERS.len(), "every letter is drawn");
        let mut different = drawn.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), drawn.len());
    }

    #[test]
    fn a_file_is_written_for_its_owner_alone_and_read_back_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        assert!(read(&path).unwrap().is_none());
        write(&path, &Secret::new("s3cr3t-first")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(read(&path).unwrap().unwrap().expose(), "s3cr3t-first");
        let said = write(&path, &Secret::new("s3cr3t-second")).unwrap_err().to_string();
        assert!(said.contains("exists") && said.contains("password") && !said.contains("s3cr3t"), "{said}");
        assert_eq!(read(&path).unwrap().unwrap().expose(), "s3cr3t-first");
    }

    #[test]
    fn a_link_that_leads_nowhere_and_a_password_no_manager_takes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(read(&link).is_err());
        assert!(write(&link, &Secret::new("s3cr3t-first")).is_err());
        for (text, length) in [("s3cr3t-", 7), ("s3cr3t-and-much-too-long", 24)] {
            let path = dir.path().join("password");
            fs::write(&path, text).unwrap();
            let said = read(&path).unwrap_err().to_string();
            assert!(said.contains(&format!("{length} characters")) && !said.contains(text), "{said}");
        }
    }
}
