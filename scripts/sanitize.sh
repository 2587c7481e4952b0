#!/usr/bin/env bash
# Usage: scripts/sanitize.sh
# Runs what calls libnrt, on the fake one, with AddressSanitizer: reads and writes outside of memory or after its
# end, and memory that nobody frees, on both sides of the C interface. Fails on the first. Wants what
# scripts/test.sh has installed, and Linux on x86-64. Not part of it: every dependency is built once more.
set -euo pipefail
cd "$(dirname "$0")/.."
host=x86_64-unknown-linux-gnu
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")/sanitize"
export CARGO_TARGET_DIR="$target"
built="$target/$host/debug"

[[ "$(uname -sm)" == "Linux x86_64" ]] || { echo "the fake libnrt runs on Linux x86_64 alone" >&2; exit 1; }
FAKE_NRT_PJRT="$(scripts/pjrt-plugin.sh)"
export FAKE_NRT_PJRT
# A stable compiler has the sanitizer and lets nobody ask for it. The fake is loaded at run time, and finds the
# sanitizer's functions in the program.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Clink-arg=-rdynamic"
# What is freed is kept for a while, to be caught when it is used; a test that memory does not grow wants it little.
export ASAN_OPTIONS="quarantine_size_mb=8:thread_local_quarantine_size_kb=64:strict_string_checks=1:detect_stack_use_after_return=1"

# Our own code unoptimised, where more of what it does is left to be seen.
tests() {
    cargo test --locked --workspace --target "$host" --config 'profile.dev.package.mondai.opt-level=0' "$@"
}

# The program is written to, and build scripts are not: what is built for a named target is another's.
tests --no-run --lib --test abi --test faults --test ranks
ln -sf deps/libfake_nrt.so "$built/libfake_nrt.so"

echo "== The fake and its compiler, through C"
tests --test abi
echo "== The backend's own tests"
tests --lib backend::neuron
echo "== Cores that share a model"
export NEURON_RT_ROOT_COMM_ID=127.0.0.1:61239
tests --test ranks

# XLA itself leaves five strings of 18 bytes behind for a program of these that it compiles. The steps above, which
# run programs and hand XLA memory too, are clean without this; below, what was allocated inside of XLA is passed over.
programs="$(mktemp -d)"
trap 'rm -rf "$programs"' EXIT
echo "leak:pjrt_c_api_cpu_plugin" >"$programs/suppressions"
export LSAN_OPTIONS="suppressions=$programs/suppressions"

echo "== Every call of the library, failing in every way"
tests --test faults

echo "== The program: compile, and a trial"
model=tests/fixtures/golden/llama
"$built/mondai" compile --target inf2 --neuronx-cc "$built/neuronx-cc" --model "$model" --slots 2 --context-len 128 \
    --bucket 2x1x128 --bucket 1x64x128 --precision f32 --output "$programs/llama"
"$built/mondai" doctor neuron --trial --neuron-library "$built/libfake_nrt.so" --model "$model" --cores 0,1 \
    --neuron-programs "$programs/llama"
echo "nothing was found"
