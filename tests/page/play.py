"""Plays the page in real headless Chromium, as a person would.

usage: play.py SERVER [--screenshot FILE]

SERVER is a running mondai with its default model. One game is played against it; what a healthy server cannot be
made to do on demand (break off, be full) is played by a stand-in that serves the same page.
"""

import argparse
import pathlib
import sys
import threading
import unittest

from stand_in import StandIn, refuse, stream
from webdriver import Browser

PHONE, DESKTOP = (360, 740), (1280, 800)
GENERATION_SECONDS = 300  # for one quiz of three questions, on two busy cores and an unoptimised build

SOURCE = (
    "Honey bees live in colonies of up to 60,000 insects. Almost all of them are workers, which are female. "
    "Each colony has a single queen, who can lay 2,000 eggs a day. To make one kilogram of honey, bees visit "
    "about four million flowers. In winter the bees gather in a ball around the queen and shiver to keep her warm."
)


def choice(question, choices, key, **more):
    answer = {"text": choices[key], "choice_index": key}
    return {"kind": "multiple_choice", "question": question, "choices": choices, "answer": answer,
            "status": "unverified", "checks": [], **more}


def true_false(question, answer):
    return {"kind": "true_false", "question": question, "answer": {"text": answer}, "status": "unverified", "checks": []}


def short(question, answer):
    return {"kind": "short_answer", "question": question, "answer": {"text": answer}, "status": "unverified", "checks": []}


def grounded(item, evidence):
    start = SOURCE.index(evidence)
    place = {"text": evidence, "start": start, "end": start + len(evidence)}
    return {**item, "evidence": place, "status": "grounded"}


QUIZ = [
    choice("Which planet has the largest volcano?", ["Venus", "Mars", "Earth", "Jupiter"], 1,
           explanation="Olympus Mons is 22 km high."),
    true_false("The Sun is a star.", "true"),
    short("Which galaxy is ours?", "The Milky Way"),
]


class PageTest(unittest.TestCase):
    """A browser, and a stand-in for the server; each test begins on a fresh page."""

    language = "en-US"

    @classmethod
    def setUpClass(cls):
        cls.browser = Browser(cls.language)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.expected_complaints = ()
        self.stand_in = StandIn(SERVER)
        self.addCleanup(self.stand_in.close)
        self.browser.resize(*DESKTOP)
        self.browser.prefer(prefers_color_scheme="light", prefers_reduced_motion="reduce")
        self.visit(self.stand_in.url)

    def tearDown(self):
        """Nothing may be left in the console: no error, and no violation of the content security policy."""
        complaints = self.browser.complaints()
        unexpected = [text for text in complaints if not any(known in text for known in self.expected_complaints)]
        self.assertEqual(unexpected, [])

    def visit(self, url):
        self.browser.open(url)
        self.browser.run("localStorage.clear()")
        self.browser.open(url)
        self.browser.wait("the page to start", lambda: self.browser.focused("#subject"))

    def ask(self, text="The planets", count=3):
        self.browser.run("document.querySelector('[name=count]').value = arguments[0]", str(count))
        self.browser.type("#subject", text)
        self.browser.click("#send")

    def wait_for(self, selector, number=1, seconds=20):
        self.browser.wait(f"{number} x {selector}", lambda: self.browser.count(selector) >= number, seconds)

    def wait_text(self, selector, text):
        self.browser.wait(f"“{text}” in {selector}",
                          lambda: self.browser.count(selector) and text in self.browser.text(selector))

    def assert_fits(self):
        """Nothing sticks out to the side."""
        wide = self.browser.run("""
            return [...document.querySelectorAll("body *")]
              .filter((e) => e.checkVisibility() && !e.closest(".unseen, .skip") && e.getBoundingClientRect().right > innerWidth + 0.5)
              .map((e) => e.outerHTML.slice(0, 80));""")
        self.assertEqual(wide, [])
        self.assertLessEqual(self.browser.run("return document.documentElement.scrollWidth - innerWidth"), 0)

    def assert_readable(self):
        """Each visible text has a contrast of 4.5:1 or more on its background (WCAG 2 AA)."""
        self.assertEqual(self.browser.run(FAINT_TEXTS), [])

    def assert_named(self):
        """Whatever can be operated has a name for screen readers."""
        nodes = self.browser.devtools("Accessibility.getFullAXTree", {})["nodes"]
        roles = ("button", "textbox", "combobox", "checkbox", "radio", "link", "article")
        nameless = [node["role"]["value"] for node in nodes
                    if not node.get("ignored") and node.get("role", {}).get("value") in roles
                    and not node.get("name", {}).get("value")]
        self.assertEqual(nameless, [])


