use std::fs;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nowhere() -> RouteTables {
    RouteTables { ipv4: "/nowhere/route".into(), ipv6: "/nowhere/ipv6_route".into() }
}

/// A line of `/proc/net/route` as this machine's kernel would write it.
fn ipv4_route(destination: [u8; 4], gateway: [u8; 4], flags: &str, mask: [u8; 4]) -> String {
    let word = |bytes| format!("{:08X}", u32::from_ne_bytes(bytes));
    format!("eth0\t{}\t{}\t{flags}\t0\t0\t0\t{}\t0\t0\t0\n", word(destination), word(gateway), word(mask))
}

const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

#[test]
fn a_network_holds_its_addresses_and_no_others() {
    for (network, inside, outside) in [
        ("10.1.2.0/24", "10.1.2.255", "10.1.3.0"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
        ("0.0.0.0/0", "255.1.2.3", "fd00::1"),
        ("fd00::/8", "fdff::1", "fe00::1"),
        ("fd00::5", "fd00::5", "fd00::6"),
        ("::/0", "fd00::1", "10.0.0.1"),
        ("10.1.2.2/31", "10.1.2.3", "10.1.2.4"),
    ] {
        let network: Network = network.parse().unwrap();
        assert!(network.contains(ip(inside)), "{network} {inside}");
        assert!(!network.contains(ip(outside)), "{network} {outside}");
    }
}

#[test]
fn an_ipv4_address_mapped_to_ipv6_is_the_ipv4_address() {
    let network: Network = "10.1.2.0/24".parse().unwrap();
    assert!(network.contains(ip("::ffff:10.1.2.3")));
    assert_eq!("::ffff:10.1.2.3".parse::<Network>().unwrap(), Network::from(ip("10.1.2.3")));
    let list = AllowList::new([ip("::ffff:192.0.2.7")], [], nowhere());
    assert!(list.permits(ip("192.0.2.7")) && list.permits(ip("::ffff:192.0.2.7")));
}

#[test]
fn a_value_that_is_no_network_is_refused_with_what_would_be_right() {
    for text in
        ["", "a", "10.0.0", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1", "10.0.0.0/+8", "/8", "node.example"]
    {
        let said = text.parse::<Network>().unwrap_err().to_string();
        assert!(said.contains("--hook-allow") && said.contains(&format!("{text:?}")), "{said}");
        assert!(said.contains("10.0.0.0/8"), "{said}");
    }
    for (text, most) in [("10.0.0.0/33", "32"), ("fd00::/129", "128"), ("10.0.0.0/999", "32")] {
        let said = text.parse::<Network>().unwrap_err().to_string();
        assert!(said.contains(most) && said.contains(text), "{said}");
    }
    let said = "10.1.2.3/24".parse::<Network>().unwrap_err().to_string();
    assert!(said.contains("10.1.2.0/24"), "{said}");
}

#[test]
fn the_gateways_of_the_default_routes_are_found() {
    let table = [
        HEAD.to_owned(),
        ipv4_route([0; 4], [192, 0, 2, 1], "0003", [0; 4]),
        // A route to a network, one that is down, one without a gateway, one that rejects, half of everything.
        ipv4_route([10, 0, 0, 0], [192, 0, 2, 2], "0003", [255, 0, 0, 0]),
        ipv4_route([0; 4], [192, 0, 2, 3], "0002", [0; 4]),
        ipv4_route([0; 4], [0; 4], "0001", [0; 4]),
        ipv4_route([0; 4], [192, 0, 2, 4], "0203", [0; 4]),
        ipv4_route([0; 4], [192, 0, 2, 5], "0003", [128, 0, 0, 0]),
        ipv4_route([0; 4], [192, 0, 2, 6], "0003", [0; 4]),
    ]
    .concat();
    assert_eq!(ipv4_gateways(&table), [ip("192.0.2.1"), ip("192.0.2.6")]);
    let zeros = "0".repeat(32);
    let tail = "00000400 00000002 00000000";
    let table = [
        format!("{zeros} 00 {zeros} 00 fd000000000000000000000000000001 {tail} 00000003     eth0\n"),
        format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"),
        format!("{zeros} 40 {zeros} 00 fd000000000000000000000000000002 {tail} 00000003     eth0\n"),
        format!(
            "fd{} 00 {zeros} 00 fd000000000000000000000000000003 {tail} 00000003     eth0\n",
            "0".repeat(30)
        ),
    ]
    .concat();
    assert_eq!(ipv6_gateways(&table), [ip("fd00::1")]);
}

#[test]
fn a_table_that_makes_no_sense_has_no_gateways() {
    for table in ["", "\n\n", "a b c", "eth0\t00000000\tzzzzzzzz\t0003\t0\t0\t0\t00000000", "\u{0}\u{ffff}"] {
        assert!(ipv4_gateways(table).is_empty() && ipv6_gateways(table).is_empty(), "{table:?}");
    }
    let table = [HEAD.to_owned(), ipv4_route([0; 4], [192, 0, 2, 1], "0003", [0; 4])].concat();
    for end in 0..table.len() {
        assert!(ipv4_gateways(&table[..end]).len() <= 1);
    }
}

#[test]
fn this_machines_own_tables_can_be_read() {
    for gateway in RouteTables::default().gateways(&mut Seldom::new(1)) {
        assert!(!gateway.is_unspecified(), "{gateway}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_appears_later_is_let_in_and_the_table_is_not_read_for_every_stranger() {
    let dir = tempfile::tempdir().unwrap();
    let tables = RouteTables { ipv4: dir.path().join("route"), ipv6: dir.path().join("ipv6_route") };
    let list = AllowList::new([ip("10.0.0.1")], ["172.16.0.0/12".parse().unwrap()], tables.clone());
    assert!(list.permits(ip("10.0.0.1")) && list.permits(ip("172.16.3.4")));
    assert!(!list.permits(ip("192.0.2.1")));
    fs::write(&tables.ipv4, [HEAD.to_owned(), ipv4_route([0; 4], [192, 0, 2, 1], "0003", [0; 4])].concat())
        .unwrap();
    assert!(!list.permits(ip("192.0.2.1")));
    tokio::time::advance(REREAD).await;
    assert!(list.permits(ip("192.0.2.1")));
    assert!(list.permits(ip("::ffff:192.0.2.1")));
    assert!(!list.permits(ip("192.0.2.2")));
    assert!(list.permits(ip("192.0.2.1")));
}
