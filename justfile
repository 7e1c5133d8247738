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

# The units of systemd/, under a systemd of its own (needs root and systemd).
systemd:
    tests/systemd/run

# compose/, on podman (needs what .ci/run installs, and what `just image` built).
compose:
    tests/compose/run

# The lives of pods on a Kubernetes of its own (needs root, go, etcd, containerd and kubectl; the first build takes 10 minutes).
cluster *args:
    tests/cluster/run {{ args }}

# Every planted bug and the test that catches it; or those whose name has one of these words in it (needs python3).
planted *names:
    tests/planted/run {{ names }}

# Whole fleets in simulated time, so many seeds; one that fails says how to replay it.
simulate seeds="100000":
    SIGNOFF_SEEDS={{ seeds }} cargo test --profile proof --lib simulation::tests::no_seed -- --nocapture

# The same, where somebody deletes rows, too.
simulate-deletions seeds="10000":
    SIGNOFF_SEEDS={{ seeds }} cargo test --profile proof --lib simulation::tests::g2_no_row -- --nocapture

# The same, where reconcile takes rows out of the table, too, and whole fleets are cut off.
simulate-withdrawals seeds="10000":
    SIGNOFF_ALL=1 SIGNOFF_SEEDS={{ seeds }} cargo test --profile proof --lib simulation::tests::g7_no_row -- --nocapture

# One pod whose scheduler registers one key after the other, so many seeds; SIGNOFF_ALL=1 goes on after the first that fails.
simulate-identity seeds="10000":
    SIGNOFF_SEEDS={{ seeds }} cargo test --profile proof --lib simulation::identity::g2_g3 -- --nocapture

# The core against every order of so many things that can happen; each one more means about 13 times as many states.
model steps="4":
    SIGNOFF_MODEL={{ steps }} cargo test --profile proof --lib lifecycle::tests::model -- --nocapture

# The binary stopped or refused at every system call of a sign-off, a replay and a flush (needs strace and cc).
crash cases="all":
    SIGNOFF_CRASH={{ cases }} cargo test --test agent crash -- --nocapture

# So many made scheduler.yamls, read by signoff and by the scheduler's own decoders (needs go).
oracle files="100000":
    SIGNOFF_ORACLE={{ files }} cargo test --lib what_a_scheduler_reads -- --nocapture

# Bytes that nobody sane would send, for so many seconds in all (needs a C++ compiler).
fuzz seconds="300" target="all":
    fuzz/run {{ target }} {{ seconds }}

# An hour of flapping at 200 times the speed, or so many seconds in real time (needs cc).
soak length="fast":
    SIGNOFF_SOAK={{ length }} cargo test --test agent soak -- --nocapture

# What it costs, into docs/benchmarks.md; or those of these names (needs what .ci/run installs, and a quiet machine).
bench *names:
    tests/bench/run --write {{ names }}

# The main job on an embedded mock manager, live.
demo *args:
    cargo run --release -- demo {{ args }}

# All that must hold before a change is merged, on a bare Debian 12 too.
ci:
    .ci/run

# Write anew what is generated: the code of proto/, and the tables of docs/reference.md.
bless:
    SIGNOFF_BLESS=1 cargo test --test proto --test docs

# Licences, bans and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny --offline check bans licenses sources

# Known faults of the dependencies (needs cargo-deny and the network).
advisories:
    cargo deny check advisories