class Game(PageTest):
    def test_a_game_with_the_real_server_by_keyboard_alone(self):
        browser = self.browser
        self.visit(SERVER)
        browser.run("let seed = 0; crypto.getRandomValues = (numbers) => numbers.fill(seed += 1);")  # the same game each time
        browser.type("#subject", SOURCE)
        self.assertTrue(browser.run("return document.querySelector('[name=mode][value=source]').checked"))
        self.tab_to("#options summary")
        browser.press("Enter")
        self.tab_to("[name=count]")
        browser.press("3")
        self.tab_to("[name=kind][value=short_answer]")
        browser.press("Space")
        self.assertEqual(browser.text("#chosen"), "3 questions · 3 kinds · Easy · English")
        self.assert_named()
        self.tab_to("#send", backwards=True)
        browser.press("Enter")

        asked = self.play_round()
        self.assertEqual(len(set(asked)), len(asked))
        self.assertIn(f"of {len(asked)} right", browser.text(".result-score"))
        self.assertIn(f"of {len(asked)} right", browser.text("#score"))
        self.assert_named()

        # More like these: other questions.
        self.tab_to(".actions .button:last-child")
        browser.press("Enter")
        self.wait_for_turn(".round:last-child .card")
        self.assertNotIn(browser.text(".round:last-child h3"), asked)
        browser.wait("the writing to end", lambda: browser.shown("#send"), GENERATION_SECONDS)

    def play_round(self):
        """Answers each card as it gets the focus, until the result does; returns the questions."""
        browser, asked = self.browser, []
        while True:
            self.wait_for_turn(".card, .result")
            if browser.focused(".result"):
                self.assertGreater(len(asked), 0)
                return asked
            asked.append(browser.text(".card:focus h3"))
            self.assertEqual(browser.text(".card:focus .badge span"), "Grounded")
            if browser.count(".card:focus .reply"):
                browser.press("Tab", *"bees", "Enter")
            else:
                browser.press("1")
            browser.wait("the way on to have the focus", lambda: browser.focused(".next"))
            self.assertIn(browser.text(".card:has(.next:focus) .outcome")[:5], ("Right", "Not q"))
            self.assertIn(browser.text(".card:has(.next:focus) .evidence mark"), SOURCE)
            if len(asked) == 2:
                self.take_screenshot()
            browser.press("Enter")

    def wait_for_turn(self, selector):
        self.browser.wait(f"{selector} to have the focus", lambda: self.browser.focused(selector), GENERATION_SECONDS)

    def test_replies_are_marked_and_counted(self):
        browser = self.browser
        self.stand_in.answer = stream(QUIZ)
        self.ask()
        self.wait_for(".card", 3)
        self.assertIn("Unverified", browser.text(".caution.is-loud"))

        browser.click(".is-current li:nth-child(1) button")
        self.assertEqual(browser.text(".outcome"), "Not quite. The answer is Mars.")
        self.assertEqual(browser.text(".choices .is-wrong").split(), ["1", "Venus", "your", "answer"])
        self.assertEqual(browser.text(".choices .is-right").split(), ["2", "Mars", "the", "right", "answer"])
        self.assertEqual(browser.text(".explanation"), "Olympus Mons is 22 km high.")
        browser.press("Enter", "t")
        self.assertEqual(browser.text(".card:nth-of-type(2) .outcome"), "Right!")
        browser.press("Enter", "Tab")
        browser.press(*"milky way", "Enter")
        self.assertEqual(browser.text(".card:nth-of-type(3) .outcome"), "Right! 2 in a row.")
        self.assertIn("2 of 3 right", browser.text("#score"))
        browser.press("Enter")
        self.assertTrue(browser.focused(".result"))
        self.assertEqual(browser.text(".result h3"), "A good start.")
        self.assertIn("Best streak: 2", browser.text(".result"))

    def test_the_missed_ones_come_again_without_the_server(self):
        browser = self.browser
        self.stand_in.answer = stream(QUIZ)
        self.ask()
        self.wait_for(".card", 3)
        browser.press("1", "Enter", "t", "Enter")
        browser.click(".is-current .skip-question")
        browser.press("Enter")
        browser.click(".actions .button:first-child")
        self.assertEqual(browser.count(".round"), 2)
        self.assertEqual(browser.text(".round:last-child h3"), QUIZ[0]["question"])
        browser.press("2", "Enter", "Tab", *"galaxy", "Enter")
        self.assertEqual(browser.text(".round:last-child .card:nth-of-type(2) .outcome"), "Not quite. The answer is The Milky Way.")
        browser.click(".round:last-child .typed button")  # the player knows better
        self.assertIn("2 of 2 right", browser.text("#score"))
        self.assertEqual(browser.text(".round:last-child .result h3"), "All right!")
        self.assertEqual(len(self.stand_in.requests), 1)

    def test_more_like_these_sends_the_same_request_without_the_questions_asked(self):
        browser = self.browser
        self.stand_in.answer = stream(QUIZ[:1])
        self.ask(count=3)
        self.wait_for(".card")
        browser.press("2")
        self.wait_for(".result")
        self.assertIn("1 of 3", browser.text(".result .line"))
        self.stand_in.answer = stream(QUIZ[1:])
        browser.click(".actions .button:last-child")
        self.wait_for(".round:last-child .card", 2)
        first, second = self.stand_in.requests
        self.assertNotEqual(first.pop("seed"), second.pop("seed"))
        self.assertEqual(first, {"topic": "The planets", "count": 3, "kind": ["multiple_choice", "true_false"], "difficulty": "easy", "language": "en"})
        self.assertEqual(second, {**first, "exclude": [QUIZ[0]["question"]]})

    def test_evidence_is_marked_in_its_place(self):
        self.stand_in.answer = stream([grounded(short("How many eggs a day?", "2,000"), "can lay 2,000 eggs a day")])
        self.ask(SOURCE)
        self.wait_for(".card")
        self.assertEqual(self.browser.text(".badge span"), "Grounded")
        self.browser.type(".reply input", "2000\ue007")
        self.assertEqual(self.browser.text(".evidence mark"), "can lay 2,000 eggs a day")
        self.assertIn("a single queen, who can lay 2,000 eggs a day. To make", self.browser.text(".evidence blockquote"))

    def test_a_passage_of_the_library_is_cited(self):
        item = grounded(short("How many eggs a day?", "2,000"), "can lay 2,000 eggs a day")
        citation = {"title": "Honey bees", "licence": "CC0-1.0", "source": "A <b>book</b>", "passage": SOURCE}
        self.stand_in.answer = stream([{**item, "citation": citation}])
        self.ask()
        self.wait_for(".card")
        self.assertEqual(self.browser.text(".badge span"), "Grounded")
        self.browser.type(".reply input", "2000\ue007")
        self.assertIn("Honey bees", self.browser.text(".evidence figcaption"))
        self.assertEqual(self.browser.text(".evidence .rights"), "A <b>book</b> · CC0-1.0")
        self.assertIn("a single queen, who can lay 2,000 eggs a day. To make", self.browser.text(".evidence blockquote"))
        self.assert_fits()

    def test_text_from_the_model_is_never_markup(self):
        self.browser.resize(*PHONE)
        hostile = "<img src=x onerror=alert(1)>" + "unbroken" * 40
        self.stand_in.answer = stream([choice(hostile, [hostile, "b"], 1, explanation=hostile)])
        self.ask()
        self.wait_for(".card")
        self.browser.press("1")
        self.assertEqual(self.browser.text(".card h3"), hostile)
        self.assertEqual(self.browser.count("#thread img"), 0)
        self.assert_fits()

    def test_cards_come_one_by_one_and_stop_ends_the_writing(self):
        browser, more = self.browser, threading.Semaphore(1)
        self.addCleanup(more.release)
        self.stand_in.answer = stream(QUIZ, gate=lambda _: more.acquire(timeout=60))
        self.ask()
        self.wait_for(".card")
        self.assertTrue(browser.focused(".card"))
        self.assertEqual(browser.text(".pending > span:nth-child(2)"), "Writing question 2 of 3…")
        browser.press("2", "Enter")  # nothing to go on to yet: wait where it will appear
        self.assertTrue(browser.focused(".pending"))
        more.release()
        browser.wait("the second card to take the focus", lambda: browser.focused(".card:nth-of-type(2)"))
        browser.click("#stop")
        self.wait_text(".line", "Stopped after 2 of 3.")
        browser.press("t")
        self.assertFalse(browser.shown(".pending"))
        browser.wait("the result", lambda: browser.count(".result"))

    def tab_to(self, selector, backwards=False):
        for _ in range(30):
            if self.browser.focused(selector):
                return
            if backwards:
                self.browser.chord("Shift", "Tab")
            else:
                self.browser.press("Tab")
        self.fail(f"{selector} cannot be reached with the Tab key")

    def take_screenshot(self):
        if SCREENSHOT:
            SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
            self.browser.screenshot(SCREENSHOT)


