//! The fully qualified name of this machine as a Go program sees it (Dragonfly uses `Showmax/go-fqdn`): the canonical
//! name in the hosts file's first line that mentions the hostname, else the canonical name DNS gives, else the hostname.

use std::net::IpAddr;

/// What looking a name up gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The name resolves.
    Found {
        /// Its canonical name, a trailing dot included where the resolver gives one.
        canonical: Option<String>,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// There is no such name: a fact.
    NoSuchName,
    /// No answer, or none in time: it may be there.
    Failed(String),
}

/// The canonical name that a hosts file gives `host`: exactly as written first, and without regard to case after that
/// (go-fqdn's own reading compares exactly; Go's resolver, asked next, reads the file too and doesn't).
pub fn from_hosts(hosts: &str, host: &str) -> Option<String> {
    canonical(hosts, |name| name == host).map(str::to_owned).or_else(|| {
        let name = canonical(hosts, |name| name.eq_ignore_ascii_case(host))?;
        Some(name.trim_end_matches('.').to_owned())
    })
}

fn canonical(hosts: &str, is_it: impl Fn(&str) -> bool) -> Option<&str> {
    hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut fields = line.split([' ', '\t', '\r']).filter(|f| !f.is_empty());
        fields.next()?;
        let canonical = fields.next()?;
        let known = valid(canonical) && (is_it(canonical) || fields.any(&is_it));
        known.then_some(canonical)
    })
}

/// go-fqdn skips a line whose canonical name has other characters.
fn valid(name: &str) -> bool {
    name.len() <= 254
        && name.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || c == '.' || c == '-')
}

/// The FQDN of `host`. `lookup` is only asked where the hosts file doesn't know. An error says why it isn't known yet.
pub fn fqdn(host: &str, hosts: &str, lookup: impl FnOnce() -> Lookup) -> Result<String, String> {
    if let Some(name) = from_hosts(hosts, host) {
        return Ok(name);
    }
    match lookup() {
        Lookup::Found { canonical: Some(name), .. } if !name.trim_end_matches('.').is_empty() => {
            Ok(name.trim_end_matches('.').to_owned())
        }
        Lookup::Found { .. } | Lookup::NoSuchName => Ok(host.to_owned()),
        Lookup::Failed(why) => Err(format!("the FQDN of {host:?} is not known: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_mentions_the_host_gives_its_canonical_name() {
        const POD: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n\
            fe00::0\tip6-localnet\n10.1.2.3\ts-7.sched.dragonfly.svc.cluster.local\ts-7\n10.9.9.9 other s-7\n";
        assert_eq!(from_hosts(POD, "s-7").as_deref(), Some("s-7.sched.dragonfly.svc.cluster.local"));
        assert_eq!(from_hosts(POD, "ip6-localhost").as_deref(), Some("localhost"));
        assert_eq!(from_hosts(POD, "s-8"), None);
    }

    #[test]
    fn a_line_is_read_as_go_fqdn_reads_it() {
        for (host, line, name) in [
            ("foo", "::1 foo bar", Some("foo")),
            ("bar", "::1 \t foo  \t\t\t  bar  \t\t", Some("foo")),
            ("bar", "  127.0.0.1 foo.full a b bar", Some("foo.full")),
            ("foo", "::1 bar", None),
            ("::1", "::1", None),
            ("bar", "127.0.0.1 foo # bar", None),
            ("bar", "127.0.0.1 foo#bar", None),
            ("b", "127.0.0.1 _invalid_ b", None),
            ("b", "127.0.0.1 今日は b", Some("今日は")),
            ("b", "127.0.0.1 a. b\r", Some("a.")),
            ("b", "127.0.0.1 a. B", Some("a")),
            ("b", "#127.0.0.1 a b", None),
            ("b", "", None),
        ] {
            assert_eq!(from_hosts(line, host).as_deref(), name, "{line:?}");
        }
    }

    #[test]
    fn a_name_that_matches_exactly_goes_before_one_that_differs_in_case() {
        assert_eq!(from_hosts("10.0.0.1 a.x Foo\n10.0.0.2 b.x foo", "foo").as_deref(), Some("b.x"));
        assert_eq!(from_hosts("10.0.0.1 a.x Foo", "foo").as_deref(), Some("a.x"));
    }

    #[test]
    fn dns_is_asked_only_where_the_hosts_file_does_not_know() {
        assert_eq!(fqdn("s", "10.0.0.1 s.x s", || panic!("asked")), Ok("s.x".into()));
        let found = |canonical: &str| Lookup::Found { canonical: Some(canonical.into()), addresses: vec![] };
        assert_eq!(fqdn("s", "", || found("s.y.")), Ok("s.y".into()));
        assert_eq!(fqdn("s", "", || Lookup::Found { canonical: None, addresses: vec![] }), Ok("s".into()));
    }

    #[test]
    fn a_name_that_is_nowhere_is_itself_but_an_unanswered_question_is_not_an_answer() {
        assert_eq!(fqdn("s", "", || Lookup::NoSuchName), Ok("s".into()));
        let said = fqdn("s", "", || Lookup::Failed("no answer within 2s".into())).unwrap_err();
        assert_eq!(said, "the FQDN of \"s\" is not known: no answer within 2s");
    }
}
