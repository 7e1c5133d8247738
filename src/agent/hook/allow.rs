//! Who may call the hook: the node's own addresses, and what was allowed besides.
//!
//! kubelet calls from the node's address, its bridge or another, by CNI. So beside HOST_IP the default gateways are
//! allowed, as the kernel's route tables name them. They may change while the agent runs, so the tables are read again
//! when a peer is about to be turned away, though not oftener than once a second.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::logging::seldom::Seldom;

/// How often the route tables are read at most, however many peers are turned away.
const REREAD: Duration = Duration::from_secs(1);

/// How much of a route table is read, in bytes. A node's own table may be long; the default route comes first.
const MAX_TABLE: u64 = 1 << 20;

/// A value that is no address and no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an IP nor a CIDR.
    #[error("--hook-allow {0:?} is neither an IP address nor a network such as 10.0.0.0/8 or fd00::/8")]
    Text(String),
    /// The prefix is longer than the address.
    #[error("--hook-allow {text:?} has a prefix of more than {most} bits")]
    Prefix {
        /// The value.
        text: String,
        /// The bits of such an address.
        most: u8,
    },
    /// Bits are set behind the prefix: one of the two is a slip.
    #[error(
        "--hook-allow {text:?} has bits set behind its prefix: did you mean {network}, or one address alone?"
    )]
    HostBits {
        /// The value.
        text: String,
        /// The network it would be.
        network: Network,
    },
}

/// An address, or a network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        // At the top, so that prefixes of both families count from the same end.
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

fn mask(prefix: u8) -> u128 {
    match prefix {
        0 => 0,
        prefix => u128::MAX << (128 - u32::from(prefix.min(128))),
    }
}

impl Network {
    /// Whether `ip` is in it. An IPv4-mapped IPv6 address is the IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && (bits(ip).0 ^ bits(self.address).0) & mask(self.prefix) == 0
    }
}

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        let address = ip.to_canonical();
        Self { address, prefix: bits(address).1 }
    }
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError::Text(text.to_owned());
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| wrong());
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let (value, most) = bits(address);
        let too_long = || NetworkError::Prefix { text: text.to_owned(), most };
        let prefix: u8 = prefix.parse().map_err(|_| too_long())?;
        if prefix > most {
            return Err(too_long());
        }
        let network = Self { address: from_bits(value & mask(prefix), address), prefix };
        if network.address == address {
            Ok(network)
        } else {
            Err(NetworkError::HostBits { text: text.to_owned(), network })
        }
    }
}

/// The inverse of [`bits`], of the family of `like`.
fn from_bits(value: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(value >> 96).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(value)),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Where the kernel shows its route tables.
#[derive(Debug, Clone)]
pub struct RouteTables {
    /// As `/proc/net/route`.
    pub ipv4: PathBuf,
    /// As `/proc/net/ipv6_route`.
    pub ipv6: PathBuf,
}

impl Default for RouteTables {
    /// Those of this process's network namespace.
    fn default() -> Self {
        Self { ipv4: "/proc/net/route".into(), ipv6: "/proc/net/ipv6_route".into() }
    }
}

impl RouteTables {
    /// The default gateways. A table that isn't there has none (a system without IPv6, for one); one that can't be read is told.
    fn gateways(&self, unreadable: &mut Seldom) -> Vec<IpAddr> {
        let mut gateways = Vec::new();
        for (path, parse) in [
            (&self.ipv4, ipv4_gateways as fn(&str) -> Vec<IpAddr>),
            (&self.ipv6, ipv6_gateways as fn(&str) -> Vec<IpAddr>),
        ] {
            match read_start(path) {
                Ok(table) => gateways.extend(parse(&table)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    if let Some(turn) = unreadable.turn(Instant::now()) {
                        tracing::warn!(
                            path = %path.display(),
                            error = %error,
                            log.held_back = turn.held_back,
                            "The default gateways can't be read, so none of them may call the hook; it is tried again."
                        );
                    }
                }
            }
        }
        gateways
    }
}

fn read_start(path: &Path) -> io::Result<String> {
    let mut table = Vec::new();
    File::open(path)?.take(MAX_TABLE).read_to_end(&mut table)?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;
const RTF_REJECT: u32 = 0x200;

fn leads_out(flags: &str) -> bool {
    u32::from_str_radix(flags, 16)
        .is_ok_and(|flags| flags & (RTF_UP | RTF_GATEWAY | RTF_REJECT) == RTF_UP | RTF_GATEWAY)
}

/// The gateways of the default routes in the text of `/proc/net/route`: columns interface, destination, gateway, flags,
/// (three more), mask, with addresses in hexadecimal as the machine's own 32-bit word.
fn ipv4_gateways(table: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00000000", gateway, flags, _, _, _, "00000000", ..] = fields[..] else { return None };
        let word = u32::from_str_radix(gateway, 16).ok()?;
        (leads_out(flags) && word != 0).then(|| IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes())))
    };
    table.lines().filter_map(gateway).collect()
}

/// The gateways of the default routes in the text of `/proc/net/ipv6_route`: columns destination, its prefix length,
/// source, its prefix length, next hop, metric, references, uses, flags, interface, all in hexadecimal.
fn ipv6_gateways(table: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, hop, _, _, _, flags, ..] = fields[..] else { return None };
        let hop = u128::from_str_radix(hop, 16).ok()?;
        let default = destination.bytes().all(|b| b == b'0');
        (default && leads_out(flags) && hop != 0).then(|| IpAddr::V6(Ipv6Addr::from(hop)).to_canonical())
    };
    table.lines().filter_map(gateway).collect()
}

/// Who may call.
#[derive(Debug)]
pub struct AllowList {
    networks: Vec<Network>,
    tables: RouteTables,
    gateways: Mutex<Gateways>,
}

#[derive(Debug)]
struct Gateways {
    known: Vec<IpAddr>,
    read: Option<Instant>,
    unreadable: Seldom,
}

impl AllowList {
    /// The node's addresses (status.hostIPs), what `--hook-allow` adds, and the default gateways.
    pub fn new(
        host_ips: impl IntoIterator<Item = IpAddr>,
        allowed: impl IntoIterator<Item = Network>,
        tables: RouteTables,
    ) -> Self {
        let networks = host_ips.into_iter().map(Network::from).chain(allowed).collect();
        let gateways = Gateways { known: Vec::new(), read: None, unreadable: Seldom::new(1) };
        Self { networks, tables, gateways: Mutex::new(gateways) }
    }

    /// Whether `peer` may call.
    pub fn permits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        if self.networks.iter().any(|network| network.contains(peer)) {
            return true;
        }
        let mut gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        if !gateways.known.contains(&peer) && gateways.read.is_none_or(|read| read.elapsed() >= REREAD) {
            gateways.known = self.tables.gateways(&mut gateways.unreadable);
            gateways.read = Some(Instant::now());
        }
        gateways.known.contains(&peer)
    }
}

#[cfg(test)]
mod tests;
