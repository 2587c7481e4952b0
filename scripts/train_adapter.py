#!/usr/bin/env python3
"""Trains a LoRA adapter that writes quiz items in this server's own formats.

usage: python3.11 -m venv V && V/bin/pip install -r scripts/train_adapter.requirements.txt
       V/bin/python scripts/train_adapter.py --data FOLDER --base FILE.gguf --model models/NAME

The base is a llama-architecture GGUF file, dequantised. Prompts are rendered with the base's chat
template around the texts of the model's manifest.toml, which is where the server reads them too. All
items of one passage are one row: the passage once, the items after it as branches that see the passage
and themselves, which is how the server computes them too, and saves most of the tokens. One article in
ten is kept out, always the same ones. With --items FILE it goes on from an --adapter with the passages that
scripts/own_items.py has asked the model about: people's questions about them, and those of its own that it answered
as they were meant.

Writes adapter_config.json and adapter_model.safetensors (PEFT's form) to the model's folder and, with
--merge, the base with the adapter merged in as a Hugging Face folder. A run that was stopped goes on
from its last checkpoint when it is started again with the same arguments.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import pathlib
import random
import time
import tomllib

import gguf
import jinja2
import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import quiz_examples

MAX_ROW_TOKENS = 900


# --- the base


@dataclasses.dataclass
class Config:
    layers: int
    width: int
    heads: int
    kv_heads: int
    epsilon: float
    rope_base: float
    context_len: int
    feed_forward: int

    @property
    def head_dim(self):
        return self.width // self.heads


LINEARS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


class Base:
    """A GGUF file: its weights in Hugging Face's names and order of rows, its tokenizer and template."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        field = lambda key: self.reader.fields[key].contents()
        if field("general.architecture") != "llama":
            raise SystemExit(f"{path}: general.architecture is {field('general.architecture')}, not llama")
        self.config = Config(
            layers=field("llama.block_count"),
            width=field("llama.embedding_length"),
            heads=field("llama.attention.head_count"),
            kv_heads=field("llama.attention.head_count_kv"),
            epsilon=field("llama.attention.layer_norm_rms_epsilon"),
            rope_base=field("llama.rope.freq_base"),
            context_len=field("llama.context_length"),
            feed_forward=field("llama.feed_forward_length"),
        )
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.template = jinja2.Environment().from_string(field("tokenizer.chat_template"))
        self.tokenizer = self._tokenizer(field)

    def _tokenizer(self, field):
        tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
        if (kind := field("tokenizer.ggml.pre")) != "smollm":
            raise SystemExit(f"this script knows the pre-tokenizer `smollm`, not `{kind}`")
        merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        special = [AddedToken(token, special=True) for token, kind in zip(tokens, types) if kind == 3]
        tokenizer.add_special_tokens(special)
        return tokenizer

    def weight(self, name):
        """In float32, by its name in Hugging Face's llama."""
        stem = name.removesuffix(".weight")
        if stem.startswith("model.layers."):
            _, _, layer, part = stem.split(".", 3)
            stored = f"blk.{layer}.{(LINEARS | NORMS)[part]}.weight"
        else:
            stored = {"model.embed_tokens": "token_embd.weight", "model.norm": "output_norm.weight"}[stem]
        tensor = self.tensors[stored]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        heads = {"q_proj": self.config.heads, "k_proj": self.config.kv_heads}.get(stem.rsplit(".", 1)[-1])
        if heads:  # llama.cpp's converter put the halves of each head's rows one into the other.
            values = values.reshape(heads, -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
        return torch.from_numpy(numpy.array(values, dtype=numpy.float32))


# --- the model


class Adapted(torch.nn.Module):
    """A frozen matrix W and what is learnt beside it: y = W x + scale B A x."""

    def __init__(self, weight, rank, scale, generator):
        super().__init__()
        rows, columns = weight.shape
        self.register_buffer("weight", weight.bfloat16(), persistent=False)
        self.scale = scale
        bound = 1 / math.sqrt(columns)
        self.lora_A = torch.nn.Parameter(torch.empty(rank, columns).uniform_(-bound, bound, generator=generator))
        self.lora_B = torch.nn.Parameter(torch.zeros(rows, rank))

    def matrices(self):
        return self.weight, self.lora_A.bfloat16(), (self.scale * self.lora_B).bfloat16()


class Model(torch.nn.Module):
    def __init__(self, base, rank, scale, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config = base.config
        self.register_buffer("embedding", base.weight("model.embed_tokens.weight").bfloat16(), persistent=False)
        self.register_buffer("norm", base.weight("model.norm.weight"), persistent=False)
        self.layers = torch.nn.ModuleList()
        for index in range(base.config.layers):
            layer = torch.nn.Module()
            for part in NORMS:
                layer.register_buffer(part, base.weight(f"model.layers.{index}.{part}.weight"), persistent=False)
            for part in LINEARS:
                weight = base.weight(f"model.layers.{index}.{part}.weight")
                layer.add_module(part.rsplit(".", 1)[-1], Adapted(weight, rank, scale, generator))
            self.layers.append(layer)

    def forward(self, batch):
        """Logits of the rows' loss positions."""
        config = self.config
        powers = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        angles = batch.positions[:, None, :, None].float() / config.rope_base**powers
        cos, sin = (torch.cat((wave, wave), -1) for wave in (angles.cos(), angles.sin()))
        x = F.embedding(batch.tokens, self.embedding)
        for layer in self.layers:
            norms = [getattr(layer, part) for part in NORMS]
            linears = [getattr(layer, part.rsplit(".", 1)[-1]).matrices() for part in LINEARS]
            x = layer_of(x, cos, sin, batch.layouts, norms, linears, (config.heads, config.kv_heads, config.epsilon))
        x = normed(x.flatten(0, 1)[batch.predicts], self.norm, config.epsilon)
        return F.linear(x, self.embedding)


def layer_of(x, cos, sin, layouts, norms, linears, sizes):
    """One layer as a function of its weights. Everything large stays bfloat16: on a CPU, what is not a matrix
    product is limited by memory."""
    (heads, kv_heads, epsilon), (batch, length, width) = sizes, x.shape
    q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj = linears
    in_heads = lambda y, count: y.view(batch, length, count, width // heads).transpose(1, 2)
    h = normed(x, norms[0], epsilon)
    q = rotated(in_heads(adapted(h, *q_proj), heads) * (width // heads) ** -0.5, cos, sin)
    k = rotated(in_heads(adapted(h, *k_proj), kv_heads), cos, sin)
    v = in_heads(adapted(h, *v_proj), kv_heads)
    y = torch.stack([attention(*of_row, layout) for *of_row, layout in zip(q, k, v, layouts)])
    x = x + adapted(y.transpose(1, 2).reshape(batch, length, width), *o_proj)
    h = normed(x, norms[1], epsilon)
    return x + adapted(F.silu(adapted(h, *gate_proj)) * adapted(h, *up_proj), *down_proj)


def attention(q, k, v, layout):
    """Of one row, `[heads, length, head_dim]`: the prefix by itself, then each branch with the prefix before it. What
    no token may see is not computed; that is two thirds of a row's square."""
    heads, length, head_dim = q.shape
    q = q.unflatten(0, (k.shape[0], -1))  # Heads that share keys and values stand together.
    shared, ends = layout[0], layout[1:]
    parts = [attend(q[:, :, :shared], k[:, :shared], v[:, :shared], 0)] if shared else []
    for start, end in zip(layout, ends):
        seen = (torch.cat((y[:, :shared], y[:, start:end]), 1) for y in (k, v))
        parts.append(attend(q[:, :, start:end], *seen, shared))
    parts.append(q.new_zeros(*q.shape[:2], length - layout[-1], head_dim))
    return torch.cat(parts, 2).flatten(0, 1)


def attend(q, k, v, shared):
    """The last tokens of `k` and `v` are those of `q`; each sees what is up to it, and all of what is before."""
    groups, of_group, length, head_dim = q.shape
    mask = causal_mask(length, shared, of_group).expand(groups, -1, -1)
    # Spelt out: the fused kernel goes backward slowly on a CPU.
    scores = torch.baddbmm(mask, q.flatten(1, 2), k.transpose(-1, -2))
    return (torch.softmax(scores, -1) @ v).view(groups, of_group, length, head_dim)


@functools.lru_cache(maxsize=4096)
def causal_mask(length, shared, of_group):
    later = torch.ones(length, shared + length, dtype=torch.bool).triu(shared + 1)
    return torch.zeros(later.shape, dtype=torch.bfloat16).masked_fill(later, -1e9).repeat(of_group, 1)


def adapted(x, weight, a, b):
    return F.linear(x, weight) + F.linear(F.linear(x, a), b)


def normed(x, weight, epsilon):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight).to(x.dtype)


def rotated(x, cos, sin):
    wide = x.float()
    half = x.shape[-1] // 2
    turned = torch.cat((-wide[..., half:], wide[..., :half]), -1)
    return (wide * cos + turned * sin).to(x.dtype)


# --- rows and batches


@dataclasses.dataclass
class Row:
    """A prompt's shared beginning and the items that go on from it."""

    prefix: list[int]
    branches: list[tuple[list[int], list[float]]]  # tokens, weight of each in the loss

    def __len__(self):
        return len(self.prefix) + sum(len(tokens) for tokens, _ in self.branches)


@dataclasses.dataclass
class Batch:
    tokens: torch.Tensor
    positions: torch.Tensor
    layouts: list[list[int]]  # of each row: where its prefix ends, and then each branch
    predicts: torch.Tensor  # places, in the flattened rows, whose next token counts
    targets: torch.Tensor
    weights: torch.Tensor


class Rows:
    def __init__(self, base, manifest):
        quiz = manifest["quiz"]
        self.base, self.system = base, quiz["system"]
        self.user, self.read = (jinja2.Environment().from_string(quiz[key]) for key in ("user", "read"))
        self.ids = lambda text: base.tokenizer.encode(text, add_special_tokens=False).ids

    def prompt(self, example):
        template = self.read if example.task == "read" else self.user
        user = template.render(
            passage=example.passage, topic=example.topic, task=example.task, question=example.question
        )
        messages = [{"role": "system", "content": self.system}, {"role": "user", "content": user}]
        return self.base.template.render(messages=messages, add_generation_prompt=True)

    def rows(self, examples):
        """Examples about one passage; more than one row if they are many."""
        tokens, weights = zip(*(self.tokens(example) for example in examples))
        shared = len(os.path.commonprefix(tokens)) if len(tokens) > 1 else 0
        rows = []
        for ids, weight in zip(tokens, weights):
            if not rows or len(rows[-1]) + len(ids) - shared > MAX_ROW_TOKENS:
                rows.append(Row(list(ids[:shared]), []))
            rows[-1].branches.append((ids[shared:], weight[shared:]))
        return rows

    def tokens(self, example):
        prompt = self.ids(self.prompt(example))
        pieces = [*example.reply, ("<|im_end|>", 1.0)]
        reply = self.base.tokenizer.encode("".join(text for text, _ in pieces), add_special_tokens=False)
        ends, end = [], 0
        for text, weight in pieces:
            end += len(text)
            ends.append((end, weight))
        # A token belongs to the piece in which it begins.
        weights = [next(weight for end, weight in ends if start < end) for start, _ in reply.offsets]
        return prompt + reply.ids, [0.0] * len(prompt) + weights


def batch_of(rows):
    length = -(-max(len(row) for row in rows) // 32) * 32
    tokens, positions = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(2))
    layouts, predicts, targets, weights = [], [], [], []
    for at, row in enumerate(rows):
        shared = len(row.prefix)
        tokens[at, :shared] = torch.tensor(row.prefix)
        positions[at, :shared] = torch.arange(shared)
        place = shared
        layouts.append([shared])
        for ids, weight in row.branches:
            here = slice(place, place + len(ids))
            tokens[at, here] = torch.tensor(ids)
            positions[at, here] = torch.arange(shared, shared + len(ids))
            counts = [offset for offset in range(1, len(ids)) if weight[offset] > 0]
            predicts += [at * length + place + offset - 1 for offset in counts]
            targets += [ids[offset] for offset in counts]
            weights += [weight[offset] for offset in counts]
            place += len(ids)
            layouts[-1].append(place)
    return Batch(tokens, positions, layouts, torch.tensor(predicts), torch.tensor(targets), torch.tensor(weights))


def batches_of(rows, max_tokens, shuffle):
    """Rows of like length together, batches in random order."""
    shuffle.shuffle(rows)
    window = 256
    made = []
    for start in range(0, len(rows), window):
        batch = []
        for row in sorted(rows[start : start + window], key=len):
            if batch and (len(batch) + 1) * len(row) > max_tokens:
                made.append(batch)
                batch = []
            batch.append(row)
        made.append(batch)
    # What is left of a window may be one short row, too few for a step of its own.
    made = [batch for batch in made if sum(len(row) for row in batch) > max_tokens // 4]
    shuffle.shuffle(made)
    return made


def rows_of(arguments, base, manifest):
    """Rows to train on, rows of what is held out, and the names that are."""
    shuffle = random.Random(arguments.seed)
    make = Rows(base, manifest)
    sets = quiz_examples.sets_of(arguments.data)
    out, by_set = quiz_examples.passages_of(sets, shuffle)
    if arguments.items:
        by_set = {quiz_examples.OWN_SET: with_own(by_set[quiz_examples.OWN_SET], out[quiz_examples.OWN_SET], arguments)}
    train, check = [], []
    for name, passages in by_set.items():
        if name == "en-fairytaleqa":
            passages = [passage for passage in passages if len(passage.asked) > 2]
        for rows, is_kept in ((train, True), (check, False)):
            part = [passage for passage in passages if (passage.title not in out[name]) == is_kept]
            for examples in quiz_examples.passage_examples(part, shuffle):
                rows += make.rows(examples)
    trivia = []
    for name in quiz_examples.TRIVIA_SETS:
        out[name] = quiz_examples.held_out(record["category"] for record in sets[name])
        kept = [record for record in sets[name] if record["category"] not in out[name]]
        trivia += [example for record in kept if (example := quiz_examples.trivia_example(record, shuffle))]
    shuffle.shuffle(trivia)
    train += [row for example in trivia[: arguments.trivia] for row in make.rows([example])]
    shuffle.shuffle(train)
    shuffle.shuffle(check)
    return train[: arguments.rows], check[:20], {name: sorted(names) for name, names in out.items()}


def with_own(passages, held_out, arguments):
    """The passages that a server wrote items about, with these, and those that are held out."""
    written = quiz_examples.written(arguments.items)
    if unknown := written.keys() - {passage.text for passage in passages}:
        raise SystemExit(f"{arguments.items}: {len(unknown)} passages are cut otherwise; was it made with --seed {arguments.seed}?")
    for passage in passages:
        passage.asked += written.get(passage.text, [])
    return [passage for passage in passages if passage.text in written or passage.title in held_out]


# --- training


def loss_of(model, rows):
    batch = batch_of(rows)
    losses = F.cross_entropy(model(batch).float(), batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


@torch.no_grad()
def held_out_loss(model, rows):
    pairs = [rows[at : at + 2] for at in range(0, len(rows) - 1, 2)]
    return sum(loss_of(model, pair).item() for pair in pairs) / len(pairs)


def average_gradients(parameters, workers):
    if workers > 1:
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        torch.distributed.all_reduce(flat)
        for parameter, part in zip(parameters, (flat / workers).split([parameter.numel() for parameter in parameters])):
            parameter.grad.copy_(part.view_as(parameter))


def train(worker, arguments):
    """One of the workers: each takes its share of every step's rows, on one thread of its own.

    On few cores that others use too, threads that wait for each other within every operation cost
    several times what workers do that wait for each other once a step."""
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    if arguments.workers > 1:
        store = torch.distributed.FileStore(str(arguments.work / "store"), arguments.workers)
        torch.distributed.init_process_group("gloo", store=store, rank=worker, world_size=arguments.workers)
    started, is_first = time.monotonic(), worker == 0
    log = lambda text: print(f"{time.monotonic() - started:7.0f} s  {text}", flush=True) if is_first else None
    manifest = tomllib.loads((arguments.model / "manifest.toml").read_text())
    base = Base(arguments.base)
    train_rows, check_rows, out = rows_of(arguments, base, manifest)
    shuffle = random.Random(arguments.seed)
    items, tokens = sum(len(row.branches) for row in train_rows), sum(len(row) for row in train_rows)
    batches = [batch for _ in range(arguments.epochs) for batch in batches_of(train_rows, arguments.batch_tokens // arguments.workers, shuffle)]
    batches = batches[: len(batches) // arguments.workers * arguments.workers]
    steps = len(batches) // arguments.workers
    log(f"{len(train_rows)} rows, {items} items, {tokens} tokens, {steps} steps; held out: {json.dumps(out)}")

    model = Model(base, arguments.rank, arguments.scale, arguments.seed)
    if arguments.adapter:
        read_adapter(model, arguments.adapter)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    log(f"{sum(parameter.numel() for parameter in parameters)} parameters to learn")
    optimizer = torch.optim.AdamW(parameters, lr=arguments.lr, weight_decay=0.01, betas=(0.9, 0.98))
    warm_up = max(1, steps // 30)
    schedule = lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)

    checkpoint, first = arguments.work / "checkpoint.pt", 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first = state["step"]
        log(f"goes on from step {first}")
    seen, mean, began = 0, None, time.monotonic()
    for step in range(first, steps):
        batch = batches[step * arguments.workers + worker]
        loss = loss_of(model, batch)
        loss.backward()
        average_gradients(parameters, arguments.workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        seen += sum(len(row) for row in batch) * arguments.workers
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 10 == 9:
            log(f"step {step + 1} of {steps}: loss {mean:.3f}, {seen / (time.monotonic() - began):.0f} tokens/s")
        if is_first and step % 50 == 49:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            torch.save(state | {"step": step + 1}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").rename(checkpoint)
        if is_first and step % 200 == 0:
            log(f"held-out loss {held_out_loss(model, check_rows):.3f}")
    if is_first:
        log(f"held-out loss {held_out_loss(model, check_rows):.3f}")
        write_adapter(model, arguments, manifest["base"])
        if arguments.merge:
            write_merged(model, base, arguments.merge)


# --- what is written


def peft_name(name):
    _, layer, part, matrix = name.split(".")
    part = next(path for path in LINEARS if path.endswith(part))
    return f"base_model.model.model.layers.{layer}.{part}.{matrix}.weight"


def read_adapter(model, path):
    tensors = load_file(path)
    model.load_state_dict({name: tensors[peft_name(name)].float() for name in model.state_dict()})


def write_adapter(model, arguments, base_name):
    tensors = {peft_name(name): parameter.bfloat16().contiguous() for name, parameter in model.state_dict().items()}
    save_file(tensors, arguments.model / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name,
        "r": arguments.rank, "lora_alpha": arguments.rank * arguments.scale, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted(path.rsplit(".", 1)[-1] for path in LINEARS),
        "use_dora": False, "use_rslora": False, "fan_in_fan_out": False, "modules_to_save": None, "inference_mode": True,
    }  # fmt: skip
    (arguments.model / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_merged(model, base, folder):
    """The base with the adapter in it, as Hugging Face's transformers reads it; for comparing."""
    folder.mkdir(parents=True, exist_ok=True)
    config, state = base.config, {name: base.weight(f"{name}.weight") for name in ("model.embed_tokens", "model.norm")}
    for index, layer in enumerate(model.layers):
        for part in NORMS:
            state[f"model.layers.{index}.{part}"] = base.weight(f"model.layers.{index}.{part}.weight")
        for part in LINEARS:
            name, adapted = f"model.layers.{index}.{part}", getattr(layer, part.rsplit(".", 1)[-1])
            a, b = adapted.lora_A.detach().bfloat16().float(), adapted.lora_B.detach().bfloat16().float()
            state[name] = base.weight(f"{name}.weight") + adapted.scale * (b @ a)
    save_file({f"{name}.weight": tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"})
    fields = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": config.width,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "intermediate_size": config.feed_forward, "max_position_embeddings": config.context_len,
        "rms_norm_eps": config.epsilon, "rope_theta": config.rope_base, "tie_word_embeddings": True,
        "vocab_size": model.embedding.shape[0], "hidden_act": "silu", "torch_dtype": "float32",
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    base.tokenizer.save(str(folder / "tokenizer.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of gzipped JSON Lines")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="GGUF file of the base")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder with the manifest; the adapter is written to it")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for checkpoints")
    parser.add_argument("--adapter", type=pathlib.Path, help="go on from this adapter_model.safetensors, of the same rank")
    parser.add_argument("--items", type=pathlib.Path, help="learn from what scripts/own_items.py kept, and from the same passages only")
    parser.add_argument("--merge", type=pathlib.Path, help="write the merged model to this folder too")
    parser.add_argument("--rank", type=int, default=24)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=2560)
    parser.add_argument("--rows", type=int, help="train on so many rows only")
    parser.add_argument("--trivia", type=int, default=2000, help="trivia questions among the rows")
    parser.add_argument("--seed", type=int, default=20240607)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    arguments = parser.parse_args()

    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "store").unlink(missing_ok=True)
    if arguments.workers > 1:
        torch.multiprocessing.spawn(train, (arguments,), nprocs=arguments.workers)
    else:
        train(0, arguments)


if __name__ == "__main__":
    main()
