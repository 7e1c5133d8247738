//! `signoff pre-stop`: asks the agent, or does the whole job alone, and says in one line how that ended.

use std::time::{Duration, Instant};

use super::{args::PreStopArgs, print, settings};
use crate::{
    agent::{
        alone,
        lifecycle::{HOOK_WAIT, Verdict, reserve},
        socket::{AskError, PreStopAnswer, Request, Response, ask},
    },
    exit::Exit,
    files,
    logging::pid1,
};

/// The agent answers by the deadline; this is for the way there and back.
const MARGIN: Duration = Duration::from_secs(2);

/// What there is for an attempt at the least.
const LEAST: Duration = Duration::from_millis(500);

/// Drains, prints one line, and lingers.
pub async fn run(args: PreStopArgs) -> Exit {
    let began = Instant::now();
    let inputs = args.inputs();
    for wrong in &args.wrong {
        tracing::warn!(reason = %wrong.text, "The hook's command line, or a variable, can't be taken; it is done without.");
    }
    let deadline = args.deadline.unwrap_or(HOOK_WAIT);
    let request = Request::PreStop { deadline: Some(deadline) };
    let answer = match ask(&inputs.run_dir(), &request, deadline + MARGIN).await {
        Ok(Response::PreStop(answer)) => answer,
        Ok(Response::Refused(why)) => return settings::unavailable(&why),
        Ok(other) => return settings::unavailable(&format!("the agent answered something else: {other:?}")),
        Err(error @ (AskError::Denied { .. } | AskError::Refused { .. })) => {
            return settings::unavailable(&error);
        }
        // No agent, or one that died over it.
        Err(error) => {
            tracing::info!(reason = %error, "No agent answers: doing the whole job alone.");
            match alone(args.clone(), began).await {
                Ok(answer) => answer,
                Err(exit) => return exit,
            }
        }
    };
    say(answer.to_string());
    if let Some(linger) = args.linger.filter(|linger| !linger.is_zero()) {
        self::linger(linger).await;
    }
    if answer.result == Verdict::Queued { Exit::Queued } else { Exit::Done }
}

/// One deadline: what the agent didn't answer in is gone.
async fn alone(args: PreStopArgs, began: Instant) -> Result<PreStopAnswer, Exit> {
    let (found, problems) = settings::resolved(args.inputs()).await?;
    if found.without_manager {
        return Ok(PreStopAnswer::without_manager());
    }
    let (Some(key), true) = (found.key(), found.has_grpc()) else {
        return Err(settings::incomplete(&problems));
    };
    let all = args.deadline.unwrap_or(found.grace.saturating_sub(reserve(found.grace)));
    let left = all.saturating_sub(began.elapsed()).max(LEAST);
    alone::pre_stop(&found, key, Some(left)).await.map_err(|failure| settings::unavailable(&failure))
}

async fn linger(time: Duration) {
    if beside_the_agent() {
        say("linger: no effect here, since a sidecar's own hook delays nobody: put the hook on the scheduler's container"
            .to_owned());
        return;
    }
    tokio::time::sleep(time).await;
}

/// Prints a line, also where the container's log has it. Who doesn't read, or hangs, holds the hook up for a moment only.
fn say(line: String) {
    let told = files::within_blocking(files::LIMIT, move || {
        print(&line);
        tell_pid_1(&line);
    });
    if let Err(why) = told {
        tracing::warn!(reason = %why, "How the hook ended could not be printed.");
    }
}

/// Whether this is the sidecar's own container: its PID 1 is an agent.
fn beside_the_agent() -> bool {
    let pid_1 = || std::fs::read("/proc/1/cmdline").is_ok_and(|line| is_an_agent(&line));
    std::process::id() != 1 && files::within_blocking(files::LIMIT, pid_1).unwrap_or(false)
}

/// Whether a process's command line, its words ended by NUL (proc(5)), is `signoff agent`, and not, say, the mock scheduler.
fn is_an_agent(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    program.rsplit(|byte| *byte == b'/').next() == Some(b"signoff") && words.next() == Some(b"agent")
}

/// A hook's output is lost, so inside a container the line goes to PID 1's stdout as well: that is the container's log.
fn tell_pid_1(line: &str) {
    if in_a_container() {
        pid1::also_write(line);
    }
}

/// Kubernetes sets this in every container.
fn in_a_container() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || std::path::Path::new("/dev/termination-log").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agent_as_pid_1_makes_a_container_the_sidecars() {
        for (line, expected) in [
            (&b"/usr/local/bin/signoff\0agent\0"[..], true),
            (b"signoff\0agent\0--grace\x001m\0", true),
            (b"signoff\0mock-scheduler\0", false),
            (b"/opt/dragonfly/bin/scheduler\0agent\0", false),
            (b"sh\0-c\0signoff agent\0", false),
            (b"signoff\0", false),
            (b"", false),
        ] {
            assert_eq!(is_an_agent(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }
}
