// The page: what is shown, and who is told when something changes.

import { $, ask, element, listen, percent, plural } from "./api.js";
import { Classes } from "./classes.js";
import { listFound, showTimes } from "./found.js";
import { Limits } from "./limits.js";
import { detectPatiently, openPhoto, watch, webcam } from "./sources.js";
import { BoxTool, Stage } from "./stage.js";

const SPOKEN_PAUSE = 4000; // milliseconds between two announcements of a live picture

const stage = new Stage();
const classes = new Classes(fail);
const limits = new Limits(again, fail);
const tool = new BoxTool(stage, boxTaken, endTeaching);
let about = { limits: { pixels: 25e6, body_bytes: 16e6 }, examples: false };
let photo = null; // the file that is shown, to search it again
let running = null; // AbortController of the webcam, a source or a photo's request
let frozen = false; // a live picture stands still while a box is drawn
let live = false;
let lastSpoken = 0;
let taught = null; // a class that was just taught, until a picture has been searched for it
let problems = {}; // of sources that give no frames, by name
let states = {}; // of sources, by name
let asked = -1; // version of the classes that the photo was searched for

// ---------------------------------------------------------------- pictures

async function takePhoto(file) {
  if (!file) return;
  const signal = begin("photo");
  busy(true);
  try {
    photo = await openPhoto(file, about.limits);
    view("waiting");
    stage.show(photo.bitmap);
    view("photo");
    await searchPhoto(signal);
  } catch (error) {
    if (!signal.aborted) fail(error);
  } finally {
    if (!signal.aborted) busy(false);
  }
}

async function searchPhoto(signal) {
  busy(true);
  asked = classes.list.version;
  const start = performance.now();
  const record = await detectPatiently(photo.blob, signal);
  if (!signal.aborted) present(record, performance.now() - start);
}

// After a change of classes or limits: a photo is searched again, live pictures change by themselves.
async function again() {
  if (live || !photo || tool.active) return;
  running?.abort();
  const { signal } = (running = new AbortController());
  try {
    await searchPhoto(signal);
  } catch (error) {
    if (!signal.aborted) fail(error);
  } finally {
    if (!signal.aborted) busy(false);
  }
}

// A class list that may be new: the photo's boxes are of an older one then.
function listed(list) {
  classes.show(list);
  if (list.version > asked) again();
}

async function run(source) {
  const signal = begin(source);
  if (source === "photo") {
    live = false;
    if (!photo) return view("empty");
    stage.show(photo.bitmap);
    view("photo");
    return again();
  }
  live = true;
  $("waiting").textContent = source === "webcam" ? "Waiting for the webcam …" : `Waiting for ${source.slice(5)} …`;
  view("waiting");
  busy(true);
  if (problems[source.slice(5)]) fail(new Error(problems[source.slice(5)]));
  const show = (bitmap, record, took) => {
    if (signal.aborted || frozen) return;
    busy(false);
    stage.show(bitmap);
    if ($("view").dataset.view !== "live") view("live");
    if (record) present(record, took);
  };
  const problem = (error) => !signal.aborted && (error ? fail(error) : calm());
  try {
    const name = source.slice(5);
    const ended = () => states[name] === "ended";
    await (source === "webcam" ? webcam(show, problem, signal) : watch(name, show, problem, signal, ended));
  } catch (error) {
    if (signal.aborted) return undefined;
    fail(error);
    live = false;
    press("photo");
    view(photo ? "photo" : "empty");
    if (photo) stage.show(photo.bitmap);
  } finally {
    if (!signal.aborted) busy(false);
  }
  return undefined;
}

function begin(source) {
  running?.abort();
  running = new AbortController();
  endTeaching();
  calm();
  live = source !== "photo";
  press(source);
  return running.signal;
}

// ---------------------------------------------------------------- what was found

