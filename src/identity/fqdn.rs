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
    /// An error, or no answer in time: it may be there.
    Failed(String),
    /// No answer so far.
    NotYet,
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

/// The addresses that a hosts file gives `host`, as Go's resolver reads it: without regard to case, every line that names it.
pub fn addresses(hosts: &str, host: &str) -> Vec<IpAddr> {
    let of = |line: &str| {
        let mut fields = line.split('#').next().unwrap_or_default().split_whitespace();
        let ip = fields.next()?.parse().ok()?;
        fields.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)).then_some(ip)
    };
    hosts.lines().filter_map(of).collect()
}

/// Whether nobody is seen to be writing the file: there is something in it, and its last line is ended.
pub fn is_whole(hosts: &str) -> bool {
    hosts.ends_with('\n')
}

/// Whether a kubelet wrote, or is writing, it for a pod with a network of its own: such a file names the pod.
pub fn lacks_its_pod(hosts: &str) -> bool {
    hosts.starts_with("# Kubernetes-managed hosts file.")
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
    fn the_addresses_of_a_name_are_those_of_every_line_that_has_it() {
        let hosts =
            "127.0.0.1 localhost\n10.0.0.5 s-0.x S-0 # s-1\nfd00::5 s-0.\nnonsense s-0\n#10.0.0.6 s-0\n";
        let ips: Vec<String> = addresses(hosts, "s-0").iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.5", "fd00::5"]);
        assert_eq!(addresses(hosts, "s-1"), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_file_that_a_kubelet_is_writing_is_told_from_one_that_it_wrote() {
        for (hosts, whole) in
            [("", false), ("# Kubernetes-managed hosts file.\n127.0.0.1", false), ("127.0.0.1 a\n", true)]
        {
            assert_eq!(is_whole(hosts), whole, "{hosts:?}");
        }
        assert!(lacks_its_pod("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(!lacks_its_pod("# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n"));
    }
}
