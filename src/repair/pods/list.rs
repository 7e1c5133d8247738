//! A page of Kubernetes' list of pods, read leniently: a field that isn't known is passed over, one that isn't there or is null counts
//! as unset. But no pod is dropped: a list that can't be read as one, and a pod without a name, is an error.

use std::net::IpAddr;

use serde::Deserialize;

use super::{Phase, Pod, plain};

/// Why an answer is no list of pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoList {
    /// It is no JSON, or of another form.
    #[error("no list of pods: {0}")]
    Form(String),
    /// It is of another kind than `PodList`.
    #[error("no list of pods, but of kind {0:?}")]
    Kind(String),
    /// A pod has no name.
    #[error("no list of pods: one of them has no name")]
    Name,
}

/// One page.
pub(super) struct Page {
    pub(super) pods: Vec<Pod>,
    /// What to ask for the next one with.
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
struct List {
    kind: Option<String>,
    metadata: Option<ListMetadata>,
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    labels: Option<Labels>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Labels {
    component: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    host_network: Option<bool>,
    hostname: Option<String>,
    subdomain: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    reason: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: Option<String>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: Option<String>,
    status: Option<String>,
    reason: Option<String>,
}

/// Reads one page.
pub(super) fn page(json: &[u8]) -> Result<Page, NoList> {
    let list: List = serde_json::from_slice(json).map_err(|error| NoList::Form(error.to_string()))?;
    if list.kind.as_deref() != Some("PodList") {
        return Err(NoList::Kind(list.kind.unwrap_or_default()));
    }
    let items = list.items.ok_or_else(|| NoList::Form("it has no items".to_owned()))?;
    let pods = items.into_iter().map(pod).collect::<Result<_, _>>()?;
    Ok(Page { pods, next: list.metadata.and_then(|metadata| given(metadata.next)) })
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn pod(item: Item) -> Result<Pod, NoList> {
    let metadata = item.metadata.unwrap_or_default();
    let spec = item.spec.unwrap_or_default();
    let status = item.status.unwrap_or_default();
    let name = plain(&given(metadata.name).ok_or(NoList::Name)?);
    let cut_off = is_cut_off(&status);
    let ready = condition(&status).is_some_and(|ready| ready.status.as_deref() == Some("True"));
    let others = status.pod_ips.into_iter().flatten().filter_map(|other| other.ip);
    let (mut ips, mut illegible): (Vec<IpAddr>, bool) = (Vec::new(), false);
    for text in status.pod_ip.into_iter().chain(others).filter(|text| !text.is_empty()) {
        match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(_) => illegible = true,
        }
    }
    Ok(Pod {
        host: hostname(&given(spec.hostname).map_or_else(|| name.clone(), |host| plain(&host))),
        name,
        subdomain: given(spec.subdomain).map(|subdomain| plain(&subdomain)),
        uid: metadata.uid.unwrap_or_default(),
        component: metadata.labels.and_then(|labels| labels.component),
        terminating: metadata.deletion_timestamp.is_some(),
        host_network: spec.host_network.unwrap_or_default(),
        phase: match status.phase.as_deref() {
            Some("Pending") => Phase::Pending,
            Some("Running") => Phase::Running,
            Some("Failed" | "Succeeded") => Phase::Ended,
            _ => Phase::Unknown,
        },
        ips,
        illegible,
        cut_off,
        ready,
    })
}

/// A pod's hostname as the kubelet cuts it: at most 63 characters, and no hyphen or dot at its end (`truncatePodHostnameIfNeeded` in
/// kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`).
fn hostname(name: &str) -> String {
    const MOST: usize = 63;
    match name.get(..MOST) {
        Some(cut) if name.len() > MOST => cut.trim_end_matches(['-', '.']).to_owned(),
        _ => name.to_owned(),
    }
}

/// The condition `Ready`.
fn condition(status: &Status) -> Option<&Condition> {
    let mut conditions = status.conditions.as_deref().unwrap_or_default().iter();
    conditions.find(|condition| condition.kind.as_deref() == Some("Ready"))
}

/// Whether nobody hears of the pod's node, or of the pod: see [`super::Pods::says`].
fn is_cut_off(status: &Status) -> bool {
    let unheard = condition(status).is_some_and(|ready| match ready.status.as_deref() {
        Some("True") => false,
        // Each False of a kubelet's has a reason.
        Some("False") => ready.reason.as_deref().is_none_or(str::is_empty),
        _ => true,
    });
    unheard || status.reason.as_deref() == Some("NodeLost")
}
