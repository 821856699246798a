// The second tab: a conversation with the language model about the picture.

import { chat } from "./service.js";
import { Refused, count, element, make } from "./say.js";

const USUAL_LAYERS = 2;

export class Chat {
  /** `needKey`: asked with an error whether a key is what is missing; `words`: gives those of so many layers as they
   * are now, and how many of them were changed; `regions`: a line for each region that is drawn on the photograph. */
  constructor(needKey, words, regions) {
    this.needKey = needKey;
    this.words = words;
    this.regions = regions;
    this.messages = []; // without the picture
    element("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    element("question").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      element("chat-form").requestSubmit();
    });
    element("stop").addEventListener("click", () => this.answering.abort());
    element("forget").addEventListener("click", () => this.#forget());
  }

  /** The tokenizer, and the language models behind the service or why there are none. */
  describe(tokenizer, models, problem) {
    const sizes = tokenizer.layers.map(([height, width]) => height * width);
    element("chat-layers").replaceChildren(...sizes.map((_, i) => {
      const words = sizes.slice(0, i + 1).reduce((a, b) => a + b);
      const selected = i + 1 === Math.min(USUAL_LAYERS, sizes.length);
      return make("option", { value: i + 1, selected }, count(words, "word"));
    }));
    element("model").replaceChildren(...models.map(({ id }) => make("option", {}, id)));
    element("model-label").hidden = models.length < 2;
    const name = models.length === 1 ? models[0].id : "The language model";
    element("chat-intro").textContent = problem
      ? `No language model answers at the moment: ${problem}`
      : `${name} has never seen a picture. It is given the photograph's words, the top layers first, and answers in `
        + "text; where it writes a picture in words, you see the picture, too."
        + (models[0]?.owned_by === "spae" ? " It is a small model: expect simple answers, often wrong ones. Whoever "
          + "runs the service can choose a larger one (spae serve --lm)." : "");
  }

  /** Another photograph: another conversation. */
  show({ square, name }) {
    this.square = square;
    this.name = name;
    this.#forget();
  }

  #forget() {
    this.answering?.abort();
    this.messages = [];
    element("messages").replaceChildren();
    element("forget").hidden = true;
  }

  async #ask() {
    const field = element("question"), question = field.value.trim();
    if (!question || this.answering) return;
    const asked = this.#bubble("user", this.messages.length ? null : this.#thumbnail());
    asked.querySelector(".text").textContent = question;
    const answer = this.#bubble("assistant");
    field.value = "";
    const asking = this.answering = new AbortController();
    this.#busy(true);
    const messages = [...this.messages, { role: "user", content: question }];
    try {
      const said = await this.#receive(messages, answer, asking.signal);
      this.messages = [...messages, { role: "assistant", content: said }];
      element("forget").hidden = false;
    } catch (error) {
      if (asking.signal.aborted) {
        answer.append(make("p", { className: "faint" }, "Stopped."));
      } else {
        answer.classList.add("failed");
        answer.append(make("p", { role: "alert" }, error.message));
        this.needKey(error);
      }
      // It can be asked again as it was.
      if (!field.value) field.value = question;
    } finally {
      this.answering = null;
      answer.classList.remove("waiting");
      this.#busy(false);
    }
  }

  /** Shows an answer as it comes; gives its text. */
  async #receive(messages, answer, signal) {
    answer.classList.add("waiting");
    const layers = Number(element("chat-layers").value);
    const body = {
      model: element("model").value || "default",
      messages: await this.#withPicture(messages, layers),
      spae: { layers },
      ...(element("draw").checked && { modalities: ["text", "image"] }),
    };
    const writing = new Writing(answer.querySelector(".text"));
    let pictures = 0;
    for await (const { choices } of chat(body, signal)) {
      const delta = choices?.[0]?.delta ?? {};
      if (delta.content) writing.add(delta.content);
      const reports = delta.spae?.images ?? [];
      for (const { image_url: image, index } of delta.images ?? []) {
        pictures += 1;
        const words = reports.find((report) => report.index === index)?.words.split(" ") ?? [];
        const alt = "A picture that the language model wrote in words";
        const caption = `a picture made from ${count(words.length, "word")}`;
        answer.append(make("figure", {}, make("img", { src: image.url, alt }), make("figcaption", {}, caption)));
      }
      for (const { error } of reports) {
        if (error) answer.append(make("p", { className: "faint" }, `A picture could not be made: ${error}`));
      }
      this.#scroll();
    }
    if (!writing.text && !pictures) throw new Refused("the language model answered nothing: ask in another way");
    return writing.text;
  }

  /** The messages, the first of them with the picture: its words as the other tab shows them now. */
  async #withPicture([first, ...others], layers) {
    const { words, changed } = await this.words(layers);
    const regions = this.regions(), sent = [`${this.name}, sent as ${count(words.length, "word")}`];
    if (changed) sent.push(`${changed} of them changed`);
    if (regions.length) sent.push(`with those of ${count(regions.length, "region")}`);
    this.caption.textContent = sent.join(", ");
    const content = [`<image> ${words.join(" ")} </image>`, ...regions, first.content].join("\n");
    return [{ ...first, content }, ...others];
  }

  #bubble(role, ...before) {
    const who = role === "user" ? "You" : element("model").value || "The model";
    const bubble = make(
      "div", { className: `message ${role}` }, make("p", { className: "who" }, who), ...before.filter(Boolean),
      make("p", { className: "text" }),
    );
    element("messages").append(bubble);
    this.#scroll();
    return bubble;
  }

  #thumbnail() {
    const canvas = make("canvas", { width: 160, height: 160 });
    canvas.getContext("2d").drawImage(this.square, 0, 0, 160, 160);
    this.caption = make("figcaption");
    return make("figure", {}, canvas, this.caption);
  }

  #busy(busy) {
    element("send").hidden = busy;
    element("stop").hidden = !busy;
    element("question").focus();
  }

  #scroll() {
    const messages = element("messages");
    messages.scrollTop = messages.scrollHeight;
  }
}

/** Text as it comes; words of pictures, which stand between marks, are set apart. */
class Writing {
  constructor(place) {
    this.place = place;
    this.text = "";
  }

  add(text) {
    this.text += text;
    const parts = this.text.split(/(<image>[^]*?(?:<\/image>|$))/);
    this.place.replaceChildren(...parts.filter(Boolean).map((part) => {
      if (!part.startsWith("<image>")) return part;
      return make("span", { className: "picture-words" }, part.replace(/<\/?image>/g, "").trim());
    }));
  }
}
