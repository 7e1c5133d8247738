//! The manager's request validation, in the words of its generated code (protoc-gen-validate).

use crate::proto::manager_v2::{KeepAliveRequest, ListSchedulersRequest, UpdateSchedulerRequest};

fn hostname(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
    if name.len() > 253 {
        return Some("hostname cannot exceed 253 characters".into());
    }
    for part in name.split('.') {
        if part.is_empty() || part.len() > 63 {
            return Some("hostname part must be non-empty and cannot exceed 63 characters".into());
        }
        if part.starts_with('-') {
            return Some("hostname parts cannot begin with hyphens".into());
        }
        if part.ends_with('-') {
            return Some("hostname parts cannot end with hyphens".into());
        }
        if let Some(wrong) = part.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Some(format!(
                "hostname parts can only contain alphanumeric characters or hyphens, got {wrong:?}"
            ));
        }
    }
    None
}

fn check(
    message: &str,
    source_type: i32,
    host: &str,
    cluster: Option<(&str, u64)>,
    ip: (&str, bool),
    port: Option<i32>,
) -> Result<(), String> {
    let wrong = |field: &str, why: &str| Err(format!("invalid {message}.{field}: {why}"));
    if !(0..=2).contains(&source_type) {
        return wrong("SourceType", "value must be one of the defined enum values");
    }
    if let Some(cause) = hostname(host) {
        return wrong("Hostname", &format!("value must be a valid hostname | caused by: {cause}"));
    }
    if let Some((field, 0)) = cluster {
        return wrong(field, "value must be greater than or equal to 1");
    }
    let (ip, may_be_empty) = ip;
    if !(ip.is_empty() && may_be_empty) && ip.parse::<std::net::IpAddr>().is_err() {
        return wrong("Ip", "value must be a valid IP address");
    }
    if port.is_some_and(|p| !(1024..65535).contains(&p)) {
        return wrong("Port", "value must be inside range [1024, 65535)");
    }
    Ok(())
}

pub(super) fn keep_alive(request: &KeepAliveRequest) -> Result<(), String> {
    let KeepAliveRequest { source_type, hostname, cluster_id, ip } = request;
    check("KeepAliveRequest", *source_type, hostname, Some(("ClusterId", *cluster_id)), (ip, true), None)
}

pub(super) fn update_scheduler(request: &UpdateSchedulerRequest) -> Result<(), String> {
    check(
        "UpdateSchedulerRequest",
        request.source_type,
        &request.hostname,
        Some(("SchedulerClusterId", request.scheduler_cluster_id)),
        (&request.ip, false),
        Some(request.port),
    )
}

pub(super) fn list_schedulers(request: &ListSchedulersRequest) -> Result<(), String> {
    check("ListSchedulersRequest", request.source_type, &request.hostname, None, (&request.ip, false), None)
}
