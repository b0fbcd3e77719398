// One version of one model: where its time goes, what its batches are like, its tensors, and a form to try it.

import { bars, make, mark, say } from "./elements.js";
import { pill, tiles } from "./overview.js";
import { duration, keyOf, mean, observations, rounded, size } from "./series.js";
import { trial } from "./trial.js";

export function model(name, version) {
  const key = `${name}/${version}`;
  const state = pill("LOADING");
  const facts = make("p", { class: "hint" });
  const missing = make("p", { class: "note", hidden: true }, "There is no such version here now.");
  const top = tiles();
  const phases = bars("Where the time of a request goes");
  const batches = bars("Runs by their number of rows");
  const codes = bars("Requests by the code they ended with");
  const tensors = make("div", { class: "scroll" });
  const tryIt = make("section", { class: "card" });
  const idle = make("p", { class: "note" }, "No requests in the last minute.");
  const body = make(
    "div", {},
    make("section", { "aria-label": "Figures" }, top.element),
    make(
      "div", { class: "columns" },
      make("section", { class: "card" }, make("h2", {}, "Where the time goes"), make("p", { class: "hint" }, "Of a request, on average over the last minute."), phases.element, idle),
      make("section", { class: "card" }, make("h2", {}, "Batches"), make("p", { class: "hint" }, "Runs by their number of rows, since the start."), batches.element),
      make("section", { class: "card" }, make("h2", {}, "Ends"), make("p", { class: "hint" }, "Requests by gRPC code, since the start."), codes.element),
    ),
    make("section", { class: "card" }, make("h2", {}, "Inputs and outputs"), tensors),
    tryIt,
  );
  const element = make(
    "div", {},
    make("p", {}, make("a", { class: "back", href: "#/" }, "All models")),
    make("h1", {}, name, make("span", { class: "version" }, `version ${version}`), state),
    facts, missing, body,
  );
  let described = "";
  function update(series) {
    const now = series.models().find((one) => keyOf(one) === key);
    missing.hidden = Boolean(now);
    body.hidden = !now;
    state.hidden = !now;
    if (!now) return;
    say(state, now.state.toLowerCase());
    mark(state, "data-state", now.state);
    say(facts, told(now));
    top.update(series, key);
    const minute = series.recent(key, 60);
    idle.hidden = observations(minute.request) > 0;
    phases.update(idle.hidden ? shares(minute) : []);
    batches.update(sizes(now.batch_rows));
    codes.update(ends(now.codes));
    const signature = JSON.stringify([now.inputs, now.outputs, series.now.server.tryable]);
    if (signature === described) return;
    described = signature;
    tensors.replaceChildren(now.inputs ? listed(now) : make("p", { class: "note" }, "They are known once it is loaded."));
    tryIt.hidden = !now.inputs || !series.now.server.tryable;
    if (!tryIt.hidden) tryIt.replaceChildren(...trial(now));
  }
  return { element, title: `${name} ${version}`, update };
}

function told(model) {
  if (model.state === "FAILED") return "It did not load; the server's log has the reason.";
  if (!model.inputs) return "";
  const batching = model.batched
    ? `Batches of up to ${model.best_rows} rows` + (model.best_rows < model.max_rows ? `, of ${model.max_rows} allowed: more has not paid so far` : "")
    : "Each request runs alone";
  const instances = model.instances === 1 ? "one instance" : `${model.instances} instances`;
  const threads = model.threads === 1 ? "one thread" : `${model.threads} threads`;
  const waiting = model.queue_rows ? ` ${size(model.queue_bytes)} wait.` : "";
  const place = model.fell_back ? " It asks for a GPU, and the CPU runs it." : "";
  return `${batching}. ${instances[0].toUpperCase()}${instances.slice(1)} with ${threads}.${waiting}${place}`;
}

function shares(span) {
  const whole = mean(span.request) ?? 0;
  const [queue, input, infer, output] = ["queue", "compute_input", "compute_infer", "compute_output"].map((one) => mean(span[one]) ?? 0);
  const rest = Math.max(whole - queue - input - infer - output, 0);
  const sum = queue + input + infer + output + rest || 1;
  const parts = [
    ["Waiting for a batch", queue, "queue"], ["Gathering inputs", input, ""], ["Running the model", infer, "model"],
    ["Writing answers", output, ""], ["Reading, checking, sending", rest, ""],
  ];
  return parts.map(([name, seconds, tone]) => ({
    name, tone, part: seconds / sum, text: `${duration(seconds).join(" ")} · ${Math.round((100 * seconds) / sum)}%`,
  }));
}

function sizes(histogram) {
  const all = observations(histogram);
  const { bounds, counts } = histogram;
  const names = [...bounds.map((bound, index) => {
    const low = index ? bounds[index - 1] + 1 : 1;
    return low === bound ? `${bound}` : `${low}–${bound}`;
  }), `over ${bounds.at(-1)}`];
  const last = Math.max(counts.findLastIndex((count) => count > 0), 0);
  return names.slice(0, last + 1).map((name, index) => ({
    name: `${name} ${name === "1" ? "row" : "rows"}`, part: all ? counts[index] / all : 0,
    text: all ? `${counts[index].toLocaleString("en")} · ${percent(counts[index] / all)}` : "none yet",
  }));
}

function ends(codes) {
  const all = Object.values(codes).reduce((sum, count) => sum + count, 0);
  if (!all) return [{ name: "OK", part: 0, text: "none yet" }];
  return Object.entries(codes).filter(([, count]) => count).sort(([, a], [, b]) => b - a).map(([name, count]) => ({
    name, part: count / all, tone: name === "OK" ? "model" : "bad", text: `${count.toLocaleString("en")} · ${percent(count / all)}`,
  }));
}

function percent(share) {
  return share > 0 && share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`;
}

function listed(model) {
  const line = (side) => (one) => make(
    "tr", {}, make("td", {}, side), make("th", { scope: "row" }, make("code", {}, one.name), one.optional ? " optional" : ""),
    make("td", {}, make("code", {}, one.datatype)),
    make("td", {}, make("code", {}, `[${one.shape.map((dim) => (dim < 0 ? "any" : dim)).join(", ")}]`)),
  );
  return make(
    "table", { class: "tensors" }, make("caption", { class: "quiet" }, "Tensors of the model"),
    make("thead", {}, make("tr", {}, ...["", "Name", "Datatype", "Shape"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...model.inputs.map(line("input")), ...model.outputs.map(line("output"))),
  );
}
