"""Training examples for the quiz adapter, made of openly licensed question data.

Reads a folder of gzipped JSON Lines (one record a line; `id`, `kind`, `title` or `category`, `question`,
`answer`, `answers`, `choices`, `context`, `context_id`, `answer_start`) and writes the replies the server
asks for: compact JSON, fields in the order of `src/quiz/grammar.rs`. Nothing is drawn but from the
`random.Random` that is passed in, so one seed makes one set of examples.
"""

import collections
import dataclasses
import gzip
import hashlib
import json
import re

PASSAGE_SETS = ("en-squad-dev", "en-fairytaleqa")
OWN_SET = "en-squad-dev"  # The one whose passages a model is asked about to learn from its own items.
TRIVIA_SETS = ("en-opentriviaqa", "en-opentdb")
MAX_PASSAGE_CHARS = 1200  # as in src/quiz/plan.rs
PASSAGE_CHARS = (300, 500, 500, 700, MAX_PASSAGE_CHARS)  # Shorter ones cost less to learn from.
MAX_READ_CHARS = 80
DISTRACTORS = 3
HELD_OUT_SHARE = 0.1


@dataclasses.dataclass
class Example:
    """One item. `reply` is in pieces, each with the weight of its tokens in the loss."""

    task: str
    reply: list[tuple[str, float]]
    passage: str | None = None
    topic: str | None = None
    question: str | None = None  # to be answered, if the task is `read`


def read(data, name):
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def lines_of(path):
    """The records of a file that is being written: its last line may be none yet."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def sets_of(data):
    """The records of the sets that training uses, by name."""
    return {name: read(data, name) for name in PASSAGE_SETS + TRIVIA_SETS}


def held_out(names):
    """A tenth of the names, rounded up: those whose hashes are smallest, whatever else is there."""
    by_hash = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(by_hash[: -(-len(by_hash) // round(1 / HELD_OUT_SHARE))])


# --- text


ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|No|vs|Jr|Sr|Prof|Gen|Col|Lt|Mt|etc|c|ca|approx|Inc|Ltd|Co)|\b[A-Za-z](?:\.[A-Za-z])*)\.$")
FILLERS = frozenset(
    "the a an and or but of to in on at by for from with as is are was were be been being has have had will would can "
    "could should may might must does did do it he she they we you i this that these those there their his her its "
    "which who whom whose what when where while because since until about after before between during into over under "
    "so if no not than then also only very more most some such each every both either neither other another same just "
    "around through within without upon my your our".split()
)  # fmt: skip
PRONOUNS = frozenset("he she it they him her them his hers its their theirs i we you my your our".split())
DEMONSTRATIVES = re.compile(
    r"\b(?:this|these|those|passage|paragraph|article|text|author|narrator|above|following|sentence|section|mentioned)\b", re.I
)


def sentences(text):
    """Roughly the server's sentences: cut at a full stop before a capital, not after an abbreviation."""
    found, start = [], 0
    for match in re.finditer(r"""[.!?]["”’')\]]*\s+(?=["“‘(\[]?[A-Z0-9])|\n+""", text):
        piece = text[start : match.end()].strip()
        if "\n" not in match.group() and ABBREVIATION.search(piece):
            continue
        if piece:
            found.append(piece)
        start = match.end()
    if tail := text[start:].strip():
        found.append(tail)
    return found


def folded(text):
    return " ".join(text.split())


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def contains(text, part):
    return f" {' '.join(words(part))} " in f" {' '.join(words(text))} "


def form(text):
    """What an option looks like; all options of an item look the same. As `Form::of` in src/quiz/span.rs."""
    if text[:1] in "0123456789":
        return "number" if re.fullmatch(r"[\d.,]*\d%?", text, re.ASCII) else "quantity"
    return "name" if text[:1].isupper() else "phrase" if text[:1].islower() else "plain"


def is_year(text):
    return re.fullmatch(r"1\d{3}|20\d\d", text) is not None


def as_span(answer):
    """An answer as the server's grammar allows it: a few words, none of them loose at the ends."""
    answer = folded(answer).strip(" .,;:!?\"“”'‘’()[]")
    parts = answer.split(" ")
    while parts and parts[0].lower() in FILLERS:
        parts.pop(0)
    while parts and parts[-1].lower().strip(",") in FILLERS:
        parts.pop()
    answer = " ".join(parts).strip(" .,;:")
    is_short = 0 < len(parts) <= 5 and 1 < len(answer) + answer.isdigit() and len(answer) <= 48
    return answer if is_short and not re.search(r"[;:()\[\]\"“”]", answer) else None


