// The photograph with the words of one layer over their places.

import { count, element, make, onPoint, touch } from "./say.js";

const LARGEST = 44, SMALLEST = 8; // pixels of letters; smaller ones nobody reads
const EASY = 12; // pixels; smaller words are written once more, larger, when they are pointed at
const ZOOMS = [1, 2, 4];
const MEASURE = document.createElement("canvas").getContext("2d");

export class Stage {
  /**
   * `point`: called with the place {layer, index} that is pointed at or has the focus, null when it is left;
   * `choose`: with the place that is clicked.
   */
  constructor(point, choose) {
    this.point = point;
    this.choose = choose;
    this.layers = [];
    this.layer = 0;
    this.zoom = 1;
    this.meaningLayers = 0;
    this.places = element("places");
    for (const [id, step] of [["zoom-in", 1], ["zoom-out", -1]]) {
      element(id).addEventListener("click", () => this.#zoomTo(ZOOMS[ZOOMS.indexOf(this.zoom) + step]));
    }
    element("layers").addEventListener("change", ({ target }) => {
      this.open(Number(target.value));
      this.choose(this.#under(this.chosen));
    });
    const places = this.places;
    onPoint(places, (target) => this.#over(target));
    places.addEventListener("focusin", ({ target }) => {
      this.#over(target);
      if (target.matches(":focus-visible")) this.choose(this.#place(target));
    });
    places.addEventListener("click", ({ target, detail }) => {
      if (!target.dataset.index) return;
      this.choose(this.#place(target));
      if (!detail) element("new-word").focus(); // from the keyboard
    });
    places.addEventListener("keydown", (event) => this.#move(event));
    new ResizeObserver(() => this.fit()).observe(element("stage"));
  }

  /** A new photograph (a canvas) and its layers {height, width, words}; the layer that is open stays open. */
  show(square, layers) {
    this.paint(square);
    const same = layers.length === this.layers.length;
    this.layers = layers;
    if (!same) {
      const legend = element("layers").firstElementChild;
      element("layers").replaceChildren(legend, ...layers.map(({ words }, i) => make(
        "label", { title: `Layer ${i + 1}: ${count(words.length, "word")}` },
        make("input", { type: "radio", name: "layer", value: i }),
        make("span", {}, `${words.length}`, make("span", { className: "unit" }, ` word${words.length === 1 ? "" : "s"}`)),
      )));
      this.layer = Math.min(1, layers.length - 1);
    }
    this.#zoomTo(1);
    this.open(this.layer);
  }

  /** What lies under the words: a canvas or an image. */
  paint(square) {
    const picture = element("picture");
    picture.width = picture.height = square.naturalWidth ?? square.width;
    picture.getContext("2d").drawImage(square, 0, 0);
  }

  /** Shows this layer's words. */
  open(layer) {
    this.layer = layer;
    element("layers").querySelectorAll("input")[layer].checked = true;
    const { height, width, words } = this.layers[layer];
    this.places.style.gridTemplate = `repeat(${height}, minmax(0, 1fr)) / repeat(${width}, minmax(0, 1fr))`;
    this.places.replaceChildren(...words.map((_, i) => {
      const place = make("button", { type: "button", tabIndex: i === 0 ? 0 : -1 });
      place.dataset.index = i;
      return place;
    }));
    this.write();
  }

  /** The words of the open layer as they are now. */
  write() {
    const { width, words, was } = this.layers[this.layer];
    [...this.places.children].forEach((place, i) => {
      place.textContent = words[i];
      place.setAttribute("aria-label", `${words[i]}, row ${Math.floor(i / width) + 1}, column ${(i % width) + 1}`);
      place.classList.toggle("changed", words[i] !== was[i]);
    });
    this.fit();
  }

  /** Letters as large as their places allow; none where nobody could read them. */
  fit() {
    const across = this.places.clientWidth;
    if (!this.layers.length || !across) return;
    const { width, words } = this.layers[this.layer];
    const side = across / width, base = Math.min(LARGEST, side * 0.27);
    MEASURE.font = `600 100px ${getComputedStyle(this.places).fontFamily}`;
    const sizes = words.map((word) => Math.min(base, 0.9 * side * 100 / MEASURE.measureText(word).width));
    const readable = sizes.filter((size) => size >= SMALLEST).length >= 0.6 * sizes.length;
    this.places.classList.toggle("unreadable", !readable);
    [...this.places.children].forEach((place, i) => {
      place.style.fontSize = readable ? `${Math.max(sizes[i], SMALLEST - 1.5)}px` : "";
    });
    const how = readable && touch ? "Tap a word to see its place, and to change it."
      : readable ? "Point at a word to see its place; click it to change it."
        : `${words.length} words are too many to write here: ${touch ? "tap" : "point at"} a place, enlarge with +, or `
          + "read them below.";
    element("hint").textContent = this.#meaning() + how;
    element("zoom-out").disabled = this.zoom === ZOOMS[0];
    element("zoom-in").disabled = this.zoom === ZOOMS.at(-1);
  }

  /** What words of the open layer are for, if the tokenizer tells. */
  #meaning() {
    const layers = this.meaningLayers;
    if (!layers || layers >= this.layers.length) return "";
    if (this.layer < layers) return "These words say what is in the picture. ";
    return "Down here words are used like paint: each stands for colours and textures, whatever it means elsewhere. ";
  }

  /** Marks a place: `kind` "over" for what is pointed at, "chosen"; null for none. */
  mark(kind, place) {
    for (const old of this.places.querySelectorAll(`.${kind}`)) old.classList.remove(kind);
    const marked = place?.layer === this.layer ? this.places.children[place.index] : null;
    marked?.classList.add(kind);
    if (kind === "over") this.#fly(marked);
    if (kind === "chosen") this.chosen = place;
    if (kind === "chosen" && marked) {
      for (const one of this.places.querySelectorAll("[tabindex='0']")) one.tabIndex = -1;
      marked.tabIndex = 0;
    }
  }

  /** The word beside its place where there is no room for it. */
  #fly(place) {
    const flag = element("flag");
    flag.hidden = !place || parseFloat(place.style.fontSize || 0) >= EASY;
    if (flag.hidden) return;
    flag.textContent = place.textContent;
    const { width, height } = this.layers[this.layer], index = Number(place.dataset.index);
    const row = Math.floor(index / width), column = index % width;
    flag.style.top = `${(100 * row) / height}%`;
    flag.style.left = `${(100 * (column + 0.5)) / width}%`;
    flag.classList.toggle("below", row < height / 6);
    flag.classList.toggle("left", column < width / 5);
    flag.classList.toggle("right", column >= width - width / 5);
  }

  #place(target) {
    return { layer: this.layer, index: Number(target.dataset.index) };
  }

  /** The place of the open layer where the middle of one of another layer lies. */
  #under({ layer, index }) {
    const of = this.layers[layer], into = this.layers[this.layer];
    const row = Math.floor(((Math.floor(index / of.width) + 0.5) / of.height) * into.height);
    const column = Math.floor((((index % of.width) + 0.5) / of.width) * into.width);
    return { layer: this.layer, index: row * into.width + column };
  }

  #over(target) {
    const place = target?.dataset.index ? this.#place(target) : null;
    this.mark("over", place);
    this.point(place);
  }

  #move(event) {
    const { width, words } = this.layers[this.layer];
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: width, ArrowUp: -width }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = Number(event.target.dataset.index) + step;
    if (next >= 0 && next < words.length) this.places.children[next].focus();
  }

  #zoomTo(zoom) {
    const stage = element("stage");
    // What is in the middle stays there.
    const middle = [stage.scrollLeft + stage.clientWidth / 2, stage.scrollTop + stage.clientHeight / 2];
    const factor = zoom / this.zoom;
    this.zoom = zoom;
    element("plane").style.width = `${100 * zoom}%`;
    stage.scrollTo(middle[0] * factor - stage.clientWidth / 2, middle[1] * factor - stage.clientHeight / 2);
    this.fit();
  }
}
