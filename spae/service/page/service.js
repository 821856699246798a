// The service, as the page calls it: JSON in and out, the key, and errors in words.

// The part of a request that an error names first: the page made the request, and who reads it gave a file or words.
const FIELD = /^(images?|inputs|text)(\.\w+)*: /i;

let key = "";

/** Sends this key from now on; it is kept nowhere but here. */
export function useKey(value) {
  key = value;
}

/** What went wrong, as a sentence; `status` is that of HTTP, 0 without an answer; `keyed`: a key was sent. */
export class ServiceError extends Error {
  constructor(message, status, keyed = false) {
    super(message.charAt(0).toUpperCase() + message.slice(1));
    this.status = status;
    this.keyed = keyed;
  }
}

export const models = () => json("v1/models");

/** Words of the vocabulary that begin so. */
export const vocabulary = (prefix, signal) =>
  json(`v1/vocabulary?limit=12&prefix=${encodeURIComponent(prefix)}`, { signal });

/** A text for any chat: what to write, and how. */
export const prompt = () => json("v1/prompt");

/** A file to its pyramid, each place with `rivals`. */
export async function tokenize(file, rivals) {
  const form = new FormData();
  form.append("image", file, "photograph");
  form.append("rivals", rivals);
  return (await json("v1/tokenize", { method: "POST", body: form })).data[0];
}

/** The words of a box [x, y, width, height] of a file, in its pixels. */
export async function regions(file, box) {
  const image = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new ServiceError("the photograph can no longer be read: choose it again", 0));
    reader.readAsDataURL(file);
  });
  return (await json("v1/regions", posted({ image, regions: [box] }))).data[0].words;
}

/** Pyramids, each as `{ids}`, `{words}` or `{text}`, to pictures: `url`, `layers` and `repairs` of each. */
export async function detokenize(inputs, signal) {
  return (await json("v1/detokenize", { ...posted({ inputs }), signal })).data;
}

/** Yields the chunks of a streamed answer. */
export async function* chat(body, signal) {
  const response = await answered("v1/chat/completions", { ...posted({ ...body, stream: true }), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => { throw broken(error); });
    if (done) throw new ServiceError("the answer broke off: ask again", 0);
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      if (event === "data: [DONE]") return;
      const chunk = JSON.parse(event.slice(6));
      if (chunk.error) throw new ServiceError(chunk.error.message ?? "the language model failed", 502);
      yield chunk;
    }
  }
}

const posted = (body) => ({
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});

async function json(path, options = {}) {
  const response = await answered(path, options);
  return response.json().catch((error) => { throw broken(error); });
}

async function answered(path, options) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw broken(error);
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const message = said.error?.message ?? `the service answered with the status ${response.status}: try again later`;
  throw new ServiceError(message.replace(FIELD, ""), response.status, "Authorization" in headers);
}

function broken(error) {
  if (error.name === "AbortError") return error;
  return new ServiceError("no answer from the service: see that it runs and can be reached, then try again", 0);
}
