// The rules: one round of a quiz, its score, and what counts as a right answer. No page, no server.

/** One round: its questions in order, and the player's replies to them. */
export class Round {
  /**
   * @param {object} request as sent to the server
   * @param {number} expected how many questions are coming
   */
  constructor(request, expected) {
    this.request = request;
    this.expected = expected;
    this.items = [];
    this.verdicts = new Map(); // item → { right, reply }
    this.streak = 0;
    this.bestStreak = 0;
  }

  get right() {
    return [...this.verdicts.values()].filter((verdict) => verdict.right).length;
  }

  get answered() {
    return this.verdicts.size;
  }

  /** The questions answered wrongly or not known, in order. */
  get missed() {
    return this.items.filter((item) => this.verdicts.get(item)?.right === false);
  }

  add(item) {
    this.items.push(item);
  }

  /** The first question without a reply. */
  next() {
    return this.items.find((item) => !this.verdicts.has(item));
  }

  /** Takes the reply to a question (null: not known) and says whether it is right. */
  answer(item, reply) {
    const right = isRight(item, reply);
    this.verdicts.set(item, { right, reply });
    this.streak = right ? this.streak + 1 : 0;
    this.bestStreak = Math.max(this.bestStreak, this.streak);
    return right;
  }

  /** The player says that a reply marked wrong was right after all. */
  overrule(item) {
    this.verdicts.get(item).right = true;
    this.streak += 1;
    this.bestStreak = Math.max(this.bestStreak, this.streak);
  }
}

/** A reply is the place of a choice, `true` or `false`, or typed text; null is never right. */
export function isRight(item, reply) {
  if (reply === null) return false;
  if (item.kind === "multiple_choice") return reply === item.answer.choice_index;
  if (item.kind === "true_false") return String(reply) === item.answer.text.toLowerCase();
  const typed = essence(reply);
  return typed !== "" && typed === essence(item.answer.text);
}

/**
 * What is left of a typed answer once width, case, accents, kana, a leading article, spaces and punctuation
 * are set aside. Text of nothing but punctuation (an answer such as "+") is kept as it is.
 */
export function essence(text) {
  const plain = text
    .normalize("NFKD")
    .replace(/[\u0300-\u036f]/g, "") // Latin accents only: voicing marks of kana are part of the letter
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[ァ-ヶ]/g, (katakana) => String.fromCodePoint(katakana.codePointAt(0) - 0x60))
    .trim();
  const bare = plain.replace(/^(a|an|the)\s+(?=\S)/, "").replace(/[\s\p{P}]/gu, "");
  return bare === "" ? plain : bare;
}

/**
 * The words around a piece of evidence, `{ before, quote, after }`, cut at word edges; null when the place
 * given is not where the evidence stands. Offsets count code points, as the server does.
 */
export function inContext(source, evidence, reach = 120) {
  const points = [...source];
  const quote = points.slice(evidence.start, evidence.end).join("");
  if (quote !== evidence.text) return null;

  const from = Math.max(0, evidence.start - reach);
  const to = Math.min(points.length, evidence.end + reach);
  let before = points.slice(from, evidence.start).join("");
  let after = points.slice(evidence.end, to).join("");
  // Text without spaces (Japanese) has no word edges nearby: then any place will do.
  if (from > 0) before = "… " + before.replace(/^\S{0,20}\s+/, "");
  if (to < points.length) after = after.replace(/\s+\S{0,20}$/, "") + " …";
  return { before, quote, after };
}
