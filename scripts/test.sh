#!/usr/bin/env bash
# Usage: scripts/test.sh
# Fetches what the tests need (a browser, a Python environment, XLA, the default model, sentence embeddings, ONNX
# Runtime), then checks the
# format, the lints and the documentation, and runs every test. Wants Debian or Ubuntu, a Rust toolchain
# and python3 with pip; the system packages it lacks it installs itself only where it may.
set -euo pipefail
cd "$(dirname "$0")/.."
# Relative paths would be other folders to the tests than to this script.
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
export CARGO_TARGET_DIR="$target" PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

step() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }

step "System packages"
missing=()
installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
command -v cc >/dev/null || missing+=(build-essential)
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
installed fonts-noto-cjk || missing+=(fonts-noto-cjk)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
    as_root=()
    ((EUID == 0)) || as_root=(sudo -n)
    install=(apt-get install --yes --no-install-recommends "${missing[@]}")
    if ! { command -v apt-get && "${as_root[@]}" true; } >/dev/null 2>&1; then
        echo "the tests need packages that only root may install; run: sudo ${install[*]}" >&2
        exit 1
    fi
    "${as_root[@]}" apt-get update --quiet
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}"
fi

step "Python environment"
[[ -x .cache/venv/bin/python ]] || python3 -m venv .cache/venv
.cache/venv/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt

step "XLA"
FAKE_NRT_PJRT="$(scripts/pjrt-plugin.sh)"
export FAKE_NRT_PJRT

step "Format"
cargo fmt --all --check

step "Lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "Documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

step "Build"
# Everything that is run below, at once: other selections of targets would build dependencies again.
cargo test --locked --workspace --no-run
# Cargo leaves the fake libnrt with the tests of its own package; others look beside the programs.
ln -sf deps/libfake_nrt.so "$target/debug/libfake_nrt.so"

step "Models and ONNX Runtime"
"$target/debug/mondai" pull
"$target/debug/mondai" pull onnxruntime
"$target/debug/mondai" pull all-minilm-l6-v2

step "Unit tests"
cargo test --locked --workspace --lib --bins

step "The fake libnrt and its compiler"
cargo test --locked --workspace --test abi

step "A failing libnrt"
# Where cores that share a model meet; a server sets it for itself.
export NEURON_RT_ROOT_COMM_ID=127.0.0.1:61239
cargo test --locked --workspace --test faults --test ranks

# Last, so that the log ends with the runner's own count.
step "Tests through the public doors"
cargo test --locked --workspace --test it
