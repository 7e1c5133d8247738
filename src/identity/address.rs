//! Addresses as flags give them: `HOST:PORT`, a manager's endpoint, whom the hook listener is open to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::manager::endpoints::check_host;

/// A host, by name or IP, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The address of an IP.
    pub fn of_ip(ip: IpAddr, port: u16) -> Self {
        Self { host: ip.to_string(), port }
    }

    /// The name or IP, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, at least 1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, where the host is an IP; a name has to be resolved.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl FromStr for HostPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "write it as host:port, an IPv6 address in brackets: [fd00::1]:8002".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let ip = inner.strip_suffix(']').ok_or_else(shape)?;
                if !ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
                    return Err(shape());
                }
                ip
            }
            None => host,
        };
        if host.contains(':') && !text.starts_with('[') {
            return Err(shape());
        }
        check_host(host).map_err(|why| format!("{why}; {}", shape()))?;
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self { host: host.to_owned(), port }),
            _ => Err(format!("its port {port:?} is not a whole number from 1 to 65535")),
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> String {
        address.to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Checks one value of `--manager` and writes it as a URL with its port: `host:port` and `grpc://`, `grpcs://` stand for
/// gRPC, `http://`, `https://` for REST. The error says what would be right, and never repeats a password.
pub fn manager_endpoint(text: &str) -> Result<String, String> {
    const RIGHT: &str =
        "use host:port, grpc://host:port, grpcs://host:port, http://host:port or https://host:port";
    if text.contains('@') {
        return Err(
            "a user or password must not be in it (before an @); give the user with --username and the \
                    password with --password-file"
                .to_owned(),
        );
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("grpc", text));
    let scheme = scheme.to_ascii_lowercase();
    let usual_port = match scheme.as_str() {
        "grpc" | "grpcs" => None,
        "http" => Some(80),
        "https" => Some(443),
        _ => return Err(format!("its scheme is none of grpc, grpcs, http and https; {RIGHT}")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(format!("it has a path or query; {RIGHT}"));
    }
    let portless = rest.ends_with(']') || !rest.contains(':');
    let address = match usual_port {
        Some(port) if portless => format!("{rest}:{port}").parse::<HostPort>(),
        None if portless => {
            return Err(format!("it has no port (a manager's gRPC port is 65003 by default); {RIGHT}"));
        }
        _ => rest.parse(),
    };
    address.map(|address| format!("{scheme}://{address}")).map_err(|why| format!("{why}; {RIGHT}"))
}

/// Whether an endpoint, as [`manager_endpoint`] writes it, is one for gRPC.
pub fn is_grpc(endpoint: &str) -> bool {
    endpoint.starts_with("grpc")
}

/// Checks one value of `--hook-allow`: an IP, or a network as `10.0.0.0/8`.
pub fn allowed_peers(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: Option<IpAddr> = ip.parse().ok();
    let most = match ip {
        Some(IpAddr::V4(_)) => 32,
        _ => 128,
    };
    let bits_fit = bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most));
    if ip.is_some() && bits_fit {
        Ok(text.to_owned())
    } else {
        Err("it is neither an IP address nor a network; write it as 10.1.2.3, 10.0.0.0/8 or fd00::/64"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::endpoints::Endpoint;

    #[test]
    fn a_host_and_port_are_read_and_written_alike() {
        for text in ["a.b-c:1", "10.0.0.1:8002", "[fd00::1]:65535", "under_score:2"] {
            let address: HostPort = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let v6: HostPort = "[fd00::1]:8002".parse().unwrap();
        assert_eq!((v6.host(), v6.port()), ("fd00::1", 8002));
        assert_eq!(v6.socket_addr(), "[fd00::1]:8002".parse().ok());
    }

    #[test]
    fn what_is_no_host_and_port_is_refused_with_what_would_be_right() {
        for text in ["", "a", ":1", "fd00::1:8002", "[fd00::1]", "[a]:1", "a b:1", "[10.0.0.1]:1", "a]:1"] {
            assert!(text.parse::<HostPort>().unwrap_err().contains("host:port"), "{text}");
        }
        for text in ["a:0", "a:", "a:65536", "a:x", "a:-1"] {
            assert!(text.parse::<HostPort>().unwrap_err().contains("from 1 to 65535"), "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_written_as_a_url_with_its_port() {
        for (given, written) in [
            ("m:65003", "grpc://m:65003"),
            ("grpc://m:1", "grpc://m:1"),
            ("GRPCS://[fd00::1]:65003", "grpcs://[fd00::1]:65003"),
            ("http://m", "http://m:80"),
            ("https://[fd00::1]/", "https://[fd00::1]:443"),
            ("http://m:8080/", "http://m:8080"),
        ] {
            assert_eq!(manager_endpoint(given).as_deref(), Ok(written), "{given}");
            assert_eq!(is_grpc(written), written.starts_with("grpc"));
        }
        assert!(!is_grpc("http://m:80"));
    }

    #[test]
    fn what_is_taken_for_a_host_and_a_port_is_what_can_be_connected_to() {
        for host in ["m..x", "10.0.0.300", "2", "-", "m.", "_m", "m_1", "10.0.0.1", "a.b", ".", "..", "-m.x"]
        {
            let (address, endpoint) = (format!("{host}:65003"), format!("grpc://{host}:65003"));
            let known = endpoint.parse::<Endpoint>().is_ok();
            assert_eq!(address.parse::<HostPort>().is_ok(), known, "{address}");
            assert_eq!(manager_endpoint(&address).is_ok(), known, "{address}");
        }
        let said = manager_endpoint("10.0.0.300:65003").unwrap_err();
        assert!(said.starts_with("its host looks like an IPv4 address, but is none; "), "{said}");
    }

    #[test]
    fn a_malformed_endpoint_is_refused_with_what_would_be_right() {
        for text in
            ["", "m", "m:", "grpc://m", "ftp://m:1", "://m:1", "http://m/api", "fd00::1:65003", "http://"]
        {
            assert!(manager_endpoint(text).unwrap_err().contains("grpc://host:port"), "{text}");
        }
        let said = manager_endpoint("http://root:hunter2@m:8080").unwrap_err();
        assert!(said.contains("--password-file") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn an_ip_or_a_network_may_be_allowed() {
        for text in ["10.1.2.3", "10.0.0.0/8", "fd00::/64", "::1"] {
            assert_eq!(allowed_peers(text).as_deref(), Ok(text));
        }
        for text in ["", "10.0.0.0/33", "fd00::/129", "host", "10.0.0.0/", "10.0.0/8"] {
            assert!(allowed_peers(text).unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
    }
}
