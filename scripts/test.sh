#!/usr/bin/env bash
# Builds and passes every test. Takes some minutes; ANNALS_CRASH_ROUNDS makes it longer or shorter.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${ANNALS_CRASH_ROUNDS:=100}"
export ANNALS_CRASH_ROUNDS

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

# For the test of a full ext4, which else says that it was skipped.
if ! command -v mkfs.ext4 >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    step apt-get install -y --no-install-recommends e2fsprogs
fi

# For the nodes in network namespaces, which else say that they were skipped.
if ! command -v ip >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    step apt-get install -y --no-install-recommends iproute2
fi

# The children of the crash tests first: tests start them, cargo does not build them for that.
step cargo build --examples
step cargo test --lib --tests --examples
step cargo test --doc
# What is told outside is compiled only where somebody listens. The modules' own tests, and those.
step cargo test --features metrics,tracing --test observe
step cargo test --features metrics,tracing --lib -- trace:: metrics::
# Links under TLS, beside those under a secret.
step cargo test --features tls --test link
step cargo test --package annals-cli
# The edges to the outside; with real servers where they can be had.
step ./scripts/servers.sh
step cargo test --features nats,redis,zmq --lib -- edge::
step cargo test --features nats,redis,zmq --test edges_real -- --nocapture
