#!/usr/bin/env bash
# Tests that need no file, no map of one and no futex, under Miri: the unsafe room above all.
# Needs a nightly toolchain with the component miri.
set -euo pipefail
cd "$(dirname "$0")/.."

# Time and randomness come from the host.
export MIRIFLAGS="${MIRIFLAGS:--Zmiri-disable-isolation}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/miri}"
export CARGO_PROFILE_TEST_OPT_LEVEL=0
# A backtrace of each expected panic takes a minute.
export RUST_BACKTRACE=0
if [ "$#" = 0 ]; then
    set -- disk::map:: log::slots:: log::name:: log::recover:: types::tests:: time::tests::
fi
exec cargo +nightly miri test --lib -- "$@"
