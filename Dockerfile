# signoff's image: one static binary, FROM scratch, for linux/amd64 and linux/arm64.
#
#   docker build -t REGISTRY/signoff:0.1.0 .                                            # for a cluster
#   docker build -t REGISTRY/signoff-mock:0.1.0 --build-arg FEATURES=database,mock .    # with the mocks and the demo
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/signoff:0.1.0 --push .
#
# With --build-arg REVISION="$(git rev-parse HEAD)" a label says what it was built from.
#
# Pin the base by digest where your builds must be repeatable, or take it from a mirror:
#   --build-arg RUST=REGISTRY/rust:1.95.0-slim-bookworm@sha256:...
ARG RUST=docker.io/library/rust:1.95.0-slim-bookworm

FROM --platform=$BUILDPLATFORM ${RUST} AS build
# The SBOM's and the audit data's tools first: they change least, and their layer is kept.
ARG CARGO_AUDITABLE=0.7.7
ARG CARGO_CYCLONEDX=0.5.9
RUN cargo install --locked "cargo-auditable@${CARGO_AUDITABLE}" "cargo-cyclonedx@${CARGO_CYCLONEDX}"
# Given by the builder; a default would win over that, and put a wrong program into the other architecture's image.
ARG TARGETARCH
# The base pins Debian's release, and so its packages; the list of packages is to be split.
# hadolint ignore=DL3008,SC2086
RUN case "${TARGETARCH:-$(dpkg --print-architecture)}-$(uname -m)" in \
      arm64-x86_64) cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; rustup target add aarch64-unknown-linux-gnu ;; \
      amd64-aarch64) cross="gcc-x86-64-linux-gnu libc6-dev-amd64-cross"; rustup target add x86_64-unknown-linux-gnu ;; \
      *) cross="" ;; \
    esac \
 && apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates ${cross} \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /signoff
COPY . .
# Without `mock`: what runs beside a scheduler has no use for it.
ARG FEATURES=database
RUN image/build "${TARGETARCH:-$(dpkg --print-architecture)}" "${FEATURES}" /signoff-root

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="signoff" \
      org.opencontainers.image.description="Keeps a Dragonfly manager's record of its schedulers true" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What it finds there is root's; its own directories are its user's, so that a container without volumes works as well.
COPY --from=build /signoff-root/fs/ /
COPY --from=build --chown=65532:65532 /signoff-root/own/ /run/signoff/
COPY --from=build --chown=65532:65532 /signoff-root/own/ /var/lib/signoff/
# Set, since not every runtime has a default, and hooks and probes say just `signoff`.
ENV PATH=/usr/local/bin
# The C library's, and this program's only: one heap for its few threads, and only small pieces kept for the next request.
ENV GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.tcache_max=64
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/signoff"]
CMD ["--help"]