class Errors(PageTest):
    def setUp(self):
        super().setUp()
        self.expected_complaints = ("Failed to load resource",)  # the browser's own line about the answer we chose

    def test_a_full_queue_says_how_long_to_wait(self):
        browser = self.browser
        error = {"message": "the queue is full", "type": "rate_limit_error", "param": None, "code": None}
        self.stand_in.answer = refuse(429, error, {"retry-after-ms": "1500"})
        self.ask()
        self.wait_text(".error", "The server is busy")
        self.assertIn("try again in 2 s", browser.text(".error"))
        self.assertTrue(browser.run("return document.querySelector('.error button').disabled"))
        self.stand_in.answer = stream(QUIZ)
        browser.wait("the wait to be over", lambda: not browser.run("return document.querySelector('.error button').disabled"))
        browser.click(".error button")
        self.wait_for(".card", 3)
        self.assertEqual(browser.count(".error"), 0)

    def test_a_refused_field_is_named_and_marked(self):
        error = {"message": "at most 4 here", "type": "invalid_request_error", "param": "count", "code": None}
        self.stand_in.answer = refuse(400, error)
        self.ask()
        self.wait_text(".error", "Questions: at most 4 here")
        self.browser.click(".error button")
        self.assertTrue(self.browser.focused("[name=count][aria-invalid=true]"))
        self.assertIn("at most 4 here", self.browser.text("#problem"))
        self.assertEqual(self.browser.run("return document.querySelector('#subject').value"), "The planets")

    def test_the_real_server_names_the_field_too(self):
        self.visit(SERVER)
        self.browser.run("document.querySelector('#subject').value = arguments[0]", "bees and " * 2000)
        self.browser.type("#subject", "flowers")
        self.browser.run("document.querySelector('[name=mode][value=topic]').click()")
        self.browser.click("#send")
        self.wait_text(".error", "Topic: ")
        self.browser.click(".error button")
        self.assertTrue(self.browser.focused("#subject[aria-invalid=true]"))

    def test_a_server_that_is_not_ready(self):
        self.stand_in.answer = refuse(503, {"message": "draining", "type": "server_error", "param": None, "code": None})
        self.ask()
        self.wait_text(".error", "The server is not ready")

    def test_a_server_that_is_gone(self):
        self.stand_in.close()
        self.ask()
        self.wait_text(".error", "The server cannot be reached")

    def test_a_stream_that_breaks_off_keeps_the_cards(self):
        seen = threading.Event()
        self.addCleanup(seen.set)
        # Breaks off only once both cards are there: what a broken connection had not delivered yet is lost.
        self.stand_in.answer = stream(QUIZ[:2], ending="cut", gate=lambda index: index < 2 or seen.wait(60))
        self.ask()
        self.wait_for(".card", 2)
        seen.set()
        self.wait_text(".error", "The connection broke")
        self.assertIn("The 2 questions so far stay", self.browser.text(".error"))
        self.stand_in.answer = stream(QUIZ[2:])
        self.browser.click(".error button")
        self.wait_for(".card", 3)
        self.assertEqual(self.stand_in.requests[1]["count"], 1)
        self.assertEqual(self.stand_in.requests[1]["exclude"], [item["question"] for item in QUIZ[:2]])
        self.assertIn("Question 3 of 3", self.browser.text(".card:nth-of-type(3)"))

    def test_an_error_event_keeps_the_cards(self):
        self.stand_in.answer = stream(QUIZ[:1], ending="error")
        self.ask()
        self.wait_text(".error", "the model stopped")
        self.assertEqual(self.browser.count(".card"), 1)

    def test_a_quiz_without_questions_can_be_tried_again(self):
        self.stand_in.answer = stream([])
        self.ask()
        self.wait_text(".nothing", "No question passed the checks")
        self.stand_in.answer = stream(QUIZ)
        self.browser.click(".nothing .button")
        self.wait_for(".card", 3)
        self.assertEqual(self.browser.count(".nothing"), 0)

    def test_nothing_to_ask_about(self):
        self.browser.click("#send")
        self.assertEqual(self.browser.text("#problem"), "Type a topic or paste a text first.")
        self.assertTrue(self.browser.focused("#subject[aria-invalid=true]"))
        self.assertEqual(self.stand_in.requests, [])


