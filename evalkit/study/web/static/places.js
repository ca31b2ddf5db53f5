// The order of a ranking, without anything to see: which clip stands on which place, and which neighbours are equal.

export class Places {
  constructor(n) {
    this.at = new Array(n).fill(null); // clip by place, from the best
    this.equal = new Set(); // "a=b": b stands behind a and is as good
  }

  get complete() {
    return this.at.every((clip) => clip !== null);
  }

  get unplaced() {
    return this.at.map((_, clip) => clip).filter((clip) => !this.at.includes(clip));
  }

  /** Rank of each place; equal clips share one, and the next is skipped: 1, 1, 3. */
  get ranks() {
    const ranks = [];
    this.at.forEach((_, place) => ranks.push(this.tied(place) ? ranks[place - 1] : place + 1));
    return ranks;
  }

  /** Rank of each clip, once all have a place. */
  get answer() {
    return this.at.map((_, clip) => this.ranks[this.at.indexOf(clip)]);
  }

  show(answer) {
    const clips = answer.map((_, clip) => clip).sort((a, b) => answer[a] - answer[b] || a - b);
    this.at = clips;
    this.equal = new Set(clips.slice(1).map((clip, n) => [clips[n], clip]).filter(([a, b]) => answer[a] === answer[b]).map(String));
  }

  /** Whether the clip on a place is as good as the one before it. */
  tied(place) {
    return this.equal.has(String([this.at[place - 1], this.at[place]]));
  }

  canTie(place) {
    return place > 0 && this.at[place] !== null && this.at[place - 1] !== null;
  }

  toggleTie(place) {
    const pair = String([this.at[place - 1], this.at[place]]);
    if (!this.equal.delete(pair)) this.equal.add(pair);
  }

  /** Put a clip on a place; those in between make room. */
  put(clip, place) {
    const origin = this.at.indexOf(clip);
    if (origin >= 0) this.at[origin] = null;
    const free = origin >= 0 && this.at[place] !== null ? origin : this.#nearestFree(place);
    const step = Math.sign(place - free);
    for (let n = free; n !== place; n += step) this.at[n] = this.at[n + step];
    this.at[place] = clip;
    this.#forgetParted();
  }

  /** Put a clip on the first free place. */
  append(clip) {
    this.put(clip, this.at.indexOf(null));
  }

  takeBack(clip) {
    this.at[this.at.indexOf(clip)] = null;
    this.#forgetParted();
  }

  #nearestFree(place) {
    const free = this.at.map((clip, n) => [clip, n]).filter(([clip]) => clip === null).map(([, n]) => n);
    return free.sort((a, b) => Math.abs(a - place) - Math.abs(b - place) || b - a)[0];
  }

  #forgetParted() {
    const neighbours = new Set(this.at.slice(1).map((clip, n) => String([this.at[n], clip])));
    this.equal.forEach((pair) => neighbours.has(pair) || this.equal.delete(pair));
  }
}
