#!/usr/bin/env python3
"""Prints how near people's questions and options lie to each other: the figures of src/quiz/meaning.rs.

usage: pip install torch==2.4.1 transformers==4.56.2
       mondai pull all-minilm-l6-v2
       scripts/embedding_figures.py models/all-minilm-l6-v2 en-squad-dev.jsonl.gz en-opentdb.jsonl.gz

Cosines of sentence embeddings: of questions about one SQuAD passage, with the same answer and with
different ones; and of the wrong options of Open Trivia DB's questions from their key.
"""

import gzip
import json
import pathlib
import random
import sys

import numpy
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

PASSAGES = 400
ITEMS = 2_000


class Embedder:
    def __init__(self, folder):
        config = BertConfig(
            vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
        self.model = BertModel(config, add_pooling_layer=False).eval()
        self.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).backend_tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(256)
        self.tokenizer = tokenizer

    @torch.no_grad()
    def __call__(self, texts):
        vectors = {}
        for text in sorted(set(texts)):
            hidden = self.model(torch.tensor([self.tokenizer.encode(text).ids])).last_hidden_state[0]
            vectors[text] = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
        return vectors


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def show(name, cosines, limits=()):
    cosines = numpy.array(cosines)
    percentiles = {p: round(float(numpy.percentile(cosines, p)), 3) for p in (1, 5, 25, 50, 75, 95, 99)}
    above = {limit: round(float((cosines >= limit).mean()), 4) for limit in limits}
    print(f"{name}: n {len(cosines)}, mean {cosines.mean():.3f}, percentiles {percentiles}, at least {above}")


def form(option):
    return "numbers" if option[0].isdigit() else "texts"


def main(folder, squad, opentdb):
    embedder, chosen = Embedder(pathlib.Path(folder)), random.Random(1)
    passages = {}
    for row in rows(squad):
        passages.setdefault(row["context_id"], []).append(row)
    passages = [passages[idx] for idx in chosen.sample(sorted(passages), PASSAGES)]
    vectors = embedder(row["question"] for passage in passages for row in passage)
    cosines = {True: [], False: []}
    for passage in passages:
        for idx, row in enumerate(passage):
            for other in passage[:idx]:
                same = row["answer"].lower() == other["answer"].lower()
                cosines[same].append(float(vectors[row["question"]] @ vectors[other["question"]]))
    show("questions about a passage, same answer", cosines[True], (0.75, 0.9))
    show("questions about a passage, other answers", cosines[False], (0.75, 0.9))

    items = chosen.sample([row for row in rows(opentdb) if row["kind"] == "mcq"], ITEMS)
    vectors = embedder(choice for item in items for choice in item["choices"])
    for which in ("texts", "numbers"):
        of_form = [item for item in items if form(item["answer"]) == which]
        others = [(c, item["answer"]) for item in of_form for c in item["choices"] if c != item["answer"]]
        show(f"wrong options and their key, {which}", [float(vectors[a] @ vectors[b]) for a, b in others])


if __name__ == "__main__":
    main(*sys.argv[1:])
