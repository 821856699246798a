// Rectangles drawn on the photograph, and words of what is there.

import { count, element, fail, make, progress } from "./say.js";
import { regions } from "./service.js";

const SMALLEST = 8; // pixels of the screen; less is a slip of the finger
const MOST = 32;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 1 / 32; // of the plane, for a press of an arrow key

export class Regions {
  /** `needKey`: asked with an error whether a key is what is missing. */
  constructor(needKey) {
    this.needKey = needKey;
    this.drawn = []; // of each its box in pixels of the file, its words, null while they are on their way, and its frame
    this.plane = element("regions");
    element("draw-region").addEventListener("click", () => this.#open(!this.#isOpen()));
    this.plane.addEventListener("pointerdown", (event) => this.#begin(event));
    this.plane.addEventListener("pointermove", (event) => this.#pull(event));
    this.plane.addEventListener("pointerup", (event) => this.#end(event));
    this.plane.addEventListener("pointercancel", () => this.#drop());
    this.plane.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("keydown", ({ key }) => {
      if (key !== "Escape" || !this.#isOpen()) return;
      this.#drop();
      this.#open(false);
    });
  }

  /** Another photograph: {file, part}, `part`: where its square lies in the file, {left, top, side} in pixels. */
  show({ file, part }) {
    this.file = file;
    this.part = part;
    this.#drop();
    this.drawn = [];
    this.#open(false);
    this.plane.replaceChildren();
    element("draw-region").hidden = !part; // words without a photograph
  }

  /** Lines for a prompt, as the chat door writes them. */
  lines() {
    return this.drawn.filter(({ words }) => words).map(({ words }, i) => `Region ${i + 1}: ${words.join(" ")}`);
  }

  #isOpen() {
    return this.plane.classList.contains("open");
  }

  /** Whether the pointer draws; else it points at words. */
  #open(open) {
    if (open) progress("Drag over a part of the photograph.");
    else if (this.#isOpen()) progress("");
    this.plane.classList.toggle("open", open);
    element("draw-region").setAttribute("aria-pressed", open);
    element("draw-region").textContent = open ? "Done" : "Draw a region";
    this.plane.tabIndex = open ? 0 : -1;
    if (open) this.plane.focus({ preventScroll: true });
    this.#list();
  }

  /** A point of the screen as shares of the plane, 0 to 1. */
  #share({ clientX, clientY }) {
    const { left, top, width, height } = this.plane.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return { x: within((clientX - left) / width), y: within((clientY - top) / height) };
  }

  #begin(event) {
    if (!this.#isOpen() || this.pulled?.from || !event.isPrimary || event.button) return;
    event.preventDefault();
    this.#drop();
    this.plane.setPointerCapture(event.pointerId);
    this.pulled = { from: this.#share(event), frame: make("div", { className: "region" }) };
    this.plane.append(this.pulled.frame);
    this.#pull(event);
  }

  #pull(event) {
    if (!this.pulled?.from || !event.isPrimary) return;
    const { from } = this.pulled, to = this.#share(event);
    this.#place({
      x: Math.min(from.x, to.x), y: Math.min(from.y, to.y), width: Math.abs(to.x - from.x), height: Math.abs(to.y - from.y),
    });
  }

  /** Arrow keys bring a rectangle into the middle and move it, with Shift they size it; Enter is letting go. */
  #key(event) {
    if (!this.#isOpen() || this.pulled?.from) return; // the pointer is drawing
    if (event.key === "Enter" && this.pulled) {
      event.preventDefault();
      this.#look();
      return;
    }
    const [across, down] = ARROWS[event.key] ?? [];
    if (across === undefined) return;
    event.preventDefault();
    const middle = { x: 3 / 8, y: 3 / 8, width: 1 / 4, height: 1 / 4 };
    if (!this.pulled) {
      this.pulled = { frame: make("div", { className: "region" }) };
      this.plane.append(this.pulled.frame);
      this.#place(middle);
      return;
    }
    const { x, y, width, height } = this.pulled.share;
    const within = (value, least, most) => Math.min(most, Math.max(least, value));
    this.#place(event.shiftKey
      ? { x, y, width: within(width + across * STEP, STEP, 1 - x), height: within(height + down * STEP, STEP, 1 - y) }
      : { x: within(x + across * STEP, 0, 1 - width), y: within(y + down * STEP, 0, 1 - height), width, height });
  }

  #place(share) {
    const { frame } = this.pulled;
    this.pulled.share = share;
    for (const [side, value] of [["left", share.x], ["top", share.y], ["width", share.width], ["height", share.height]]) {
      frame.style[side] = `${100 * value}%`;
    }
  }

  #drop() {
    this.pulled?.frame.remove();
    this.pulled = null;
  }

  #end(event) {
    if (!this.pulled?.from || !event.isPrimary) return;
    const { width, height } = this.pulled.share;
    if (Math.min(width, height) * this.plane.clientWidth < SMALLEST) this.#drop();
    else this.#look();
  }

  /** At what the frame is around. */
  #look() {
    const { share, frame } = this.pulled;
    this.pulled = null;
    if (this.drawn.length === MOST) {
      frame.remove();
      progress(`${MOST} regions are as many as there may be: remove one first.`);
      return;
    }
    // All pixels that it touches: none is off the photograph by a rounding error.
    const { left, top, side } = this.part;
    const x = Math.floor(share.x * side), y = Math.floor(share.y * side);
    const width = Math.ceil((share.x + share.width) * side) - x, height = Math.ceil((share.y + share.height) * side) - y;
    const box = [left + x, top + y, Math.min(width, side - x), Math.min(height, side - y)];
    this.#ask({ box, frame, words: null });
  }

  async #ask(region) {
    const { drawn } = this;
    drawn.push(region);
    this.#list();
    fail(null);
    try {
      progress("Looking at the region …");
      const words = await regions(this.file, region.box);
      if (drawn !== this.drawn || !drawn.includes(region)) return; // another photograph, or removed meanwhile
      region.words = words;
      this.#list();
      progress(`Region ${drawn.indexOf(region) + 1}: ${region.words.join(" ")}`);
    } catch (error) {
      if (drawn !== this.drawn) return;
      this.#remove(region);
      progress("");
      if (!this.needKey(error)) fail(error);
    }
  }

  #remove(region) {
    region.frame.remove();
    this.drawn.splice(this.drawn.indexOf(region), 1);
    this.#list();
  }

  #list() {
    element("regions-note").textContent = this.drawn.length
      ? `${count(this.drawn.length, "region")}: the chat is told of what is there, too.` : "";
    element("region-list").replaceChildren(...this.drawn.map((region, i) => {
      region.frame.dataset.number = i + 1;
      const remove = make("button", { type: "button" }, "Remove");
      remove.setAttribute("aria-label", `Remove region ${i + 1}`);
      remove.addEventListener("click", () => this.#remove(region));
      return make("li", {}, make("span", {}, region.words ? region.words.join(" ") : "…"), remove);
    }));
  }
}
