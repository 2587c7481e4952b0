// The page's flow: asks for a quiz, deals the cards as they arrive, keeps the score.
//
//   composer.js ──request──▶ app.js ──▶ stream.js (server)
//                              │ ▲ items
//         game.js (rules) ◀────┤ │
//                              ▼
//               cards.js, notes.js (the thread), with i18n.js and dom.js

import { Card } from "./cards.js";
import { Composer } from "./composer.js";
import { announce, focusOn, icon, make } from "./dom.js";
import { examples } from "./examples.js";
import { Round } from "./game.js";
import { language, preferredLanguage, remember, say, setLanguage, t } from "./i18n.js";
import { cautionNote, errorNote, lineNote, nothingNote, PendingNote, requestNote, resultNote } from "./notes.js";
import { modelIds, writeQuiz } from "./stream.js";

const thread = document.getElementById("thread");
const composer = new Composer(document.getElementById("composer"), { onAsk: ask, onStop: stop });

/** The server takes no more questions than this in `exclude`. */
const MOST_EXCLUDED = 200;

let play = null; // the round on the table, with its cards
let writing = null; // AbortController of the request under way

/** A round as it lies on the table: the rules' round, its cards and where they go. */
class Play {
  constructor(request, expected) {
    this.round = new Round(request, expected);
    this.cards = [];
    this.element = make("section", { class: "round" });
    this.latest = null; // the card whose answer is being read
    this.pending = new PendingNote();
    this.summary = null;
    this.over = false; // no more cards will come
    this.result = null; // shown once every card has an answer
    this.notice = null; // how the writing ended, where it did not end well
  }

  deal(item) {
    this.round.add(item);
    const place = { number: this.cards.length + 1, round: this.round };
    const onAnswered = (card) => {
      this.latest = card;
      refresh(this);
    };
    const card = new Card(item, place, { onAnswered, onNext: () => advance(this) });
    this.cards.push(card);
    return card;
  }

  /** The card to answer now. */
  get current() {
    return this.cards.find((card) => !card.done) ?? null;
  }
}

/** A new request from the box. */
function ask(request) {
  composer.clear();
  begin({ ...request, seed: newSeed() }, request.source ? "asked_source" : "asked_topic");
}

/** "More like these": the same again, without anything asked before. */
function askMore(request, asked) {
  begin({ ...request, exclude: excluding(request, asked), seed: newSeed() }, "asked_more");
}

function begin(request, key) {
  stop();
  play = lay(new Play(request, request.count), key);
  play.element.append(cautionNote(request));
  write(play, request);
}

/** "Try the missed ones again": the same cards, no server. */
function replay(items, request) {
  play = lay(new Play(request, items.length), "asked_missed");
  for (const item of items) play.element.append(play.deal(item).element);
  play.over = true;
  refresh(play);
  play.current.focus();
}

function lay(fresh, key) {
  document.body.classList.remove("is-empty");
  fresh.element.append(requestNote(key, fresh.round.request, fresh.round.expected));
  thread.append(fresh.element);
  return fresh;
}

/** Streams questions into a round until it ends, for whatever reason. */
async function write(target, request) {
  const controller = new AbortController();
  writing = controller;
  composer.setBusy(true);
  target.notice?.remove();
  target.over = false;
  refresh(target);
  target.pending.show(target.cards.length + 1, target.round.expected);
  target.element.append(target.pending.element);
  focusOn(target.pending.element, "nearest");
  announce(target.pending.text.textContent);
  try {
    for await (const event of writeQuiz(request, controller.signal)) {
      if (event.type === "item") arrived(target, event.item);
      if (event.type === "completed") target.summary = event.summary;
    }
    if (target.cards.length === 0) notice(target, nothingNote(request, target.summary, () => rest(target, request)));
  } catch (error) {
    interrupted(target, request, error);
  } finally {
    if (writing === controller) {
      writing = null;
      composer.setBusy(false);
    }
    const waiting = target.pending.element.contains(document.activeElement);
    target.pending.remove();
    target.over = true;
    refresh(target);
    if (waiting) advance(target);
  }
}

function arrived(target, item) {
  const { pending } = target;
  const waiting = pending.element.contains(document.activeElement) || document.activeElement === document.body;
  const card = target.deal(item);
  pending.element.before(card.element);
  if (card.number < target.round.expected) pending.show(card.number + 1, target.round.expected);
  refresh(target);
  if (waiting && target.current === card) card.focus();
  else announce(t("arrived", { number: card.number, question: item.question }));
}

