#!/usr/bin/env python3
"""Usage: scripts/compare-engines.py [--gguf FILE] [--llama-bench PATH] [--llama-gguf FILE ...] [--threads N]
                                  [--rounds 5] [--out DIR]
                                  [--backends cpu,ort,int4] [--others llama.cpp,genai,ctranslate2]

Engines beside mondai on the same weights, without a server between: ONNX Runtime GenAI (int4, 8-bit activations)
and CTranslate2 (int8) from their wheels, and llama.cpp where a llama-bench with its llama-batched-bench is given,
in LLAMA_BENCH or in PATH; --llama-gguf are other files of the model for it too, in types that it repacks, such as
Q4_0. $MONDAI is the mondai to run, on --backends: `int4` is `ort` in that form. Without --gguf it opens the base model by
its name, and has keys of 8 bits in its cache as the manifest says; a file has them of 16.

Each round starts every engine in turn, each in a process of its own, and takes of each the best of three tries: tokens a
second of a prompt of 512 tokens, and of decoding plainly (nothing drafted) with 1, 8 and 16 sequences after 16 tokens
each. mondai's are means of two prompts and of twice as many sequences, one half after the other; sampler, engine and text
are in them, and where sequences do not begin at once, the others' prompts. A ratio is mondai's figure over another's of the
same round; the table has the median and, in brackets, the lowest and the highest.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".cache/engines"
# The newest whose model builder takes a transformers that runs on this torch.
WHEELS = [
    "onnxruntime-genai==0.11.4", "onnxruntime==1.32.0", "onnx==1.23.2", "onnx-ir", "ctranslate2==4.8.5",
    "transformers==4.56.2", "accelerate==1.10.1", "gguf==0.17.1", "torch==2.4.1", "numpy<2.3",
]
PREFILL = 512
CONTEXT = 16
NEW = 64
STREAMS = [1, 8, 16]
# Each figure is the best of so many, in each round.
TRIES = 3


def fail(message):
    sys.exit(f"compare-engines: {message}")


def parse():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--llama-bench", default=os.environ.get("LLAMA_BENCH") or shutil.which("llama-bench"))
    parser.add_argument("--llama-gguf", type=Path, nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    parser.add_argument("--backends", type=lambda names: names.split(","), default=["cpu"])
    parser.add_argument("--others", type=lambda names: names.split(","), default=["llama.cpp", "genai", "ctranslate2"])
    parser.add_argument("--measure", nargs=2, metavar=("ENGINE", "PATH"), help=argparse.SUPPRESS)
    return parser.parse_args()


# What runs in a process of its own, once a round.


def least(seconds, *of):
    return min(seconds(*of) for _ in range(TRIES))


def measure_genai(folder, threads):
    import numpy
    import onnxruntime_genai as og

    config = og.Config(folder)
    session = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = og.Model(config)
    random = numpy.random.default_rng(1)

    def generator(sequences, length):
        params = og.GeneratorParams(model)
        whole = length + NEW + 1
        params.set_search_options(
            max_length=whole, min_length=whole, batch_size=sequences, do_sample=False
        )
        return og.Generator(model, params), random.integers(1000, 40000, (sequences, length)).astype(numpy.int32)

    def prefill():
        running, tokens = generator(1, PREFILL)
        began = time.perf_counter()
        running.append_tokens(tokens)
        running.generate_next_token()
        return time.perf_counter() - began

    def decode(sequences):
        running, tokens = generator(sequences, CONTEXT)
        running.append_tokens(tokens)
        running.generate_next_token()
        began = time.perf_counter()
        for _ in range(NEW):
            running.generate_next_token()
        return time.perf_counter() - began

    return lambda: PREFILL / least(prefill), lambda sequences: sequences * NEW / least(decode, sequences)


def measure_ctranslate2(folder, threads):
    import ctranslate2
    import numpy

    options = {"device": "cpu", "compute_type": "int8", "inter_threads": 1, "intra_threads": threads}
    model = ctranslate2.Generator(folder, **options)
    vocabulary = json.loads((Path(folder) / "vocabulary.json").read_text())
    random = numpy.random.default_rng(1)

    def seconds(sequences, length, new):
        prompts = [[vocabulary[i] for i in random.integers(1000, 40000, length)] for _ in range(sequences)]
        began = time.perf_counter()
        model.generate_batch(
            prompts, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        return time.perf_counter() - began

    # The least of each: a prompt that once took long would be taken off a decode.
    def decode(sequences):
        whole, prompts = (least(seconds, sequences, CONTEXT, new) for new in (NEW + 1, 1))
        return sequences * NEW / (whole - prompts)

    return lambda: PREFILL / least(seconds, 1, PREFILL, 1), decode


def measure(engine, path, threads):
    prefill, decode = {"genai": measure_genai, "ctranslate2": measure_ctranslate2}[engine](path, threads)
    prefill(), decode(1)  # nothing is timed that runs for the first time
    print(json.dumps({"prefill": prefill()} | {f"decode {n}": decode(n) for n in STREAMS}))


# What the others start, and read.


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        fail(f"{' '.join(map(str, command))}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def measured(args, command):
    """On as many CPUs as there are threads."""
    return run(["taskset", "--cpu-list", f"0-{args.threads - 1}", *command])


def of_wheel(engine, folder, args):
    command = [VENV / "bin/python", __file__, "--measure", engine, folder, "--threads", args.threads]
    return json.loads(measured(args, command))


def of_llama(args, gguf):
    bench = Path(args.llama_bench)
    threads = ["-t", args.threads, "-m", gguf]
    one = json.loads(measured(args, [bench, *threads, "-p", PREFILL, "-n", 0, "-r", TRIES, "-o", "json"]))
    found = {"prefill": max(one[0]["samples_ts"])}
    batched = [bench.with_name("llama-batched-bench"), *threads, "-c", 8192, "-b", 2048, "-npp", CONTEXT]
    for n in STREAMS:
        command = [*batched, "-ntg", NEW, "-npl", n, "--output-format", "jsonl"]
        lines = "".join(measured(args, command) for _ in range(TRIES)).splitlines()
        found[f"decode {n}"] = max(json.loads(line)["speed_tg"] for line in lines if line.startswith("{"))
    return found


def of_mondai(args, mondai, backend):
    running = ["--backend", "ort", "--ort-form", "int4"] if backend == "int4" else ["--backend", backend]

    def best_of(figure, *flags):
        """Seconds: the least mean of a try's requests."""
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as lines:
            measured(args, [
                mondai, "bench", *running,
                "--models-dir", ROOT / "models", "--model", args.model, "--runs", TRIES,
                "--warm-up", 2, "--max-draft-tokens", 0, "--json", lines.name, *flags,
            ])
            _, *tries = map(json.loads, Path(lines.name).read_text().splitlines())
        for of_try in tries:
            requests = of_try["requests"]
            if requests["succeeded"] != requests["sent"] or of_try["tokens"]["cached"]:
                fail(f"mondai: not all requests succeeded with prompts of their own: {of_try}")
        return min(of_try[figure]["mean"] for of_try in tries) / 1e3

    flags = ["--workload", "prefill", "--prompt-tokens", PREFILL, "--concurrency", 1, "--requests", 2]
    found = {"prefill": PREFILL / best_of("ttft_ms", *flags)}
    for n in STREAMS:
        flags = ["--workload", "decode", "--tokens", NEW + 1, "--concurrency", n, "--requests", 2 * n]
        found[f"decode {n}"] = n / best_of("tpot_ms", *flags)
    return found


