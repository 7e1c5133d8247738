//! A manager's address as the scheduler's gRPC library takes it (grpc-go's targets): `host:port`, `host`, `dns:host:port`,
//! `dns:///host:port`, `dns://name-server/host:port`, `passthrough:///host:port`. Without a port it is 443; a port may have a
//! name.

use super::address::HostPort;

/// The port of a target without one, in grpc-go's resolver of DNS. A target without a scheme is not for that resolver: a scheduler
/// with `manager.addr: m` does not start (seen on v2.5.1), so that whatever is taken for its port can't be wrong.
const DEFAULT_PORT: u16 = 443;

/// Ports by name, as Go knows them without a file.
const NAMED: [(&str, u16); 15] = [
    ("domain", 53),
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("imap2", 143),
    ("imap3", 220),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
    ("smtp", 25),
    ("ssh", 22),
    ("submissions", 465),
    ("telnet", 23),
];

/// The host and port behind `manager.addr`; an error says what would be right.
pub fn parse(target: &str) -> Result<HostPort, String> {
    let address = match target.split_once(':') {
        Some(("dns" | "passthrough", rest)) => endpoint(rest),
        Some(("unix" | "unix-abstract" | "xds", _)) => {
            return Err(
                "it is a target of gRPC that signoff can't reach; give --manager host:port".to_owned()
            );
        }
        _ => target,
    };
    if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("[{address}]:{DEFAULT_PORT}").parse();
    }
    if !address.contains(':') || address.ends_with(']') {
        return format!("{address}:{DEFAULT_PORT}").parse();
    }
    if let Some((host, name)) = address.rsplit_once(':') {
        let named = NAMED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if let Some((_, port)) = named {
            return format!("{host}:{port}").parse();
        }
    }
    address.parse()
}

/// What stands behind a scheme: behind the name server (`//server/`), if one is given, and one slash.
fn endpoint(rest: &str) -> &str {
    let path = match rest.strip_prefix("//") {
        Some(authority) => authority.split_once('/').map_or("", |(_, path)| path),
        None => rest,
    };
    path.strip_prefix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_of_grpc_is_read_as_grpc_go_reads_it() {
        for (target, address) in [
            ("m.ns.svc:65003", "m.ns.svc:65003"),
            ("10.0.0.1:65003", "10.0.0.1:65003"),
            ("[fd00::1]:65003", "[fd00::1]:65003"),
            ("m.ns.svc", "m.ns.svc:443"),
            ("10.0.0.1", "10.0.0.1:443"),
            ("fd00::1", "[fd00::1]:443"),
            ("[fd00::1]", "[fd00::1]:443"),
            ("dns:m:65003", "m:65003"),
            ("dns:m", "m:443"),
            ("dns:///m:65003", "m:65003"),
            ("dns:/m:65003", "m:65003"),
            ("dns:///m", "m:443"),
            ("dns://10.9.9.9/m:65003", "m:65003"),
            ("passthrough:///m:65003", "m:65003"),
            ("passthrough:m:65003", "m:65003"),
            ("m:https", "m:443"),
            ("dns:///m:HTTP", "m:80"),
        ] {
            assert_eq!(parse(target).map(|address| address.to_string()).as_deref(), Ok(address), "{target}");
        }
    }

    #[test]
    fn what_no_scheduler_could_reach_is_refused_with_what_would_be_right() {
        for target in [
            "",
            ":65003",
            "m:",
            "m:0",
            "m:70000",
            "m:name",
            "dns:",
            "dns:///",
            "dns://",
            "http://m:8080",
            "m n:1",
            "a:b:c",
        ] {
            assert!(
                parse(target).is_err_and(|why| why.contains("host:port") || why.contains("65535")),
                "{target}"
            );
        }
        for target in ["unix:///run/m.sock", "unix-abstract:m", "xds:///m"] {
            assert!(parse(target).unwrap_err().contains("--manager host:port"), "{target}");
        }
    }
}
