// The interface's words, in English and Japanese. An element remembers which message it shows, so that
// switching the language rewrites the whole page in place, a game in progress included.

import { english } from "./en.js";
import { japanese } from "./ja.js";

const messages = { en: english, ja: japanese };
const remembered = "mondai.language";

let current = "en";

/** The interface language: the one chosen last time, or else the browser's. */
export function preferredLanguage() {
  return recall() ?? (navigator.language.toLowerCase().startsWith("ja") ? "ja" : "en");
}

export function language() {
  return current;
}

/** Switches the interface and rewrites every message on the page. */
export function setLanguage(code) {
  current = messages[code] ? code : "en";
  document.documentElement.lang = current;
  for (const element of document.querySelectorAll("[data-i18n]")) render(element);
  for (const element of document.querySelectorAll("[data-i18n-label]")) {
    element.setAttribute("aria-label", t(element.dataset.i18nLabel));
  }
  for (const element of document.querySelectorAll("[data-i18n-placeholder]")) {
    element.placeholder = t(element.dataset.i18nPlaceholder);
  }
}

export function remember(code) {
  try {
    localStorage.setItem(remembered, code);
  } catch {
    // Storage may be switched off; the choice then lasts as long as the page.
  }
}

function recall() {
  try {
    return localStorage.getItem(remembered);
  } catch {
    return null;
  }
}

/**
 * A message in the current language. A value given as `{ key }` is itself a message. A key with no message is
 * shown as words: `too_long` → "too long".
 */
export function t(key, values = {}) {
  const message = messages[current][key];
  if (message === undefined) return key.replaceAll("_", " ");
  if (typeof message !== "function") return message;
  const spoken = Object.entries(values).map(([name, value]) => [name, value?.key ? t(value.key, value) : value]);
  return message(Object.fromEntries(spoken));
}

/** Makes an element show a message, now and after the language is switched. Returns the element. */
export function say(element, key, values = {}) {
  element.dataset.i18n = key;
  element.dataset.i18nValues = JSON.stringify(values);
  render(element);
  return element;
}

function render(element) {
  element.textContent = t(element.dataset.i18n, JSON.parse(element.dataset.i18nValues ?? "{}"));
}
