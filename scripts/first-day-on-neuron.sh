#!/usr/bin/env bash
# Usage: scripts/first-day-on-neuron.sh [REPORT]
# On a machine with a NeuronCore and neuronx-cc: tries, in order, everything that docs/neuron.md lists as not
# established, and writes one report. Goes on after a failure, which is what the report is for; exits with 1
# if there was one. Wants `mondai` in PATH or in target/release; MONDAI_NEURON_LIBRARY and MONDAI_NEURONX_CC
# as `mondai serve` and `mondai compile` do; TARGET (inf2), MODEL (smollm2-135m-instruct), CORES (0).
set -uo pipefail
cd "$(dirname "$0")/.."
report="$(realpath -m "${1:-first-day-on-neuron.txt}")"
target="${TARGET:-inf2}" model="${MODEL:-smollm2-135m-instruct}" cores="${CORES:-0}"
mondai="$(command -v mondai || echo target/release/mondai)"
compiler="${MONDAI_NEURONX_CC:-neuronx-cc}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
failed=0

try() {
    local title="$1" began=$SECONDS
    shift
    printf '\n== %s\n$ %s\n' "$title" "$*" | tee -a "$report"
    "$@" 2>&1 | tail -n 60 | tee -a "$report"
    local status="${PIPESTATUS[0]}"
    printf '%s in %d s\n' "$([[ $status == 0 ]] && echo passed || echo "FAILED ($status)")" $((SECONDS - began)) |
        tee -a "$report"
    [[ $status == 0 ]] || failed=1
}

# A tiny model of the tests: random weights, two layers, programs of some 20 KB.
tiny() {
    "$mondai" "$@" --model tests/fixtures/golden/llama --slots 2
}
compile_tiny() { tiny compile --target "$target" --output "$work/tiny-$1" --precision "${@:2}"; }
trial_tiny() {
    "$mondai" doctor neuron --trial --model tests/fixtures/golden/llama --cores "$cores" \
        --neuron-programs "$work/tiny-$1"
}
inspect_all() { for neff in "$work/tiny-f32"/*.neff; do "$mondai" inspect "$neff" || return 1; done; }
# One core and then another with the same programs: the cache is a core's own.
bench() {
    "$mondai" bench --backend neuron --model "$model" --cores "$cores" --requests 8 --concurrency "$1"
}

{
    echo "First day on a NeuronCore: $(date -u +%FT%TZ)"
    "$mondai" --version
    uname -srm
} >"$report"

try "the machine" "$mondai" doctor neuron
try "the compiler" "$compiler" --version
try "the operators it takes" "$compiler" list-operators --framework XLA
try "the smallest program: one token, 16 positions" compile_tiny smallest f32 --bucket 1x1x16 --context-len 16
try "two layers, f32" compile_tiny f32 f32 --context-len 128
try "headers, members and sizes of what came out" inspect_all
try "names, aliases in place and accuracy: two layers, f32" trial_tiny f32
try "two layers, bf16" compile_tiny bf16 bf16 --context-len 128
try "accuracy: two layers, bf16" trial_tiny bf16
try "two layers, f32, that draw tokens" compile_tiny draws f32 --bucket 2x1x128 --bucket 2x8x128 --context-len 128 --sampling device
try "tokens drawn, two layers" trial_tiny draws
try "the model" "$mondai" compile --model "$model" --target "$target"
try "a second run compiles nothing" "$mondai" compile --model "$model" --target "$target"
try "accuracy and speed: the model" "$mondai" doctor neuron --trial --model "$model" --cores "$cores"
try "throughput, one at a time" bench 1
try "throughput, four at a time" bench 4
try "a quiz" "$mondai" generate --backend neuron --model "$model" --cores "$cores" --topic volcanoes --count 3

printf '\n%s\n' "$([[ $failed == 0 ]] && echo "everything passed" || echo "something FAILED: see above")" |
    tee -a "$report"
echo "the report is $report"
exit $failed
