// Progress and errors in words, and short ways to the elements of the page and to what happens there.

export const element = (id) => document.getElementById(id);

/** A new element with properties, and children. */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

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
