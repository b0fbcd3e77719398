// All models at a glance, and what clients were told lately.

import { keyed, make, mark, say, tile } from "./elements.js";
import { duration, keyOf, mean, quantile, rounded, since } from "./series.js";

export function address(model) {
  return `#/model/${encodeURIComponent(model.name)}/${encodeURIComponent(model.version)}`;
}

export function pill(state) {
  return make("span", { class: "pill", "data-state": state }, state.toLowerCase());
}

// The tiles that the overview and the view of one model share.
export function tiles() {
  const rate = tile("Requests", "Requests settled per second, over the last 10 seconds");
  const middle = tile("Latency p50", "Half of the requests of the last 10 seconds took no longer");
  const tail = tile("Latency p99", "99 of 100 requests of the last 10 seconds took no longer");
  const batch = tile("Batch", "Rows that a run had on average, over the last 10 seconds");
  const queue = tile("Waiting", "Rows that wait for a batch now");
  const failed = tile("Errors", "Requests per second that ended with an error, over the last 10 seconds");
  const all = [rate, middle, tail, batch, queue, failed];
  const element = make("dl", { class: "tiles" }, ...all.map((one) => one.element));
  function update(series, key) {
    const span = series.recent(key);
    rate.update([rounded(span.rate), "/s"], series.rates(key));
    middle.update(duration(quantile(span.request, 0.5)), series.rates(key, (one) => quantile(one.request, 0.5) ?? 0));
    tail.update(duration(quantile(span.request, 0.99)), series.rates(key, (one) => quantile(one.request, 0.99) ?? 0));
    batch.update([rounded(mean(span.batch_rows)), "rows"], series.rates(key, (one) => mean(one.batch_rows) ?? 0));
    queue.update([rounded(span.queueRows), "rows"], series.rates(key, (one) => one.queueRows));
    failed.update([rounded(span.failing), "/s"], series.rates(key, (one) => one.failing));
    failed.element.dataset.tone = span.failing > 0 ? "bad" : "";
  }
  return { element, update };
}

export function overview() {
  const top = tiles();
  const rows = make("tbody");
  const none = make("p", { class: "note", hidden: true }, "There are no models here yet.");
  const columns = ["Model", "State", "Requests /s", "p50", "p99", "Batch", "Waiting", "Errors /s"];
  const table = make(
    "table", { class: "models" },
    make("caption", { class: "quiet" }, "Models and their versions, with the figures of the last 10 seconds"),
    make("thead", {}, make("tr", {}, ...columns.map((name, index) => make("th", { scope: "col", class: index > 1 ? "number" : "" }, name)))),
    rows,
  );
  const told = make("ol", { class: "errors" });
  const quiet = make("p", { class: "note" }, "None.");
  const element = make(
    "div", {},
    make("h1", { class: "quiet" }, "Overview"),
    make("section", { "aria-label": "All models together" }, top.element),
    make("section", { class: "card" }, make("h2", {}, "Models"), table, none),
    make("section", { class: "card" }, make("h2", {}, "Recent errors"), make("p", { class: "hint" }, "What clients were told, the latest first."), told, quiet),
  );
  function update(series) {
    const models = series.models();
    top.update(series, null);
    table.hidden = !models.length;
    none.hidden = Boolean(models.length);
    keyed(rows, models, keyOf, (model) => row(model, columns));
    for (const model of models) rows.kept.get(keyOf(model)).figures(series.recent(keyOf(model)));
    const { errors, server } = series.now;
    quiet.hidden = Boolean(errors.length);
    keyed(told, errors, (one) => `${one.code} ${one.text}`, failure);
    for (const one of errors) told.kept.get(`${one.code} ${one.text}`).aged(server.now_s);
  }
  return { element, title: "", update };
}

function row(model, columns) {
  const state = pill(model.state);
  const cells = columns.slice(2).map((name) => make("td", { class: "number", "data-name": name }));
  const element = make(
    "tr", {},
    make("th", { scope: "row" }, make("a", { href: address(model) }, model.name), make("span", { class: "version" }, `version ${model.version}`)),
    make("td", { "data-name": "State" }, state),
    ...cells,
  );
  function update(now) {
    say(state, now.state.toLowerCase());
    mark(state, "data-state", now.state);
  }
  function figures(span) {
    const texts = [
      rounded(span.rate), duration(quantile(span.request, 0.5)).join(" "), duration(quantile(span.request, 0.99)).join(" "),
      rounded(mean(span.batch_rows)), rounded(span.queueRows), rounded(span.failing),
    ];
    texts.forEach((text, index) => say(cells[index], text.trim()));
    cells.at(-1).dataset.tone = span.failing > 0 ? "bad" : "";
  }
  return { element, update, figures };
}

function failure(first) {
  const age = make("span", { class: "age" });
  const count = make("span", { class: "count" });
  const element = make("li", {}, make("div", {}, make("code", {}, first.code), count, age), make("p", {}, first.text));
  let last = first;
  function update(now) {
    last = now;
    say(count, now.count > 1 ? `${now.count.toLocaleString("en")} times` : "");
  }
  return { element, update, aged: (now) => say(age, `${since(now - last.last_s)} ago`) };
}
