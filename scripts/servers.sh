#!/usr/bin/env bash
# What tests/edges_real.rs needs of the world outside, where it is missing: nats-server and
# redis-server from Debian's packages, and a Python environment with pyzmq and msgpack in
# target/edges-venv. Starts nothing. Without root or network it says so and goes on: the tests then
# say loudly that they were skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

skip() {
    printf '*** SKIPPED: %s\n' "$*" >&2
}

packages=()
command -v nats-server >/dev/null || packages+=(nats-server)
command -v redis-server >/dev/null || packages+=(redis-server)
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ "${#packages[@]}" -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        skip "not root, or no apt-get: ${packages[*]} cannot be installed"
    elif [ -d /usr/sbin ] && [ ! -e /usr/sbin/policy-rc.d ]; then
        # A package that starts its server at once would leave a server behind.
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        apt-get install -y --no-install-recommends "${packages[@]}" \
            || { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } \
            || skip "${packages[*]} could not be installed"
        rm -f /usr/sbin/policy-rc.d
    else
        apt-get install -y --no-install-recommends "${packages[@]}" \
            || skip "${packages[*]} could not be installed"
    fi
fi

venv=target/edges-venv
if ! "$venv/bin/python" -c 'import zmq, msgpack' 2>/dev/null; then
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet pyzmq msgpack \
        || skip "$venv could not be made: no network?"
fi
exit 0