/** Says what interrupted the writing, and offers the way on. */
function interrupted(target, request, error) {
  const delivered = target.cards.length;
  const missing = target.round.expected - delivered;
  const retry = () => rest(target, request);
  if (error.name === "AbortError") {
    const again = say(make("button", { type: "button", class: "quiet", on: { click: retry } }), "retry_rest", { number: missing });
    notice(target, lineNote("stopped", { delivered, expected: target.round.expected }, again));
    return;
  }
  if (!error.kind) console.error(error); // a mistake in this page, not the server's
  const change = () => {
    composer.fill(request.source ?? request.topic, request.source ? "source" : "topic");
    if (error.param) composer.pointAt(error.param, "error_field", { field: { key: error.param }, message: error.message });
    else composer.subject.focus();
  };
  notice(target, errorNote(error, { delivered, missing }, { onRetry: retry, onChange: change }));
}

/** One line or box at a time says how the writing ended. */
function notice(target, element) {
  target.notice = element;
  target.element.append(element);
  element.scrollIntoView({ block: "nearest" });
  announce(element.innerText);
}

/** Writes what a round still lacks, without asking again what it has. */
function rest(target, request) {
  stop();
  play = target;
  const asked = target.round.items.map((item) => item.question);
  const count = target.round.expected - asked.length;
  write(target, { ...request, count, exclude: excluding(target.round.request, asked), seed: newSeed() });
}

/** What must not come again, the latest first to be kept where the server's limit is reached. */
function excluding(request, asked) {
  return [...new Set([...(request.exclude ?? []), ...asked])].slice(-MOST_EXCLUDED);
}

/** After anything that changes a round: the score, the current card, the result. */
function refresh(target) {
  const { round, current } = target;
  for (const card of target.cards) {
    card.setCurrent(card === current);
    card.setNext(card === target.latest, target.over && current === null);
  }
  showScore(play.round);
  target.result?.remove();
  target.result = null;
  if (!target.over || current !== null || target.cards.length === 0) return;

  target.result = resultNote(round, target.summary, {
    onMore: () => askMore(round.request, round.items.map((item) => item.question)),
    onMissed: () => replay(round.missed, round.request),
  });
  target.element.append(target.result);
}

/** On to the first card without an answer, or to where the next thing will be. */
function advance(target) {
  target.latest = null;
  refresh(target);
  if (target.current) target.current.focus();
  else if (target.result) focusOn(target.result, "center");
  else if (!target.over) focusOn(target.pending.element, "center");
  else if (target.notice) focusOn(target.notice, "nearest");
}

function showScore(round) {
  const score = document.getElementById("score");
  score.replaceChildren(say(make("span"), "score", { right: round.right, answered: round.answered }));
  if (round.streak > 1) {
    const spoken = say(make("span", { class: "unseen" }), "streak", { streak: round.streak });
    score.append(make("span", { class: "streak" }, icon("streak"), make("span", { "aria-hidden": "true" }, String(round.streak)), spoken));
  }
  score.hidden = round.answered === 0;
}

function stop() {
  writing?.abort();
}

/** Sent with every request, so that the server's answer can be asked for again. */
function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** Number and letter keys answer the card that has the focus, or the current one when nothing has. */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest("input, textarea, select")) return;
  const focused = play?.cards.find((card) => card.element.contains(event.target));
  const card = focused ?? (event.target === document.body ? play?.current : null);
  if (card?.press(event.key)) event.preventDefault();
}

function switchTo(code) {
  setLanguage(code);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language()));
  }
  composer.adoptLanguage();
  showExamples();
}

function showExamples() {
  const buttons = examples(composer.quizLanguage).map(({ label, text, source }) => {
    const choose = () => {
      composer.fill(text, source ? "source" : "topic");
      composer.subject.focus();
    };
    const button = make("button", { type: "button", class: "example", lang: composer.quizLanguage, on: { click: choose } });
    if (source) say(button, "example_text", { title: label });
    else button.textContent = label;
    return make("li", {}, button);
  });
  document.getElementById("examples").replaceChildren(...buttons);
}

document.addEventListener("keydown", onKey);
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    remember(button.dataset.language);
    switchTo(button.dataset.language);
  });
}
composer.form.elements.language.addEventListener("change", showExamples);
switchTo(preferredLanguage());
composer.subject.focus();
modelIds().then(([id]) => {
  composer.setModel(id);
  showExamples();
}).catch(() => {}); // without it the page merely gives no advice about languages
