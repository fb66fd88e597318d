// Sliders of the thresholds. Scores are spread by a cube: fine steps where they are small.

import { $, ask, percent } from "./api.js";

const LISTED = 6; // thresholds of single classes
const WAIT = 120; // milliseconds without a move before the service is told

const toScore = (position) => (position / 1000) ** 3;
const toPosition = (score) => Math.round(1000 * Math.cbrt(score));

const SLIDERS = {
  "score-seen": [(limits) => toPosition(limits.score_threshold.seen), (p) => percent(toScore(p))],
  "score-unseen": [(limits) => toPosition(limits.score_threshold.unseen), (p) => percent(toScore(p))],
  overlap: [(limits) => 1000 * limits.nms_threshold, (p) => `${Math.round(p / 10)} %`],
  most: [(limits) => limits.max_detections, (p) => String(p)],
};

export class Limits {
  constructor(changed, problem) {
    this.changed = changed;
    this.problem = problem;
    for (const name of Object.keys(SLIDERS)) {
      $(name).addEventListener("input", () => this.#moved(name));
    }
    $("own-end").addEventListener("click", () => {
      const none = this.#own().map(([name]) => [name, null]);
      this.#tell({ score_threshold: Object.fromEntries(none) });
    });
  }

  async load() {
    this.show(await ask("thresholds"));
  }

  // Limits that somebody has set, on this page or elsewhere.
  show(limits) {
    const news = this.limits && JSON.stringify(limits) !== JSON.stringify(this.limits);
    this.limits = limits;
    for (const [name, [position]] of Object.entries(SLIDERS)) {
      $(name).value = position(limits);
      this.#say(name);
    }
    this.#sayOwn();
    if (news) this.changed();
  }

  // Lower the thresholds until a class with this score is let through; one of its own ends.
  async letThrough({ class: name, score }) {
    const lower = Math.max(0, score * 0.95);
    const { seen, unseen } = this.limits.score_threshold;
    const own = this.#own().length ? { [name]: null } : {};
    await this.#tell({ score_threshold: { ...own, seen: Math.min(seen, lower), unseen: Math.min(unseen, lower) } });
  }

  // Thresholds of single classes, which stand whatever the sliders say.
  #own() {
    return Object.entries(this.limits.score_threshold).filter(([name]) => name !== "seen" && name !== "unseen");
  }

  #sayOwn() {
    const own = this.#own();
    const some = own.slice(0, LISTED).map(([name, score]) => `${name} from ${percent(score)}`);
    const others = own.length > LISTED ? [`${own.length - LISTED} more`] : [];
    $("own").hidden = !own.length;
    $("own-text").textContent = `Of their own: ${[...some, ...others].join(", ")}.`;
  }

  #say(name) {
    const text = SLIDERS[name][1](Number($(name).value));
    $(`${name}-value`).textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }

  #moved(name) {
    this.#say(name);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const position = Number($(name).value);
      const role = /^score-(.*)$/.exec(name)?.[1];
      const change = role
        ? { score_threshold: { [role]: toScore(position) } }
        : name === "overlap" ? { nms_threshold: position / 1000 } : { max_detections: position };
      this.#tell(change);
    }, WAIT);
  }

  async #tell(change) {
    try {
      this.show(await ask("thresholds", { method: "PATCH", json: change }));
    } catch (error) {
      this.problem(error);
      this.show(this.limits);
    }
  }
}