def prepare(args):
    """What the engines of the wheels run, made once out of the GGUF file: its weights, decoded and rounded anew."""
    python = VENV / "bin/python"
    ready, wheels = VENV / "ready", "\n".join(WHEELS)
    if not ready.exists() or ready.read_text() != wheels:
        print("installing the other engines", file=sys.stderr)
        run([sys.executable, "-m", "venv", "--clear", VENV])
        index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
        run([python, "-m", "pip", "install", "--quiet", *WHEELS, *index])
        ready.write_text(wheels)
    made = VENV / args.gguf.stem
    decoded, genai, ctranslate2 = made / "decoded", made / "genai", made / "ctranslate2"
    if not (genai / "genai_config.json").exists() or not (ctranslate2 / "model.bin").exists():
        print(f"making models out of {args.gguf}", file=sys.stderr)
        decode = (
            "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            "source = dict(pretrained_model_name_or_path=sys.argv[1], gguf_file=sys.argv[2])\n"
            "AutoTokenizer.from_pretrained(**source).save_pretrained(sys.argv[3])\n"
            "AutoModelForCausalLM.from_pretrained(**source).save_pretrained(sys.argv[3])\n"
        )
        run([python, "-c", decode, args.gguf.parent, args.gguf.name, decoded])
        run([
            python, "-m", "onnxruntime_genai.models.builder", "-i", decoded, "-o", genai, "-p", "int4", "-e", "cpu",
            "-c", made / "cache", "--extra_options", "int4_accuracy_level=4", "int4_block_size=32",
        ])
        run([
            VENV / "bin/ct2-transformers-converter", "--model", decoded, "--output_dir", ctranslate2,
            "--quantization", "int8", "--force",
        ])
    return {"genai": genai, "ctranslate2": ctranslate2}


