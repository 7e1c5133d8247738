//! Keeping a spool's directory in order: what dead writers left half done, what is damaged, marks that nobody needs.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    adopt::{At, Sort, Taken},
    files::Files,
    format::Damage,
    record::Record,
    scan::{self, Access, Name, Problem},
    store::{Place, Spool},
};

impl Spool {
    /// Removes temporary files that no living writer has locked.
    pub(super) fn remove_leftovers(&self, names: &[Name]) {
        for name in names {
            let Name::Temporary(name) = name else { continue };
            let path = self.dir.join(name);
            let Ok(file) = scan::open_nonblocking(&self.files, &path, Access::Take) else { continue };
            if file.try_lock().is_ok() && scan::is_at(&self.files, &file, &path) {
                // What can't be removed now is no record, and disturbs nothing.
                let _ = self.files.remove(&path);
            }
        }
    }

    pub(super) fn set_misnamed_aside(&self, names: &[Name], taken: &mut Taken) {
        for name in names {
            let Name::Misnamed(name) = name else { continue };
            let path = self.dir.join(name);
            // Nobody writes such a name, so nobody's lock counts.
            taken.problems.push(set_aside(&self.files, path, &Damage::Name));
        }
    }

    pub(super) fn tend_idle_marks(
        &self,
        names: Vec<At>,
        records: usize,
        taken: &mut Taken,
        foreign: impl Fn(&Record) -> bool,
    ) {
        let mut too_many = records.saturating_sub(self.limits.records / 2);
        let mut idle: Vec<(u64, At)> = Vec::new();
        let sort = |record: &Record| if foreign(record) { Sort::Take } else { Sort::Leave };
        for at in names.into_iter().filter(|(_, place)| *place == Place::Own) {
            let mut found = Vec::new();
            // One at a time, and let go at once: its agent may start this moment.
            taken.busy += self.take_once(vec![at.clone()], &mut found, taken, 1, sort).len();
            idle.extend(found.into_iter().map(|found| (found.record.at, at.clone())));
        }
        idle.sort_unstable();
        for (_, (name, place)) in idle {
            if too_many == 0 {
                break;
            }
            let mut found = Vec::new();
            let path = self.dir.join(name.to_string());
            self.take_once(vec![(name, place)], &mut found, &mut Taken::default(), 1, sort);
            if !found.is_empty() && self.files.remove(&path).is_ok() {
                too_many -= 1;
            }
        }
    }
}

/// Renames a damaged file to a `.corrupt` name that is not taken. Called with its lock held, where it has one.
pub(super) fn set_aside(files: &Files, path: PathBuf, damage: &Damage) -> Problem {
    match rename_aside(files, &path) {
        Ok(aside) => Problem { path: aside, why: format!("set aside: {damage}") },
        Err(error) => Problem { why: format!("damaged ({damage}), and can't be set aside: {error}"), path },
    }
}

pub(super) fn rename_aside(files: &Files, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut aside = path.with_file_name(format!("{name}.corrupt"));
    while files.link_stat(&aside).is_ok() {
        // Nothing set aside earlier is overwritten.
        aside = path.with_file_name(format!("{name}.{:08x}.corrupt", fastrand::u32(..)));
    }
    files.rename(path, &aside)?;
    Ok(aside)
}
