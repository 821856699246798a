// The first tab: a photograph's words, what they say of each place, and the picture that they make.

import { Card } from "./card.js";
import { Refused, copy, count, element, fail, make, onPoint, progress } from "./say.js";
import { detokenize } from "./service.js";
import { Stage } from "./stage.js";
import { linkTo } from "./words.js";

const FLICKER_MS = 2000;
const OPEN_WORDS = 64; // layers with more are folded in the list

export class Pyramid {
  constructor() {
    this.layers = []; // of each {height, width, words, ids, rivals}, and `was`: its words before any change
    this.pictures = []; // what the first layer makes, the first two, ..
    this.history = []; // the words of all layers before each change
    this.changes = Promise.resolve(); // one after the other
    this.stage = new Stage((place) => this.#point(place), (place) => this.#choose(place));
    this.card = new Card((word) => this.#change(word), () => this.#change(this.#was()));
    element("prefix").addEventListener("input", () => this.#showPicture());
    element("restore-all").addEventListener("click", () => this.#restoreAll());
    element("copy-text").addEventListener("click", () => this.#copy("text"));
    element("copy-json").addEventListener("click", () => this.#copy("JSON"));
    element("copy-link").addEventListener("click", () => this.#copyLink());
    element("reveal").addEventListener("input", () => this.#reveal());
    document.addEventListener("keydown", (event) => this.#undo(event));
    const lines = element("lines");
    onPoint(lines, (target) => this.#pointInList(target));
    lines.addEventListener("click", ({ target }) => {
      const place = placeOf(target);
      if (!place) return;
      this.stage.open(place.layer);
      this.#choose(place);
    });
    element("reconstruction").addEventListener("load", () => {
      // Words without a photograph lie over the picture that they make.
      if (this.photograph.fromWords) this.stage.paint(element("reconstruction"));
      this.#showCard();
    });
  }

  /** Which tokenizer the words are of. */
  describe(model, tokenizer) {
    this.model = model;
    this.stage.meaningLayers = tokenizer.meaning_layers;
  }

  /** A photograph and its pyramid as the service gave it; done when its pictures are there. */
  async show(photograph, found, signal) {
    this.photograph = photograph;
    this.layers = found.layers.map((layer) => ({ ...layer, was: [...layer.words] }));
    this.pictures = [];
    this.history = [];
    this.#showOriginal();
    this.stage.show(photograph.square, this.layers);
    this.chosen = this.pointed = { layer: this.stage.layer, index: 0 };
    this.card.note("");
    this.card.clear();
    const prefix = element("prefix");
    prefix.max = this.layers.length;
    prefix.value = this.layers.length;
    element("copy-by-hand").hidden = true;
    element("copy-note").textContent = element("prompt-note").textContent = "";
    this.#writeList();
    this.#showPicture();
    this.#mark();
    this.#keep(0, await this.#decode(0, signal));
  }

  /** The words of the first so many layers as they are once every change is made, and how many were changed. */
  async words(layers) {
    await this.changes;
    const upper = this.layers.slice(0, layers);
    return {
      words: upper.flatMap(({ words }) => words),
      changed: upper.flatMap(({ words, was }) => words.filter((word, i) => word !== was[i])).length,
    };
  }

  /** The page has another size, or this tab is open again. */
  fit() {
    this.stage.fit();
  }

  /** The chosen word as it was before any change. */
  #was() {
    return this.layers[this.chosen.layer].was[this.chosen.index];
  }

  #point(place) {
    this.pointed = place ?? this.chosen;
    this.#showCard();
  }

  #pointInList(target) {
    const place = target && placeOf(target);
    this.stage.mark("over", place);
    this.#point(place);
  }

  #choose(place) {
    this.chosen = this.pointed = place;
    this.card.note("");
    this.#mark();
  }

  #mark() {
    this.stage.mark("chosen", this.chosen);
    this.#showCard();
  }

  #showCard() {
    if (!this.layers.length) return;
    const { layer, index } = this.pointed;
    this.card.show(layer + 1, this.layers[layer], index);
  }

  #showPicture() {
    const layers = Number(element("prefix").value);
    const words = this.#words(layers).flat().length, all = this.#words().flat().length;
    const note = layers === this.layers.length ? `all ${count(words, "word")}`
      : `${count(words, "word")} of ${all}: the first ${layers === 1 ? "layer" : `${layers} layers`}`;
    element("prefix-note").textContent = note;
    element("prefix").setAttribute("aria-valuetext", note);
    const picture = element("reconstruction"), url = this.pictures[layers - 1];
    picture.hidden = !url;
    element("download").hidden = !url;
    element("making").hidden = Boolean(url);
    if (url) {
      picture.src = url;
      picture.alt = `The picture made from ${note}`;
      const download = element("download");
      download.href = url;
      download.download = `${this.photograph.name.replace(/\.\w+$/, "")}, ${count(words, "word")}.png`;
    }
    element("copy-text").textContent = `Copy ${count(words, "word")} as text`;
    element("copy-json").textContent = `Copy ${count(words, "word")} as JSON`;
  }

  #words(layers = this.layers.length) {
    return this.layers.slice(0, layers).map(({ words }) => words);
  }

  /** What the service makes of every prefix that holds layer `from`. */
  #decode(from, signal) {
    const prefixes = this.layers.map((_, i) => i + 1).slice(from);
    return detokenize(prefixes.map((layers) => ({ words: this.#words(layers) })), signal);
  }

  #keep(from, answers) {
    const prefix = element("prefix"), before = [...this.pictures];
    answers.forEach(({ url }, i) => { this.pictures[from + i] = url; });
    answers.at(-1).layers.forEach(({ ids }, i) => { this.layers[i].ids = ids; });
    // Words that say what is seen may paint no more than pictures of few words: shown is the longest one that changed.
    const changed = (i) => before[i] && before[i] !== this.pictures[i];
    let shown = Number(prefix.value) - 1;
    while (shown > from && !changed(shown)) shown -= 1;
    if (changed(shown)) prefix.value = shown + 1;
    this.#showPicture();
    if (changed(shown)) this.#flicker(before[shown]);
  }

  /** The picture before a change comes and goes over the one after it, so that one sees where they differ. */
  #flicker(url) {
    const before = element("before");
    before.src = url;
    before.hidden = false;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    before.animate({ opacity: [1, 0, 1, 0, 1, 0] }, FLICKER_MS);
  }

  #change(word) {
    const place = this.chosen, photograph = this.photograph;
    this.changes = this.changes.then(() => photograph === this.photograph && this.#changeNow(place, word));
  }

  async #changeNow({ layer, index }, word) {
    const photograph = this.photograph, { words } = this.layers[layer], before = words[index];
    const all = this.#words().map((one) => [...one]);
    fail(null);
    this.card.note("");
    try {
      if (!/^\S+$/.test(word)) throw new Refused("wanted one word: write it without spaces");
      progress(`Changing “${before}” to “${word}” …`);
      words[index] = word;
      const answers = await this.#decode(layer);
      if (photograph !== this.photograph) return;
      const made = answers.at(-1).layers;
      words[index] = made[layer].words[index];
      // What is no word at all is left out by the service, and all others move up.
      if (made.some((one, l) => one.words.some((other, i) => other !== this.layers[l].words[i]))) {
        throw new Refused(`“${word}” is no word: write one in letters`);
      }
      this.#keep(layer, answers);
    } catch (error) {
      if (photograph !== this.photograph) return;
      words[index] = before;
      progress("");
      this.card.note(error.message);
      return;
    }
    const used = words[index];
    if (used !== before) this.history.push(all);
    this.#written(layer);
    this.card.clear();
    this.card.note(used === word ? "" : `“${word}” is not one of the words: “${used}” was taken instead.`);
    progress(used === before ? `The word is still “${used}”.`
      : `Changed “${before}” to “${used}”: see the picture made from ${element("prefix-note").textContent}.`);
    element("made").scrollIntoView({ block: "nearest" });
  }

  #restoreAll() {
    this.#return(() => {
      this.history.push(this.#words());
      return this.layers.map(({ was }) => [...was]);
    }, "Undoing all changes …", "All words are as they came again.");
  }

