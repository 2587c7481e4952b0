#!/usr/bin/env python3
"""Makes the models and golden values under tests/fixtures/golden/ with PyTorch and transformers.

usage: pip install torch==2.4.1 transformers==4.56.2 gguf==0.19.0 safetensors==0.8.0
       scripts/golden.py models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf

Tiny random models are written as Hugging Face folders and as GGUF files, one for every tensor type.
Their golden values, and SmolLM2's, come from transformers in float32 with the weights as dequantised
by the gguf package: for a few positions of each prompt the logits, and the 64 tokens that greedy
decoding goes on with. A tiny model whose best two logits come too close on the way is thrown away and
drawn again, so that equal tokens can be asked of any float32 implementation.
"""

import hashlib
import json
import pathlib
import shutil
import sys

import gguf
import numpy
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

FIXTURES = pathlib.Path(__file__).parent.parent / "tests/fixtures/golden"
GREEDY_TOKENS = 64
MIN_MARGIN = 2e-3

LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


class TooClose(Exception):
    pass


# --- golden values


@torch.no_grad()
def golden(model, prompts, probe_ids=None):
    """Logits of the first, a middle and the last position of each prompt, and what follows it."""
    cases = []
    for prompt in prompts:
        logits = model(torch.tensor([prompt])).logits[0].float().numpy()
        probes = []
        for position in (0, len(prompt) // 2, len(prompt) - 1):
            ids = range(logits.shape[1]) if probe_ids is None else probe_ids(logits[position])
            values = [float(f"{logits[position][id]:.7g}") for id in ids]
            probes.append({"position": position, "ids": [int(id) for id in ids], "logits": values})
        greedy, margin = go_on(model, prompt)
        cases.append({"prompt": prompt, "probes": probes, "greedy": greedy, "smallest_margin": margin})
    return {"cases": cases}


def go_on(model, prompt):
    ids, margin = list(prompt), float("inf")
    past, fed = None, torch.tensor([prompt])
    for _ in range(GREEDY_TOKENS):
        output = model(fed, past_key_values=past, use_cache=True)
        best, second = torch.topk(output.logits[0, -1], 2).values.tolist()
        margin = min(margin, best - second)
        if margin < MIN_MARGIN:
            raise TooClose(f"the best two logits are {margin:.2g} apart")
        ids.append(int(output.logits[0, -1].argmax()))
        past, fed = output.past_key_values, torch.tensor([[ids[-1]]])
    return ids[len(prompt) :], round(margin, 6)


def write_golden(path, values):
    text = json.dumps(values, separators=(",", ":"))
    path.write_text(text.replace('{"position"', '\n {"position"').replace('{"prompt"', '\n{"prompt"') + "\n")
    margins = [case["smallest_margin"] for case in values["cases"]]
    print(f"{path.relative_to(FIXTURES)}: smallest margins {margins}")


def random_prompts(vocab_size, seed):
    random = numpy.random.default_rng(seed)
    return [random.integers(0, vocab_size, size).tolist() for size in (1, 7, 40)]


def draw(make, *arguments):
    """The first seed whose model decides clearly, with what `make` made of it."""
    for seed in range(200):
        try:
            return make(seed, *arguments)
        except TooClose:
            continue
    raise SystemExit(f"{make.__name__}{arguments}: no seed decides clearly")


# --- tiny models


def tiny_config(architecture, **changes):
    kinds = {
        "llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config,
    }  # fmt: skip
    sizes = dict(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, attn_implementation="eager",
    )  # fmt: skip
    return kinds[architecture](**(sizes | changes))


def tiny_model(config, seed):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            weight.data = 1 + 0.2 * torch.randn_like(weight)
        elif name.endswith("bias"):
            weight.data = 0.5 * torch.randn_like(weight)
        elif "embed_tokens" in name:
            # A tied head finds a token's own embedding best; the layers must be able to outweigh it.
            scale = 0.2 if config.tie_word_embeddings else 1.0
            weight.data = scale * torch.randn_like(weight)
        else:
            weight.data = 1.5 * torch.randn_like(weight) / weight.shape[1] ** 0.5
    return model


def make_folder(seed, name, config, dtype, shards):
    model = tiny_model(config, seed)
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    values = golden(model, random_prompts(config.vocab_size, seed))

    folder = FIXTURES / name
    folder.mkdir(parents=True)
    fields = {key: value for key, value in config.to_diff_dict().items() if key != "transformers_version"}
    (folder / "config.json").write_text(json.dumps(fields | {"torch_dtype": str(dtype)[6:]}, indent=2) + "\n")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    else:
        names = sorted(tensors)
        weight_map = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            part = {name: tensors[name] for name in names[shard::shards]}
            save_file(part, folder / file, {"format": "pt"})
            weight_map |= {name: file for name in part}
        index = {"metadata": {}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    write_golden(FIXTURES / f"{name}.json", values)


# --- GGUF files

GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"
    return f"{GGUF_NAMES[stem]}.{kind}"


def permuted(rows, heads):
    """As llama.cpp's converter orders query and key rows, for rotating adjacent pairs."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermuted(rows, heads):
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def permuted_heads(name, config):
    if config.model_type != "llama" or not name.endswith((".q_proj.weight", ".k_proj.weight")):
        return None
    return config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads


def random_k_blocks(kind, shape, random):
    """Valid blocks of the types that the gguf package reads but does not write."""
    blocks = (*shape[:-1], shape[-1] // 256)
    scale = lambda value: numpy.full((*blocks, 1), value, dtype=numpy.float16).view(numpy.uint8)
    bytes_ = lambda count: random.integers(0, 256, (*blocks, count), dtype=numpy.uint8)
    small = lambda count: random.integers(-30, 31, (*blocks, count)).astype(numpy.int8).view(numpy.uint8)
    parts = {
        # scale, scale of the minima, 6-bit scales and minima, (fifth bits,) nibbles
        Type.Q4_K: lambda: [scale(6e-4), scale(4.5e-3), bytes_(12), bytes_(128)],
        Type.Q5_K: lambda: [scale(3e-4), scale(4.6e-3), bytes_(12), bytes_(32), bytes_(128)],
        # low bits, high bits, 8-bit scales, scale
        Type.Q6_K: lambda: [bytes_(128), bytes_(64), small(16), scale(3e-4)],
    }[kind]()
    return numpy.concatenate(parts, axis=-1).reshape(*shape[:-1], -1)


def stored(values, kind, random):
    """`values` in a tensor type, or in F32 where its rows do not make whole blocks."""
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if values.ndim == 1 or values.shape[-1] % block:
        kind = Type.F32
    if kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        return random_k_blocks(kind, values.shape, random), kind
    return gguf.quants.quantize(values, kind), kind


def make_gguf(seed, name, config, kind):
    model, random = tiny_model(config, seed), numpy.random.default_rng(seed)
    arch = config.model_type
    FIXTURES.mkdir(parents=True, exist_ok=True)
    file = FIXTURES / f"{name}.gguf"
    writer = gguf.GGUFWriter(file, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if config.rope_scaling:
        plain = config.rope_theta ** (-numpy.arange(0, head_dim, 2) / head_dim)
        scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        writer.add_tensor("rope_freqs.weight", (plain / scaled.numpy()).astype(numpy.float32))

    state, dequantised = {}, {}
    for tensor_name, tensor in model.state_dict().items():
        if tensor_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values, heads = tensor.numpy(), permuted_heads(tensor_name, config)
        data, data_kind = stored(permuted(values, heads) if heads else values, kind, random)
        writer.add_tensor(gguf_name(tensor_name), data, raw_dtype=data_kind)
        values = gguf.quants.dequantize(data, data_kind)
        dequantised[gguf_name(tensor_name)] = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
        state[tensor_name] = torch.from_numpy(unpermuted(values, heads) if heads else values)
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    values = golden(model, random_prompts(config.vocab_size, seed)) | {"sha256_of_f32": dequantised}

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_golden(FIXTURES / f"{name}.json", values)


def model_of_gguf(reader, config):
    """The model with the weights of a GGUF file whose head is tied, dequantised."""
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    state = {}
    for name in model.state_dict():
        if name != "lm_head.weight":
            tensor = tensors[gguf_name(name)]
            values, heads = gguf.quants.dequantize(tensor.data, tensor.tensor_type), permuted_heads(name, config)
            values = numpy.ascontiguousarray(unpermuted(values, heads) if heads else values)
            state[name] = torch.from_numpy(values.copy())
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    return model


# --- adapters


def make_adapter(seed, name, base, rank, alpha):
    """An adapter in both forms, and golden values of the base with it: W + alpha / rank B A, as PEFT has it."""
    model, random = base(), torch.Generator().manual_seed(seed)
    config = model.config
    folder = FIXTURES / name
    writer = gguf.GGUFWriter(FIXTURES / f"{name}.gguf", config.model_type)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    tensors, modules = {}, set()
    for module, linear in model.named_modules():
        if not isinstance(linear, torch.nn.Linear) or module == "lm_head":
            continue
        modules.add(module.rsplit(".", 1)[-1])
        rows, columns = linear.weight.shape
        a = torch.randn(rank, columns, generator=random) / columns**0.5
        b = torch.randn(rows, rank, generator=random) / rank**0.5
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
        heads = permuted_heads(f"{module}.weight", config)
        writer.add_tensor(gguf_name(f"{module}.weight") + ".lora_a", a.numpy())
        writer.add_tensor(gguf_name(f"{module}.weight") + ".lora_b", permuted(b.numpy(), heads) if heads else b.numpy())
        linear.weight.data += alpha / rank * (b @ a)
    values = golden(model, random_prompts(config.vocab_size, seed))

    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "target_modules": sorted(modules)}
    (folder / "adapter_config.json").write_text(json.dumps(fields, indent=2) + "\n")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_golden(FIXTURES / f"{name}.json", values)


def folder_base():
    return transformers.AutoModelForCausalLM.from_pretrained(
        FIXTURES / "llama", torch_dtype=torch.float32, attn_implementation="eager"
    ).eval()


def gguf_base():
    return model_of_gguf(gguf.GGUFReader(FIXTURES / "gguf-Q4_1.gguf"), tiny_gguf_config())


def tiny_gguf_config():
    return tiny_config("llama", num_hidden_layers=1, hidden_size=64, intermediate_size=96, tie_word_embeddings=True)


# --- SmolLM2

# Token by token.
SMOLLM2_PROMPTS = [
    "The Ġcapital Ġof ĠFrance Ġis",
    "<|im_start|> user Ċ Write Ġa Ġshort Ġstory Ġabout Ġa Ġdog . <|im_end|> Ċ <|im_start|> ass istant Ċ",
    "def Ġadd ( a , Ġb ): Ċ",
]


def smollm2(path):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    config = transformers.LlamaConfig(
        vocab_size=len(field("tokenizer.ggml.tokens")),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field("llama.rope.freq_base"),
        tie_word_embeddings=True,
    )
    model = model_of_gguf(reader, config)

    ids = {token: id for id, token in enumerate(field("tokenizer.ggml.tokens"))}
    prompts = [[ids[token] for token in prompt.split()] for prompt in SMOLLM2_PROMPTS]
    best_and_some = lambda logits: sorted({*numpy.argsort(-logits)[:8], *range(0, len(logits), 997)})
    write_golden(FIXTURES / "smollm2-135m-instruct.json", golden(model, prompts, best_and_some))


def main():
    torch.set_num_threads(1)
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    shutil.rmtree(FIXTURES, ignore_errors=True)
    llama3 = tiny_config("llama", rope_scaling=LLAMA3_ROPE)
    draw(make_folder, "llama", llama3, torch.bfloat16, 1)
    draw(make_folder, "llama-tied-linear", tiny_config("llama", rope_scaling={"rope_type": "linear", "factor": 4.0}, tie_word_embeddings=True), torch.float16, 1)  # fmt: skip
    draw(make_folder, "qwen2", tiny_config("qwen2", num_key_value_heads=1), torch.float32, 2)
    draw(make_folder, "qwen3", tiny_config("qwen3", head_dim=16, tie_word_embeddings=True), torch.float16, 1)
    draw(make_gguf, "gguf-llama3-rope", llama3, Type.F16)
    draw(make_gguf, "gguf-qwen2", tiny_config("qwen2"), Type.F16)
    draw(make_gguf, "gguf-qwen3", tiny_config("qwen3", head_dim=16), Type.F16)
    for kind in (Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0):
        draw(make_gguf, f"gguf-{kind.name}", tiny_gguf_config(), kind)
    for kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        config = tiny_config(
            "llama", num_hidden_layers=1, hidden_size=256, intermediate_size=256, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
        )  # fmt: skip
        draw(make_gguf, f"gguf-{kind.name}", config, kind)
    draw(make_adapter, "lora-of-llama", folder_base, 3, 4)
    draw(make_adapter, "lora-of-gguf-Q4_1", gguf_base, 4, 8)
    smollm2(sys.argv[1])


if __name__ == "__main__":
    main()
