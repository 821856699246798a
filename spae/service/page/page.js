// The page: a photograph or words come in, two tabs show what can be done with its words.

import { Chat } from "./chat.js";
import { Pyramid } from "./pyramid.js";
import { Regions } from "./regions.js";
import { Refused, element, fail, make, progress } from "./say.js";
import { models, tokenize, useKey } from "./service.js";
import { Words, made, showRepairs } from "./words.js";

const RIVALS = 8;
const LARGEST_SIDE = 1024; // pixels of the photograph as the page shows it
const BEGINNINGS = [[0xff, 0xd8, 0xff], [0x89, 0x50, 0x4e, 0x47], [0x52, 0x49, 0x46, 0x46]]; // of JPEG, PNG and WebP

const pyramid = new Pyramid();
const regions = new Regions(needKey);
const chat = new Chat(needKey, (layers) => pyramid.words(layers), () => regions.lines());
const words = new Words(takeWords, needKey);
let layers = 0; // that the tokenizer has
let running = new AbortController(); // what is done for the photograph that is shown
let latest = null; // what was given last, a photograph or words; it may wait for a key

start();

async function start() {
  try {
    const { data, chat_error: chatError } = await models();
    const [{ id, tokenizer }, ...others] = data;
    pyramid.describe(id, tokenizer);
    layers = tokenizer.layers.length;
    chat.describe(tokenizer, others, chatError);
    const grids = tokenizer.layers.map((grid) => grid.join(" × ")).join(", ");
    facts({
      "pictures to words by": id,
      "words of a photograph": `${tokenizer.words_per_image}, in layers of ${grids}`,
      vocabulary: `${tokenizer.vocabulary.toLocaleString("en")} English words`,
      "language model": others.map((model) => model.id).join(", ") || "none answers",
    });
    element("key-form").hidden = true;
    fail(null);
    if (latest) take(latest.name, latest.get);
    else if (!pyramid.layers.length) words.fromAddress();
  } catch (error) {
    if (!needKey(error)) fail(error);
  }
}

function facts(entries) {
  element("facts").replaceChildren(...Object.entries(entries).map(
    ([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)),
  ));
}

/** Asks for a key if that is what is missing; says whether it is. */
function needKey(error) {
  if (error.status !== 401) return false;
  const input = element("key");
  if (error.keyed) fail(error); // a wrong one; what was asked before there was one may be answered later
  element("key-form").hidden = false;
  input.focus();
  return true;
}

/** A photograph: to its words and back. */
function takePhotograph(file, name) {
  return take(name, async () => {
    progress(`Reading ${name} …`);
    const photograph = await read(file, name);
    progress("Turning the photograph into words …");
    const found = await tokenize(photograph.file, RIVALS);
    return { photograph, found, said: `${name} became ${found.count} words` };
  });
}

/** A text: the picture that its words make. */
function takeWords(text) {
  return take("Your words", () => {
    progress("Making the picture …");
    return made(text, layers);
  });
}

/** Shows what `get` gives, unless something newer was given meanwhile. */
async function take(name, get) {
  const mine = latest = { name, get };
  fail(null);
  try {
    const { photograph, found, said } = await get();
    if (latest !== mine) return;
    if (!photograph.square) throw new Refused("this browser cannot show the file: choose a JPEG, PNG or WebP file");
    latest = null;
    running.abort();
    running = new AbortController();
    element("work").hidden = false;
    document.body.classList.add("working");
    chat.show(photograph);
    regions.show(photograph);
    const changed = showRepairs(found);
    progress(`${said}. Making pictures from them …`);
    await pyramid.show(photograph, found, running.signal);
    progress(`${said}.${changed ? " Not all as they were written, see below." : ""}`);
  } catch (error) {
    if (error.name === "AbortError" || (latest && latest !== mine)) return;
    progress("");
    if (needKey(error)) return;
    latest = null;
    showRepairs(null); // they were another text's
    fail(error, `${name}: `);
  }
}

/** The file as something to show and to send. Files that are no images go on as they are: the service says why not. */
async function read(file, name) {
  const bytes = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  if (!BEGINNINGS.some((start) => start.every((byte, i) => bytes[i] === byte))) return { file, name };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return { file, name };
  }
  // The service takes the central square.
  const side = Math.min(bitmap.width, bitmap.height);
  const square = document.createElement("canvas");
  square.width = square.height = Math.min(side, LARGEST_SIDE);
  const context = square.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(
    bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, square.width, square.width,
  );
  const part = { left: Math.floor((bitmap.width - side) / 2), top: Math.floor((bitmap.height - side) / 2), side };
  bitmap.close();
  return { file, name, square, part };
}

function takeFirst(files, where) {
  const file = files[0];
  if (file) takePhotograph(file, file.name || "The photograph");
  else fail(new Refused(`wanted a photograph, but there was none ${where}: choose a JPEG, PNG or WebP file`));
}

/** What was dropped or pasted: a photograph, or words. */
function takeFrom(data, where) {
  const text = data.getData("text/plain").trim();
  if (text && !data.files.length) words.fill(text);
  else takeFirst(data.files, where);
}

element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) takeFirst(target.files, "chosen");
  target.value = ""; // the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  takeFrom(event.dataTransfer, "in what was dropped");
});
document.addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  const intoField = event.target.closest?.("input, textarea");
  if (intoField && !files.length) return;
  event.preventDefault();
  takeFrom(event.clipboardData, "in what was pasted");
});
element("samples").addEventListener("click", async ({ target }) => {
  const sample = target.closest(".sample");
  if (!sample) return;
  try {
    const response = await fetch(`photographs/${sample.dataset.file}`);
    if (!response.ok) throw new Refused("the photograph is not there");
    takePhotograph(await response.blob(), sample.dataset.what.charAt(0).toUpperCase() + sample.dataset.what.slice(1));
  } catch (error) {
    fail(error);
  }
});
element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(element("key").value.trim());
  start();
});

const tabs = [...document.querySelectorAll("[role=tab]")];
function open(tab) {
  for (const one of tabs) {
    const selected = one === tab;
    one.setAttribute("aria-selected", selected);
    one.tabIndex = selected ? 0 : -1;
    element(one.getAttribute("aria-controls")).hidden = !selected;
  }
  if (tab.id === "tab-words") pyramid.fit();
}
for (const tab of tabs) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    open(next);
    next.focus();
  });
}
