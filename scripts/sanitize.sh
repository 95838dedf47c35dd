#!/usr/bin/env bash
# The tests under AddressSanitizer or ThreadSanitizer: scripts/sanitize.sh address|thread [filter...]
# Needs a nightly toolchain with rust-src: the standard library is built with the sanitizer too.
set -euo pipefail
cd "$(dirname "$0")/.."

sanitizer="${1:-address}"
shift || true
target="$(rustc +nightly -vV | sed -n 's/^host: //p')"

case "$sanitizer" in
address)
    # sled never gives back what its threads hold at the end.
    export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"
    ;;
thread)
    export TSAN_OPTIONS="${TSAN_OPTIONS:-suppressions=$PWD/scripts/tsan.txt history_size=4}"
    ;;
*)
    echo "usage: $0 address|thread [filter...]" >&2
    exit 2
    ;;
esac

# A folder of its own: the flags differ from every other build's.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/$sanitizer}"
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=$sanitizer"
exec cargo +nightly test -Zbuild-std --target "$target" --lib --test it -- "$@"
