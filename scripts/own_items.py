#!/usr/bin/env python3
"""Has a server write items about the passages that training uses, for train_adapter.py --items.

usage: mondai serve --model NAME --slots 16
       scripts/own_items.py --data FOLDER --seed N [--server URL] [--passages N] FILE

A question that the model itself, reading the passage, answers with its key is better than most it writes; the server
is asked for such (`"round_trip": "require"`). The passages are of SQuAD, of the articles that training may see, cut as
train_adapter.py cuts them with the same --seed. FILE gets a line of JSON a passage: its text and the items as they
came. If it is there already, it is gone on with.
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import sys
import urllib.error
import urllib.request

import quiz_examples

ITEMS_OF_PASSAGE = 4
MIN_PASSAGE_CHARS = 150
AT_ONCE = 8


def items(server, passage, seed):
    quiz = {
        "source": passage, "count": ITEMS_OF_PASSAGE, "kind": ["short_answer"], "language": "en",
        "round_trip": "require", "seed": seed,
    }  # fmt: skip
    request = urllib.request.Request(f"{server}/v1/quizzes", json.dumps(quiz).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)["items"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{server}: {error.code}, {error.read().decode(errors='replace')}") from None
    except OSError as error:
        raise SystemExit(f"{server}: {error}; is `mondai serve` running there?") from None


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of gzipped JSON Lines")
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="where the model is served")
    parser.add_argument("--passages", type=int, help="ask about so many only")
    parser.add_argument("--seed", type=int, required=True, help="as train_adapter.py is to have it")
    parser.add_argument("file", type=pathlib.Path, help="JSON Lines to write")
    arguments = parser.parse_args()

    out, by_set = quiz_examples.passages_of(quiz_examples.sets_of(arguments.data), random.Random(arguments.seed))
    held_out, passages = out[quiz_examples.OWN_SET], by_set[quiz_examples.OWN_SET]
    texts = [passage.text for passage in passages if passage.title not in held_out and len(passage.text) >= MIN_PASSAGE_CHARS]
    random.Random(arguments.seed).shuffle(texts)
    asked = {record["passage"] for record in quiz_examples.lines_of(arguments.file)} if arguments.file.is_file() else set()
    left = [(seed, text) for seed, text in enumerate(texts[: arguments.passages]) if text not in asked]
    kept, pool = 0, concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    try:
        with arguments.file.open("a", encoding="utf-8") as lines:
            found = {pool.submit(items, arguments.server, text, seed): text for seed, text in left}
            for done, future in enumerate(concurrent.futures.as_completed(found), 1):
                kept += len(future.result())
                lines.write(json.dumps({"passage": found[future], "items": future.result()}) + "\n")
                lines.flush()
                if done % 50 == 0:
                    print(f"{done} of {len(left)} passages, {kept} items", file=sys.stderr, flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
