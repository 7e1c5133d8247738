//! Which IP a scheduler registers with where nobody set one: its own rules (Dragonfly's `pkg/net/ip`).
//!
//! Among the addresses of the interfaces that are up and no loopback, leaving link-local ones out, those its own
//! hostname resolves to come first, then the others, each in the kernel's order; the first of the wanted family is it.

use std::net::IpAddr;

use super::interfaces::Interface;

/// The IP the scheduler would choose, IPv6 if `ipv6`. None where there is no such address: the scheduler then registers
/// its loopback address, which is nobody's identity.
pub fn choose(interfaces: &[Interface], own_names: &[IpAddr], ipv6: bool) -> Option<IpAddr> {
    let named = |ip: &IpAddr| own_names.iter().any(|n| n.to_canonical() == *ip);
    candidates(interfaces, ipv6).find(named).or_else(|| candidates(interfaces, ipv6).next())
}

/// The addresses it chooses from, in order.
pub fn candidates(interfaces: &[Interface], ipv6: bool) -> impl Iterator<Item = IpAddr> {
    interfaces
        .iter()
        .filter(|i| i.up && !i.loopback)
        .flat_map(|i| &i.addresses)
        .map(IpAddr::to_canonical)
        .filter(move |ip| ip.is_ipv6() == ipv6 && usable(ip))
}

fn usable(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn interface(addresses: &[&str]) -> Interface {
        Interface { up: true, loopback: false, addresses: ips(addresses) }
    }

    fn chosen(interfaces: &[Interface], own: &[&str], ipv6: bool) -> Option<String> {
        choose(interfaces, &ips(own), ipv6).map(|ip| ip.to_string())
    }

    #[test]
    fn the_first_address_of_the_wanted_family_is_chosen() {
        let two = [interface(&["10.0.0.1", "fd00::1"]), interface(&["10.0.0.2", "fd00::2"])];
        assert_eq!(chosen(&two, &[], false).as_deref(), Some("10.0.0.1"));
        assert_eq!(chosen(&two, &[], true).as_deref(), Some("fd00::1"));
    }

    #[test]
    fn an_address_the_hostname_resolves_to_goes_first() {
        let two = [interface(&["10.0.0.1", "fd00::1"]), interface(&["10.0.0.2", "fd00::2"])];
        assert_eq!(chosen(&two, &["10.0.0.2", "fd00::2"], false).as_deref(), Some("10.0.0.2"));
        assert_eq!(chosen(&two, &["10.0.0.2", "fd00::2"], true).as_deref(), Some("fd00::2"));
    }

    #[test]
    fn an_address_that_is_only_in_dns_is_not_chosen() {
        assert_eq!(chosen(&[interface(&["10.0.0.1"])], &["10.9.9.9"], false).as_deref(), Some("10.0.0.1"));
    }

    #[test]
    fn loopback_link_local_and_down_ones_are_never_chosen() {
        let none = [
            Interface { up: true, loopback: true, addresses: ips(&["10.0.0.1"]) },
            Interface { up: false, loopback: false, addresses: ips(&["10.0.0.2"]) },
            interface(&["127.0.0.1", "169.254.1.1", "fe80::1", "::1"]),
        ];
        assert_eq!(chosen(&none, &["10.0.0.1", "10.0.0.2"], false), None);
        assert_eq!(chosen(&none, &[], true), None);
    }
}
