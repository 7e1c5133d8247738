//! Whether the grace is enough for a sign-off on a bad day.

use std::time::Duration;

use crate::{
    agent::{
        check::{ok, warning},
        lifecycle::reserve,
        socket::Finding,
    },
    identity::{Settings, duration},
};

const NAME: &str = "grace";
/// A connection takes up to 1 s; a manager whose Redis is down acknowledges after up to 7 s.
const SLOW_ATTEMPT: Duration = Duration::from_secs(8);
/// Under this a slow, but successful, attempt has no room for the next one's beginning.
const ENOUGH: Duration = Duration::from_secs(10);

/// Compares `--grace` with what a sign-off may need of it.
pub(super) fn check(settings: &Settings) -> Finding {
    let Settings { grace, keep_alive_interval, .. } = settings;
    let found = format!(
        "{}, of which {} are kept for the disk and the log",
        duration::format(*grace),
        duration::format(reserve(*grace))
    );
    if *grace < ENOUGH {
        return warning(
            NAME,
            format!(
                "{found}: a manager whose Redis is down takes up to {} to acknowledge a sign-off",
                duration::format(SLOW_ATTEMPT)
            ),
            format!(
                "give the pod a terminationGracePeriodSeconds, and --grace, of at least {}",
                duration::format(ENOUGH)
            ),
        );
    }
    // A scheduler that reconnects in its drain makes its row active again an interval later.
    if *grace <= *keep_alive_interval + reserve(*grace) {
        return warning(
            NAME,
            format!(
                "{found}: no longer than the scheduler's keep-alive interval ({}), in which its row may be revived",
                duration::format(*keep_alive_interval)
            ),
            "give a --grace longer than manager.keepAlive.interval by some seconds, or shorten that",
        );
    }
    ok(
        NAME,
        format!(
            "{found}; it must be the pod's terminationGracePeriodSeconds: a preStop hook's time, --linger too, is spent of both"
        ),
    )
}
