#!/usr/bin/env python3
"""Runs the programs that `mondai compile --emit-only` writes on XLA, and holds them to transformers' values.

usage: mondai compile --emit-only --with-weights --precision f32 --model MODEL --output F32
       mondai compile --emit-only --with-weights --precision bf16 --model MODEL --output BF16
       scripts/hlo_judge.py tests/fixtures/golden/MODEL.json F32 [BF16]

An outside judge: XLA as jaxlib has it parses and checks each module, compiles it and runs it on the CPU, with
the model's weights. Nothing of mondai runs here, and steps are padded by what the JSON beside each module says.

In f32, logits must be within a tolerance of transformers', and greedy tokens equal: each prompt alone, and all of
them beside each other. In bf16, logits must be within a tolerance of the f32 ones along the golden tokens, and
most best tokens the same. In both, a step must change the cache where it says it does, in place, and nowhere else;
and where programs draw tokens (--sampling device), a greedy one must be that of the program's own logits.

Says how far off the farthest logit was; the last line is OK.
"""

import argparse
import json
import pathlib
import time

import jax
import ml_dtypes
import numpy as np
from jax._src.interpreters import mlir
from jax._src.lib.mlir import ir
from jaxlib import _hlo, _jax, xla_client

# Both in f32, but summed in other orders; as in tests/it/logits.rs.
F32_TOLERANCE = 2e-4
# Of the spread of a row of logits: a bf16 has 8 bits, and what a layer rounds the next ones carry on.
BF16_TOLERANCE = 0.05
BF16_SAME_TOKENS = 0.9

TYPES = {"f32": np.float32, "s32": np.int32, "bf16": ml_dtypes.bfloat16}


