// What was found, and how long every stage took.

import { $, element, percent, plural } from "./api.js";

const SHADES = ["#5b6cff", "#22a6b3", "#e1a12c", "#c0559b", "#5aa469", "#8a6fd1", "#d1693f", "#7a8494"];

let rate = 0; // live pictures a second, a running mean
let lastShown = 0;

// The list of objects; otherwise: what to say where there is none.
export function listFound({ detections: items }, otherwise, stage) {
  $("count").textContent = items.length ? plural(items.length, "object") : "";
  $("found-none").hidden = items.length > 0;
  if ($("found-none").textContent !== otherwise) $("found-none").textContent = otherwise;
  const list = $("found");
  const held = document.activeElement?.closest?.("#found li");
  const at = held ? [...list.children].indexOf(held) : -1;
  list.replaceChildren(...items.map((item, index) => {
    const level = element("span");
    level.style.width = `${100 * item.score}%`;
    const on = () => stage.focus(index);
    const off = () => stage.focus(null);
    return element("li", { color: item.color, tabindex: "0", onmouseenter: on, onmouseleave: off,
      onfocus: on, onblur: off },
    element("i"), element("b", {}, item.class), element("output", {}, percent(item.score)),
    element("div", { class: "level" }, level));
  }));
  if (at >= 0) list.children[Math.min(at, items.length - 1)]?.focus({ preventScroll: true });
}

// took: milliseconds with the way here; age: of a live frame, both where they are known.
export function showTimes(times, { took, age, live }) {
  const stages = Object.entries(times);
  if (!stages.length) return;
  $("times").hidden = false;
  const total = stages.reduce((sum, [, value]) => sum + value, 0);
  const shade = (index) => SHADES[index % SHADES.length];
  const row = (part, index) => part.style.setProperty("--shade", shade(index));
  const parts = stages.map(([, value], index) => {
    const part = element("i");
    part.style.flex = `${value} 0 0`;
    row(part, index);
    return part;
  });
  $("stack").replaceChildren(...parts);
  $("stages").replaceChildren(...stages.map(([name, value], index) => {
    const part = element("div", {}, element("i"), element("dt", {}, name.replace("_", " ")),
      element("dd", {}, `${value.toFixed(value < 10 ? 1 : 0)} ms`));
    row(part, index);
    return part;
  }));
  const said = [element("strong", {}, `${total.toFixed(total < 10 ? 1 : 0)} ms`), " a picture"];
  if (live) {
    const now = performance.now();
    const one = 1000 / Math.max(1, now - lastShown);
    rate = rate && now - lastShown < 3000 ? 0.85 * rate + 0.15 * one : one;
    if (lastShown && now - lastShown < 3000) said.push(` · ${rate.toFixed(1)} per second`);
    lastShown = now;
    if (age !== undefined) said.push(` · ${Math.max(0, age).toFixed(0)} ms old`);
  }
  if (took) said.push(` · ${took.toFixed(0)} ms with the network`);
  $("total").replaceChildren(...said);
}
