// Submissions on their way. Each is kept, here and in the browser's memory, until the study has acknowledged it; one that
// is sent twice has the same key, and is stored once.

import { newKey, post } from "./api.js";

const PATHS = { answer: "/answer", done: "/done" };
const SHORTEST_MS = 1000;
const LONGEST_MS = 15000;

export class Outbox extends EventTarget {
  #entries = [];
  #sending = null;
  #timer = 0;
  #failures = 0;

  /** Events: `state` (detail: {state, seconds, message}) and `sent` (detail: {entry, data}). */
  constructor(memory, pageToken) {
    super();
    this.memory = memory;
    this.pageToken = pageToken;
    this.state = "idle";
    this.#entries = memory.all("pending:").sort((a, b) => a.at - b.at);
    addEventListener("online", () => this.#soon(0));
    document.addEventListener("visibilitychange", () => document.hidden || this.#soon(0));
    if (this.#entries.length) this.#soon(0);
  }

  get empty() {
    return this.#entries.length === 0;
  }

  /** The answers to a screen that are not stored yet, by axis; the newest counts. */
  pending(screen) {
    const answers = this.#entries.filter((entry) => entry.kind === "answer" && entry.body.screen === screen);
    return Object.fromEntries(answers.map((entry) => [entry.body.axis, entry.body.answer]));
  }

  /** Send a submission; an older one to the same question that has not left yet is dropped. */
  add(kind, body) {
    const same = (entry) =>
      entry !== this.#sending && entry.kind === kind && entry.body.screen === body.screen && entry.body.axis === body.axis;
    this.#entries.filter(same).forEach((entry) => this.#drop(entry));
    const entry = { kind, at: Date.now(), body: { ...body, key: newKey() } };
    this.#entries.push(entry);
    this.memory.set(`pending:${entry.body.key}`, entry);
    this.#soon(0);
  }

  /** Send nothing more from this page. */
  stop(message) {
    clearTimeout(this.#timer);
    this.#become("refused", { message });
  }

  #soon(ms) {
    if (this.state === "refused") return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#send(), ms);
  }

  async #send() {
    const entry = this.#entries[0];
    if (this.#sending || !entry) return;
    this.#sending = entry;
    if (this.state !== "away") this.#become("saving");
    let answer = null;
    try {
      answer = await post(PATHS[entry.kind], entry.body, this.pageToken);
    } catch {
      // not reached; the same again later
    }
    this.#sending = null;
    if (answer === null || answer.status >= 500 || answer.status === 429) this.#later(answer);
    else if (answer.status === 200) this.#stored(entry, answer.data);
    else this.#refused(entry, answer);
  }

  #stored(entry, data) {
    this.#failures = 0;
    this.#drop(entry);
    this.dispatchEvent(new CustomEvent("sent", { detail: { entry, data } }));
    if (this.state === "refused") return;
    if (this.empty) {
      this.#become("saved");
    } else {
      this.#become("saving");
      this.#soon(0);
    }
  }

  #later(answer) {
    const ms = Math.max(Math.min(SHORTEST_MS * 2 ** this.#failures, LONGEST_MS), 1000 * (answer?.wait || 0));
    this.#failures += 1;
    this.#become("away", { seconds: Math.round(ms / 1000) });
    this.#soon(ms);
  }

  // Who asks is the matter with 401 and 403: the submission stays for when the right link is opened again. Anything else
  // is about the submission itself, and would be refused again.
  #refused(entry, answer) {
    if (answer.status !== 401 && answer.status !== 403) this.#drop(entry);
    const message = answer.data.error?.message ?? "The study did not take this answer. Load the page again.";
    this.stop(message);
  }

  #drop(entry) {
    this.#entries = this.#entries.filter((other) => other !== entry);
    this.memory.remove(`pending:${entry.body.key}`);
  }

  #become(state, detail = {}) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, ...detail } }));
  }
}
