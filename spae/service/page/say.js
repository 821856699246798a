// Progress and errors in words, and short ways to the elements of the page and to what happens there.

export const element = (id) => document.getElementById(id);

/** A new element with properties, and children. */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** How this screen is pointed at. */
export const touch = matchMedia("(hover: none)").matches;

/** Something that this page itself did not take. */
export class Refused extends Error {
  constructor(message) {
    super(message.charAt(0).toUpperCase() + message.slice(1));
  }
}

export function progress(text) {
  element("status").textContent = text;
}

/** Shows an error, or with null that there is none any more. */
export function fail(error, before = "") {
  const place = element("error");
  place.hidden = !error;
  place.textContent = error ? before + error.message : "";
}

/** Copies a text and says so in the element `note`; where the browser does not let, it is in the field `byHand`. */
export async function copy(text, said, note, byHand) {
  const field = element(byHand);
  try {
    // Missing where the page came over http from another machine.
    await navigator.clipboard.writeText(text);
    field.hidden = true;
    element(note).textContent = said;
  } catch {
    field.hidden = false;
    field.value = text;
    field.select();
    element(note).textContent = "This browser lets the page copy nothing by itself: copy the text below.";
  }
}

export const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

/** Calls `point` with the element inside `place` that is pointed at whenever it is another one, and null at the end. */
export function onPoint(place, point) {
  let last = null;
  const now = (target) => {
    if (target !== last) point(target);
    last = target;
  };
  place.addEventListener("pointermove", ({ target, movementX, movementY }) => {
    // Without movement it is the page that moved, under a pointer that rests.
    if (movementX || movementY) now(target);
  });
  place.addEventListener("pointerleave", () => now(null));
}