function present(record, took) {
  const { detections: items } = record;
  stage.draw(items);
  classes.mark(items.map((item) => item.class));
  const near = record.near_miss;
  listFound(record, near
    ? `Nothing above the thresholds; the closest is “${near.class}” with ${percent(near.score)}.`
    : "Nothing in this picture looks like an object.", stage);
  showTimes(record.times_ms, { took, age: record.age_ms, live });
  const names = items.slice(0, 6).map((item) => `${item.class} ${percent(item.score)}`);
  const text = items.length ? `${plural(items.length, "object")}: ${names.join(", ")}` : "Nothing found";
  $("canvas").setAttribute("aria-label", `Picture. ${text}`);
  speak(text);
  nothing(record);
}

function nothing(record) {
  const near = record.near_miss;
  $("notice").hidden = live || record.detections.length > 0;
  if (taught && !live && !record.detections.some((item) => item.class === taught)) {
    $("notice").hidden = false;
    $("notice-title").textContent = `“${taught}” is learnt`;
    $("notice-text").textContent = "and not found here above the thresholds. Teach it from another picture too.";
    $("notice-action").hidden = true;
    taught = null;
    return;
  }
  taught = null;
  $("notice-title").textContent = near ? "Nothing above the thresholds." : "Nothing found.";
  $("notice-text").textContent = near
    ? `The closest is “${near.class}” with ${percent(near.score)}.`
    : "No region of the picture looks like an object.";
  const action = $("notice-action");
  action.hidden = !near || near.score <= 0;
  action.textContent = "Show it";
  action.onclick = () => limits.letThrough(near);
}

function speak(text) {
  const now = performance.now();
  if (live && now - lastSpoken < SPOKEN_PAUSE) return;
  if ($("spoken").textContent !== text) $("spoken").textContent = text;
  lastSpoken = now;
}

// ---------------------------------------------------------------- teaching

function startTeaching() {
  if (!about.examples) {
    fail(new Error("This bundle cannot learn from examples; name the class instead."));
    return;
  }
  frozen = true;
  $("teach").setAttribute("aria-pressed", "true");
  $("guide").textContent = "Draw a box around one object. Escape ends.";
  $("guide").hidden = false;
  $("notice").hidden = true;
  tool.start();
}

function endTeaching() {
  const had = tool.active;
  tool.stop();
  frozen = false;
  $("teach").setAttribute("aria-pressed", "false");
  $("guide").hidden = true;
  if (had) $("teach").focus({ preventScroll: true });
}

function boxTaken(box) {
  const form = $("name-it");
  const [width, height] = stage.size;
  const frame = $("frame").getBoundingClientRect();
  form.hidden = false;
  $("teach-problem").textContent = "";
  const left = (box[0] / width) * frame.width;
  const [above, below] = [box[1], box[3]].map((y) => (y / height) * frame.height);
  const fits = below + 8 + form.offsetHeight < frame.height || above < form.offsetHeight + 8;
  const top = fits ? below + 8 : above - form.offsetHeight - 8;
  form.style.left = `${Math.max(4, Math.min(left, frame.width - form.offsetWidth - 4))}px`;
  form.style.top = `${Math.max(4, Math.min(top, frame.height - form.offsetHeight - 4))}px`;
  form.onsubmit = (event) => {
    event.preventDefault();
    teach($("new-name").value, box);
  };
  $("new-name").focus({ preventScroll: true });
}

async function teach(name, box) {
  busy(true);
  try {
    const corners = box.map((value, at) => Math.min(value, stage.size[at % 2]).toFixed(1)).join(",");
    const query = new URLSearchParams({ name, box: corners });
    const body = live ? await stage.blob() : photo.blob;
    const list = await ask(`classes/examples?${query}`, { method: "POST", body });
    $("new-name").value = "";
    endTeaching();
    taught = name.trim();
    listed(list);
    speak(`${name} is learnt`);
  } catch (error) {
    $("teach-problem").textContent = error.message;
    $("new-name").focus({ preventScroll: true });
  } finally {
    busy(false);
  }
}

// ---------------------------------------------------------------- states

// What the stage shows: "empty", "waiting" for a first picture, "photo" or "live".
function view(name) {
  const shown = name === "photo" || name === "live";
  $("view").dataset.view = name;
  $("empty").hidden = name !== "empty";
  $("waiting").hidden = name !== "waiting";
  $("frame").hidden = $("tools").hidden = !shown;
  $("another").hidden = name !== "photo";
  if (shown) return;
  for (const id of ["notice", "times"]) $(id).hidden = true;
  stage.draw([]);
  classes.mark([]);
  listFound({ detections: [] }, "Nothing yet.", stage);
}

