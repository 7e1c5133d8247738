//! The managers given, and what each knows of the role and the user.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::Stop;
use crate::{
    cli::args::GrantArgs,
    files,
    manager::{
        Failure,
        endpoints::{Api, CONNECT_LIMIT, Endpoint},
        rest::{Rest, RestCredentials, User},
    },
    net::{self, Tls, TlsFiles},
    secret::Secret,
};

/// One manager: an endpoint, and the one of its addresses that is meant, where it has several.
pub(super) struct Manager {
    endpoint: Endpoint,
    address: Option<SocketAddr>,
    tls: Arc<Tls>,
    /// The client that signs in as root.
    pub(super) root: Rest,
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} ({})", self.endpoint, address.ip()),
            None => self.endpoint.fmt(f),
        }
    }
}

impl Manager {
    /// The managers that were given. Nothing is asked of them yet.
    pub(super) async fn all(args: &GrantArgs, root: &str) -> Result<Vec<Self>, Stop> {
        let wrong = |why: &str| Err(Stop::Usage(why.to_owned()));
        let Some(path) = args.root_password_file.clone() else {
            return wrong(
                "grant needs a root of the manager's: give its password with --root-password-file FILE",
            );
        };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for text in &args.manager {
            let endpoint: Endpoint = text.parse().map_err(|why| Stop::Usage(format!("{why}")))?;
            if endpoint.api() == Api::Rest && !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() {
            return wrong(
                "grant needs the managers' REST API: give each with --manager http://host:8080 or https://",
            );
        }
        let named = path.display().to_string();
        let read = files::within(files::LIMIT, move || Secret::from_file(&path)).await;
        let password = read
            .map_err(|why| Stop::Usage(format!("--root-password-file: password file {named}: {why}")))?
            .map_err(|why| Stop::Usage(format!("--root-password-file: {why}")))?;
        let tls = Arc::new(Tls::new(TlsFiles {
            ca: args.tls.ca_file.clone(),
            cert: args.tls.cert_file.clone(),
            key: args.tls.key_file.clone(),
        }));
        let mut managers = Vec::new();
        for endpoint in endpoints {
            for address in addresses(&endpoint).await {
                let (endpoint, tls) = (endpoint.clone(), tls.clone());
                let root = client(&endpoint, address, &tls, (root, &password));
                managers.push(Self { endpoint, address, tls, root });
            }
        }
        Ok(managers)
    }

    /// A client that signs in as the new user.
    pub(super) fn user(&self, name: &str, password: &Secret) -> Rest {
        client(&self.endpoint, self.address, &self.tls, (name, password))
    }
}

fn client(
    endpoint: &Endpoint,
    address: Option<SocketAddr>,
    tls: &Arc<Tls>,
    (name, password): (&str, &Secret),
) -> Rest {
    let who = RestCredentials { username: Some(name.to_owned()), password_file: None };
    let rest = Rest::new(vec![endpoint.clone()], tls.clone(), who).with_password(password.clone());
    match address {
        Some(address) => rest.at(address),
        None => rest,
    }
}

/// The addresses to be seen as managers of their own: each one of a name that has several, of one family. None in particular
/// where there is only one, or none is found: then the connection says why.
async fn addresses(endpoint: &Endpoint) -> Vec<Option<SocketAddr>> {
    let mut found = net::resolve(endpoint.peer(), CONNECT_LIMIT).await.unwrap_or_default();
    let is_v4 = found.first().is_some_and(SocketAddr::is_ipv4);
    found.retain(|address| address.is_ipv4() == is_v4);
    found.sort_unstable();
    found.dedup();
    if found.len() > 1 { found.into_iter().map(Some).collect() } else { vec![None] }
}

/// What one manager has in memory of the role and of the user's roles, and the user as it is in the database.
pub(super) struct Seen {
    /// The role's, each as object and action; none where there is no such role.
    pub(super) permissions: Vec<(String, String)>,
    pub(super) user: Option<User>,
    pub(super) roles: Vec<String>,
}

impl Seen {
    /// Looks, as root.
    pub(super) async fn at(manager: &Manager, role: &str, username: &str) -> Result<Self, Failure> {
        let root = &manager.root;
        root.sign_in_patiently().await?;
        let permissions = root.permissions(role).await?;
        let user = root.user_named(username).await?;
        let roles = match &user {
            Some(user) => root.roles_of(user.id).await?,
            None => Vec::new(),
        };
        Ok(Self { permissions, user, roles })
    }
}