# --- passages


@dataclasses.dataclass
class Asked:
    """A person's question about a passage."""

    question: str
    answer: str
    evidence: str
    key: str  # what kind of thing is asked for: `who`, `when`, `how many`, `what:city`
    aliases: list[str]


@dataclasses.dataclass
class Passage:
    title: str
    text: str
    asked: list[Asked]
    read: list[tuple[str, str]]  # questions that it answers, good ones to ask or not, and their answers


def kind_of_answer(question):
    """What a question asks for, so that wrong answers can be taken from questions that ask for the same."""
    tokens = words(question)
    for at, word in enumerate(tokens):
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        if word in ("who", "whom", "whose", "when", "where", "why"):
            return "who" if word.startswith("who") else word
        if word == "how":
            return f"how {after}"
        if word in ("what", "which"):
            if match := re.search(r"\bname of (?:the |a |an )?(\w+)", " ".join(tokens)):
                return f"what:{match.group(1)}"
            if after in ("year", "date", "century", "decade", "month"):
                return "when"
            if after in ("type", "kind", "sort") and len(tokens) > at + 3:
                return f"what:{tokens[at + 3]}"
            return "what" if after in FILLERS or after in ("s", "name", "happened") else f"what:{after}"
    return "other"


def is_good_question(question, answer):
    tokens = words(question)
    if not (4 <= len(tokens) <= 28 and len(question) <= 160 and question.count("?") == 1 and question.endswith("?")):
        return False
    if DEMONSTRATIVES.search(question) or contains(question, answer) or re.search(r'[\\_<>{}|"]', question):
        return False
    # A pronoun with nothing before it that it could stand for.
    seen_noun = False
    for at, word in enumerate(re.findall(r"[\w'’-]+", question)):
        if word.lower() in PRONOUNS and not seen_noun:
            return False
        seen_noun = seen_noun or at > 0 and word[0].isupper() or at > 1 and len(word) > 4 and word.lower() not in FILLERS
    return True


def tidy_question(question):
    question = folded(question).replace(" ?", "?").replace("“", '"').replace("”", '"')
    return question[:1].upper() + question[1:]


def vocabulary_of(texts):
    """Words seen a few times: a question with another long word in small letters is likely misspelt."""
    counts = collections.Counter(word for text in texts for word in set(re.findall(r"[a-z]+", text)))
    return {word for word, count in counts.items() if count >= 3}


def is_spelled_well(question, vocabulary):
    return all(word in vocabulary for word in re.findall(r"(?<![\w'’-])[a-z]{4,}(?![\w'’-])", question))


def asked_of(record, sentence_list, vocabulary):
    """The record's question with its evidence sentence and an answer that is a span of it, or None."""
    question = tidy_question(record["question"])
    for sentence in sentence_list:
        if record["answer"] in sentence:
            break
    else:
        return None
    spans = [span for answer in record["answers"] if (span := as_span(answer)) and span in sentence]
    related = [span for span in spans if span in record["answer"]] or spans
    if not related:
        return None
    answer = related[0]
    if not re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", sentence):
        return None
    if not 20 <= len(sentence) <= 400 or len(words(answer)) * 2 > len(words(sentence)) or "[" in sentence:
        return None
    if not is_good_question(question, answer) or not is_spelled_well(question, vocabulary):
        return None
    return Asked(question, answer, sentence, kind_of_answer(question), record["answers"])


def read_of(record, sentence_list):
    """The record's question and its answer in as few words as the server's grammar has it, or None."""
    question = tidy_question(record["question"])
    found = [answer for answer in record["answers"] if any(answer in sentence for sentence in sentence_list)]
    spans = [span for answer in found if (span := as_span(answer))]
    answer = min(spans or [folded(answer).strip(" .,;:") for answer in found], key=len, default="")
    if not 1 <= len(answer) <= MAX_READ_CHARS or not 8 <= len(question) <= 200 or re.search(r'[\\<>{}|]', question):
        return None
    return question, answer


