// One question as a card: shown, answered, and its answer explained.

import { t, say } from "./i18n.js";
import { make, icon, announce, focusOn } from "./dom.js";
import { inContext } from "./game.js";

let cards = 0; // for element ids, unique on the page

export class Card {
  /**
   * @param {object} item the question as the server sent it
   * @param {{ number: number, round: import("./game.js").Round }} place
   * @param {{ onAnswered: (card: Card) => void, onNext: (card: Card) => void }} listeners
   */
  constructor(item, { number, round }, listeners) {
    this.item = item;
    this.number = number;
    this.round = round;
    this.listeners = listeners;
    this.done = false;

    const id = `question-${(cards += 1)}`;
    this.question = make("h3", { id, lang: round.request.language }, item.question);
    this.replies = item.kind === "short_answer" ? this.typedReply(id) : this.choiceButtons(id);
    this.skip = say(make("button", { type: "button", class: "quiet skip-question", on: { click: () => this.answer(null) } }), "not_known");
    this.verdict = make("div", { class: "verdict", hidden: true });
    this.element = make("article", { class: "card", tabindex: "-1", "aria-labelledby": id },
      this.header(), this.question, this.replies, this.skip, this.verdict);
  }

  /** Goes to this card: the keys are its own from now on. */
  focus() {
    focusOn(this.element);
  }

  setCurrent(current) {
    this.element.classList.toggle("is-current", current);
  }

  /** Takes a key press; says whether it was meant for this card. */
  press(key) {
    if (this.done || this.item.kind === "short_answer") return false;
    const letter = this.item.kind === "true_false" ? ["t", "f"].indexOf(key.toLowerCase()) : -1;
    const place = letter >= 0 ? letter : Number.parseInt(key, 10) - 1;
    const button = this.replies.querySelectorAll("button")[place];
    button?.click();
    return button !== undefined;
  }

  /** `reply`: the place of a choice, true or false, typed text, or null for "I don't know". */
  answer(reply) {
    if (this.done) return;
    this.done = true;
    const right = this.round.answer(this.item, reply);
    this.showReplies(reply, right);
    this.showVerdict(reply, right);
    this.listeners.onAnswered(this);
    focusOn(this.next, "nearest");
  }

  /** The button onward: there while the answer is being read; after the last question it leads to the result. */
  setNext(shown, last) {
    if (!this.next) return;
    this.next.hidden = !shown;
    say(this.next.firstChild, last ? "finish" : "next");
  }

  header() {
    const { status, kind } = this.item;
    const grounded = status !== "unverified";
    const badge = make("span", { class: `badge ${grounded ? "is-grounded" : "is-unverified"}` },
      icon(grounded ? "quote" : "careful"), say(make("span"), status),
      say(make("span", { class: "unseen" }), `${status}_means`));
    return make("p", { class: "card-top" },
      say(make("span", { class: "number" }), "question_of", { number: this.number, expected: this.round.expected }),
      say(make("span", { class: "kind" }), kind), badge);
  }

  choiceButtons(id) {
    const choices = this.item.kind === "true_false"
      ? [true, false].map((value) => ({ reply: value, key: value ? "T" : "F", label: say(make("span"), String(value)) }))
      : this.item.choices.map((text, place) => ({
          reply: place, key: String(place + 1), label: make("span", { lang: this.round.request.language }, text),
        }));
    const list = make("ol", { class: `choices is-${this.item.kind}`, "aria-labelledby": id });
    for (const { reply, key, label } of choices) {
      const button = make("button", { type: "button", class: "choice", on: { click: () => this.answer(reply) } },
        make("kbd", { "aria-hidden": "true" }, key), label);
      list.append(make("li", { "data-reply": String(reply) }, button));
    }
    return list;
  }

  typedReply(id) {
    this.input = make("input", {
      id: `${id}-reply`, type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", enterkeyhint: "done",
    });
    const submit = (event) => {
      event.preventDefault();
      if (this.input.value.trim() !== "") this.answer(this.input.value);
    };
    return make("form", { class: "reply", novalidate: true, on: { submit } },
      say(make("label", { for: `${id}-reply` }), "your_answer"), this.input,
      say(make("button", { type: "submit", class: "button" }), "answer"));
  }

