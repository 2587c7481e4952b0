#!/usr/bin/env bash
# Usage: export FAKE_NRT_PJRT="$(scripts/pjrt-plugin.sh)"
# Fetches XLA for CPUs as a PJRT plugin, once, into .cache/pjrt, and prints its path. tests/fake_nrt runs
# programs on it. A wheel of a third party: pinned by hash, for tests alone, and no part of what is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."

wheel="lammps-jax-pjrt-cpu==0.11.2"
wheel_sha256="1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1"
library="lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"

# Named after what is in it, so that another pin is another folder.
folder=".cache/pjrt/${wheel_sha256:0:16}"
if [[ ! -f "$folder/$library" ]]; then
    if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
        echo "there is no PJRT plugin for $(uname -sm): the fake libnrt runs on Linux x86_64 alone" >&2
        exit 1
    fi
    [[ -x .cache/venv/bin/python ]] || python3 -m venv .cache/venv
    mkdir -p .cache/pjrt
    # Whole or not at all: another run may be looking.
    unpacked="$(mktemp -d .cache/pjrt/unpacking.XXXXXX)"
    trap 'rm -rf "$unpacked"' EXIT
    printf '%s --hash=sha256:%s\n' "$wheel" "$wheel_sha256" >"$unpacked/requirements.txt"
    .cache/venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes \
        --only-binary :all: --no-compile --target "$unpacked/wheel" --requirement "$unpacked/requirements.txt" >&2
    mv -T "$unpacked/wheel" "$folder" 2>/dev/null || [[ -f "$folder/$library" ]]
fi
printf '%s\n' "$PWD/$folder/$library"
