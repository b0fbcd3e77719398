// Asks the server once a second and has the view that the address names show it.

import { make, say } from "./elements.js";
import { Series, since } from "./series.js";
import { overview } from "./overview.js";
import { model } from "./model.js";

const EVERY_MS = 1000;
const series = new Series();
const byId = (id) => document.getElementById(id);
let view = null;
let paused = false;
let timer = 0;

function route() {
  const [, kind, name, version] = location.hash.split("/").map(decodeURIComponent);
  return kind === "model" && name && version ? model(name, version) : overview();
}

function show(isFirst) {
  view = route();
  byId("view").replaceChildren(view.element);
  document.title = view.title ? `${view.title} · inferd` : "inferd";
  if (series.now) view.update(series);
  // Whoever follows a link with the keyboard goes on from the top of what it led to.
  if (!isFirst) {
    scrollTo(0, 0);
    byId("main").focus({ preventScroll: true });
  }
}

function head({ server }) {
  const pill = byId("readiness");
  say(pill, server.ready ? "ready" : "not ready");
  pill.dataset.state = server.ready ? "READY" : "LOADING";
  say(byId("facts"), `${server.version} · ${server.transport} · up ${since(server.uptime_s)}`);
  byId("facts").title = `Python ${server.python}, ONNX Runtime ${server.onnxruntime}`;
}

function lost(text) {
  const note = byId("lost");
  note.hidden = !text;
  say(note, text);
  document.body.classList.toggle("stale", Boolean(text));
}

async function poll() {
  clearTimeout(timer);
  try {
    const answer = await fetch("status.json", { signal: AbortSignal.timeout(5000), cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    series.add(await answer.json());
    lost("");
    head(series.now);
    view.update(series);
  } catch (failure) {
    lost(`No answer from the server (${failure.message}). What is shown is old; trying again.`);
    byId("readiness").dataset.state = "GONE";
    say(byId("readiness"), "no answer");
  }
  // A page that nobody sees asks for nothing.
  if (!paused && !document.hidden) timer = setTimeout(poll, EVERY_MS);
}

byId("pause").addEventListener("click", ({ currentTarget: button }) => {
  paused = !paused;
  button.setAttribute("aria-pressed", String(paused));
  say(button, paused ? "Resume" : "Pause");
  if (paused) clearTimeout(timer);
  else poll();
});
addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) poll();
});
addEventListener("hashchange", () => {
  if (location.hash === "#main") return;
  show(false);
});

byId("view").append(make("p", { class: "note" }, "Asking the server …"));
show(true);
poll();
