//! What is done without signoff: the same call by a client that does nothing else, the same writes without an agent.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::stream;
use signoff::{
    key::SchedulerKey,
    net::{Connection, connect as connect_to},
    proto::manager_v2::{KeepAliveRequest, SourceType, manager_client::ManagerClient},
};

use crate::Failed;

/// As long as a pending sign-off's file.
const RECORD: [u8; 400] = [b'x'; 400];

/// An HTTP/2 connection.
pub(crate) async fn connect(to: SocketAddr) -> Result<Connection, Failed> {
    Ok(connect_to(&to.into(), to, None, Duration::from_secs(5)).await?)
}

/// One message, half-close, the end of the answer.
pub(crate) async fn sign_off(connection: &Connection, key: &SchedulerKey) -> Result<(), Failed> {
    let request = KeepAliveRequest {
        source_type: SourceType::SchedulerSource.into(),
        hostname: key.hostname.to_string(),
        cluster_id: key.cluster_id.get(),
        ip: key.ip.to_string(),
    };
    let mut client = ManagerClient::with_origin(connection.clone(), connection.origin());
    let mut answer = client.keep_alive(stream::iter([request])).await?.into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

/// What the two fsyncs take that come before an attempt: a file's, and after its rename its directory's.
pub(crate) fn fsyncs(dir: &Path) -> io::Result<Duration> {
    let mut file = File::create(dir.join("new"))?;
    file.write_all(&RECORD)?;
    let began = Instant::now();
    file.sync_all()?;
    let of_the_file = began.elapsed();
    fs::rename(dir.join("new"), dir.join("record"))?;
    let dir = File::open(dir)?;
    let began = Instant::now();
    dir.sync_all()?;
    Ok(of_the_file + began.elapsed())
}