def passages(records, vocabulary, random):
    """The articles cut as the server cuts a source, with the questions on each piece."""
    articles = {}
    for record in records:
        if record["kind"] == "span":
            paragraphs = articles.setdefault(record["title"], {})
            paragraphs.setdefault(record["context_id"], []).append(record)
    made = []
    for title, paragraphs in articles.items():
        pieces, size = [], 0
        limit = random.choice(PASSAGE_CHARS)
        for group in paragraphs.values():
            for at, sentence in enumerate(sentences(group[0]["context"])):
                gap = "\n" if at == 0 else " "
                if not pieces or size + len(sentence) + 1 > limit:
                    pieces.append([])
                    size, limit = 0, random.choice(PASSAGE_CHARS)
                pieces[-1].append((gap, sentence, group))
                size += len(sentence) + 1
        for piece in pieces:
            text = "".join(gap + sentence for gap, sentence, _ in piece).strip()
            if len(text) > MAX_PASSAGE_CHARS:
                continue
            asked, read, seen = [], {}, set()
            for group in {id(group): group for _, _, group in piece}.values():
                here = [sentence for _, sentence, of in piece if of is group]
                for record in group:
                    if answered := read_of(record, here):
                        read[answered[0]] = answered[1]
                    if (question := asked_of(record, here, vocabulary)) and question.question not in seen:
                        seen.add(question.question)
                        asked.append(question)
            if read:
                made.append(Passage(title, text, asked, list(read.items())))
    return made


def passages_of(sets, random):
    """Of the sets with passages: the articles that are kept out of training, and all passages."""
    texts = {record.get("context", record["question"]) for records in sets.values() for record in records}
    vocabulary = vocabulary_of(texts)
    out = {name: held_out(record["title"] for record in sets[name]) for name in PASSAGE_SETS}
    return out, {name: passages(sets[name], vocabulary, random) for name in PASSAGE_SETS}


# --- what a model wrote


MIN_SHARE_IN_PASSAGE = 0.8
MIN_WORDS_OF_QUESTION = 3
ASKING = frozenset("what which who whom whose when where why how many much name type kind year s".split())


def stems(text):
    """The words that say something, without the endings that a question changes."""
    return {re.sub(r"(?:ings?|ed|es|s|ly|ions?|e)$", "", word)[:7] or word for word in words(text) if word not in FILLERS | ASKING}


def is_about(question, passage):
    """It asks in the passage's words: what it says that the passage does not is likely made up. The server, which
    chooses among drafts, wants all of them there, as `is_about` in src/quiz/wording.rs; here most are enough."""
    said = stems(question)
    return len(said) >= MIN_WORDS_OF_QUESTION and len(said & stems(passage)) >= MIN_SHARE_IN_PASSAGE * len(said)


def written(path):
    """What a server wrote, by passage, as scripts/own_items.py keeps it: items that the model read and answered with
    their keys, and that ask in the passage's words."""
    made = {}
    for record in lines_of(path):
        text, asked = record["passage"], []
        for item in record["items"]:
            question, answer, evidence = item["question"], item["answer"]["text"], item["evidence"]["text"]
            is_kept = {"round_trip", "clean"} <= set(item["checks"]) and is_about(question, text)
            if is_kept and is_good_question(question, answer):
                asked.append(Asked(question, answer, evidence, kind_of_answer(question), [answer]))
        if asked:
            made[text] = asked
    return made


# --- wrong answers


def near_numbers(number, random, count):
    """Numbers like this one: years a little off, others of the same length and precision."""
    percent, bare = number.endswith("%"), number.rstrip("%").replace(",", "")
    if not re.fullmatch(r"\d{1,9}(?:\.\d+)?", bare):
        return []
    decimals = len(bare.partition(".")[2])
    value, found = float(bare), []
    for _ in range(60):
        if is_year(number):
            other = value + random.choice((-1, 1)) * random.randint(1, 30)
        else:
            other = value * random.choice((0.4, 0.5, 0.6, 0.7, 0.8, 1.2, 1.25, 1.5, 1.75, 2, 2.5))
            zeros = len(bare) - len(bare.rstrip("0")) if "." not in bare else 0
            other = round(other / 10**zeros) * 10**zeros if zeros else round(other, decimals)
            if value < 12 and not decimals:
                other = value + random.choice((-3, -2, -1, 1, 2, 3, 4))
        if other <= 0:
            continue
        text = f"{other:,.{decimals}f}" if "," in number else f"{other:.{decimals}f}"
        text += "%" * percent
        if text != number and text not in found:
            found.append(text)
        if len(found) == count:
            break
    return found