def report(rounds, subjects, out):
    """A line for each engine and figure: its median; then for each of mondai's the ratios to the others."""
    names = list(rounds[0])
    figures = list(rounds[0][names[0]])

    def table(title, columns, cell):
        lines = [f"{title:<24}" + "".join(f"{name:>30}" for name in columns)]
        lines += [f"{figure:<24}" + "".join(f"{cell(name, figure):>30}" for name in columns) for figure in figures]
        return "\n".join(lines)

    def speed(name, figure):
        speeds = sorted(of[name][figure] for of in rounds)
        return f"{statistics.median(speeds):.0f} ({speeds[0]:.0f} to {speeds[-1]:.0f})"

    def ratio_of(subject):
        def ratio(name, figure):
            ratios = sorted(of[subject][figure] / of[name][figure] for of in rounds)
            return f"{statistics.median(ratios):.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})"

        return ratio

    others = [name for name in names if name not in subjects]
    tables = [table("tokens a second", names, speed)]
    tables += [table(f"{subject} to", others, ratio_of(subject)) for subject in subjects if others]
    text = "\n\n".join(tables)
    print(text)
    (out / "engines.txt").write_text(text + "\n")


def main():
    args = parse()
    if args.measure:
        return measure(*args.measure, args.threads)
    folder = ROOT / "models/smollm2-135m-instruct"
    # By its name mondai opens the manifest's file, and does as the manifest says.
    args.model = args.gguf.resolve() if args.gguf else folder.name
    args.gguf = args.gguf or folder / tomllib.loads((folder / "manifest.toml").read_text())["file"]
    if not args.gguf.is_file():
        fail(f"{args.gguf} is not there: give --gguf, or run `mondai pull {folder.name}`")
    args.gguf = args.gguf.resolve()
    mondai = Path(os.environ.get("MONDAI") or ROOT / "target/release/mondai")
    if not mondai.is_file():
        fail(f"{mondai} is not there: cargo build --release, or set MONDAI")
    made = prepare(args) if set(args.others) - {"llama.cpp"} else {}
    subjects = {f"mondai {name}": name for name in args.backends}
    engines = {title: lambda name=name: of_mondai(args, mondai, name) for title, name in subjects.items()}
    for name in args.others:
        if name != "llama.cpp":
            engines[name] = lambda name=name: of_wheel(name, made[name], args)
        elif args.llama_bench:
            engines[name] = lambda: of_llama(args, args.gguf)
            for gguf in args.llama_gguf:
                if not gguf.is_file():
                    fail(f"--llama-gguf: {gguf} is not there")
                engines[f"llama.cpp {gguf.stem.rpartition('.')[2]}"] = lambda gguf=gguf: of_llama(args, gguf)
        else:
            print("no llama-bench: llama.cpp is left out", file=sys.stderr)

    args.out.mkdir(parents=True, exist_ok=True)
    rounds = []
    with (args.out / "engines.jsonl").open("w") as lines:
        for idx in range(args.rounds):
            rounds.append({name: speeds() for name, speeds in engines.items()})
            print(json.dumps(rounds[-1]), file=lines, flush=True)
            print(f"round {idx + 1} of {args.rounds}", file=sys.stderr)
    report(rounds, list(subjects), args.out)


if __name__ == "__main__":
    main()
