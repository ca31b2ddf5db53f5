// What a browser remembers for one rater: answers on their way, and half-made rankings. All of it works without, too.

export class Memory {
  constructor(tag) {
    this.prefix = `study:${tag}:`;
  }

  set(name, value) {
    try {
      localStorage.setItem(this.prefix + name, JSON.stringify(value));
    } catch {
      // full, or not allowed: then the page itself remembers
    }
  }

  get(name) {
    try {
      return JSON.parse(localStorage.getItem(this.prefix + name));
    } catch {
      return null;
    }
  }

  remove(name) {
    try {
      localStorage.removeItem(this.prefix + name);
    } catch {
      // nothing was kept
    }
  }

  /** All values whose name begins so. */
  all(beginning) {
    try {
      const names = Object.keys(localStorage).filter((name) => name.startsWith(this.prefix + beginning));
      return names.map((name) => this.get(name.slice(this.prefix.length))).filter((value) => value !== null);
    } catch {
      return [];
    }
  }
}