  /** Marks the right choice and the chosen one, in words too: colour alone tells some nothing. */
  showReplies(reply, right) {
    this.skip.remove();
    if (this.item.kind === "short_answer") {
      this.replies.remove();
      return;
    }
    const key = this.item.kind === "true_false" ? this.item.answer.text.toLowerCase() : String(this.item.answer.choice_index);
    for (const choice of this.replies.children) {
      const isKey = choice.dataset.reply === key;
      const isReply = choice.dataset.reply === String(reply);
      const button = choice.firstChild;
      button.disabled = true;
      if (isKey || isReply) {
        choice.classList.add(isKey ? "is-right" : "is-wrong");
        button.append(icon(isKey ? "right" : "wrong"),
          say(make("span", { class: "unseen" }), isReply && !right ? "is_reply" : "is_answer"));
      }
    }
  }

  showVerdict(reply, right) {
    const answer = this.answerText();
    const line = make("span");
    if (right) say(line, this.round.streak > 1 ? "right_streak" : "right", { streak: this.round.streak });
    else say(line, reply === null ? "revealed" : "wrong", { answer });

    this.outcome = make("p", { class: `outcome ${right ? "is-right" : "is-wrong"}` }, icon(right ? "right" : "wrong"), line);
    this.verdict.append(this.outcome);
    if (this.item.kind === "short_answer" && reply !== null) this.showTyped(reply, right);
    if (this.item.evidence) this.verdict.append(this.evidence());
    if (this.item.explanation) this.verdict.append(make("p", { class: "explanation", lang: this.round.request.language }, this.item.explanation));
    this.next = make("button", { type: "button", class: "button next", on: { click: () => this.listeners.onNext(this) } },
      say(make("span"), "next"), make("kbd", { "aria-hidden": "true" }, "Enter"));
    this.verdict.append(this.next);
    this.verdict.hidden = false;
    announce([line.textContent, this.item.evidence?.text, this.item.explanation].filter(Boolean).join(" "));
  }

  /** What the player typed, and, where the letters differ from the key, a way to overrule the comparison. */
  showTyped(reply, right) {
    const typed = make("p", { class: "typed" }, say(make("span"), "you_wrote", { reply }));
    if (!right) {
      const overrule = () => {
        this.round.overrule(this.item);
        this.outcome.className = "outcome is-right";
        this.outcome.firstChild.replaceWith(icon("right"));
        say(this.outcome.lastChild, "right");
        typed.lastChild.remove();
        announce(t("right"));
        this.listeners.onAnswered(this);
        this.next.focus();
      };
      typed.append(say(make("button", { type: "button", class: "quiet", on: { click: overrule } }), "overrule"));
    }
    this.verdict.append(typed);
  }

  evidence() {
    const { evidence, citation } = this.item;
    const { source, language: lang } = this.round.request;
    const text = citation?.passage ?? source;
    const place = text ? inContext(text, evidence) : null;
    const quote = place
      ? make("blockquote", { lang }, place.before, make("mark", {}, place.quote), place.after)
      : make("blockquote", { lang }, make("mark", {}, evidence.text));
    const caption = make("figcaption");
    if (!citation) return make("figure", { class: "evidence" }, say(caption, "evidence"), quote);
    const rights = [citation.source, citation.licence].filter(Boolean).join(" · ");
    return make("figure", { class: "evidence" }, say(caption, "cited", citation), quote,
      make("p", { class: "rights" }, rights));
  }

  /** The answer as shown: the item's words, or a message of ours. */
  answerText() {
    const { kind, answer, choices } = this.item;
    if (kind === "true_false") return { key: answer.text.toLowerCase() };
    if (kind === "multiple_choice") return choices[answer.choice_index] ?? answer.text;
    return answer.text;
  }
}