class Pool:
    """The answers of an article by the kind of thing they are."""

    def __init__(self, of_article):
        self.by_key, self.names = {}, {}
        for passage in of_article:
            for asked in passage.asked:
                self.by_key.setdefault((asked.key, form(asked.answer)), {})[asked.answer] = None
            for name in names_in(passage.text):
                self.names[name] = None

    def distractors(self, asked, random):
        """Three wrong answers of the kind and form of the right one, or None."""
        kind = form(asked.answer)
        is_generic = asked.key in ("what", "other", "why", "how did", "how does", "how do", "how was")
        is_generic = is_generic or kind == "phrase" and asked.key in ("where", "when")
        pool = [] if is_generic else list(self.by_key.get((asked.key, kind), {}))
        random.shuffle(pool)
        if kind == "number":
            pool = [other for other in pool if is_year(other) == is_year(asked.answer)][:2]
            pool += near_numbers(asked.answer, random, 3)
        pool.sort(key=lambda other: abs(len(other.split()) - len(asked.answer.split())) > 1)
        chosen = []
        for other in pool:
            clashes = [asked.answer, *asked.aliases, *chosen]
            overlap = any(contains(other, clash) or contains(clash, other) for clash in clashes)
            if form(other) == kind and not overlap and not contains(asked.question, other):
                chosen.append(other)
            if len(chosen) == DISTRACTORS:
                return chosen
        return None

    def replacement(self, span, sentence, random):
        """Something of the form of `span` to stand in its place, or None."""
        if form(span) == "number":
            others = near_numbers(span, random, 3)
        elif span in CALENDAR:
            others = next(names for names in (MONTHS, WEEKDAYS) if span in names)
        else:
            keys = [key for key, answers in self.by_key.items() if span in answers]
            others = [other for key in keys for other in self.by_key[key]]
            others = others or [name for name in self.names if len(name.split()) == len(span.split())]
            others = [name for name in others if len(name.split()) <= 3 and name not in CALENDAR and form(name) == "name"]
        others = [other for other in others if not contains(sentence, other) and re.fullmatch(r"[\w ’'.,%-]+", other)]
        return random.choice(list(others)) if others else None


MONTHS = "January February March April May June July August September October November December".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
CALENDAR = frozenset(MONTHS + WEEKDAYS)
NAME = re.compile(r"(?<![.!?:\"“] )(?<![\w\"“‘'(’.-])[A-Z][\w’'-]+(?: [A-Z][\w’'-]+){0,2}(?![\w-]| [A-Z])")
NUMBER = re.compile(r"(?<![\w.,-])\d[\d,.]*\d%?(?![\w-])|(?<![\w.,-])\d%?(?![\w.,-])", re.ASCII)


def names_in(text):
    found = (match for match in NAME.finditer(text) if match.start() > 0)
    return [match.group() for match in found if len(match.group()) > 2 and match.group().lower() not in FILLERS]


# --- items


EVIDENCE_WEIGHT = 0.25  # The server forces all of it but the choice.
SWAPPED_WEIGHT = 0.5  # Wrong answers taken from elsewhere in the article are not always good ones.


def inner(text):
    return json.dumps(text, ensure_ascii=False)[1:-1]


def reply_start(evidence):
    return (f'{{"evidence":"{inner(evidence)}', EVIDENCE_WEIGHT)


def short_answer(passage, asked):
    rest = f'","answer":"{inner(asked.answer)}","question":"{inner(asked.question)}"}}'
    return Example("short_answer", [reply_start(asked.evidence), (rest, 1.0)], passage.text)


def multiple_choice(passage, asked, pool, random):
    distractors = pool.distractors(asked, random)
    if distractors is None:
        return None
    middle = f'","answer":"{inner(asked.answer)}","question":"{inner(asked.question)}","distractors":["'
    options = '","'.join(inner(option) for option in distractors) + '"]}'
    reply = [reply_start(asked.evidence), (middle, 1.0), (options, SWAPPED_WEIGHT)]
    return Example("multiple_choice", reply, passage.text)


def stands_alone(sentence):
    first = sentence.split(" ")[0].strip("\"“‘(,").lower()
    return first not in PRONOUNS and first not in ("this", "these", "those", "however", "but", "and", "there", "such", "then", "so")


