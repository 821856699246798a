// The documentation: every route of openapi.json, with an example that runs.

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const routes = document.getElementById("routes");
const key = document.getElementById("key");

try {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`status ${response.status}`);
  show(await response.json());
} catch (error) {
  routes.replaceChildren(make("p", { textContent: `openapi.json could not be read: ${error.message}` }));
}

function show(api) {
  document.getElementById("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  document.getElementById("key-form").hidden = !api.security;
  document.getElementById("key-form").addEventListener("submit", (event) => event.preventDefault());
  routes.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, route] of Object.entries(methods)) routes.append(card(path, method.toUpperCase(), route));
  }
}

/** One route: what it does, an example to change and run, and what its statuses mean. */
function card(path, method, route) {
  const content = route.requestBody?.content ?? {};
  const example = content["application/json"]?.example;
  const title = make("h2", {}, make("span", { className: "method", textContent: method }), " ",
    make("code", { textContent: path }));
  const element = make("section", { className: "route card" }, title);
  if (route.description) element.append(make("p", { textContent: route.description }));
  const inputs = (where) => (route.parameters ?? []).filter((one) => one.in === where).map((one) => {
    const input = make("input", { value: one.schema.default ?? one.example ?? one.schema.examples?.[0] ?? "" });
    element.append(make("label", {}, `${one.name} `, input));
    return [one.name, input];
  });
  const places = inputs("path"), query = inputs("query");
  let body = null;
  if (example !== undefined) {
    const text = JSON.stringify(example, null, 1);
    body = make("textarea", { value: text, rows: Math.min(14, text.split("\n").length + 1), spellcheck: false });
    element.append(make("label", {}, "Body (application/json)", body));
  }
  let file = null;
  if (content["multipart/form-data"]) {
    file = make("input", { type: "file", multiple: true, accept: "image/jpeg,image/png,image/webp" });
    element.append(make("label", {}, "or images as a form (multipart/form-data)", file));
  }
  const run = make("button", { className: "strong", textContent: "Run" });
  const answer = make("section", { ariaLive: "polite" });
  run.addEventListener("click", async () => {
    run.disabled = true;
    answer.replaceChildren(make("p", { className: "faint", textContent: "Waiting for the answer .." }));
    const parameters = query.filter(([, input]) => input.value !== "").map(([name, input]) => [name, input.value]);
    const filled = places.reduce((text, [name, input]) => text.replace(`{${name}}`, encodeURI(input.value)), path);
    const address = filled.slice(1) + (parameters.length ? `?${new URLSearchParams(parameters)}` : "");
    try {
      answer.replaceChildren(...await ask(address, method, body, file));
    } catch (error) {
      answer.replaceChildren(make("p", { textContent: `There was no answer: ${error.message}` }));
    }
    run.disabled = false;
  });
  const statuses = make("dl");
  for (const [status, { description }] of Object.entries(route.responses)) {
    statuses.append(make("dt", { textContent: status }), make("dd", { textContent: description }));
  }
  element.append(run, answer, make("details", {}, make("summary", { textContent: "Statuses" }), statuses));
  return element;
}

/** Sends an example; gives what there is to show of the answer. */
async function ask(address, method, body, file) {
  const headers = key.value ? { Authorization: `Bearer ${key.value}` } : {};
  let sent = null;
  if (file?.files.length) {
    sent = new FormData();
    for (const one of file.files) sent.append("image", one);
  } else if (body) {
    sent = body.value;
    headers["Content-Type"] = "application/json";
  }
  const response = await fetch(address, { method, headers, body: sent });
  const text = await response.text();
  let shown = text;
  const images = [];
  try {
    shown = JSON.stringify(JSON.parse(text, (_, value) => {
      if (typeof value !== "string" || !value.startsWith("data:image/")) return value;
      images.push(make("img", { src: value, alt: "an image of the answer" }));
      return `${value.slice(0, 40)}.. (${value.length} characters)`;
    }), null, 1);
  } catch { /* Metrics are no JSON. */ }
  return [make("p", { textContent: `Status ${response.status}` }), ...images, make("pre", { textContent: shown })];
}
