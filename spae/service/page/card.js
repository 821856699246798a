// One word: its place in the photograph, its rivals, and a way to change it.

import { element, make } from "./say.js";
import { vocabulary } from "./service.js";

const PAUSE_MS = 120; // without a letter typed, before suggestions are asked for

export class Card {
  /** `change`: called with the new word; `restore`: when the word as it was is wanted back. */
  constructor(change, restore) {
    this.word = "";
    for (const list of [element("rivals"), element("suggestions")]) {
      list.addEventListener("click", ({ target }) => target.matches("button") && change(target.textContent));
    }
    element("restore").addEventListener("click", restore);
    element("change").addEventListener("submit", (event) => {
      event.preventDefault();
      change(element("new-word").value.trim());
    });
    let timer, asking = new AbortController();
    element("new-word").addEventListener("input", ({ target }) => {
      clearTimeout(timer);
      asking.abort();
      asking = new AbortController();
      const { signal } = asking, prefix = target.value.trim();
      if (!prefix) this.#offer("suggestions", []);
      else timer = setTimeout(() => this.#suggest(prefix, signal), PAUSE_MS);
    });
  }

  /** A word of layer number `number`, which has `layer` = {height, width, words, was, rivals}. */
  show(number, layer, index) {
    const { height, width, words, was, rivals } = layer;
    this.word = words[index];
    element("word").textContent = words[index];
    const [row, column] = [Math.floor(index / width), index % width];
    element("where").textContent = words.length === 1 ? `Layer ${number}: the whole picture`
      : `Layer ${number}: row ${row + 1} of ${height}, column ${column + 1} of ${width}`;
    element("rivals-part").hidden = !rivals[index].length;
    this.#offer("rivals", rivals[index].filter((rival) => rival !== words[index]));
    const changed = words[index] !== was[index];
    element("restore").hidden = !changed;
    element("restore").textContent = `Put back “${was[index]}”`;
    const box = [column / width, row / height, 1 / width, 1 / height];
    draw(element("patch"), element("picture"), box);
    draw(element("patch-made"), element("reconstruction"), box);
  }

  /** What came of a change. */
  note(text) {
    element("change-note").textContent = text;
  }

  /** Empties the field for the next word. */
  clear() {
    const field = element("new-word");
    field.value = "";
    field.dispatchEvent(new Event("input")); // suggestions that are still asked for are for the word before
  }

  #offer(list, words) {
    element(list).replaceChildren(...words.map((word) => make("li", {}, make("button", { type: "button" }, word))));
  }

  async #suggest(prefix, signal) {
    try {
      const { data } = await vocabulary(prefix, signal);
      this.#offer("suggestions", data);
    } catch (error) {
      if (error.name !== "AbortError") this.note(`No suggestions: ${error.message}`);
    }
  }
}

/** A part of a picture, `box` = left, top, width and height as parts of it. */
function draw(canvas, source, [left, top, across, down]) {
  const side = source.naturalWidth ?? source.width;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!side) return;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, left * side, top * side, across * side, down * side, 0, 0, canvas.width, canvas.height);
}