class Looks(PageTest):
    def test_every_state_fits_and_is_readable(self):
        for size in (PHONE, DESKTOP):
            for scheme in ("light", "dark"):
                for code in ("en", "ja"):
                    with self.subTest(size=size, scheme=scheme, language=code):
                        self.check_states(size, scheme, code)

    def check_states(self, size, scheme, code):
        browser = self.browser
        browser.resize(*size)
        browser.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        self.visit(self.stand_in.url)
        browser.click(f"[data-language={code}]")
        self.check_look()
        browser.click("#options summary")
        browser.run("""
            const language = document.querySelector("[name=language]");
            language.value = "ja";
            language.dispatchEvent(new Event("change", { bubbles: true }));""")
        browser.wait("the advice about languages", lambda: browser.shown("#advice"))
        self.check_look()

        more = threading.Event()
        self.addCleanup(more.set)
        self.stand_in.answer = stream(QUIZ, gate=lambda index: index < 3 or more.wait(60))
        self.ask()
        self.wait_for(".card", 3)
        self.check_look()
        browser.press("1", "Enter", "t", "Enter", "Tab", "x", "Enter")
        self.check_look()
        more.set()
        self.wait_for(".result")
        browser.click(".details summary")
        self.check_look()

        self.stand_in.answer = refuse(503, {"message": "draining", "type": "server_error", "param": None, "code": None})
        self.expected_complaints = ("Failed to load resource",)
        self.ask()
        self.wait_for(".error")
        self.check_look()

    def check_look(self):
        self.assert_fits()
        self.assert_readable()
        self.assert_named()

    def test_nothing_moves_where_motion_is_unwanted(self):
        more = threading.Event()
        self.addCleanup(more.set)
        self.stand_in.answer = stream(QUIZ, gate=lambda index: index < 1 or more.wait(60))
        self.ask()
        self.wait_for(".card")
        self.assertEqual(self.browser.run("return document.getAnimations().length"), 0)
        self.browser.prefer(prefers_reduced_motion="no-preference")
        self.assertGreater(self.browser.run("return document.getAnimations().length"), 0)


