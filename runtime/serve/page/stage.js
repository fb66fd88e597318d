// The picture with its boxes, and the tool that draws a new one.

import { $, element, percent } from "./api.js";

const GAP = 2; // pixels between labels
const STEP = 0.02; // of the picture, for the arrow keys

export class Stage {
  constructor() {
    this.canvas = $("canvas");
    this.boxes = $("boxes");
    this.size = [0, 0];
    this.items = [];
    new ResizeObserver(() => this.#placeLabels()).observe(this.boxes);
  }

  show(bitmap) {
    const { width, height } = bitmap;
    if (this.size[0] !== width || this.size[1] !== height) {
      this.size = [width, height];
      [this.canvas.width, this.canvas.height] = this.size;
      $("frame").style.setProperty("--ratio", String(width / height));
    }
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
  }

  // The picture alone, as a file.
  blob() {
    return new Promise((done) => this.canvas.toBlob(done, "image/jpeg", 0.92));
  }

  draw(items) {
    const [width, height] = this.size;
    const share = (value, whole) => `${(100 * value) / whole}%`;
    const parts = items.flatMap((item) => {
      const [x1, y1, x2, y2] = item.box;
      const box = element("div", { class: "box", color: item.color });
      box.style.left = share(x1, width);
      box.style.top = share(y1, height);
      box.style.width = share(x2 - x1, width);
      box.style.height = share(y2 - y1, height);
      const tag = element("span", { class: "tag", color: item.color }, `${item.class} `,
        element("b", {}, percent(item.score)));
      return [box, tag];
    });
    this.boxes.replaceChildren(...parts.reverse()); // the best on top
    this.boxes.classList.remove("focus");
    this.items = items;
    this.#placeLabels();
  }

  // Let one box stand out; null: all alike.
  focus(index) {
    this.boxes.classList.toggle("focus", index !== null);
    const parts = [...this.boxes.children].reverse();
    parts.forEach((part, at) => part.classList.toggle("on", Math.floor(at / 2) === index));
  }

  // Above its box, inside where there is no room, below labels of better boxes it would cover.
  #placeLabels() {
    const [width, height] = [this.boxes.clientWidth, this.boxes.clientHeight];
    if (!width) return;
    const parts = [...this.boxes.children].reverse();
    const tags = parts.filter((_, at) => at % 2 === 1);
    const sizes = tags.map((tag) => [tag.offsetWidth, tag.offsetHeight]);
    const placed = [];
    this.items.forEach((item, at) => {
      const [wide, high] = sizes[at];
      const left = Math.max(0, Math.min((item.box[0] / this.size[0]) * width, width - wide));
      const edge = (item.box[1] / this.size[1]) * height;
      const first = edge >= high ? edge - high : Math.max(edge, 0);
      let top = first;
      for (const other of [...placed].sort((a, b) => a.top - b.top)) {
        const apart = left >= other.left + other.wide || other.left >= left + wide;
        if (!apart && top < other.top + other.high && other.top < top + high) {
          top = other.top + other.high + GAP;
        }
      }
      if (top + high > height) top = first;
      placed.push({ left, top, wide, high });
      tags[at].style.left = `${left}px`;
      tags[at].style.top = `${top}px`;
    });
  }
}

// Draws one box with pointer or keys; calls taken(box) in pixels of the picture.
export class BoxTool {
  constructor(stage, taken, ended) {
    this.stage = stage;
    this.taken = taken;
    this.ended = ended;
    this.area = $("draw");
    this.rubber = $("rubber");
    this.box = null; // x1 y1 x2 y2, shares of the picture
    this.area.addEventListener("pointerdown", (event) => this.#down(event));
    this.area.addEventListener("pointermove", (event) => this.#move(event));
    this.area.addEventListener("pointerup", () => this.#up());
    this.area.addEventListener("pointercancel", () => this.#set(null));
    this.area.addEventListener("keydown", (event) => this.#key(event));
  }

  get active() {
    return !this.area.hidden;
  }

  start() {
    this.area.hidden = false;
    this.#set(null);
    this.area.focus({ preventScroll: true });
  }

  stop() {
    this.area.hidden = true;
    this.#set(null);
  }

  #at(event) {
    const edges = this.area.getBoundingClientRect();
    const share = (value) => Math.min(1, Math.max(0, value));
    return [share((event.clientX - edges.left) / edges.width),
      share((event.clientY - edges.top) / edges.height)];
  }

  #down(event) {
    if (event.button) return;
    event.preventDefault();
    this.area.focus({ preventScroll: true });
    this.area.setPointerCapture(event.pointerId);
    this.#set(null);
    this.from = this.#at(event);
  }

  #move(event) {
    if (!this.from) return;
    const [x, y] = this.#at(event);
    const [u, v] = this.from;
    this.#set([Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)]);
  }

  #up() {
    if (!this.from) return;
    this.from = null;
    const [x1, y1, x2, y2] = this.pixels() || [0, 0, 0, 0];
    if (Math.min(x2 - x1, y2 - y1) < 8) this.#set(null); // a click, not a box
    else this.taken(this.pixels());
  }

  #key(event) {
    if (event.key === "Escape") return this.ended();
    if (event.key === "Enter" && this.box) {
      event.preventDefault();
      return this.taken(this.pixels());
    }
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
      event.key] || [0, 0];
    if (!x && !y) return undefined;
    event.preventDefault();
    const [x1, y1, x2, y2] = this.box || [0.35, 0.35, 0.65, 0.65];
    const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
    if (event.shiftKey) {
      return this.#set([x1, y1, clamp(x2 + x * STEP, x1 + STEP, 1), clamp(y2 + y * STEP, y1 + STEP, 1)]);
    }
    const [dx, dy] = [clamp(x * STEP, -x1, 1 - x2), clamp(y * STEP, -y1, 1 - y2)];
    return this.#set([x1 + dx, y1 + dy, x2 + dx, y2 + dy]);
  }

  #set(box) {
    this.box = box;
    this.rubber.hidden = !box;
    if (!box) {
      this.from = null;
      $("name-it").hidden = true;
      return;
    }
    const [x1, y1, x2, y2] = box.map((value) => `${100 * value}%`);
    Object.assign(this.rubber.style, { left: x1, top: y1, right: `calc(100% - ${x2})`,
      bottom: `calc(100% - ${y2})` });
  }

  pixels() {
    const [width, height] = this.stage.size;
    return this.box && this.box.map((value, at) => value * (at % 2 ? height : width));
  }
}
