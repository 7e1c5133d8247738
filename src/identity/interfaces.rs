//! The machine's network interfaces and their addresses, in the order a Go program lists them: that of the kernel's own
//! netlink answers (`rtnetlink(7)`), links first, each with its addresses.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
    socket_with, sockopt,
};

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Asks the kernel.
pub fn list() -> io::Result<Vec<Interface>> {
    let links = dump(RTM_GETLINK)?;
    let addresses = dump(RTM_GETADDR)?;
    Ok(join(&links, &addresses))
}

/// One dump request, and the bytes of all messages that answer it.
fn dump(kind: u16) -> io::Result<Vec<u8>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(1)))?;
    // nlmsghdr (16 bytes: length, type, flags, sequence, port), then rtgenmsg (family 0: all), padded.
    let mut request = [0u8; 20];
    request[..4].copy_from_slice(&20u32.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request[8..12].copy_from_slice(&1u32.to_ne_bytes());
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut all = Vec::new();
    let mut buffer = vec![0u8; 32 * 1024];
    loop {
        let (_, length) = recv(&socket, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
        let Some(datagram) = buffer.get(..length) else {
            return Err(io::Error::other("a netlink message does not fit the buffer"));
        };
        if datagram.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (kind, body) in messages(datagram) {
            match kind {
                NLMSG_DONE => return Ok(all),
                NLMSG_ERROR => {
                    let code = i32_at(body, 0).unwrap_or(0);
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                _ => {}
            }
        }
        all.extend_from_slice(datagram);
    }
}

/// The messages of a buffer: type and body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 4)?;
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes of a message's tail: type and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn join(links: &[u8], addresses: &[u8]) -> Vec<Interface> {
    let mut of_index: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for (kind, body) in messages(addresses) {
        // ifaddrmsg: family, prefix length, flags, scope (a byte each), then the interface's index.
        let (Some(&family), Some(index)) = (body.first(), u32_at(body, 4)) else { continue };
        if kind != RTM_NEWADDR {
            continue;
        }
        let attributes: Vec<_> = attributes(body.get(8..).unwrap_or_default()).collect();
        // On a point-to-point link IFA_ADDRESS is the other end's.
        let wanted = if attributes.iter().any(|(k, _)| *k == IFA_LOCAL) { IFA_LOCAL } else { IFA_ADDRESS };
        let Some((_, value)) = attributes.iter().find(|(k, _)| *k == wanted) else { continue };
        let ip = match family {
            AF_INET => <[u8; 4]>::try_from(*value).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
            AF_INET6 => <[u8; 16]>::try_from(*value).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
            _ => None,
        };
        if let Some(ip) = ip {
            of_index.entry(index).or_default().push(ip);
        }
    }
    let mut interfaces = Vec::new();
    for (kind, body) in messages(links) {
        // ifinfomsg: family, padding, type (2 bytes), index, flags.
        let (Some(index), Some(flags)) = (u32_at(body, 4), u32_at(body, 8)) else { continue };
        if kind == RTM_NEWLINK {
            interfaces.push(Interface {
                up: flags & IFF_UP != 0,
                loopback: flags & IFF_LOOPBACK != 0,
                addresses: of_index.remove(&index).unwrap_or_default(),
            });
        }
    }
    interfaces
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(index: u32, flags: u32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        message(RTM_NEWLINK, &body)
    }

    fn address(family: u8, index: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 24, 0, 0];
        body.extend(index.to_ne_bytes());
        for (kind, value) in attributes {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        message(RTM_NEWADDR, &body)
    }

    #[test]
    fn addresses_are_listed_by_their_links_in_the_kernels_order() {
        let links = [link(1, IFF_UP | IFF_LOOPBACK), link(7, IFF_UP), link(3, 0)].concat();
        let v6: Ipv6Addr = "fd00::7".parse().unwrap();
        let addresses = [
            address(AF_INET, 1, &[(IFA_ADDRESS, &[127, 0, 0, 1])]),
            address(AF_INET, 3, &[(3, b"eth1\0"), (IFA_ADDRESS, &[10, 0, 0, 3])]),
            address(AF_INET, 7, &[(IFA_ADDRESS, &[10, 0, 0, 99]), (IFA_LOCAL, &[10, 0, 0, 7])]),
            address(AF_INET6, 7, &[(IFA_ADDRESS, &v6.octets())]),
        ]
        .concat();
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        assert_eq!(
            join(&links, &addresses),
            [
                Interface { up: true, loopback: true, addresses: vec![ip("127.0.0.1")] },
                Interface { up: true, loopback: false, addresses: vec![ip("10.0.0.7"), ip("fd00::7")] },
                Interface { up: false, loopback: false, addresses: vec![ip("10.0.0.3")] },
            ]
        );
    }

    #[test]
    fn a_cut_or_garbled_answer_yields_what_is_whole_and_never_panics() {
        let links = [link(1, IFF_UP), link(2, IFF_UP)].concat();
        let addresses = address(AF_INET, 1, &[(IFA_LOCAL, &[10, 0, 0, 1])]);
        for cut in 0..links.len() {
            assert!(join(&links[..cut], &addresses).len() <= 2);
        }
        for cut in 0..addresses.len() {
            assert_eq!(join(&links, &addresses[..cut]).len(), 2);
        }
        for at in 0..addresses.len() {
            for value in [0, 1, 0xff] {
                let mut garbled = addresses.clone();
                garbled[at] = value;
                assert_eq!(join(&links, &garbled).len(), 2);
            }
        }
    }

    #[test]
    fn the_loopback_interface_of_this_machine_is_listed_with_its_address() {
        let interfaces = list().unwrap();
        let lo = interfaces.iter().find(|i| i.loopback).unwrap();
        assert!(lo.addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{interfaces:?}");
    }
}