  /** Ctrl-Z, unless it is for the letters in a field. */
  #undo(event) {
    if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    if (event.target.value && event.target.matches("input:not([type]), textarea")) return;
    if (element("panel-words").hidden) return;
    event.preventDefault();
    this.#return(() => this.history.pop(), "Undoing the last change …", "The last change is undone.");
  }

  /** Back to other words of all layers, which `words` gives when its turn comes; nothing if it gives none. */
  #return(words, doing, done) {
    const photograph = this.photograph;
    this.changes = this.changes.then(async () => {
      if (photograph !== this.photograph) return;
      const before = this.layers.map(({ words }) => words), history = [...this.history], back = words();
      if (!back) return;
      this.layers.forEach((layer, i) => { layer.words = back[i]; });
      try {
        progress(doing);
        const answers = await this.#decode(0);
        if (photograph !== this.photograph) return;
        this.#keep(0, answers);
        this.#written(0);
        progress(done);
      } catch (error) {
        if (photograph !== this.photograph) return;
        this.layers.forEach((layer, i) => { layer.words = before[i]; });
        this.history = history;
        progress("");
        fail(error);
      }
    });
  }

  /** The photograph, to be drawn over the picture from the left as far as the slider says. */
  #showOriginal() {
    const original = element("original"), { square, fromWords } = this.photograph;
    original.width = original.height = square.width;
    original.getContext("2d").drawImage(square, 0, 0);
    element("reveal-part").hidden = element("patch-part").hidden = Boolean(fromWords);
    element("reveal").value = 0;
    this.#reveal();
  }

  #reveal() {
    const part = Number(element("reveal").value);
    element("original").style.clipPath = `inset(0 ${100 - part}% 0 0)`;
    element("original").hidden = !part;
  }

  /** Words have changed; the picture shows them from layer `layer` on. */
  #written(layer) {
    this.stage.write();
    this.#writeList();
    const prefix = element("prefix");
    if (Number(prefix.value) <= layer) prefix.value = layer + 1;
    this.#showPicture();
    this.#mark();
  }

  #writeList() {
    const lines = element("lines");
    const unfolded = new Set([...lines.querySelectorAll("details[open]")].map((one) => one.dataset.layer));
    lines.replaceChildren(...this.layers.map(({ words, was }, layer) => {
      const line = make("p", { className: `layer${Math.min(layer + 1, 4)}` });
      words.forEach((word, index) => {
        const span = make("span", { className: word === was[index] ? "word" : "word changed" }, word);
        span.dataset.place = `${layer} ${index}`;
        line.append(...(index ? [" ", span] : [span]));
      });
      if (words.length <= OPEN_WORDS) return line;
      const folded = make("details", {}, make("summary", {}, `Layer ${layer + 1}: ${words.length} words`), line);
      folded.dataset.layer = layer;
      folded.open = unfolded.has(String(layer));
      return folded;
    }));
    element("restore-all").hidden = this.layers.every(({ words, was }) => words.every((word, i) => word === was[i]));
  }

  async #copy(form) {
    const layers = Number(element("prefix").value), words = this.#words(layers);
    const record = {
      image: this.photograph.name, model: this.model,
      layers: this.layers.slice(0, layers).map(({ height, width, words, ids }) => ({ height, width, words, ids })),
    };
    const text = form === "text" ? words.flat().join(" ") : JSON.stringify(record);
    await copy(text, `Copied ${count(words.flat().length, "word")} as ${form}.`, "copy-note", "copy-by-hand");
  }

  async #copyLink() {
    const words = this.#words(Number(element("prefix").value)).flat();
    await copy(linkTo(words), `Copied a link that carries ${count(words.length, "word")}.`, "copy-note", "copy-by-hand");
  }
}

function placeOf(target) {
  if (!target.dataset.place) return null;
  const [layer, index] = target.dataset.place.split(" ").map(Number);
  return { layer, index };
}
