// A form to try a model with JSON, over the same REST that curl would use.

import { make, say } from "./elements.js";
import { rounded, size } from "./series.js";

const MOST_ELEMENTS = 20000;
const MOST_SHOWN = 2000;

export function trial(model) {
  const path = `v2/models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(model.version)}/infer`;
  const text = make("textarea", { id: "request", rows: 10, spellcheck: "false", autocomplete: "off", "aria-describedby": "request-hint", onkeydown: keys });
  const run = make("button", { type: "submit", class: "main" }, "Run");
  const result = make("div", { class: "result", role: "status", "aria-label": "Answer" });
  const curl = make("code");
  const form = make(
    "form", { onsubmit: send },
    make("label", { for: "request" }, "Request"),
    make("p", { class: "hint", id: "request-hint" }, "The Open Inference Protocol's JSON. Ctrl+Enter runs it, too."),
    text,
    make(
      "div", { class: "buttons" }, run,
      make("button", { type: "button", onclick: () => fill(() => 0) }, "Zeros"),
      make("button", { type: "button", onclick: () => fill(Math.random) }, "Random"),
    ),
  );
  const command = make("details", {}, make("summary", {}, "The same with curl"), make("pre", { class: "scroll", tabindex: "0" }, curl));
  command.addEventListener("toggle", tell);
  text.addEventListener("input", tell);

  function fill(number) {
    text.value = example(model, number);
    tell();
  }
  function tell() {
    const address = new URL(path, document.baseURI.split("#")[0]);
    if (command.open) say(curl, `curl -s ${address} -d '${text.value.replaceAll("'", `'\\''`)}'`);
  }
  function keys(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  }
  async function send(event) {
    event.preventDefault();
    try {
      JSON.parse(text.value);
    } catch (failure) {
      return show("bad", `Not sent: this is not JSON. ${failure.message}`);
    }
    run.disabled = true;
    const started = performance.now();
    try {
      const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: text.value });
      const body = await answer.text();
      const took = `${rounded(performance.now() - started)} ms from here and back`;
      const told = read(body);
      if (answer.ok) show("good", `Answered, ${took}`, ...told.outputs.map(output), whole(body));
      else show("bad", `Refused with ${answer.status}: ${told.error ?? body}`);
    } catch (failure) {
      show("bad", `No answer: ${failure.message}`);
    } finally {
      run.disabled = false;
    }
  }
  function show(tone, line, ...more) {
    result.dataset.tone = tone;
    result.replaceChildren(make("p", { class: "outcome" }, line), ...more);
  }
  fill(() => 0);
  const large = model.inputs.filter((one) => !one.optional && elements(one) > MOST_ELEMENTS);
  const names = large.map((one) => `${one.name} (${elements(one).toLocaleString("en")} elements)`).join(", ");
  const note = large.length ? make("p", { class: "note" }, `Too large to write out here: ${names}. Fill in its data, or send it from a program.`) : "";
  return [make("h2", {}, "Try it"), note, form, result, command];
}

function read(body) {
  try {
    return JSON.parse(body);
  } catch {
    return {};
  }
}

function output(one) {
  const values = (one.data ?? []).slice(0, 24).map((value) => (typeof value === "number" ? Number(value.toPrecision(6)) : JSON.stringify(value)));
  const more = (one.data ?? []).length - values.length;
  return make(
    "div", { class: "output" },
    make("p", {}, make("code", {}, one.name), ` ${one.datatype} [${one.shape.join(", ")}]`),
    make("pre", {}, values.join("  ") + (more > 0 ? `  … ${more.toLocaleString("en")} more` : "")),
  );
}

function whole(body) {
  const cut = body.length > MOST_SHOWN ? `${body.slice(0, MOST_SHOWN)} …` : body;
  return make("details", {}, make("summary", {}, `The answer as it came, ${size(body.length)}`), make("pre", { class: "scroll", tabindex: "0" }, cut));
}

// One row for every open dimension, written one input to a line so that it can be read and changed.
function example(model, number) {
  const inputs = model.inputs.filter((one) => !one.optional).map((one) => {
    const count = elements(one);
    const data = count > MOST_ELEMENTS ? [] : Array.from({ length: count }, () => element(one.datatype, number()));
    const head = JSON.stringify({ name: one.name, datatype: one.datatype, shape: shape(one) });
    return `    ${head.slice(0, -1)},\n     "data": ${JSON.stringify(data).replaceAll(",", ", ")}}`;
  });
  return `{\n  "inputs": [\n${inputs.join(",\n")}\n  ]\n}`;
}

function shape(input) {
  return input.shape.map((dim) => (dim < 0 ? 1 : dim));
}

function elements(input) {
  return shape(input).reduce((product, dim) => product * dim, 1);
}

function element(datatype, number) {
  if (datatype === "BYTES") return number ? Math.floor(number * 1e6).toString(36) : "";
  if (datatype === "BOOL") return number >= 0.5;
  return /INT/.test(datatype) ? Math.floor(number * 10) : Number(number.toFixed(3));
}
