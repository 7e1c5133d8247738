//! The pods of one's own namespace, from the API server, as the ServiceAccount of one's own pod.
//!
//! The only roots that are trusted are those of the ServiceAccount's `ca.crt`; no proxy of the environment is used, no redirect
//! followed. The token is read anew for each list, since the kubelet replaces it within the hour, and is shown nowhere.

use std::{
    fmt,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::header;
use tokio::time::{Instant, timeout};

use super::{Pod, Pods, Zone, list};
use crate::{
    files::{self, Reader},
    manager::{Failure, outcome},
    net::{self, Lookups, Tls, TlsError, TlsFiles},
    secret::Secret,
};

/// How long a list may take, with all its pages. Of 1,000 pods it takes well under a second.
const LIST_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take to be made, of that.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Pods a page: what kubectl asks for.
const PER_PAGE: usize = 500;
/// A page is not longer than this, in bytes: a pod is some 10 KB, and one of 32 KB can still fill it.
const PAGE_CAP: usize = 16 << 20;
/// More pods than this are not listed. No namespace with a Dragonfly has as many.
const PODS_CAP: usize = 10_000;
/// A token, a namespace or a resolv.conf is not longer than this, in bytes.
const FILE_CAP: u64 = 64 << 10;
/// Of a server's own words so many characters are passed on.
const WORDS_CAP: usize = 300;

/// Where a pod finds its API server and its ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InCluster {
    /// `KUBERNETES_SERVICE_HOST`: an IP, or a name.
    pub host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`.
    pub port: Option<String>,
    /// The directory with the ServiceAccount's `token`, `ca.crt` and `namespace`.
    pub account: PathBuf,
    /// Its search list names the cluster's domain.
    pub resolv_conf: PathBuf,
}

impl InCluster {
    /// As the kubelet gives it to each container.
    pub fn here() -> Self {
        let var = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
        Self {
            host: var(HOST),
            port: var(PORT),
            account: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";

/// Why the pods can't be asked for. Each says what would be right.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unable {
    /// This is no pod.
    #[error(
        "pods: {0} is not set: it is in the environment of each pod, and pods can be listed from inside a cluster only"
    )]
    Unset(&'static str),
    /// The API server's address is none.
    #[error(
        "pods: {HOST} {host:?} and {PORT} {port:?} are no address: use an IP or a name, and a port of 1 to 65535"
    )]
    Address {
        /// As it was given.
        host: String,
        /// As it was given.
        port: String,
    },
    /// A file of the ServiceAccount's can't be used.
    #[error("pods: {path}: {why}: the pod needs a serviceAccountName and automountServiceAccountToken: true")]
    Account {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The ServiceAccount's `ca.crt` can't be used.
    #[error("pods: {0}: the pod needs a serviceAccountName and automountServiceAccountToken: true")]
    Ca(TlsError),
    /// The cluster's domain can't be found.
    #[error(
        "pods: {path}: {why}: the pod needs dnsPolicy: ClusterFirst, or a search domain NAMESPACE.svc.DOMAIN in its dnsConfig"
    )]
    Domain {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A client of the API server that lists the pods of its own namespace.
pub struct Kubernetes {
    /// `https://HOST:PORT`.
    server: String,
    zone: Zone,
    tls: Tls,
    token: PathBuf,
    reader: Reader<Result<Secret, String>>,
    limit: Duration,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes")
            .field("server", &self.server)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// The client of a pod. Reads its ServiceAccount's files once to see that they can be used; connects to nothing.
    pub async fn in_cluster(place: InCluster) -> Result<Self, Unable> {
        let host = place.host.ok_or(Unable::Unset(HOST))?;
        let port = place.port.ok_or(Unable::Unset(PORT))?;
        let server = address(&host, &port).ok_or(Unable::Address { host, port })?;
        let [namespace, token, ca] = ["namespace", "token", "ca.crt"].map(|name| place.account.join(name));
        let given = text_of(&namespace).await;
        let given = given.and_then(|text| {
            let name = text.trim().to_owned();
            if is_label(&name) { Ok(name) } else { Err(format!("{name:?} is no namespace")) }
        });
        let given = given.map_err(|why| Unable::Account { path: namespace, why })?;
        let client = Self {
            server,
            zone: zone(&given, &place.resolv_conf).await?,
            tls: Tls::new(TlsFiles { ca: Some(ca), ..TlsFiles::default() }),
            token,
            reader: Reader::default(),
            limit: LIST_LIMIT,
        };
        client.token().await.map_err(|why| Unable::Account { path: client.token.clone(), why })?;
        client.tls.http1().await.map_err(Unable::Ca)?;
        Ok(client)
    }

    /// As it is, but a list may take only so long.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Whose pods it lists.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The pods as they are now: all of the namespace's, or an error. At most 10 s long.
    ///
    /// Where the list changes too much between its pages, the server ends it with 410 (`Expired`), and it is begun anew, once.
    pub async fn pods(&self) -> Result<Pods, Failure> {
        let listed = timeout(self.limit, async {
            match self.list().await {
                Err(Ended::Expired(_)) => self.list().await,
                listed => listed,
            }
        });
        match listed.await {
            Ok(listed) => listed.map_err(|(Ended::Expired(failure) | Ended::Failed(failure))| failure),
            Err(_) => Err(Failure::new(format!(
                "{}: the list of pods was not there within {}",
                self.server,
                humantime::format_duration(self.limit)
            ))),
        }
    }

    async fn list(&self) -> Result<Pods, Ended> {
        let taken = Instant::now();
        let token = self.token().await;
        let token = token.map_err(|why| self.failed(format!("{}: {why}", self.token.display())))?;
        let http = self.http().await?;
        let mut pods: Vec<Pod> = Vec::new();
        let mut next = None;
        loop {
            let body = self.get(&http, &token, next.as_deref()).await?;
            let page = list::page(&body).map_err(|why| self.failed(why.to_string()))?;
            pods.extend(page.pods);
            if pods.len() > PODS_CAP {
                return Err(self.failed(format!(
                    "more than {PODS_CAP} pods in namespace {}; the list is not used",
                    self.zone.namespace
                )));
            }
            match page.next {
                Some(more) => next = Some(more),
                None => return Ok(Pods::of(self.zone.clone(), taken, pods)),
            }
        }
    }

    /// One page, as it came.
    async fn get(
        &self,
        http: &reqwest::Client,
        token: &Secret,
        next: Option<&str>,
    ) -> Result<Vec<u8>, Ended> {
        // The URL is left out of reqwest's words; the server's address names the place.
        let wrong = |error: reqwest::Error| self.failed(self.explained(&net::chain(&error.without_url())));
        let mut query = vec![("limit", PER_PAGE.to_string())];
        query.extend(next.map(|next| ("continue", next.to_owned())));
        let url = format!("{}/api/v1/namespaces/{}/pods", self.server, self.zone.namespace);
        let request = http.get(url).query(&query).bearer_auth(token.expose());
        let mut response = request.send().await.map_err(wrong)?;
        let floor = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(outcome::retry_after);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(wrong)? {
            if body.len() + chunk.len() > PAGE_CAP {
                return Err(
                    self.failed(format!("a page of pods is larger than {PAGE_CAP} bytes; it is not used"))
                );
            }
            body.extend_from_slice(&chunk);
        }
        match response.status().as_u16() {
            200 => Ok(body),
            status => Err(self.refused(status, &body, floor)),
        }
    }

    /// What a status other than 200 means.
    fn refused(&self, status: u16, body: &[u8], floor: Option<Duration>) -> Ended {
        let Self { server, zone: Zone { namespace, .. }, .. } = self;
        let words = words(body);
        let why = match status {
            401 => {
                format!("{server}: HTTP 401: the token of this pod's ServiceAccount is not accepted{words}")
            }
            403 => format!(
                "{server}: HTTP 403: this pod's ServiceAccount has no right to get, list on pods in namespace {namespace}: a Role there \
                 with apiGroups [\"\"], resources [pods], verbs [get, list, watch], and a RoleBinding, give it{words}"
            ),
            _ => format!("{server}: HTTP {status} for the list of pods{words}"),
        };
        let failure = Failure { why, floor, exhausted: status == 429 };
        if status == 410 { Ended::Expired(failure) } else { Ended::Failed(failure) }
    }

    fn failed(&self, why: String) -> Ended {
        Ended::Failed(Failure::new(format!("{}: {why}", self.server)))
    }

    fn explained(&self, why: &str) -> String {
        let ca = self.tls.files().ca.as_deref().unwrap_or(Path::new("ca.crt")).display();
        let of_ca = if why.contains("invalid peer certificate") {
            format!(": only what {ca} signed is trusted")
        } else {
            String::new()
        };
        format!("{why}{of_ca}")
    }

    /// The token as its file has it now.
    async fn token(&self) -> Result<Secret, String> {
        let path = self.token.clone();
        let read = self.reader.read(files::LIMIT, move || {
            let text = read(&path)?;
            let token = text.trim();
            // It goes into a header.
            let is_one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
            if is_one { Ok(Secret::new(token)) } else { Err("it is no token".to_owned()) }
        });
        read.await.unwrap_or_else(|why| Err(why.to_string()))
    }

    /// A client for one list, with the CAs as they are now. Its connection ends with it.
    async fn http(&self) -> Result<reqwest::Client, Ended> {
        let tls = self.tls.http1().await.map_err(|why| self.failed(why.to_string()))?;
        reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&tls))
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Lookups::within(CONNECT_LIMIT)))
            .connect_timeout(CONNECT_LIMIT)
            .user_agent(concat!("signoff/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| self.failed(net::chain(&error)))
    }
}

