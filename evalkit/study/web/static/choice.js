// One level between two clips, as radio buttons.

export class Choice {
  /** `options`: announce(text), onChange(). */
  constructor(root, options) {
    this.root = root;
    this.inputs = [...root.querySelectorAll("input")];
    root.addEventListener("change", () => {
      this.#mark();
      options.onChange();
    });
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** The level, as a list of one; null while none is chosen. */
  get answer() {
    const chosen = this.inputs.find((input) => input.checked);
    return chosen ? [Number(chosen.value)] : null;
  }

  get draft() {
    return null; // there is nothing between no answer and an answer
  }

  show([level]) {
    this.inputs.forEach((input) => (input.checked = Number(input.value) === level));
    this.#mark();
  }

  #mark() {
    this.root.classList.toggle("answered", this.answer !== null);
  }

  #key(event) {
    const input = this.inputs[Number(event.key) - 1];
    if (!input || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
    input.click();
  }
}
