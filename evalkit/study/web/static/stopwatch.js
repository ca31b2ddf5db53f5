// How long somebody has looked at a page: time in a hidden tab does not count.

export class Stopwatch {
  #before;
  #since = document.hidden ? null : performance.now();

  constructor(secondsBefore) {
    this.#before = secondsBefore;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        this.#before = this.seconds;
        this.#since = null;
      } else {
        this.#since = performance.now();
      }
    });
  }

  get seconds() {
    const running = this.#since === null ? 0 : (performance.now() - this.#since) / 1000;
    return Math.round(10 * (this.#before + running)) / 10;
  }
}
