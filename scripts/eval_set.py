"""Makes src/eval/default_set.jsonl: passages that no training has seen, with the questions people asked.

Usage: scripts/eval_set.py DATA_FOLDER

Takes the articles of the SQuAD v1.1 development set that scripts/quiz_examples.py keeps out of training,
ten passages each, spread over the article. A question's wrong answers are answers to other questions of
its article that look alike.
"""

import collections
import json
import pathlib
import random
import sys

import quiz_examples

PASSAGES_OF_ARTICLE = 10
QUESTIONS = 3


def main():
    data = pathlib.Path(sys.argv[1])
    records = [record for record in quiz_examples.read(data, "en-squad-dev") if record["kind"] == "span"]
    articles = quiz_examples.held_out(record["title"] for record in records)
    draw = random.Random(1)
    lines = []
    for title in sorted(articles):
        of_article = [record for record in records if record["title"] == title]
        answers = sorted({record["answer"] for record in of_article})
        passages = collections.defaultdict(list)
        for record in of_article:
            passages[record["context"]].append(record)
        fit = [
            (context, asked)
            for context, asked in passages.items()
            if 300 <= len(context) <= quiz_examples.MAX_PASSAGE_CHARS and len(asked) >= QUESTIONS
        ]
        step = max(1, len(fit) // PASSAGES_OF_ARTICLE)
        for context, asked in fit[::step][:PASSAGES_OF_ARTICLE]:
            questions = []
            for record in asked[:QUESTIONS]:
                kept = list(dict.fromkeys(answer for answer in record["answers"] if answer in context))
                questions.append({"question": " ".join(record["question"].split()), "answers": kept})
                alike = [
                    answer
                    for answer in answers
                    if quiz_examples.form(answer) == quiz_examples.form(kept[0])
                    and len(answer) <= 48
                    and not any(quiz_examples.contains(answer, own) or quiz_examples.contains(own, answer) for own in kept)
                ]
                if len(alike) >= 3:
                    questions[-1]["distractors"] = draw.sample(alike, 3)
            lines.append(
                {
                    "id": f"{title} {len(lines) + 1}",
                    "lang": "en",
                    "title": title,
                    "license": "CC-BY-SA-4.0",
                    "source": "SQuAD v1.1 (Rajpurkar et al., 2016) and Wikipedia authors",
                    "context": context,
                    "questions": questions,
                }
            )
    path = pathlib.Path(__file__).parent.parent / "src/eval/default_set.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} passages of {len(articles)} articles: {path}")


if __name__ == "__main__":
    main()
