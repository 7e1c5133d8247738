"""What each part of the image's program takes of it."""

import collections
import re

from linked import linked, pieces
from world import table, thousands

PARTS = {
    "the manager and the scheduler over gRPC (h2, hyper, tonic)":
        "h2 hyper hyper_util tonic tonic_prost prost http http_body http_body_util httparse bytes want tower tower_service tower_layer "
        "futures_util futures_core futures_channel slab tokio_util pin_project sync_wrapper atomic_waker indexmap",
    "TLS (rustls, ring, the public CAs)":
        "rustls ring webpki tokio_rustls webpki_roots untrusted rustls_pki_types subtle zeroize rustls_native_certs rustls_platform_verifier "
        "openssl_probe getrandom",
    "the manager over REST (reqwest, url)": "reqwest url idna idna_adapter percent_encoding form_urlencoded utf8_iter ipnet serde_urlencoded",
    "the manager's database (sqlx): not in the agent alone":
        "sqlx sqlx_core sqlx_mysql sqlx_postgres unicode_normalization unicode_bidi unicode_properties stringprep crc sha2 sha1 hmac md5 md_5 hkdf "
        "digest generic_array hybrid_array hashbrown hashlink foldhash crossbeam_queue futures_intrusive event_listener flume either rand "
        "rand_core rand_chacha chacha20 base64 whoami hex etcetera tinyvec smallvec",
    "the command line and its help (clap)":
        "clap_builder clap clap_complete clap_lex strsim anstyle humantime wildmatch indicatif console unit_prefix unicode_width portable_atomic",
    "tasks, timers, sockets, signals (tokio)":
        "tokio mio signal_hook signal_hook_registry signal_hook_tokio socket2 rustix parking_lot parking_lot_core lock_api once_cell",
    "JSON, YAML, dates": "serde serde_json serde_core jiff jiff_core itoa zmij dtoa ryu granit_parser crc32fast memchr fastrand",
    "logs and metrics (tracing, prometheus-client)": "tracing tracing_core tracing_subscriber tracing_serde tracing_log prometheus_client thread_local",
    "signoff itself": "signoff",
}
PART = {crate: part for part, crates in PARTS.items() for crate in crates.split()}
STD = "Rust's standard library, also where the others make it their own"
LIBC = "the C library, with its resolver"
CONSTANTS = "constants that say no crate: texts, tables, places of panics"


def part(file, section):
    """Whose a piece is, by the first crate that its name tells."""
    if "libring" in file:
        return PART["ring"]
    if re.search(r"lib(c|m|m-[\d.]+|gcc)\.a|/r?crt[^/]*\.o", file):
        return LIBC
    _, mangled, name = section.partition("_ZN")
    if not mangled:
        return STD if "._R" in section else CONSTANTS
    first = re.match(r"(\d+)(.*)", name)
    first = first[2][: int(first[1])]
    # `_$LT$alloc..vec..Vec$LT$signoff..key..Key$GT$` is signoff's; without any of these it is the standard library's.
    told = re.findall(r"[a-z_][a-z0-9_]*", re.sub(r"\$\w+?\$", " ", first))
    return next((PART[crate] for crate in told if crate in PART), STD)


def parts(_):
    """What is in the image's program, by the linker's map."""
    binary, linker_map = linked()
    sizes = collections.Counter()
    for _, size, file, section in pieces(linker_map):
        if section.startswith((".text", ".rodata", ".data")):
            sizes[part(file, section)] += size
    rows = [(name, thousands(size)) for name, size in sizes.most_common()]
    rows.append(("all, with what the linker adds", thousands(binary.stat().st_size)))
    return table(("what", "bytes"), rows), {}
