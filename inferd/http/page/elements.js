// Elements without markup: text is always set as text, so nothing that a client sent can become part of the page.

const SVG = "http://www.w3.org/2000/svg";

export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Written only when it differs: selections and screen readers stay where they are.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Keeps one child of `parent` for each key, in the order of `items`, and updates it.
export function keyed(parent, items, keyOf, create) {
  const old = parent.kept ?? new Map();
  const kept = new Map();
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const one = old.get(key) ?? create(item);
    kept.set(key, one);
    if (one.element === at) at = at.nextElementSibling;
    else parent.insertBefore(one.element, at);
    one.update(item);
  }
  for (const [key, one] of old) if (!kept.has(key)) one.element.remove();
  parent.kept = kept;
}

// A figure with its name, and the last minute below it if it has one.
export function tile(name, explained) {
  const value = make("span", { class: "value" }, "–");
  const unit = make("span", { class: "unit" });
  const line = draw("polyline", { class: "line" });
  const area = draw("polygon", { class: "area" });
  const spark = draw("svg", { class: "spark", viewBox: "0 0 60 20", preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
  const element = make(
    "div", { class: "tile", title: explained },
    make("dt", {}, name),
    make("dd", {}, make("span", {}, value, unit), spark),
  );
  function update([number, of], history) {
    say(value, number);
    say(unit, of ? ` ${of}` : "");
    spark.toggleAttribute("hidden", !history);
    if (!history) return;
    const most = Math.max(...history, 1e-12);
    const points = history.map((one, index) => `${60 - history.length + 1 + index},${(18.5 - 16 * (one / most)).toFixed(2)}`);
    mark(line, "points", points.join(" "));
    mark(area, "points", points.length ? `${61 - history.length},20 ${points.join(" ")} 60,20` : "");
  }
  return { element, update };
}

// Shares as lines of text with a bar each: readable aloud, on a phone and in print.
export function bars(label) {
  const element = make("ul", { class: "bars", "aria-label": label });
  function update(shares) {
    keyed(element, shares, (share) => share.name, (share) => {
      const fill = make("span", { class: "fill" });
      const value = make("span", { class: "share" });
      const line = make("li", {}, make("span", { class: "what" }, share.name), make("span", { class: "track", "aria-hidden": "true" }, fill), value);
      return {
        element: line,
        update(now) {
          fill.style.inlineSize = `${(100 * now.part).toFixed(1)}%`;
          fill.dataset.tone = now.tone ?? "";
          say(value, now.text);
        },
      };
    });
  }
  return { element, update };
}
