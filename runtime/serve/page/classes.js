// The class list: names with suggestions, chips, and what to say about a name that is not known.

import { $, ask, element, plural } from "./api.js";

const SHOWN = 9; // chips, before "show all"
const QUIET = 140; // milliseconds without a key before names are searched

export class Classes {
  constructor(problem) {
    this.problem = problem;
    this.about = { vocabulary: 0, phrases: false };
    this.list = { version: -1, classes: [] };
    this.here = new Set();
    this.open = false;
    this.picked = -1;
    this.names = [];
    this.input = $("word");
    this.box = $("suggestions");
    this.input.addEventListener("input", () => this.#typed());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => setTimeout(() => this.#suggest([]), 150));
    $("add").addEventListener("submit", (event) => {
      event.preventDefault();
      this.add(this.input.value.split(","));
    });
    $("only").addEventListener("click", () => this.add(this.input.value.split(","), { only: true }));
    $("reset").addEventListener("click", () => this.#change("PUT", { classes: null }));
    $("more-chips").addEventListener("click", () => {
      this.open = !this.open;
      this.#chips();
    });
  }

  know(about) {
    this.about = about;
    const words = about.vocabulary.toLocaleString("en");
    $("word-help").textContent = about.phrases
      ? "Any name or phrase; use commas."
      : `${words} known names; use commas.`;
    $("legend").replaceChildren(
      ...[["seen", "trained"], ["unseen", "new"]].map(([role, text]) =>
        element("span", { color: about.colors[role] }, element("i"), text)));
  }

  // Take the next list for the newest, whatever its version.
  forget() {
    this.list = { version: -1, classes: this.list.classes };
  }

  show(list) {
    if (list.version <= this.list.version) return; // known, or an older answer that came later
    const before = new Set(this.list.classes.map((item) => item.name));
    this.fresh = new Set(
      this.list.version < 0 ? [] : list.classes.map((item) => item.name).filter((n) => !before.has(n)));
    this.list = list;
    this.#chips();
  }

  // Mark the classes that the picture holds.
  mark(names) {
    this.here = new Set(names);
    for (const chip of $("chips").children) {
      chip.classList.toggle("here", this.here.has(chip.dataset.name));
    }
  }

  // Add names; only: remove all others. asItIs: misspelt or not.
  async add(names, { only = false, asItIs = false } = {}) {
    names = [...new Set(names.map((name) => name.trim().replace(/\s+/g, " ")).filter(Boolean))];
    this.input.focus({ preventScroll: true });
    if (!names.length) return;
    this.#suggest([]);
    this.#hint();
    if (!only) {
      const active = new Set(this.list.classes.map((item) => item.name.toLowerCase()));
      const known = names.filter((name) => active.has(name.toLowerCase()));
      names = names.filter((name) => !active.has(name.toLowerCase()));
      if (!names.length) {
        this.input.value = "";
        this.#say(`“${known.join("”, “")}”: looked for already.`);
        return;
      }
    }
    if (!this.about.phrases) {
      const strange = await this.#unknown(names);
      if (strange === undefined) return;
      if (strange) {
        this.#misspelt(`“${strange.text}” is not in the vocabulary. `, strange.names.slice(0, 3).map(
          (near) => [near, names.map((name) => (name === strange.text ? near : name))]), only);
        return;
      }
    }
    const added = await this.#change(only ? "PUT" : "POST", { classes: names, exact: asItIs },
      "classes", (error) => this.#slips(error, names, only));
    if (!added) return;
    this.input.value = "";
    this.#asWritten(added, names);
  }

