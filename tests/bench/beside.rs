//! A sign-off by the agent beside the same call by a bare gRPC client, in turn, so many times; a line of JSON with the
//! microseconds that each took: `beside MANAGER AGENT_SOCKET TIMES HOSTNAME IP`. For `tests/bench/run`.

use std::{
    error::Error,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use futures_util::stream;
use signoff::{
    net::{Connection, connect},
    proto::manager_v2::{KeepAliveRequest, SourceType, manager_client::ManagerClient},
};

type Failed = Box<dyn Error>;

/// What a client does that only wants that: one message, half-close, the end of the answer.
async fn bare(connection: &Connection, hostname: &str, ip: &str) -> Result<(), Failed> {
    let request = KeepAliveRequest {
        source_type: SourceType::SchedulerSource.into(),
        hostname: hostname.into(),
        cluster_id: 1,
        ip: ip.into(),
    };
    let mut client = ManagerClient::with_origin(connection.clone(), connection.origin());
    let mut answer = client.keep_alive(stream::iter([request])).await?.into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

/// The hook, from its first byte to the end of its answer.
fn hook(socket: &str) -> Result<(), Failed> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"{\"version\":1,\"request\":\"pre-stop\"}\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.contains("\"confirmed\"") { Ok(()) } else { Err(answer.into()) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [manager, socket, times, hostname, ip] = arguments.as_slice() else {
        return Err("beside MANAGER AGENT_SOCKET TIMES HOSTNAME IP".into());
    };
    let manager = manager.parse()?;
    let warm = connect(&SocketAddr::into(manager), manager, None, Duration::from_secs(5)).await?;
    let (mut by_client, mut by_agent) = (Vec::new(), Vec::new());
    for _ in 0..times.parse()? {
        let began = Instant::now();
        bare(&warm, hostname, ip).await?;
        by_client.push(began.elapsed().as_micros());
        let began = Instant::now();
        hook(socket)?;
        by_agent.push(began.elapsed().as_micros());
    }
    println!("{{\"client\":{by_client:?},\"agent\":{by_agent:?}}}");
    Ok(())
}
