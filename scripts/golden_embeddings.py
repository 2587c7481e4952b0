#!/usr/bin/env python3
"""Makes tests/fixtures/golden/embeddings.jsonl: sentence embeddings as transformers computes them.

usage: pip install torch==2.4.1 transformers==4.56.2
       mondai pull all-minilm-l6-v2
       scripts/golden_embeddings.py models/all-minilm-l6-v2

all-MiniLM-L6-v2 as its card says: BERT in float32, the mean over the tokens, brought to length 1; 256
tokens at most. Each text is run alone, and each number rounded to six places.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

TEXTS = [
    "What is the capital of France?",
    "Which city is France's capital?",
    "How far is the Moon from Earth?",
    "Paris",
    "1889",
    "",
    "a",
    "Naïve café owners in Zürich paid €3.50 – or so they said… (“twice”).",
    "富士山の高さは何メートルですか？",
    "🎉 unknown pieces: ꙮ𝔘 antidisestablishmentarianism-like",
    "The Eiffel Tower in Paris was finished in 1889 by Gustave Eiffel. " * 30,
]
GOLDEN = pathlib.Path(__file__).parent.parent / "tests/fixtures/golden/embeddings.jsonl"


@torch.no_grad()
def main(folder):
    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    tensors = load_file(folder / "model.safetensors")
    unread = model.load_state_dict(tensors, strict=False)
    assert not unread.missing_keys, unread.missing_keys
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.enable_truncation(256)
    with GOLDEN.open("w", encoding="utf-8") as golden:
        for text in TEXTS:
            ids = tokenizer.backend_tokenizer.encode(text).ids
            assert len(ids) <= 256
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
            vector = torch.nn.functional.normalize(hidden.mean(0), dim=0)
            values = [round(value, 6) for value in vector.tolist()]
            golden.write(json.dumps({"text": text, "values": values}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