function busy(on) {
  $("busy").hidden = !on;
  $("view").setAttribute("aria-busy", String(on));
}

function fail(error) {
  $("alert-text").textContent = error.message;
  $("alert").hidden = false;
}

function calm() {
  $("alert").hidden = true;
  $("notice").hidden = true;
}

function press(source) {
  for (const button of $("tabs").children) {
    button.setAttribute("aria-pressed", String(button.dataset.source === source));
  }
}

function status(kind, text) {
  $("state").dataset.state = kind;
  $("state").lastElementChild.textContent = text;
}

function showSources(sources) {
  problems = Object.fromEntries(sources.map(({ name, error }) => [name, error]));
  states = Object.fromEntries(sources.map(({ name, state }) => [name, state]));
  for (const tab of [...$("tabs").children]) { // of a service that has begun anew with other sources
    const { source } = tab.dataset;
    if (source.startsWith("live:") && !(source.slice(5) in states)) tab.remove();
  }
  for (const { name, state, error } of sources) {
    const source = `live:${name}`;
    let button = [...$("tabs").children].find((tab) => tab.dataset.source === source);
    if (!button) {
      button = element("button", { type: "button", "data-source": source, "aria-pressed": "false" },
        element("i"), name, element("span", { class: "hidden" }));
      $("tabs").append(button);
    }
    button.firstElementChild.dataset.state = state;
    button.lastElementChild.textContent = ` (${state})`;
    button.title = error || state;
    if (error && button.getAttribute("aria-pressed") === "true") {
      fail(new Error(error));
    }
  }
}

function theme(name) {
  document.documentElement.dataset.theme = name;
}

// ---------------------------------------------------------------- begin

const dark = matchMedia("(prefers-color-scheme: dark)");
const kept = () => localStorage.getItem("theme");
theme(kept() || (dark.matches ? "dark" : "light"));
dark.addEventListener("change", () => kept() || theme(dark.matches ? "dark" : "light"));
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", next);
  theme(next);
});

classes.changed = listed;
$("tabs").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) run(button.dataset.source);
});
$("choose").addEventListener("click", () => $("file").click());
$("another").addEventListener("click", () => $("file").click());
$("start-webcam").addEventListener("click", () => run("webcam"));
$("file").addEventListener("change", () => {
  takePhoto($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
$("teach").addEventListener("click", () => (tool.active ? endTeaching() : startTeaching()));
$("name-it").addEventListener("keydown", (event) => event.key === "Escape" && endTeaching());
$("alert-close").addEventListener("click", () => ($("alert").hidden = true));

let inside = 0; // elements that a dragged file is over
const isFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
addEventListener("dragenter", (event) => isFile(event) && (inside++, document.body.classList.add("dropping")));
addEventListener("dragleave", (event) => {
  if (isFile(event) && --inside <= 0) document.body.classList.remove("dropping");
});
addEventListener("dragover", (event) => isFile(event) && event.preventDefault());
addEventListener("drop", (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("dropping");
  takePhoto(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files || [])].find((item) => item.type.startsWith("image/"));
  if (file) takePhoto(file);
});

// Ask what runs here: at the beginning, and again when the service may have begun anew.
// Whether it is known then.
async function learn() {
  try {
    about = await ask("about");
    classes.know(about);
    $("about").textContent = about.description;
    $("teach").disabled = !about.examples;
    $("teach").title = about.examples ? "" : "This bundle cannot learn from examples.";
    await limits.load();
    classes.show(await ask("classes"));
    $("alert").hidden = true; // of a service that did not answer
    return true;
  } catch (error) {
    fail(error);
    return false;
  }
}

async function start() {
  let known = await learn();
  listen(
    { classes: listed, thresholds: (now) => limits.show(now), sources: showSources },
    async () => {
      classes.forget(); // versions begin anew where the service has begun anew
      asked = -1;
      if (!known) await learn();
      known = false;
      status("ready", "Ready");
    },
    (error) => status("gone", error.message),
  );
}

start();
