// The wire: asks the server for a quiz and yields its events as they arrive. Knows nothing of the page.

/** Something went wrong between here and the server. */
export class QuizError extends Error {
  /**
   * @param {"network"|"refused"|"busy"|"unavailable"|"failed"|"cut"} kind what the player can do about it:
   *   no connection; the request has a mistake (`param` names the field); wait `retryAfterMs`; the server is
   *   starting or stopping; the server failed; the stream ended before the quiz did.
   */
  constructor(kind, message = "", { param = null, retryAfterMs = null } = {}) {
    super(message);
    this.kind = kind;
    this.param = param;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * Yields `{type: "created"}`, `{type: "item", item}`s and one `{type: "completed", summary}`.
 * Throws a `QuizError`, or an `AbortError` when `signal` is aborted.
 */
export async function* writeQuiz(request, signal) {
  const response = await open(request, signal);
  try {
    for await (const { event, data } of serverSentEvents(response.body)) {
      if (event === "quiz.created") yield { type: "created" };
      else if (event === "question.completed") yield { type: "item", item: JSON.parse(data) };
      else if (event === "error") throw fromBody(JSON.parse(data), "failed");
      else if (event === "quiz.completed") {
        yield { type: "completed", summary: JSON.parse(data) };
        return;
      }
      // Any other event is from a newer server; the quiz does not depend on it.
    }
  } catch (error) {
    if (error instanceof QuizError || error.name === "AbortError") throw error;
    throw new QuizError("cut", String(error.message));
  }
  throw new QuizError("cut");
}

/** The ids of the models the server has; the first is the one it uses when none is asked for. */
export async function modelIds() {
  const response = await fetch("/v1/models");
  if (!response.ok) throw new QuizError("failed");
  return (await response.json()).data.map((model) => model.id);
}

async function open(request, signal) {
  let response;
  try {
    response = await fetch("/v1/quizzes", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify(request),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new QuizError("network", String(error.message));
  }
  if (response.ok) return response;

  const { status, headers } = response;
  const kind = status === 429 ? "busy" : status === 503 ? "unavailable" : status < 500 ? "refused" : "failed";
  const body = await response.json().catch(() => null); // a proxy in between may answer in HTML
  throw fromBody(body, kind, retryAfter(headers));
}

function fromBody(body, kind, retryAfterMs = null) {
  const error = body?.error ?? {};
  return new QuizError(kind, error.message ?? "", { param: error.param ?? null, retryAfterMs });
}

function retryAfter(headers) {
  const milliseconds = Number.parseFloat(headers.get("retry-after-ms"));
  if (Number.isFinite(milliseconds)) return milliseconds;
  const seconds = Number.parseFloat(headers.get("retry-after"));
  return Number.isFinite(seconds) ? seconds * 1000 : null;
}

/**
 * Parses a `text/event-stream` body, however its bytes are cut into chunks.
 * An event without its closing blank line is dropped, as the standard asks.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 */
export async function* serverSentEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let event = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      for (;;) {
        // A lone CR at the very end may be the first half of a CRLF: wait for what follows.
        const ending = /\r\n|\n|\r(?!$)/.exec(rest);
        if (!ending) break;
        const line = rest.slice(0, ending.index);
        rest = rest.slice(ending.index + ending[0].length);
        if (line === "") {
          if (data.length > 0) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        if (colon === 0) continue; // a comment keeps the connection alive
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "event") event = text;
        if (field === "data") data.push(text);
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // already closed or broken: nothing left to free
  }
}
