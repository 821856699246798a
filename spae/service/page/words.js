// Words come in: written, pasted or in the page's address; and the prompt that makes any chat write them.

import { copy, count, element, fail, make } from "./say.js";
import { detokenize, prompt } from "./service.js";

const ADDRESS = "#words=";

export class Words {
  /** `take`: called with a text that holds words; `needKey`: with an error, says whether a key is what is missing. */
  constructor(take, needKey) {
    this.take = take;
    this.needKey = needKey;
    const field = element("words-in");
    element("words-form").addEventListener("submit", (event) => {
      event.preventDefault();
      field.scrollTop = 0; // one line is seen: the first
      this.take(field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      element("words-form").requestSubmit();
    });
    field.addEventListener("input", ({ inputType }) => {
      if (inputType === "insertFromPaste") element("words-form").requestSubmit();
    });
    element("copy-prompt").addEventListener("click", () => this.#copyPrompt());
    addEventListener("hashchange", () => this.fromAddress());
  }

  /** Words from elsewhere, such as pasted ones. */
  fill(text) {
    element("words-in").value = text;
    this.take(text);
  }

  /** Those that the address carries behind its #, which no server is sent. */
  fromAddress() {
    if (!location.hash.startsWith(ADDRESS)) return;
    try {
      this.fill(decodeURIComponent(location.hash.slice(ADDRESS.length).replaceAll("+", " ")));
    } catch (error) {
      if (!(error instanceof URIError)) throw error;
      fail(new Error("The words in this page's address are damaged: ask for the link again"));
    }
  }

  async #copyPrompt() {
    try {
      const { text } = await prompt();
      await copy(text, "Copied. Paste it into any chat, say what the picture shows, and paste the answer here. Expect patches of colour: " +
        "words paint as the decoder learnt them, not what they mean.",
        "prompt-note", "prompt-by-hand");
    } catch (error) {
      if (!this.needKey(error)) fail(error);
    }
  }
}

/** An address of this page that carries the words. */
export function linkTo(words) {
  const carried = encodeURIComponent(words.join(" ")).replaceAll("%20", "+");
  return location.href.split("#")[0] + ADDRESS + carried;
}

/** A text to what `Pyramid.show` takes: the picture made of it, its layers, and what is to be said of them. */
export async function made(text, allLayers) {
  const [found] = await detokenize([{ text }]);
  const picture = new Image();
  picture.src = found.url;
  await picture.decode();
  const square = make("canvas", { width: picture.naturalWidth, height: picture.naturalHeight });
  square.getContext("2d").drawImage(picture, 0, 0);
  const layers = found.layers.map((layer) => ({ ...layer, rivals: layer.words.map(() => []) }));
  const which = layers.length === 1 ? "the first layer"
    : layers.length === allLayers ? `all ${allLayers} layers` : `the first ${layers.length} of ${allLayers} layers`;
  const missing = found.repairs.filter(({ kind }) => kind === "missing").length;
  const said = missing ? `${count(found.count - missing, "word")}, of the ${found.count} that ${which} hold`
    : `${count(found.count, "word")}: ${which}`;
  return { photograph: { name: "Your words", square, fromWords: true }, found: { ...found, layers }, said };
}

/** Shows what was repaired; null for nothing. Says whether any word is not one that was written. */
export function showRepairs(found) {
  const repairs = (found?.repairs ?? []).filter(({ kind }) => kind !== "whitespace");
  const missing = repairs.filter(({ kind }) => kind === "missing").length;
  const replaced = repairs.filter(({ kind }) => kind === "unknown");
  const parts = [];
  if (missing) parts.push(`${missing} were missing and are filled with the word above`);
  if (replaced.length) parts.push(`${replaced.length} not in the vocabulary, and replaced`);
  for (const { kind, found: left } of repairs) if (kind === "surplus") parts.push(`left out: ${left}`);
  const changed = parts.length > 0;
  const others = repairs.filter(({ kind }) => !["missing", "unknown", "surplus"].includes(kind));
  if (others.length) parts.push(`read past ${amounts(others.map(({ kind }) => kind))}`);
  const place = element("repairs");
  place.hidden = !parts.length;
  if (!parts.length) return false;
  const short = `Of ${count(found.count, "word")}: ${parts.join("; ")}.`;
  place.classList.toggle("many", missing + replaced.length > 0);
  place.replaceChildren(make("summary", {}, short), make("ul", {}, ...[...replaced, ...others].map(line)));
  return changed;
}

/** "numbering (5), case (1)", of the five. */
function amounts(kinds) {
  return [...new Set(kinds)].map((kind) => `${kind} (${kinds.filter((one) => one === kind).length})`).join(", ");
}

function line({ kind, position, found, used }) {
  const became = used ? `“${found}” became “${used}”` : `“${found}” (${kind})`;
  return make("li", {}, kind === "wrapping" ? `around the words: “${found}”` : `word ${position + 1}: ${became}`);
}
