//! The manager's endpoints, each for itself, and the sign-in over REST.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::{AGENT_LIMIT, Check, tls};
use crate::{
    agent::{
        check::{failed, ok, warning},
        socket::{Finding, Request, Response, ask},
    },
    identity::Settings,
    manager::{
        endpoints::{Api, CONNECT_LIMIT, Dialer, Endpoint, Reach, reach},
        grpc::Grpc,
        rest::Rest,
    },
    net::{self, ConnectError, Tls, TlsFiles},
};

/// The sign-in's name.
pub(super) const SIGN_IN: &str = "sign-in";
/// A row that the agent read over REST no longer ago than this shows that its sign-in works.
const RECENTLY: Duration = Duration::from_secs(180);

/// How long the health page may take.
const REST_LIMIT: Duration = Duration::from_secs(4);

/// One check for each endpoint.
pub(super) fn endpoints(settings: &Settings) -> Vec<Check<'static>> {
    let tls = tls(settings);
    let manager = settings.manager();
    let of_one = |endpoint: Endpoint| Check::new(name(&endpoint), one(endpoint, tls.clone()));
    manager.grpc.into_iter().chain(manager.rest).map(of_one).collect()
}

fn name(endpoint: &Endpoint) -> String {
    format!("manager {endpoint}")
}

async fn one(endpoint: Endpoint, tls: Arc<Tls>) -> Vec<Finding> {
    let looks = reach(&endpoint, &tls).await;
    let name = name(&endpoint);
    let (reached, unreached): (Vec<Reach>, Vec<Reach>) =
        looks.into_iter().partition(|look| look.result.is_ok());
    let why: Vec<String> = unreached.into_iter().filter_map(|look| look.result.err()).collect();
    if reached.is_empty() {
        // Plain text says so at once: what listens there was not asked for TLS in vain.
        let no_tls = why.iter().any(|why| why.contains(net::NO_TLS));
        let todo = if no_tls { without_tls(&endpoint) } else { todo(&endpoint, &why).to_owned() };
        return vec![failed(name, why.join("; "), todo)];
    }
    // A frozen manager accepts connections too, and so does whatever else has that port.
    let answer = match endpoint.api() {
        Api::Grpc => {
            let grpc = Grpc::new(Arc::new(Dialer::new(vec![endpoint.clone()], tls, 0)));
            grpc.list_active(Ipv4Addr::LOCALHOST.into()).await.map(drop).map_err(|failure| failure.why)
        }
        Api::Rest => healthy(&endpoint, &tls).await,
    };
    if let Err(error) = answer {
        if !endpoint.tls() && wants_tls(&endpoint, &reached).await {
            let found = "it speaks TLS, and the endpoint is given without".to_owned();
            return vec![failed(name, found, with_tls(&endpoint))];
        }
        let found = format!("it accepts connections, but: {error}");
        return vec![failed(name, found, unwell(&endpoint))];
    }
    let found: Vec<String> = reached.iter().map(shown).collect();
    if why.is_empty() {
        return vec![ok(name, format!("reached at {}", found.join(", ")))];
    }
    let found = format!("reached at {}; not at all of its addresses: {}", found.join(", "), why.join("; "));
    vec![warning(name, found, "see whether the manager at that address lives; the others are used meanwhile")]
}

/// Whether what answers badly in plain text speaks TLS. Go's servers close plain text without a word, so that the answer alone
/// doesn't tell.
async fn wants_tls(endpoint: &Endpoint, reached: &[Reach]) -> bool {
    let tls = Tls::unverified(TlsFiles::default());
    let http2 = endpoint.api() == Api::Grpc;
    for address in reached.iter().filter_map(|look| look.address) {
        match net::reach(endpoint.peer(), address, Some(&tls), http2, CONNECT_LIMIT).await {
            Ok(_) => return true,
            // It may want a client certificate: an alert is TLS too.
            Err(ConnectError::Tls(_, error)) if error.to_string().contains("received fatal alert") => {
                return true;
            }
            Err(_) => {}
        }
    }
    false
}

fn with_tls(endpoint: &Endpoint) -> String {
    let scheme = match endpoint.api() {
        Api::Grpc => "grpcs",
        Api::Rest => "https",
    };
    format!(
        "give it as {scheme}://{}, and with --ca-file the CA that signed its certificate, unless that is a public one",
        endpoint.peer()
    )
}

