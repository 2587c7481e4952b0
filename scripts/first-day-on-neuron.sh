#!/usr/bin/env bash
# Usage: scripts/first-day-on-neuron.sh [REPORT]
# On a machine with a NeuronCore and neuronx-cc: tries, in order, everything that docs/neuron.md lists as not
# established, and writes one report. Goes on after a failure, which is what the report is for; exits with 1
# if there was one. Wants `mondai` in PATH or in target/release; MONDAI_NEURON_LIBRARY and MONDAI_NEURONX_CC
# as `mondai serve` and `mondai compile` do; TARGET (inf2), MODEL (smollm2-135m-quiz), CORES (0). What it asks
# of the model: REQUESTS, AT_ONCE of them, quizzes of ITEMS; less by default where the device is a stand-in, for
# which it also compiles a few small programs only and leaves none of them behind.
set -uo pipefail
cd "$(dirname "$0")/.."
report="$(realpath -m "${1:-first-day-on-neuron.txt}")"
target="${TARGET:-inf2}" model="${MODEL:-smollm2-135m-quiz}" cores="${CORES:-0}"
mondai="$(command -v mondai || echo target/release/mondai)"
compiler="${MONDAI_NEURONX_CC:-neuronx-cc}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
failed=0 stand_ins=() compiled=() served=()

# Says it to who watches, and in the report.
say() { printf "$@" | tee -a "$report"; }

try() {
    local title="$1" began=$SECONDS
    shift
    say '\n== %s\n$ %s\n' "$title" "$*"
    "$@" 2>&1 | tail -n 60 | tee -a "$report"
    local status="${PIPESTATUS[0]}" ended=passed
    [[ $status == 0 ]] || { ended="FAILED ($status)" failed=1; }
    ((${#stand_ins[@]})) && ended+=", on a stand-in,"
    say '%s in %d s\n' "$ended" $((SECONDS - began))
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
compile_model() { "$mondai" compile --model "$model" --target "$target" "${compiled[@]}"; }
on_cores() { "$mondai" "$@" --model "$model" --cores "$cores" "${served[@]}"; }
bench() {
    on_cores bench --backend neuron --requests "$requests" --concurrency "$1" --items "$items" --warm-up 1
}

says_simulated() { [[ "$("$@" 2>&1)" == *simulated* ]]; }
says_simulated "$mondai" doctor neuron && stand_ins+=("the runtime library, and so every core")
says_simulated "$compiler" --version && stand_ins+=("the compiler $compiler, and so every program")
if ((${#stand_ins[@]})); then
    # One program of each family.
    compiled=(--slots 2 --context-len 1024 --bucket 2x1x1024 --bucket 2x8x1024 --bucket 1x256x1024)
    compiled+=(--output "$work/model")
    served=(--neuron-programs "$work/model")
    requests="${REQUESTS:-4}" at_once="${AT_ONCE:-2}" items="${ITEMS:-1}"
else
    requests="${REQUESTS:-8}" at_once="${AT_ONCE:-4}" items="${ITEMS:-3}"
fi

: >"$report"
say 'First day on a NeuronCore: %s\n%s\n%s\n' "$(date -u +%FT%TZ)" "$("$mondai" --version)" "$(uname -srm)"
for stand_in in "${stand_ins[@]}"; do
    say 'SIMULATED: %s. Nothing below says what a device does, or how fast.\n' "$stand_in"
done

try "the machine" "$mondai" doctor neuron
if ((failed && ${#stand_ins[@]})); then
    say 'A stand-in has no driver and no device: this one failure does not count.\n'
    failed=0
fi
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
try "the model" compile_model
try "a second run compiles nothing" compile_model
try "accuracy and speed: the model" on_cores doctor neuron --trial
# One core and then another with the same programs: the cache is a core's own.
try "throughput, one at a time" bench 1
try "throughput, $at_once at a time" bench "$at_once"
try "a quiz" on_cores generate --backend neuron --topic volcanoes --count "$items" --seed 1

say '\n%s\n' "$([[ $failed == 0 ]] && echo "everything passed" || echo "something FAILED: see above")"
((${#stand_ins[@]})) && say 'SIMULATED: %s\n' "${stand_ins[@]}"
echo "the report is $report"
exit $failed
