// Everything in the thread that is not a question: the request, what is being written, errors, results.

import { say } from "./i18n.js";
import { make, icon } from "./dom.js";

const SUMMARY_LENGTH = 320; // characters of a pasted text shown in the thread

/** What the player asked for, as a message of theirs. */
export function requestNote(key, request, number) {
  const text = request.source ?? request.topic;
  const points = [...text];
  const shown = points.length > SUMMARY_LENGTH ? `${points.slice(0, SUMMARY_LENGTH).join("").replace(/\s+\S{0,20}$/, "")} …` : text;
  return make("div", { class: "asked" },
    make("h2", { class: request.source ? "asked-source" : "asked-topic", lang: request.language }, shown),
    say(make("p", { class: "asked-what" }), key, { number }));
}

/** How far the questions can be trusted; louder when there is no text behind them. */
export function cautionNote(request) {
  const key = request.source ? "caution_source" : "caution_topic";
  return make("p", { class: `caution ${request.source ? "" : "is-loud"}` }, icon("careful"), say(make("span"), key));
}

/** Stands where the next question will appear, and tells how long the wait for it has been. */
export class PendingNote {
  constructor() {
    this.text = make("span");
    this.elapsed = make("span", { class: "elapsed", "aria-hidden": "true" });
    this.element = make("div", { class: "pending", tabindex: "-1" },
      make("span", { class: "dots", "aria-hidden": "true" }, make("i"), make("i"), make("i")), this.text, this.elapsed);
  }

  show(number, expected) {
    this.stop();
    say(this.text, "writing", { number, expected });
    const start = performance.now();
    this.clock = setInterval(() => {
      say(this.elapsed, "seconds", { seconds: Math.round((performance.now() - start) / 1000) });
    }, 1000);
  }

  remove() {
    this.stop();
    this.element.remove();
  }

  stop() {
    clearInterval(this.clock);
    this.elapsed.textContent = "";
  }
}

/** No question passed the checks: what to try, and what became of the drafts. */
export function nothingNote(request, summary, onRetry) {
  const again = say(make("button", { type: "button", class: "button", on: { click: onRetry } }), "retry");
  return make("div", { class: "nothing", tabindex: "-1" },
    say(make("p"), request.source ? "nothing_source" : "nothing_topic"), again, details(summary));
}

/** A quiet line: stopped, fewer than asked for. */
export function lineNote(key, values, ...more) {
  return make("p", { class: "line", tabindex: "-1" }, say(make("span"), key, values), ...more);
}

/**
 * An error, what it means for the player and what can be done about it.
 *
 * @param {import("./stream.js").QuizError} error
 * @param {{ delivered: number, missing: number }} progress
 * @param {{ onRetry: () => void, onChange: () => void }} listeners
 */
export function errorNote(error, { delivered, missing }, { onRetry, onChange }) {
  const kind = error.kind ?? "unexpected";
  const action = make("button", { type: "button", class: "button" });
  const note = make("div", { class: "error", tabindex: "-1" },
    make("p", { class: "error-title" }, icon("careful"), say(make("strong"), `error_${kind}`)));

  if (kind === "refused") {
    note.append(error.param
      ? say(make("p"), "error_field", { field: { key: error.param }, message: error.message })
      : make("p", {}, error.message));
    action.addEventListener("click", onChange);
    say(action, "change");
  } else {
    const advice = say(make("p"), `error_${kind}_do`, { seconds: 0 });
    note.append(advice);
    if (kind === "busy" && error.retryAfterMs > 0) countDown(error.retryAfterMs, advice, action);
    else if (error.message && kind !== "network" && kind !== "cut") note.append(make("p", { class: "error-said" }, error.message));
    if (delivered > 0) note.append(say(make("p"), "error_kept", { delivered }));
    action.addEventListener("click", onRetry);
    if (delivered > 0) say(action, "retry_rest", { number: missing });
    else say(action, "retry");
  }
  note.append(action);
  return note;
}

/** Holds the button back for as long as the server asked, telling how long that still is. */
function countDown(milliseconds, advice, action) {
  const end = performance.now() + milliseconds;
  action.disabled = true;
  const tick = () => {
    const left = end - performance.now();
    say(advice, "error_busy_do", { seconds: Math.max(0, Math.ceil(left / 1000)) });
    if (left > 0) setTimeout(tick, Math.min(left, 1000));
    else action.disabled = false;
  };
  tick();
}

/**
 * The end of a round: the score, and where to go from here.
 *
 * @param {import("./game.js").Round} round
 * @param {object|null} summary the server's account of the writing; null when it was not the one to finish
 */
export function resultNote(round, summary, { onMore, onMissed }) {
  const { right, answered, missed, bestStreak } = round;
  const share = right / answered;
  const key = share === 1 ? "result_all" : share >= 0.7 ? "result_good" : share > 0 ? "result_some" : "result_none";
  const meter = make("progress", { class: "meter", max: answered, value: right, "aria-hidden": "true" });
  const note = make("section", { class: "result", tabindex: "-1" },
    say(make("h3"), key),
    make("p", { class: "result-score" }, say(make("span"), "result_score", { right, answered }),
      bestStreak > 1 ? say(make("span", { class: "result-streak" }), "result_streak", { streak: bestStreak }) : null),
    meter);
  if (summary && summary.delivered < summary.requested) {
    note.append(lineNote("fewer", { delivered: summary.delivered, requested: summary.requested }));
  }
  const actions = make("div", { class: "actions" });
  if (missed.length > 0) actions.append(actionButton("again", "missed", onMissed));
  actions.append(actionButton("more", "more", onMore));
  note.append(actions);
  if (summary) note.append(details(summary));
  return note;
}

function actionButton(drawing, key, listener) {
  return make("button", { type: "button", class: "button", on: { click: listener } }, icon(drawing), say(make("span"), key));
}

/** The figures of `quiz.completed`, those that the server gave. */
function details(summary) {
  const rows = make("dl");
  const row = (key, ...cells) => rows.append(say(make("dt"), key), make("dd", {}, ...cells));
  row("detail_delivered", say(make("span"), "detail_delivered_value", summary));
  const rejected = Object.entries(summary.rejected ?? {}).filter(([, number]) => number > 0);
  if (rejected.length > 0) {
    const reasons = make("ul");
    for (const [reason, number] of rejected) reasons.append(make("li", {}, `${number} × `, say(make("span"), reason)));
    row("detail_rejected", reasons);
  }
  if (summary.outdone > 0) row("detail_outdone", String(summary.outdone));
  const { time_to_first_item_ms: first, total_ms: total } = summary.timings ?? {};
  if (first > 0) row("detail_first", inSeconds(first));
  if (total > 0) row("detail_total", inSeconds(total));
  const tokens = summary.usage?.completion_tokens;
  if (tokens > 0) row("detail_tokens", String(tokens));
  return make("details", { class: "details" }, say(make("summary"), "details"), rows);
}

function inSeconds(milliseconds) {
  return say(make("span"), "seconds", { seconds: (milliseconds / 1000).toFixed(1) });
}
