//! No secret in what a process prints, answers or leaves on disk: every secret of these tests has a mark, which is looked
//! for in all of that, by whatever starts processes and reads answers.

/// What a secret that a test makes up begins with.
pub(crate) const MARK: &str = "s3cr3t-";

/// What only secrets have in them: those, the mock manager's tokens (a user's name and a time), private keys in PEM.
const MARKS: [&str; 6] =
    [MARK, "viewer.1", "chief.1", "root.1", "PRIVATE KEY-----", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49"];

/// Fails if there is a secret in `text`, and shows what stands before it.
#[track_caller]
pub(crate) fn none_in(text: &str, whose: &str) {
    for line in text.lines() {
        let found = MARKS.iter().find_map(|mark| Some((line.split_once(mark)?.0, mark)));
        if let Some((before, mark)) = found {
            panic!("a secret is in {whose}, marked {:?}...: {before}", &mark[..4]);
        }
    }
}