fn without_tls(endpoint: &Endpoint) -> String {
    let scheme = match endpoint.api() {
        Api::Grpc => "grpc",
        Api::Rest => "http",
    };
    format!(
        "if that manager is meant to have no TLS, give it as {scheme}://{}; else see what else listens on that port",
        endpoint.peer()
    )
}

/// Asks the manager's own health page, which needs no user.
async fn healthy(endpoint: &Endpoint, tls: &Tls) -> Result<(), String> {
    let nobody = Tls::nobody();
    let tls = if endpoint.tls() { tls } else { &nobody };
    let config = tls.http1().await.map_err(|error| error.to_string())?;
    let wrong = |error: reqwest::Error| format!("{endpoint}: {}", net::chain(&error.without_url()));
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(rustls::ClientConfig::clone(&config))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REST_LIMIT)
        .build()
        .map_err(wrong)?;
    let answer = client.get(format!("{endpoint}/healthy")).send().await.map_err(wrong)?;
    let status = answer.status();
    if status == reqwest::StatusCode::OK { Ok(()) } else { Err(format!("{endpoint}/healthy: HTTP {status}")) }
}

fn shown(look: &Reach) -> String {
    let address = look.address.map_or_else(String::new, |address| address.to_string());
    match &look.result {
        Ok(Some(version)) => format!("{address} ({version})"),
        _ => format!("{address} (plain text)"),
    }
}

fn todo(endpoint: &Endpoint, why: &[String]) -> &'static str {
    if why.iter().any(|why| why.contains("TLS: ")) {
        return "see that the endpoint speaks TLS, that --ca-file signs its certificate for this name, and that \
                --cert-file and --key-file are accepted there";
    }
    match endpoint.api() {
        Api::Grpc => {
            "see that a manager runs there, that this is its gRPC port (usually 65003), and that no NetworkPolicy is in the way"
        }
        Api::Rest => {
            "see that a manager runs there, that this is its REST port (usually 8080), and that no NetworkPolicy is in the way"
        }
    }
}

fn unwell(endpoint: &Endpoint) -> &'static str {
    match endpoint.api() {
        Api::Grpc => {
            "see whether that manager and its database are well, and that this is its gRPC port (usually 65003)"
        }
        Api::Rest => "see whether that manager is well, and that this is its REST port (usually 8080)",
    }
}

/// Signs in. A manager refuses a right password for half a minute after another sign-in of that user, such as the
/// agent's own: whether that reads over REST tells then.
pub(super) async fn sign_in(rest: &Rest, settings: &Settings) -> Vec<Finding> {
    let user = settings.username.as_deref().unwrap_or_default();
    let Err(failure) = rest.signed_in().await else {
        return vec![ok(SIGN_IN, format!("signed in as {user:?}"))];
    };
    // As the session words a 401, and nothing else.
    if !failure.why.starts_with("sign-in as ") {
        return vec![failed(
            SIGN_IN,
            failure.why,
            "give --username and --password-file of a user of the manager (a guest is enough), and see the REST endpoints' checks",
        )];
    }
    if agent_reads_over_rest(settings).await {
        let found = format!(
            "the agent is signed in as {user:?} (a second sign-in is refused for 30 s, as managers do)"
        );
        return vec![ok(SIGN_IN, found)];
    }
    vec![failed(
        SIGN_IN,
        failure.why,
        "see that --username and the password in --password-file are right; where that user signed in within the last 30 s \
         (an agent's start, another check), run this again in a minute",
    )]
}

async fn agent_reads_over_rest(settings: &Settings) -> bool {
    let Ok(Response::Status(status)) = ask(&settings.run_dir, &Request::Status, AGENT_LIMIT).await else {
        return false;
    };
    let same_user = matches!(
        Settings::read(&settings.run_dir),
        Ok(Some(agent)) if (&agent.username, &agent.password_file) == (&settings.username, &settings.password_file)
    );
    same_user
        && status.row.is_some_and(|row| {
            let ago = Duration::from_millis(status.now.saturating_sub(row.at));
            row.source == "rest" && ago <= RECENTLY
        })
}
