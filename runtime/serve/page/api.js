// Requests to the service. Every failure is an Error whose message is a sentence to show.

const FIRST_PAUSE = 1000, LONGEST_PAUSE = 15000; // milliseconds before another attempt

export class Refused extends Error {
  constructor(message, { status = 0, wait = 0, meant = {} } = {}) {
    super(message);
    this.status = status;
    this.wait = wait; // seconds, where the service asks for them
    this.meant = meant; // likelier spellings of names, by the name
  }
}

// What an answer that is no success says; without a valid token, the page that asks for it comes.
async function refusal(response) {
  if (response.status === 401) location.reload();
  const answer = await response.json().catch(() => ({}));
  return new Refused(sentence(answer.error || `The service answers ${response.status}.`), {
    status: response.status,
    wait: Number(response.headers.get("Retry-After")) || 0,
    meant: answer.meant,
  });
}

// Pauses between attempts: each twice as long as the last, until one has worked.
export class Pauses {
  #next = FIRST_PAUSE;

  next(least = 0) {
    const now = this.#next;
    this.#next = Math.min(2 * now, LONGEST_PAUSE);
    return Math.max(now, least);
  }

  worked() {
    this.#next = FIRST_PAUSE;
  }
}

export async function ask(path, { method = "GET", json, body, signal } = {}) {
  const options = { method, signal, headers: { Accept: "application/json" } };
  if (json !== undefined) options.body = JSON.stringify(json);
  if (body !== undefined) options.body = body;
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service does not answer; is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The answer broke off or is no JSON; does a proxy answer for the service?");
  }
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// Frames of a live source: an MJPEG whose parts carry their detections in the header X-Frame.
export async function* frames(source, signal) {
  const response = await fetch(`live/${encodeURIComponent(source)}?draw=false`, { signal });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.getReader();
  const text = new TextDecoder();
  let held = new Uint8Array(0);

  const more = async () => {
    const { done, value } = await reader.read();
    if (done) return false;
    const joined = new Uint8Array(held.length + value.length);
    joined.set(held);
    joined.set(value, held.length);
    held = joined;
    return true;
  };

  for (;;) {
    let end;
    while ((end = headEnd(held)) < 0) if (!(await more())) return;
    const head = text.decode(held.subarray(0, end));
    const size = Number(/content-length: *(\d+)/i.exec(head)[1]);
    const record = JSON.parse(/^x-frame: *(.*)$/im.exec(head)[1]);
    while (held.length < end + 4 + size) if (!(await more())) return;
    const jpeg = new Blob([held.slice(end + 4, end + 4 + size)], { type: "image/jpeg" });
    held = held.slice(end + 4 + size);
    yield { record, jpeg };
  }
}

function headEnd(bytes) {
  for (let i = 0; i + 3 < bytes.length; i++) {
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) {
      return i;
    }
  }
  return -1;
}

// Calls on[name](value) for every server-sent event, and lost(error) when there are none for now.
// A browser connects again after a break, but gives up after an answer such as 502 or 503.
export function listen(on, opened, lost) {
  const pauses = new Pauses();
  const open = () => {
    const events = new EventSource("events?frames=false");
    for (const [name, handle] of Object.entries(on)) {
      events.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
    events.onopen = () => {
      pauses.worked();
      opened();
    };
    events.onerror = async () => {
      const closed = events.readyState === EventSource.CLOSED;
      if (closed) setTimeout(open, pauses.next());
      lost(closed ? await whyNoEvents() : new Refused("The service does not answer"));
    };
  };
  open();
}

// An EventSource does not say what was answered; where the token is no longer valid, this asks for it.
async function whyNoEvents() {
  try {
    await ask("about");
    return new Refused("The service sends no news");
  } catch {
    return new Refused("The service does not answer");
  }
}

export const percent = (score) => {
  const value = score * 100;
  const digits = value >= 10 || value === 0 ? 0 : value >= 1 ? 1 : 2;
  return `${value.toFixed(digits)} %`;
};

export const plural = (count, word, words = `${word}s`) => `${count} ${count === 1 ? word : words}`;

export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "color") made.style.setProperty("--color", value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
};

export const $ = (id) => document.getElementById(id);
