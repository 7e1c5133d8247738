//! The hook beside a bare client on a warm connection and beside the fsyncs alone, in turn. Microseconds.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::Instant,
};

use serde_json::{Value, json};
use signoff::key::SchedulerKey;

use crate::{Failed, bare};

/// From its first byte to the end of its answer.
fn pre_stop(socket: &Path) -> Result<(), Failed> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"{\"version\":1,\"request\":\"pre-stop\"}\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.contains("\"confirmed\"") { Ok(()) } else { Err(answer.into()) }
}

/// So many of each; `dir` is where the agent's spool is.
pub(crate) async fn run(
    manager: SocketAddr,
    socket: &Path,
    dir: &Path,
    key: &SchedulerKey,
    times: usize,
) -> Result<Value, Failed> {
    let warm = bare::connect(manager).await?;
    let (mut client, mut fsyncs, mut agent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let began = Instant::now();
        bare::sign_off(&warm, key).await?;
        client.push(began.elapsed().as_micros());
        fsyncs.push(bare::fsyncs(dir)?.as_micros());
        let began = Instant::now();
        pre_stop(socket)?;
        agent.push(began.elapsed().as_micros());
    }
    Ok(json!({ "client": client, "fsyncs": fsyncs, "agent": agent }))
}