/// Why there is no list.
enum Ended {
    /// 410: what the pages continue is no longer known.
    Expired(Failure),
    Failed(Failure),
}

/// `https://HOST:PORT`, an IPv6 address in brackets.
fn address(host: &str, port: &str) -> Option<String> {
    let (host, port) = (host.trim(), port.trim().parse::<u16>().ok().filter(|port| *port != 0)?);
    let is_name = |host: &str| host.split('.').all(|label| is_label(&label.to_ascii_lowercase()));
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V6(ip)) => Some(format!("https://[{ip}]:{port}")),
        Ok(IpAddr::V4(ip)) => Some(format!("https://{ip}:{port}")),
        Err(_) => is_name(host.trim_end_matches('.')).then(|| format!("https://{host}:{port}")),
    }
}

/// Whether it is a DNS label, as a namespace's name is (RFC 1123).
fn is_label(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inside)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

async fn zone(namespace: &str, resolv_conf: &Path) -> Result<Zone, Unable> {
    let wrong = |why| Unable::Domain { path: resolv_conf.to_owned(), why };
    let text = text_of(resolv_conf).await.map_err(wrong)?;
    Zone::of_resolv_conf(namespace, &text).ok_or_else(|| {
        wrong(format!("no search domain is {namespace}.svc.DOMAIN, so this cluster's domain is not known"))
    })
}

/// A file's text, away from the runtime's thread.
async fn text_of(path: &Path) -> Result<String, String> {
    let path = path.to_owned();
    files::within(files::LIMIT, move || read(&path)).await.map_err(|why| why.to_string())?
}

/// A file's text. Blocks for as long as it doesn't answer.
fn read(path: &Path) -> Result<String, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_CAP + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_CAP {
        return Err(format!("it is longer than {FILE_CAP} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())
}

/// A server's own words in an error's body, to put behind ours.
fn words(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: Option<String>,
    }
    let said = serde_json::from_slice::<Said>(body).ok().and_then(|said| said.message).unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(WORDS_CAP).collect();
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}
