// The wall of clips: as large as the window allows, and one of them larger still if somebody wants to look closely.

const GAP = 10; // as in the style sheet

export class Wall {
  constructor(root) {
    this.root = root;
    this.clips = [...root.querySelectorAll(".clip")];
    const video = root.querySelector("video");
    this.aspect = video.width / video.height;
    root.style.setProperty("--aspect", String(this.aspect));
    for (const clip of this.clips) {
      clip.querySelector(".enlarge").addEventListener("click", () => this.toggle(clip));
      clip.querySelector("video").addEventListener("click", () => this.toggle(clip));
    }
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.large && this.toggle(this.large));
    addEventListener("resize", () => this.fit());
    this.fit();
  }

  get large() {
    return this.clips.find((clip) => clip.classList.contains("large"));
  }

  toggle(clip) {
    const already = this.large;
    for (const other of this.clips) {
      const now = other === clip && other !== already;
      other.classList.toggle("large", now);
      other.querySelector(".enlarge").setAttribute("aria-pressed", String(now));
    }
    this.fit();
  }

  /** Choose columns and width so that the clips are as large as they can be without pushing the questions away. */
  fit() {
    const width = this.root.parentElement.clientWidth - this.#padding();
    const height = this.#height();
    const { style } = this.root;
    this.root.classList.toggle("theatre", Boolean(this.large));
    if (this.large) {
      const strip = Math.min(150, (width - GAP * (this.clips.length - 2)) / (this.clips.length - 1));
      const room = height - strip / this.aspect - GAP;
      style.setProperty("--clip", `${Math.floor(strip)}px`);
      style.setProperty("--wall", "none");
      style.setProperty("--large", `${Math.floor(Math.max(Math.min(width, room * this.aspect), 0.45 * width))}px`);
      return;
    }
    const widths = this.clips.map((_, n) => this.#widthOf(n + 1, width, height));
    const best = Math.max(...widths);
    style.setProperty("--clip", `${Math.floor(best)}px`);
    style.setProperty("--wall", `${Math.ceil((widths.indexOf(best) + 1) * (best + GAP))}px`);
  }

  #widthOf(columns, width, height) {
    const rows = Math.ceil(this.clips.length / columns);
    return Math.min((width - GAP * (columns - 1)) / columns, ((height - GAP * (rows - 1)) / rows) * this.aspect);
  }

  // What the rest of the page leaves of the window, but never less than two fifths of it, and more where the window is upright.
  #height() {
    const parts = [...document.querySelectorAll("header, main, footer")];
    const rest = parts.reduce((sum, part) => sum + part.offsetHeight, 0) - this.root.offsetHeight;
    return Math.max(innerHeight - rest, innerHeight * (innerWidth < innerHeight ? 0.55 : 0.4));
  }

  #padding() {
    const style = getComputedStyle(this.root.parentElement);
    return parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  }
}