def statement(passage, sentence, truth, pool, random):
    sentence_shown = folded(sentence)
    if not stands_alone(sentence) or not 30 <= len(sentence) <= 240:
        return None
    if truth:
        reply = [reply_start(sentence), (f'","answer":true,"question":"', 1.0), (f'{inner(sentence_shown)}"}}', EVIDENCE_WEIGHT)]
        return Example("true_statement", reply, passage.text)
    spans = [(match.start(), match.group()) for regex in (NAME, NUMBER) for match in regex.finditer(sentence_shown)]
    spans = [(at, span) for at, span in spans if span.lower() not in FILLERS and at > 0]
    random.shuffle(spans)
    for at, span in spans:
        if other := pool.replacement(span, sentence_shown, random):
            before, after = inner(sentence_shown[:at]), inner(sentence_shown[at + len(span) :])
            reply = [
                reply_start(sentence), ('","answer":false,"question":"', 1.0), (before, EVIDENCE_WEIGHT),
                (inner(other), 1.0), (f'{after}"}}', EVIDENCE_WEIGHT),
            ]  # fmt: skip
            return Example("false_statement", reply, passage.text)
    return None


def reading(passage, question, answer):
    """A person's question, to be answered from the passage."""
    answer = folded(answer)
    return Example("read", [(f'{{"answer":{json.dumps(answer, ensure_ascii=False)}}}', 1.0)], passage.text, question=question)


def passage_examples(all_passages, random):
    """Examples by passage: one of each good question, statements, and all that people asked to be answered."""
    of_article = {}
    for passage in all_passages:
        of_article.setdefault(passage.title, []).append(passage)
    pools = {title: Pool(group) for title, group in of_article.items()}
    made = []
    for passage in all_passages:
        pool, examples = pools[passage.title], []
        for asked in passage.asked:
            example = multiple_choice(passage, asked, pool, random) if random.random() < 0.75 else None
            examples.append(example or short_answer(passage, asked))
        evidence = sorted({asked.evidence for asked in passage.asked})
        random.shuffle(evidence)
        statements = (statement(passage, sentence, truth, pool, random) for sentence, truth in zip(evidence, (False, False, True)))
        examples += filter(None, statements)
        examples += [reading(passage, question, answer) for question, answer in passage.read]
        random.shuffle(examples)
        made.append(examples)
    return made


# --- trivia


UNWANTED = frozenset("celebrities rated newest television movies music entertainment video-games hobbies".split())
UNWANTED_WORDS = re.compile(r"\b(?:sex\w*|porn\w*|nude|naked|rape\w*|suicide|drugs?|prostitut\w*|fuck\w*|shit\w*|breasts?|playboy)\b", re.I)
LOST_APOSTROPHE = re.compile(r"\b(?:dont|doesnt|didnt|isnt|wasnt|cant|wont|thats|whats|lets|hes|shes|theyre|youre)\b", re.I)


def trivia(record):
    """A trivia record with its key and three wrong answers, if it is fit to learn from."""
    if record["kind"] != "mcq" or len(record["choices"]) != DISTRACTORS + 1 or record.get("category") in UNWANTED:
        return None
    if record["category"].startswith(("Entertainment: Japanese", "Celebrities", "Entertainment: Video")):
        return None
    question, answer = tidy_question(record["question"]), folded(record["answer"]).rstrip(" .")
    options = [option for choice in record["choices"] if (option := folded(choice).rstrip(" .")) != answer]
    texts = [question, answer, *options]
    if len(options) != DISTRACTORS or not question.endswith("?") or not 12 <= len(question) <= 160:
        return None
    if any(UNWANTED_WORDS.search(text) or LOST_APOSTROPHE.search(text) or re.search(r'[\\_<>{}|\ufffd]', text) for text in texts):
        return None
    if len({form(option) for option in [answer, *options]}) != 1 or len({option.lower() for option in options}) != DISTRACTORS:
        return None
    if re.search(r"\b(?:not|except|following|these|this)\b", question, re.I) or contains(question, answer):
        return None
    lengths = [len(option) for option in [answer, *options]]
    if max(lengths) > 40 or max(lengths) > 6 * max(min(lengths), 2) or re.search(r"\b(?:all|none|both) of\b", " ".join(options), re.I):
        return None
    return question, answer, options


def trivia_example(record, random):
    """Wrong answers to a question and its answer; of verified questions, the asking too."""
    found = trivia(record)
    if found is None:
        return None
    question, answer, options = found
    random.shuffle(options)
    verified = record["source"] == "opentdb"
    asked = f'{{"answer":"{inner(answer)}","question":"{inner(question)}","distractors":["'
    wrong = '","'.join(inner(option) for option in options) + '"]}'
    topic = record["category"].removeprefix("Entertainment: ").removeprefix("Science: ").replace("-", " ").capitalize()
    return Example("multiple_choice", [(asked, 1.0 if verified else 0.0), (wrong, 1.0)], topic=topic)
