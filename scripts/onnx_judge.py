#!/usr/bin/env python3
"""Judges ONNX models that `mondai compile --target onnx` wrote, without ONNX Runtime.

Usage: onnx_judge.py GOLDEN.json FOLDER...

The onnx package's checker must accept each model, types and shapes of all values included. One in standard operators
alone is then run by that package's reference implementation, which is NumPy, a prompt in two steps, and held to the
logits of transformers that scripts/golden.py wrote.
"""

import json
import sys
from pathlib import Path

import numpy
import onnx
from onnx.reference import ReferenceEvaluator

# As in tests/it/logits.rs.
TOLERANCE = 2e-4
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


def run(model, prompt):
    """The logits of all positions of a prompt, computed in two steps."""
    evaluator = ReferenceEvaluator(model)
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim] for value in model.graph.input
    }
    heads = shapes["attended_cells"][1]
    # What a slot held before must not matter.
    caches = {
        name: numpy.full((SLOTS, kv_heads, CONTEXT, head_dim), 7, numpy.float32)
        for name, (_, kv_heads, _, head_dim) in ((n, s) for n, s in shapes.items() if n.startswith(("keys.", "values.")))
    }
    logits, cut = [], len(prompt) // 2
    for start, tokens in ((0, prompt[:cut]), (cut, prompt[cut:])):
        outputs = dict(zip(evaluator.output_names, evaluator.run(None, step(caches, heads, start, tokens))))
        logits.append(outputs["logits"])
        caches = {name: outputs[f"{name}.written"] for name in caches}
    return numpy.concatenate(logits)


def judge(folder, case):
    path = Path(folder) / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    operators = sorted({f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node})
    print(f"{folder}: accepted, {len(model.graph.node)} nodes of {', '.join(operators)}")
    if any(node.domain for node in model.graph.node):
        return
    logits = run(model, case["prompt"])
    worst = max(
        abs(float(logits[probe["position"]][id]) - logit)
        for probe in case["probes"]
        for id, logit in zip(probe["ids"], probe["logits"])
    )
    print(f"{folder}: the farthest logit is {worst:.1e} away")
    assert worst <= TOLERANCE, f"more than {TOLERANCE}"


def main():
    golden, *folders = sys.argv[1:]
    cases = [case for case in json.loads(Path(golden).read_text())["cases"] if 2 <= len(case["prompt"]) <= CONTEXT]
    assert folders and cases
    for folder in folders:
        judge(folder, cases[0])
    print("OK")


if __name__ == "__main__":
    main()
