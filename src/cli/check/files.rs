//! The files that are named in the settings: whether this user may read them, and who else may.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    agent::{
        check::{failed, ok, warning},
        hook::token::TokenFile,
        socket::{Finding, Verdict},
    },
    identity::Settings,
};

const TOKEN: &str = "hook token file";
const READABLE_BY_ALL: u32 = 0o004;

/// A file of the settings.
pub(super) struct Named {
    name: &'static str,
    path: PathBuf,
    secret: bool,
}

/// Those that the settings name, each once; but for the hook's token.
pub(super) fn named(settings: &Settings) -> Vec<Named> {
    let scheduler = settings.scheduler_tls.clone().unwrap_or_default();
    let all = [
        ("password file", settings.password_file.clone(), true),
        ("CA file", settings.ca_file.clone(), false),
        ("certificate", settings.cert_file.clone(), false),
        ("key file", settings.key_file.clone(), true),
        ("scheduler's certificate", scheduler.cert_file, false),
        ("scheduler's key", scheduler.key_file, true),
    ];
    all.into_iter().filter_map(|(name, path, secret)| Some(Named { name, path: path?, secret })).collect()
}

/// The hook's token: its file as any other, and what is in it.
pub(super) async fn token(path: PathBuf) -> Vec<Finding> {
    let token = TokenFile::new(&path);
    let findings = super::off_thread(TOKEN, move || vec![one(TOKEN, &path, true)]).await;
    if findings.iter().any(|finding| finding.verdict == Verdict::Failed) {
        return findings;
    }
    match token.check().await {
        Ok(()) => findings,
        Err(why) => {
            vec![failed(TOKEN, why.to_string(), "put the token there: without it every hook is refused")]
        }
    }
}

/// One finding for each.
pub(super) fn check(files: &[Named]) -> Vec<Finding> {
    files.iter().map(|file| one(file.name, &file.path, file.secret)).collect()
}

fn one(name: &str, path: &Path, secret: bool) -> Finding {
    let shown = path.display();
    // A pipe in a file's place would hold `open` up.
    let opened = fs::metadata(path).and_then(|metadata| {
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        File::open(path).map(|_| metadata)
    });
    match opened {
        Err(error) => {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let todo = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!(
                        "make it readable for uid {uid} or gid {gid} (in Kubernetes: fsGroup, and the volume's defaultMode)"
                    )
                }
                _ => "mount it there, or give the right path".to_owned(),
            };
            failed(name, format!("{shown}: {error}"), todo)
        }
        Ok(metadata) if secret && metadata.mode() & READABLE_BY_ALL != 0 => warning(
            name,
            format!("{shown} is readable for everyone (mode {:04o})", metadata.mode() & 0o7777),
            "take that away: chmod o-r (in Kubernetes: the Secret volume's defaultMode: 0440, with an fsGroup)",
        ),
        Ok(_) => ok(name, format!("{shown} is readable")),
    }
}
