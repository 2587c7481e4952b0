// The box at the foot of the page and its options: what the player asks for.

import { say, language as interfaceLanguage } from "./i18n.js";

/** A line longer than this, or more than one line, is taken for a text rather than a topic. */
const LONGEST_TOPIC = 120;

/** Models by these names learned English only. */
const ENGLISH_ONLY = /smollm2/i;

export class Composer {
  /**
   * @param {HTMLFormElement} form
   * @param {{ onAsk: (request: object) => void, onStop: () => void }} listeners
   */
  constructor(form, { onAsk, onStop }) {
    this.form = form;
    this.subject = form.elements.subject;
    this.problem = form.querySelector("#problem");
    this.model = null;
    this.modeChosen = false; // until the player says otherwise, the text decides
    this.languageChosen = false;
    this.busy = false;

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const request = this.busy ? null : this.read();
      if (request) onAsk(request);
    });
    form.querySelector("#stop").addEventListener("click", onStop);
    this.subject.addEventListener("input", () => this.refresh());
    this.subject.addEventListener("keydown", (event) => this.sendOnEnter(event));
    form.addEventListener("change", (event) => {
      if (event.target.name === "mode") this.modeChosen = true;
      if (event.target.name === "language") this.languageChosen = true;
      this.refresh();
    });
  }

  get mode() {
    return this.form.elements.mode.value;
  }

  get quizLanguage() {
    return this.form.elements.language.value;
  }

  /** Enter sends a topic, as in a chat; in a text it is a new line, and Ctrl or Command with it sends. */
  sendOnEnter(event) {
    if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
    if (this.mode === "source" && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.form.requestSubmit();
  }

  /** The request, or null after pointing at what is missing. */
  read() {
    const { count, difficulty, language } = this.form.elements;
    const text = this.subject.value.trim();
    const kinds = this.kinds();
    if (text === "") return this.pointAt("topic", "empty_subject");
    if (kinds.length === 0) return this.pointAt("kind", "no_kind");
    return {
      [this.mode]: text,
      count: Number(count.value),
      kind: kinds.length === 1 ? kinds[0] : kinds,
      difficulty: difficulty.value,
      language: language.value,
    };
  }

  kinds() {
    return [...this.form.querySelectorAll("[name=kind]:checked")].map((box) => box.value);
  }

  /** Puts an example, or a request that failed, into the box. */
  fill(text, mode = null) {
    this.subject.value = text;
    this.modeChosen = mode !== null;
    if (mode) this.form.elements.mode.value = mode;
    this.refresh();
  }

  /** Empties the box for the next request; the options stay as they are. */
  clear() {
    this.fill("");
    this.form.querySelector("#options").open = false;
  }

  setBusy(busy) {
    this.busy = busy;
    this.form.querySelector("#stop").hidden = !busy;
    this.form.querySelector("#send").hidden = busy;
  }

  /** The model's name decides whether a language needs a word of advice, and which language to begin with. */
  setModel(id) {
    this.model = id;
    this.adoptLanguage();
  }

  /** Until the player picks one, the quiz follows the interface, if the model can. */
  adoptLanguage() {
    const wished = interfaceLanguage();
    if (!this.languageChosen) this.form.elements.language.value = this.speaks(wished) ? wished : "en";
    this.refresh();
  }

  speaks(language) {
    return language === "en" || (this.model !== null && !ENGLISH_ONLY.test(this.model));
  }

  /** Shows what the present choices mean; also after the interface language is switched. */
  refresh() {
    const { elements } = this.form;
    const text = this.subject.value;
    const empty = text.trim() === "";
    if (empty) this.modeChosen = false;
    if (!this.modeChosen) elements.mode.value = looksLikeSource(text) ? "source" : "topic";
    this.form.classList.toggle("has-text", !empty);
    if (!CSS.supports("field-sizing", "content")) growToFit(this.subject);
    this.settle();

    say(this.form.querySelector("#hint"), `hint_${this.mode}`);
    const kinds = this.kinds();
    say(this.form.querySelector("#chosen"), "chosen", {
      count: Number(elements.count.value),
      kinds: { key: kinds.length === 1 ? kinds[0] : "kinds_mixed", number: kinds.length },
      difficulty: { key: elements.difficulty.value },
      language: elements.language.selectedOptions[0].textContent,
    });
    const advice = this.form.querySelector("#advice");
    advice.hidden = this.model === null || this.speaks(this.quizLanguage);
    if (!advice.hidden) say(advice, "english_only", { model: this.model });
  }

  /** Says what is wrong with a field, marks it and goes there. Always null. */
  pointAt(param, key, values = {}) {
    const control = this.control(param) ?? this.subject;
    say(this.problem, key, values);
    this.problem.hidden = false;
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-describedby", "problem");
    if (control !== this.subject) this.form.querySelector("#options").open = true;
    control.focus();
    return null;
  }

  /** Takes the complaint back as soon as anything changes. */
  settle() {
    this.problem.hidden = true;
    for (const control of this.form.querySelectorAll("[aria-invalid]")) {
      control.removeAttribute("aria-invalid");
      control.removeAttribute("aria-describedby");
    }
    this.subject.setAttribute("aria-describedby", "hint");
  }

  /** The control of a field of the wire's request. */
  control(param) {
    const field = param?.split(/[.[]/)[0]; // "kind[1]" is about `kind`
    if (field === "topic" || field === "source") return this.subject;
    if (field === "kind") return this.form.querySelector("[name=kind]");
    if (field === "count" || field === "difficulty" || field === "language") return this.form.elements[field];
    return null;
  }
}

/** What `field-sizing: content` does where a browser has it. */
function growToFit(textarea) {
  textarea.style.height = "auto";
  textarea.style.height = `${textarea.scrollHeight}px`;
}

function looksLikeSource(text) {
  return text.trim().length > LONGEST_TOPIC || text.trim().includes("\n");
}
