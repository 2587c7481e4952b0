#!/usr/bin/env bash
# Usage: scripts/compare-peers.sh [--llama-server PATH] [--cpus N] [--streams 1,4,16]
#                                 [--runs 5] [--requests 32] [--tokens 128] [--out DIR] [WORKLOAD...]
# Runs mondai beside other servers: the same GGUF file, the same CPUs, prompts and sampling, interleaved run
# by run through the same client. WORKLOADs are those of `mondai bench` that any server takes, chat and schema,
# and `engines`: without a server, ONNX Runtime GenAI and CTranslate2 too (scripts/compare-engines.py).
#
# llama-server is --llama-server, $LLAMA_SERVER or the one in PATH; $MONDAI is the mondai to run.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
fail() { echo "compare-peers: $*" >&2; exit 1; }

llama="${LLAMA_SERVER-}" cpus="$(nproc)" streams=1,4,16 runs=5 requests=32 tokens=128
out=bench workloads=()
while (($#)); do
    case "$1" in
        --llama-server | --cpus | --streams | --runs | --requests | --tokens | --out)
            (($# > 1)) || usage
            case "$1" in
                --llama-server) llama="$2" ;;
                --cpus) cpus="$2" ;;
                --streams) streams="$2" ;;
                --runs) runs="$2" ;;
                --requests) requests="$2" ;;
                --tokens) tokens="$2" ;;
                --out) out="$2" ;;
            esac
            shift 2
            ;;
        chat | schema | engines) workloads+=("$1"); shift ;;
        *) usage ;;
    esac
done
((${#workloads[@]})) || workloads=(chat schema engines)
llama="${llama:-$(command -v llama-server || true)}"
[[ -x $llama ]] || fail "no llama-server: give --llama-server, set LLAMA_SERVER or put it in PATH"
slots="$(tr , '\n' <<<"$streams" | sort -n | tail -1)"
# Of one sequence; mondai's default.
context=2048

mondai="${MONDAI:-${CARGO_TARGET_DIR:-target}/release/mondai}"
[[ -x $mondai ]] || cargo build --release --locked
"$mondai" pull smollm2-135m-instruct
# The file that mondai opens by the name.
model="models/smollm2-135m-instruct/$(sed -n 's/^file = "\(.*\)"$/\1/p' models/smollm2-135m-instruct/manifest.toml)"
[[ -f $model ]] || fail "$model is not there"
mkdir -p "$out"

pids=()
trap '((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null' EXIT
trap 'exit 130' INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# NAME PORT COMMAND...: starts a server on the CPUs that all share, and waits until it is ready.
start() {
    local name="$1" port="$2"
    shift 2
    taskset --cpu-list "0-$((cpus - 1))" "$@" >"$out/$name.log" 2>&1 &
    local pid=$!
    pids+=("$pid")
    until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; do
        kill -0 "$pid" 2>/dev/null || { tail -5 "$out/$name.log" >&2; fail "$name did not start: $out/$name.log"; }
        sleep 0.2
    done
    echo "$name: $*" | tee -a "$out/servers.txt"
    targets+=("$name=http://127.0.0.1:$port")
    watched+=("$name=$pid")
}

: >"$out/servers.txt"
for workload in "${workloads[@]}"; do
    if [[ $workload == engines ]]; then
        beside="$(dirname "$llama")/llama-bench"
        [[ -x $beside ]] || beside=""
        MONDAI="$mondai" scripts/compare-engines.py --threads "$cpus" --rounds "$runs" --out "$out" \
            ${beside:+--llama-bench "$beside"}
        continue
    fi
    targets=() watched=()
    port="$(free_port)"
    # One context for each slot. Prompts are never the same twice, so its prompt cache neither helps nor hurts.
    start llama "$port" "$llama" --model "$model" --host 127.0.0.1 --port "$port" --threads "$cpus" \
        --threads-batch "$cpus" --parallel "$slots" --ctx-size "$((slots * context))"
    port="$(free_port)"
    start mondai "$port" "$mondai" serve --model smollm2-135m-instruct --host 127.0.0.1 --port "$port" --slots "$slots" \
        --context-len "$context" --log-level warn

    limit=(--tokens "$tokens")
    [[ $workload == chat ]] || limit=()
    "$mondai" bench --compare "${targets[@]}" --pid "$(IFS=,; echo "${watched[*]}")" --workload "$workload" \
        --concurrency "$streams" --runs "$runs" --requests "$requests" "${limit[@]}" \
        --json "$out/$workload.jsonl" --html "$out/$workload.html" | tee "$out/$workload.txt"
    kill "${pids[@]}" && wait "${pids[@]}" 2>/dev/null || true
    pids=()
done
echo "$out holds the tables, the pages, the lines of JSON and the servers' command lines"
