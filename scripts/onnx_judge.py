#!/usr/bin/env python3
"""Judges ONNX models that `mondai compile --target onnx` wrote, by programs that are not mondai's.

Usage: onnx_judge.py GOLDEN.json FORM=FOLDER...

The onnx package's checker must accept each model, types and shapes of all values included. Each is then run, a prompt in
two steps, and held to the logits of transformers that scripts/golden.py wrote: by ONNX Runtime, and one in standard
operators alone by the onnx package's reference implementation, which is NumPy, too.
"""

import json
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

# How far logits, which reach 6, may be away at most and in the mean. The first is that of tests/it/logits.rs; fast rounds
# the rows that meet integers, int4 the weights too.
TOLERANCES = {"portable": (2e-4, 2e-4), "fast": (0.5, 0.05), "int4": (5.0, 1.0)}
CONTEXT = 80
SLOT, SLOTS = 1, 3


def step(caches, heads, start, tokens):
    """The inputs of a row of tokens in the middle one of three slots."""
    count = len(tokens)
    kv_heads = next(iter(caches.values())).shape[1]
    positions = numpy.arange(start, start + count)
    shared = heads // kv_heads
    # Of the other two slots, any token: the first.
    query_cells = numpy.zeros((SLOTS, kv_heads, shared, count, 2), numpy.int64)
    query_cells[SLOT, ..., 0] = numpy.arange(count)
    query_cells[..., 1] = numpy.arange(heads).reshape(kv_heads, shared, 1)
    last_seen = numpy.zeros((SLOTS, 1, shared, count), numpy.int64)
    last_seen[SLOT] = positions

    def cells(*columns):
        return numpy.stack(numpy.broadcast_arrays(*columns), axis=-1)

    kv_head, query, token = numpy.arange(kv_heads), numpy.arange(heads), numpy.arange(count)[:, None]
    inputs = {
        "tokens": numpy.array(tokens),
        "positions": positions,
        "selected": numpy.arange(count),
        "context": numpy.arange(CONTEXT),
        "cache_cells": cells(SLOT, kv_head, positions[:, None]),
        "query_cells": query_cells.reshape(SLOTS, kv_heads, -1, 2),
        "attended_cells": cells(SLOT, query // shared, query % shared * count + token),
        "last_seen": last_seen.reshape(SLOTS, 1, -1, 1),
        **caches,
    }
    return {name: value if name in caches else value.astype(numpy.int64) for name, value in inputs.items()}


def by_onnx(path):
    """The reference implementation: the sizes of its inputs, and a function from inputs to outputs."""
    model = onnx.load(path)
    evaluator = ReferenceEvaluator(model)
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim] for value in model.graph.input
    }
    return shapes, lambda inputs: dict(zip(evaluator.output_names, evaluator.run(None, inputs)))


def by_onnx_runtime(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {value.name: value.shape for value in session.get_inputs()}, lambda inputs: dict(zip(names, session.run(None, inputs)))


def run(shapes, compute, prompt):
    """The logits of all positions of a prompt, computed in two steps."""
    heads = shapes["attended_cells"][1]
    # What a slot held before must not matter.
    caches = {
        name: numpy.full((SLOTS, kv_heads, CONTEXT, head_dim), 7, numpy.float32)
        for name, (_, kv_heads, _, head_dim) in ((n, s) for n, s in shapes.items() if n.startswith(("keys.", "values.")))
    }
    logits, cut = [], len(prompt) // 2
    for start, tokens in ((0, prompt[:cut]), (cut, prompt[cut:])):
        outputs = compute(step(caches, heads, start, tokens))
        logits.append(outputs["logits"])
        caches = {name: outputs[f"{name}.written"] for name in caches}
    return numpy.concatenate(logits)


def judge(form, folder, case):
    path = str(Path(folder) / "model.onnx")
    onnx.checker.check_model(path, full_check=True)
    nodes = onnx.load(path, load_external_data=False).graph.node
    operators = sorted({f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes})
    print(f"{folder}: accepted, {len(nodes)} nodes of {', '.join(operators)}")
    runners = {"ONNX Runtime": by_onnx_runtime}
    if not any(node.domain for node in nodes):
        runners["NumPy"] = by_onnx
    assert form != "portable" or len(runners) == 2, "not in standard operators alone"
    for name, runner in runners.items():
        logits = run(*runner(path), case["prompt"])
        away = [
            abs(float(logits[probe["position"]][id]) - logit)
            for probe in case["probes"]
            for id, logit in zip(probe["ids"], probe["logits"])
        ]
        farthest, mean = max(away), sum(away) / len(away)
        print(f"{folder}: by {name} the farthest logit is {farthest:.1e} away, the mean {mean:.1e}")
        assert farthest <= TOLERANCES[form][0] and mean <= TOLERANCES[form][1], f"more than {TOLERANCES[form]}"


def main():
    golden, *folders = sys.argv[1:]
    cases = [case for case in json.loads(Path(golden).read_text())["cases"] if 2 <= len(case["prompt"]) <= CONTEXT]
    assert folders and cases
    for form, folder in (folder.split("=", 1) for folder in folders):
        judge(form, folder, cases[0])
    print("OK")


if __name__ == "__main__":
    main()
