# Every habit, by name: `just` lists them.

_default:
    @just --list

# Format the code.
fmt:
    cargo fmt

# What a reviewer would say first: format, lints, dependencies.
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo clippy --all-targets --no-default-features -- -D warnings
    cargo clippy --all-targets --no-default-features --features database -- -D warnings
    cargo clippy --all-targets --no-default-features --features mock -- -D warnings

# All tests, or those whose name has `filter` in it.
test filter="":
    cargo test {{ filter }}

# The alert rules, whether each one's test fails without it, and the dashboard (needs promtool, python3-yaml).
alerts:
    tests/alerts/run --mutate

# The manifests: rendered, validated, run, and whether a broken one is noticed (needs what .ci/run installs).
manifests:
    tests/k8s/run --mutate

# The image, built and run without an engine (needs root, and what .ci/run installs).
image:
    tests/image/run

# The main job on an embedded mock manager, live.
demo *args:
    cargo run --release -- demo {{ args }}

# All that must hold before a change is merged, on a bare Debian 12 too.
ci:
    .ci/run

# Write anew what is generated: the code of proto/, and README's tables.
bless:
    SIGNOFF_BLESS=1 cargo test --test proto --test docs

# Licences, bans and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny --offline check bans licenses sources

# Known faults of the dependencies (needs cargo-deny and the network).
advisories:
    cargo deny check advisories