def read_weights(path):
    """The arrays of a safetensors file, whose bf16 numpy's own reader does not know."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    types = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            raw = np.frombuffer(data[start + begin : start + end], dtype=types[entry["dtype"]])
            arrays[name] = raw.reshape(entry["shape"])
    return arrays


class Program:
    def __init__(self, client, sidecar):
        self.about = json.loads(sidecar.read_text())
        self.path = sidecar.with_suffix(".hlo.pb")
        self.slots, self.width, self.context = (self.about["bucket"][key] for key in ("slots", "width", "context"))
        began = time.monotonic()
        proto = self.path.read_bytes()
        _hlo.HloModule.from_serialized_hlo_module_proto(proto)
        stablehlo = _jax.mlir.hlo_to_stablehlo(proto)
        devices = _jax.DeviceList(tuple(client.local_devices()[:1]))
        with mlir.make_ir_context():
            module = ir.Module.parse(stablehlo)
            self.executable = client.compile_and_load(module, devices, xla_client.CompileOptions())
        print(f"{self.path.name}: {len(proto)} bytes, compiled in {time.monotonic() - began:.1f} s")


class Device:
    """The programs of one folder, the weights and the KV cache they share."""

    def __init__(self, client, folder):
        self.device = client.local_devices()[0]
        sidecars = sorted(path for path in folder.glob("*.json"))
        self.programs = [Program(client, sidecar) for sidecar in sidecars]
        about = self.programs[0].about
        self.slots, self.context = about["cache"]["slots"], about["cache"]["context"]
        self.weights = {name: self.put(array) for name, array in read_weights(folder / "weights.safetensors").items()}
        # Computed, so that XLA owns the memory: what numpy owns cannot be updated in place.
        zeros = jax.jit(lambda shape, kind: jax.numpy.zeros(shape, kind), static_argnums=(0, 1))
        self.caches = {
            entry["name"]: zeros(tuple(entry["shape"]), TYPES[entry["type"]])
            for entry in about["inputs"]
            if entry["is"] == "cache"
        }
        self.used = set()

    def put(self, array):
        return jax.device_put(array, self.device)

    def smallest(self, rows, family=None):
        """The smallest program that holds rows of (slot, start, tokens)."""
        width = max(len(tokens) for _, _, tokens in rows)
        context = max(start + len(tokens) for _, start, tokens in rows)
        slots = 1 if len(rows) == 1 else 1 + max(slot for slot, _, _ in rows)
        fits = [
            program
            for program in self.programs
            if (program.slots, program.context) >= (slots, 0) and program.slots >= slots
            and program.width >= width and program.context >= context
            and family in (None, program.about["family"])
        ]  # fmt: skip
        return min(fits, key=lambda program: (program.slots * program.width, program.context))

    def run(self, rows, selected=None, program=None):
        """Logits of every token of each row, or of the token `selected` of a prefill's only row."""
        program = program or self.smallest(rows)
        self.used.add(program.path.name)
        count = program.slots * program.width
        tokens = np.zeros(count, np.int32)
        # Padding: written to the scratch slot, each token to a position of its own.
        positions = np.arange(count, dtype=np.int32)
        slots = np.full(count, self.slots, np.int32)
        firsts = []
        for slot, start, row in rows:
            first = 0 if program.slots == 1 else slot * program.width
            firsts.append(first)
            tokens[first : first + len(row)] = row
            positions[first : first + len(row)] = range(start, start + len(row))
            slots[first : first + len(row)] = slot
        step = {"tokens": tokens, "positions": positions, "slots": slots, "selected": np.array([selected or 0], np.int32)}
        shapes = {entry["is"]: entry["shape"] for entry in program.about["inputs"]}
        draws = "draw" in shapes
        if draws:
            # After each row's last token, any token, greedily: 1 / temperature, log min-p, top-k, top-p, uniform.
            ends = [first + len(row) - 1 for first, (_, _, row) in zip(firsts, rows)]
            after = np.zeros(program.slots, np.int32)
            after[[end // program.width for end in ends]] = ends
            step["drawn after"] = after
            step["allowed"] = np.full(shapes["allowed"], -1, np.int32)
            step["draw"] = np.tile(np.array([1, 0, 2**24, 2, 0], np.float32), (program.slots, 1))
        inputs = [
            self.caches[entry["name"]] if entry["is"] == "cache"
            else self.put(step[entry["is"]]) if entry["is"] in step
            else self.weights[entry["name"]]
            for entry in program.about["inputs"]
        ]  # fmt: skip
        results = program.executable.execute_sharded(inputs).disassemble_into_single_device_arrays()
        results = [result[0] for result in results]
        for entry, result in zip(program.about["outputs"], results):
            if entry["replaces"]:
                self.caches[entry["replaces"]] = result
        logits = np.asarray(results[0])
        if draws:
            for end in ends:
                line, of_row = (0, 0) if program.about["family"] == "prefill" else (end, end // program.width)
                self.check_draw(logits[line], np.asarray(results[1])[of_row])
        if program.about["family"] == "prefill":
            return [logits]
        return [logits[first : first + len(row)] for first, (_, _, row) in zip(firsts, rows)]

    @staticmethod
    def check_draw(logits, drawn):
        token, log_probability = int(drawn[0]), float(drawn[1])
        assert token == logits.argmax(), f"token {token} is drawn greedily, and {logits.argmax()} is the best"
        exact = logits.astype(np.float64)
        exact = exact[token] - np.log(np.exp(exact).sum())
        assert abs(log_probability - exact) < 1e-4, f"a log-probability is {log_probability}, and should be {exact}"

    def prefill(self, slot, prompt, position):
        return self.run([(slot, 0, prompt)], selected=position, program=self.smallest([(slot, 0, prompt)], "prefill"))[0][0]


class Judge:
    def __init__(self, device, golden):
        self.device, self.golden, self.farthest = device, golden, 0.0

    def hold(self, what, logits, expected):
        distance = float(np.abs(logits - expected).max())
        self.farthest = max(self.farthest, distance)
        assert distance <= F32_TOLERANCE, f"{what}: a logit is {distance:.2e} away, more than {F32_TOLERANCE}"

    def probes(self, case, slot):
        for probe in case["probes"]:
            logits = self.device.prefill(slot, case["prompt"], probe["position"])
            self.hold(f"position {probe['position']}", logits[probe["ids"]], np.array(probe["logits"]))
        return int(logits.argmax())

    def alone(self, case, slot):
        """A prompt by itself: prefilled, gone on with a token at a time, and then 8 at a time."""
        prompt, golden = case["prompt"], case["greedy"]
        generated, stepwise = [self.probes(case, slot)], []
        while len(generated) < len(golden):
            row = (slot, len(prompt) + len(generated) - 1, generated[-1:])
            stepwise.append(self.device.run([row])[0][0])
            generated.append(int(stepwise[-1].argmax()))
        assert generated == golden, f"slot {slot}: {generated} instead of {golden}"
        # Taken back, and written again in short rows of uneven length.
        start, width = 0, 0
        while start < len(golden) - 1:
            width = 2 + (width + 3) % 7
            row = golden[start : min(start + width, len(golden) - 1)]
            logits = self.device.run([(slot, len(prompt) + start, row)])[0]
            self.hold("short rows", logits, np.array(stepwise[start : start + len(row)]))
            start += len(row)

    def together(self, slots):
        """All prompts beside each other, each finding the tokens it finds alone; they end one by one."""
        cases = dict(zip(slots, sorted(self.golden["cases"], key=lambda case: len(case["prompt"]))))
        for slot, case in cases.items():
            self.device.prefill(slot, case["prompt"], len(case["prompt"]) - 1)
        last = len(case["greedy"]) - 1
        for idx in range(last):
            going = {slot: case for slot, case in cases.items() if idx < last - 10 * (len(cases) - 1 - slot)}
            rows = [(slot, len(case["prompt"]) + idx, [case["greedy"][idx]]) for slot, case in going.items()]
            for (slot, case), logits in zip(going.items(), self.device.run(rows)):
                assert int(logits[0].argmax()) == case["greedy"][idx + 1], f"slot {slot}, token {idx + 1} beside others"
        for lengths in ((8, 5, 3), (1, 2, 8)):
            rows = [(slot, len(case["prompt"]), case["greedy"][:n]) for (slot, case), n in zip(cases.items(), lengths)]
            for (slot, case), n, logits in zip(cases.items(), lengths, self.device.run(rows)):
                assert logits.argmax(axis=1).tolist() == case["greedy"][1 : n + 1], f"slot {slot}, {n} tokens beside others"

    def in_place(self):
        """A step changes what it says it writes, in the memory that was there, and nothing else."""
        device, slot, start = self.device, 0, 5
        device.run([(slot, 0, [1, 2, 3, 4, 5])])
        for rows in ([(slot, start, [6])], [(slot, start, [6, 7, 8])], [(0, start, [6]), (device.slots - 1, 0, [9])]):
            before = {name: (cache.unsafe_buffer_pointer(), np.array(cache)) for name, cache in device.caches.items()}
            device.run(rows)
            for name, (pointer, old) in before.items():
                new = device.caches[name]
                assert new.unsafe_buffer_pointer() == pointer, f"{name} was moved"
                changed = (np.array(new) != old).any(axis=(1, 3))
                changed[device.slots] = False  # the scratch slot
                expected = np.zeros_like(changed)
                for row_slot, row_start, row in rows:
                    expected[row_slot, row_start : row_start + len(row)] = True
                assert not (changed & ~expected).any(), f"{name}: more was written than {rows}"
                assert changed.any(), f"{name}: nothing was written of {rows}"

    def f32(self):
        for slot, case in enumerate(self.golden["cases"]):
            self.alone(case, slot)
        self.together(range(len(self.golden["cases"])))
        self.in_place()
        unused = {program.path.name for program in self.device.programs} - self.device.used
        assert not unused, f"not run: {unused}"
        return f"the farthest logit is {self.farthest:.1e} away"

    def bf16(self, exact):
        """Along the golden tokens, beside the programs in f32."""
        same = []
        for slot, case in enumerate(self.golden["cases"]):
            prompt, golden = case["prompt"], case["greedy"]
            sides = (self.device, exact)
            pairs = [[side.prefill(slot, prompt, len(prompt) - 1) for side in sides]]
            for idx in range(len(golden) - 1):
                row = (slot, len(prompt) + idx, golden[idx : idx + 1])
                pairs.append([side.run([row])[0][0] for side in sides])
            for rounded, logits in pairs:
                distance = float(np.abs(rounded - logits).max() / (logits.max() - logits.min()))
                self.farthest = max(self.farthest, distance)
                assert distance <= BF16_TOLERANCE, f"a logit is {distance:.3f} of its row's spread away"
                same.append(rounded.argmax() == logits.argmax())
        self.in_place()
        assert sum(same) >= BF16_SAME_TOKENS * len(same), f"{sum(same)} of {len(same)} best tokens are the same"
        return f"the farthest logit is {self.farthest:.4f} of its row's spread away; {sum(same)} of {len(same)} best tokens are the same"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("golden", type=pathlib.Path)
    parser.add_argument("f32", type=pathlib.Path)
    parser.add_argument("bf16", type=pathlib.Path, nargs="?")
    arguments = parser.parse_args()
    client = jax.devices("cpu")[0].client
    golden = json.loads(arguments.golden.read_text())
    exact = Device(client, arguments.f32)
    began = time.monotonic()
    print(f"f32: {Judge(exact, golden).f32()} ({time.monotonic() - began:.1f} s)")
    if arguments.bf16:
        rounded = Device(client, arguments.bf16)
        began = time.monotonic()
        print(f"bf16: {Judge(rounded, golden).bf16(exact)} ({time.monotonic() - began:.1f} s)")
    print("OK")


if __name__ == "__main__":
    main()