  // A phrase with a word that nobody knows is looked for as it stands; offer the likelier spelling.
  #asWritten(list, names) {
    const slip = list.classes.find((item) => item.hint && names.includes(item.name));
    if (!slip) return;
    const replace = async () => {
      if (await this.#change("POST", { classes: [slip.hint] })) {
        await this.#change("DELETE", undefined, `classes?name=${encodeURIComponent(slip.name)}`);
      }
    };
    this.#say(
      `“${slip.name}” is looked for as written. Did you mean:`,
      element("div", {},
        element("button", { type: "button", onclick: replace }, slip.hint),
        element("button", { type: "button", onclick: () => this.#hint() }, "Keep it as it is")));
  }

  // The first name that the vocabulary lacks, with the nearest; null where it has all.
  async #unknown(names) {
    try {
      for (const name of names) {
        const found = await ask(`search?text=${encodeURIComponent(name)}&count=4`);
        if (!found.known && !this.list.classes.some((item) => item.name === name)) return found;
      }
      return null;
    } catch (error) {
      this.#hint(error.message);
      return undefined;
    }
  }

  // Where any phrase is a class, the service refuses what looks misspelt and says what was meant.
  #slips(error, names, only) {
    const meant = new Map(Object.entries(error.meant || {}));
    if (!meant.size) return false;
    const mended = names.map((name) => meant.get(name) || name);
    this.#misspelt(`“${[...meant.keys()].join("”, “")}” looks misspelt. `,
      [[mended.join(", "), mended]], only);
    const asItIs = element("button", { type: "button",
      onclick: () => this.add(names, { only, asItIs: true }) }, "Keep it as it is");
    $("hint").lastElementChild.append(asItIs);
    return true;
  }

  async #change(method, json, path = "classes", explain = () => false) {
    try {
      const list = await ask(path, { method, json });
      this.changed(list);
      this.#hint();
      return list;
    } catch (error) {
      if (!explain(error)) this.#hint(error.message);
      return null;
    }
  }

  changed() {} // set by the page: what to do with a new list

  // choices: pairs of what a button says and the names that it adds.
  #misspelt(text, choices, only) {
    this.#say(
      text,
      choices.length ? "Did you mean:" : "Try another word for it.",
      element("div", {}, ...choices.map(([label, names]) => element("button", { type: "button",
        onclick: () => this.add(names, { only }) }, label))));
  }

  // A remark, which is no problem.
  #say(...parts) {
    const hint = $("hint");
    hint.className = "hint";
    hint.replaceChildren(...parts);
    hint.hidden = false;
  }

  #hint(text = "") {
    const hint = $("hint");
    hint.className = "hint bad";
    hint.textContent = text;
    hint.hidden = !text;
  }

  #chips() {
    const { classes } = this.list;
    const last = classes.length - 1;
    const some = this.open || classes.length <= SHOWN + 2;
    // Folded, the newest come first: what was added by hand is what matters.
    const shown = some ? classes : [...classes.slice(-SHOWN)].reverse();
    $("chips").replaceChildren(...shown.map((item) => element(
      "li",
      { color: item.color, "data-name": item.name, title: item.name,
        class: [this.fresh.has(item.name) && "new", this.here.has(item.name) && "here"]
          .filter(Boolean).join(" ") },
      element("i"),
      element("span", {}, item.name),
      ...(item.examples ? [element("small", {}, plural(item.examples, "example"))] : []),
      element("button", { type: "button", "aria-label": `Remove ${item.name}`, disabled: last === 0,
        onclick: (event) => this.#remove(item.name, event.currentTarget) }, cross()))));
    const more = $("more-chips");
    more.hidden = classes.length <= SHOWN + 2;
    more.textContent = this.open ? "Show fewer" : `Show all ${classes.length}`;
    more.setAttribute("aria-expanded", String(this.open));
  }

  async #remove(name, button) {
    button.disabled = true;
    if (await this.#change("DELETE", undefined, `classes?name=${encodeURIComponent(name)}`)) {
      this.input.focus({ preventScroll: true });
    } else {
      button.disabled = false;
    }
  }

  #typed() {
    this.#hint();
    clearTimeout(this.timer);
    const word = this.input.value.split(",").pop().trim();
    if (word.length < 2) return this.#suggest([]);
    this.timer = setTimeout(async () => {
      const asked = (this.asked = word);
      try {
        const { names } = await ask(`search?text=${encodeURIComponent(word)}&count=6`);
        if (asked === this.asked && document.activeElement === this.input) this.#suggest(names, word);
      } catch {
        this.#suggest([]); // suggestions are a help, not a need
      }
    }, QUIET);
    return undefined;
  }

  #suggest(names, word = "") {
    if (!names.length) {
      clearTimeout(this.timer);
      this.asked = null;
    }
    this.names = names;
    this.picked = -1;
    this.box.replaceChildren(...names.map((name, at) => element(
      "li",
      { role: "option", id: `suggestion-${at}`, "aria-selected": "false",
        onpointerdown: (event) => event.preventDefault(), onclick: () => this.#take(name) },
      ...marked(name, word))));
    this.box.hidden = !names.length;
    this.input.setAttribute("aria-expanded", String(names.length > 0));
    this.input.removeAttribute("aria-activedescendant");
  }

  #take(name) {
    const before = this.input.value.split(",").slice(0, -1);
    this.add([...before, name]); // a name of the vocabulary may hold a comma
  }

  #key(event) {
    const count = this.names.length;
    if (event.key === "Escape") this.#suggest([]);
    if (event.key === "Enter" && this.picked >= 0) {
      event.preventDefault();
      this.#take(this.names[this.picked]);
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !count) return;
    event.preventDefault();
    this.picked = this.picked < 0 && step < 0 ? count - 1 : (this.picked + step + count) % count;
    [...this.box.children].forEach((option, at) => {
      option.setAttribute("aria-selected", String(at === this.picked));
      if (at === this.picked) option.scrollIntoView({ block: "nearest" });
    });
    this.input.setAttribute("aria-activedescendant", `suggestion-${this.picked}`);
  }
}

function marked(name, word) {
  const at = name.toLowerCase().indexOf(word.toLowerCase());
  if (at < 0) return [name];
  return [name.slice(0, at), element("mark", {}, name.slice(at, at + word.length)),
    name.slice(at + word.length)];
}

function cross() {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("width", "14");
  svg.setAttribute("height", "14");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", "#cross");
  svg.append(use);
  return svg;
}
