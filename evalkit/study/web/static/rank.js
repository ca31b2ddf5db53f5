// Ranking by drag, tap or keyboard. Clips are small cards: first they lie below, then each stands on a place.

import { Places } from "./places.js";

const DRAG_PX = 6;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Ranking {
  /** `options`: letters, ties, announce(text), onChange(). */
  constructor(root, options) {
    Object.assign(this, options, { root, title: root.dataset.title, places: new Places(options.letters.length) });
    this.list = root.querySelector(".places");
    this.tray = root.querySelector(".tray");
    this.cards = this.letters.map((_, clip) => this.#card(clip));
    this.slots = this.letters.map((_, place) => this.#slot(place));
    this.list.append(...this.slots);
    root.addEventListener("keydown", (event) => this.#key(event));
    this.#render();
  }

  /** Ranks in the order shown; null while a clip has no place. */
  get answer() {
    return this.places.complete ? this.places.answer : null;
  }

  get draft() {
    return this.places.at.some((clip) => clip !== null) ? { at: this.places.at, equal: [...this.places.equal] } : null;
  }

  set draft({ at, equal }) {
    this.places.at = at;
    this.places.equal = new Set(equal);
    this.#render();
  }

  show(answer) {
    this.places.show(answer);
    this.#render();
  }

  /** Paint a picture of a clip on its card. */
  paint(clip, video) {
    const canvas = this.cards[clip].querySelector("canvas");
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  }

  setAspect(aspect) {
    this.cards.forEach((card) => {
      card.querySelector("canvas").height = Math.round(card.querySelector("canvas").width / aspect);
    });
  }

  // ---- the parts ----

  #card(clip) {
    const card = document.createElement("button");
    card.type = "button";
    card.className = "card";
    const canvas = document.createElement("canvas");
    canvas.width = 128;
    canvas.height = 72;
    const letter = document.createElement("span");
    letter.className = "card-letter";
    letter.textContent = this.letters[clip];
    card.append(canvas, letter);
    card.addEventListener("click", () => card.dragged || this.#press(clip));
    this.#draggable(card, clip);
    return card;
  }

  #slot(place) {
    const slot = document.createElement("li");
    slot.className = "place";
    const name = document.createElement("span");
    name.className = "place-name";
    slot.append(name);
    if (this.ties && place) {
      const tie = document.createElement("button");
      tie.type = "button";
      tie.className = "tie";
      tie.textContent = "=";
      tie.addEventListener("click", () => this.#tie(place));
      slot.append(tie);
    }
    return slot;
  }

  #render(gliding = false) {
    const before = new Map(this.cards.map((card) => [card, card.getBoundingClientRect()]));
    const focused = this.cards.find((card) => card === document.activeElement);
    const { ranks } = this.places;
    this.slots.forEach((slot, place) => this.#fill(slot, place, ranks[place]));
    this.places.unplaced.forEach((clip) => {
      this.cards[clip].setAttribute("aria-label", `Clip ${this.letters[clip]}, no place yet`);
      this.tray.append(this.cards[clip]);
    });
    this.root.classList.toggle("answered", this.places.complete);
    focused?.focus({ preventScroll: true });
    if (gliding && !calm.matches) before.forEach((from, card) => glide(card, from));
  }

  #fill(slot, place, rank) {
    const clip = this.places.at[place];
    slot.querySelector(".place-name").textContent = rank;
    slot.classList.toggle("taken", clip !== null);
    if (clip !== null) {
      const letter = this.letters[clip];
      this.cards[clip].setAttribute("aria-label", `Clip ${letter}, ${this.#spoken(place)}`);
      if (this.cards[clip].parentElement !== slot) slot.append(this.cards[clip]);
    }
    const tie = slot.querySelector(".tie");
    if (tie) {
      tie.hidden = !this.places.canTie(place);
      tie.setAttribute("aria-pressed", String(this.places.tied(place)));
      if (!tie.hidden) tie.setAttribute("aria-label", `${this.#letter(place - 1)} and ${this.#letter(place)} are equally good`);
    }
  }

  #letter(place) {
    return this.letters[this.places.at[place]];
  }

  #spoken(place) {
    const rank = this.places.ranks[place];
    const equal = this.places.ranks.filter((other) => other === rank).length > 1 ? "equal " : "";
    return `${equal}place ${rank} of ${this.letters.length}`;
  }

  // ---- what people do ----

  #changed(clip) {
    const place = this.places.at.indexOf(clip);
    const left = this.places.unplaced.length;
    const where = place < 0 ? "has no place" : this.#spoken(place);
    const rest = left ? `${left} ${left === 1 ? "clip" : "clips"} left` : "all clips have a place";
    this.#render(true);
    this.announce(`${this.title}: clip ${this.letters[clip]} ${where}; ${rest}.`);
    this.onChange();
  }

  #press(clip) {
    if (this.places.at.includes(clip)) {
      this.places.takeBack(clip);
      this.#changed(clip);
    } else {
      this.#leaveTray(clip, () => this.places.append(clip));
    }
  }

  #put(clip, place) {
    if (this.places.at.includes(clip)) {
      if (this.places.at[place] === clip) return;
      this.places.put(clip, place);
      this.#changed(clip);
    } else {
      this.#leaveTray(clip, () => this.places.put(clip, place));
    }
  }

  // The focus goes on to the next clip that needs a place.
  #leaveTray(clip, move) {
    const focused = this.cards[clip] === document.activeElement;
    const others = this.places.unplaced.filter((other) => other !== clip);
    const next = others.find((other) => other > clip) ?? others[0];
    move();
    this.#changed(clip);
    if (focused && next !== undefined) this.cards[next].focus({ preventScroll: true });
  }

  #tie(place) {
    this.places.toggleTie(place);
    this.#changed(this.places.at[place]);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const clip = this.cards.indexOf(document.activeElement);
    const letter = this.letters.indexOf(event.key.toUpperCase());
    if (letter >= 0 && event.key.length === 1) this.#press(letter);
    else if (clip < 0 || !this.#keyOnCard(event.key, clip)) return;
    event.preventDefault();
  }

  #keyOnCard(key, clip) {
    const place = this.places.at.indexOf(clip);
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[key];
    const last = this.letters.length - 1;
    if (/^[1-9]$/.test(key)) {
      if (Number(key) - 1 <= last) this.#put(clip, Number(key) - 1);
    } else if (step && place >= 0) {
      this.#put(clip, Math.min(last, Math.max(0, place + step)));
    } else if (step) {
      this.#focusInTray(clip, step);
    } else if (key === "Home" || key === "End") {
      this.#put(clip, key === "Home" ? 0 : last);
    } else if (key === "Backspace" || key === "Delete") {
      if (place >= 0) this.#press(clip);
    } else if (key === "=" && this.ties) {
      if (this.places.canTie(place)) this.#tie(place);
    } else {
      return false;
    }
    return true;
  }

  #focusInTray(clip, step) {
    const clips = this.places.unplaced;
    this.cards[clips[(clips.indexOf(clip) + step + clips.length) % clips.length]].focus();
  }

  // ---- dragging ----

  #draggable(card, clip) {
    let start = null;
    const over = (event) => {
      const under = document.elementFromPoint(event.clientX, event.clientY);
      return this.root.contains(under) ? under.closest(".place, .tray") : null;
    };
    const mark = (target) => [...this.slots, this.tray].forEach((part) => part.classList.toggle("over", part === target));
    const end = () => {
      if (!start) return;
      start = null;
      card.classList.remove("dragging");
      card.style.transform = "";
      mark(null);
    };
    card.addEventListener("pointerdown", (event) => {
      if (event.button || !event.isPrimary) return;
      card.dragged = false;
      start = { x: event.clientX, y: event.clientY };
      card.setPointerCapture(event.pointerId);
    });
    card.addEventListener("pointermove", (event) => {
      if (!start) return;
      const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
      if (!card.dragged && Math.hypot(dx, dy) < DRAG_PX) return;
      card.dragged = true;
      card.classList.add("dragging");
      card.style.transform = `translate(${dx}px, ${dy}px)`;
      mark(over(event));
    });
    card.addEventListener("pointerup", (event) => {
      const target = card.dragged && start ? over(event) : null;
      end();
      setTimeout(() => (card.dragged = false)); // the click that follows a drop is none
      if (target === this.tray && this.places.at.includes(clip)) this.#press(clip);
      else if (this.slots.includes(target)) this.#put(clip, this.slots.indexOf(target));
    });
    card.addEventListener("pointercancel", end);
    card.addEventListener("lostpointercapture", end);
    addEventListener("keydown", (event) => event.key === "Escape" && end());
  }
}

function glide(card, from) {
  const to = card.getBoundingClientRect();
  const [dx, dy] = [from.left - to.left, from.top - to.top];
  if (from.width && (dx || dy)) {
    card.animate([{ transform: `translate(${dx}px, ${dy}px)` }, { transform: "none" }], { duration: 160, easing: "ease-out" });
  }
}