class Japanese(PageTest):
    language = "ja"

    def test_the_browser_decides_until_the_player_does(self):
        browser = self.browser
        self.assertEqual(browser.run("return document.documentElement.lang"), "ja")
        self.assertEqual(browser.text("h1"), "何を出題しましょう？")
        self.stand_in.answer = stream(QUIZ)
        self.ask("惑星")
        self.wait_for(".card", 3)
        browser.press("1")
        self.assertEqual(browser.text(".outcome"), "残念。正解は「Mars」です。")
        browser.click("[data-language=en]")  # in the middle of a game
        self.assertEqual(browser.text(".outcome"), "Not quite. The answer is Mars.")
        self.assertEqual(browser.text(".number"), "Question 1 of 3")
        browser.open(self.stand_in.url)
        self.assertEqual(browser.text("h1"), "What shall we ask?")

    def test_both_languages_say_everything(self):
        missing = self.browser.run_async("""
            const [{ english }, { japanese }] = await Promise.all([import("/assets/en.js"), import("/assets/ja.js")]);
            const kind = (messages, key) => typeof messages[key];
            return Object.keys({ ...english, ...japanese }).filter((key) => kind(english, key) !== kind(japanese, key));""")
        self.assertEqual(missing, [])


class Modules(PageTest):
    def test_typed_answers_are_compared_by_their_essence(self):
        cases = [
            ("The Milky Way", "milky  way", True),
            ("Pokémon", "pokemon", True),
            ("ＡＢＣ", "abc", True),
            ("サクラ", "さくら", True),
            ("がん", "かん", False),
            ("2,000", "2000", True),
            ("vitamin A", "vitamin", False),
            ("A", "a", True),
            ("+", "+", True),
            ("+", "", False),
            ("Mars", "Venus", False),
        ]
        for answer, reply, right in cases:
            with self.subTest(answer=answer, reply=reply):
                judged = self.browser.run_async("""
                    const { isRight } = await import("/assets/game.js");
                    return isRight({ kind: "short_answer", answer: { text: args[0] } }, args[1]);""", answer, reply)
                self.assertEqual(judged, right)

    def test_context_counts_code_points(self):
        self.assertEqual(self.context("🐝🐝 the queen lays", "queen", 7, 12), {"before": "🐝🐝 the ", "quote": "queen", "after": " lays"})
        self.assertIsNone(self.context("🐝🐝 the queen lays", "queen", 8, 13))

    def context(self, source, text, start, end):
        return self.browser.run_async("""
            const { inContext } = await import("/assets/game.js");
            return inContext(args[0], { text: args[1], start: args[2], end: args[3] });""", source, text, start, end)

    def test_events_survive_any_cut(self):
        stream_text = ": hello\r\n\r\nevent: a\r\ndata: 問\r\n\r\ndata:one\ndata: two\n\nid: 7\nevent: b\rdata\r\revent: lost\ndata: x\n"
        events = [{"event": "a", "data": "問"}, {"event": "message", "data": "one\ntwo"}, {"event": "b", "data": ""}]
        for size in (1, 2, 3, 7, 1000):
            with self.subTest(size=size):
                parsed = self.browser.run_async("""
                    const { serverSentEvents } = await import("/assets/stream.js");
                    const bytes = new TextEncoder().encode(args[0]);
                    const body = new ReadableStream({
                      start(controller) {
                        for (let at = 0; at < bytes.length; at += args[1]) controller.enqueue(bytes.slice(at, at + args[1]));
                        controller.close();
                      },
                    });
                    const events = [];
                    for await (const event of serverSentEvents(body)) events.push(event);
                    return events;""", stream_text, size)
                self.assertEqual(parsed, events)


# Returns the visible texts whose contrast with what is behind them is under 4.5:1.
FAINT_TEXTS = """
const parse = (colour) => {
  const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
  return { rgb: [r, g, b], a };
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const { rgb, a } = parse(getComputedStyle(e).backgroundColor);
    if (a === 1) return rgb;
  }
  return [255, 255, 255];
};
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(".unseen, .skip, option, script, :disabled.button")) continue;
  let front = luminance(parse(getComputedStyle(element).color).rgb), back = luminance(behind(element));
  const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  if (ratio < 4.5) faint.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.slice(0, 40)} in ${element.className || element.tagName}`);
}
return faint;
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--screenshot", type=pathlib.Path)
    options, rest = parser.parse_known_args()
    SERVER, SCREENSHOT = options.server, options.screenshot
    unittest.main(argv=[sys.argv[0], "--verbose", *rest])
