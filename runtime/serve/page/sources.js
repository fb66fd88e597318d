// Where pictures come from: a photo, the webcam, a source that the service watches.

import { ask, frames, Pauses, Refused } from "./api.js";

const PATIENCE = 4; // attempts
const WEBCAM_EDGE = 960; // pixels, longer side of what is sent

// A photo as the service takes it: as it is, or smaller where it is larger than allowed.
export async function openPhoto(file, limits) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Refused(`${file.name || "What you gave"} is not a picture that this browser can read.`);
  }
  const scale = Math.min(1, Math.sqrt((0.98 * limits.pixels) / (bitmap.width * bitmap.height)));
  const known = ["image/jpeg", "image/png", "image/webp", "image/bmp"].includes(file.type);
  if (known && scale === 1 && file.size < limits.body_bytes) return { bitmap, blob: file };
  const canvas = shrunk(bitmap, scale);
  const blob = await toJpeg(canvas, 0.92);
  return { bitmap: await createImageBitmap(canvas), blob };
}

export const detect = (blob, signal) => ask("detect", { method: "POST", body: blob, signal });

// Search a photo; where the service has too much to do, wait as long as it asks, a few times.
export async function detectPatiently(blob, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return await detect(blob, signal);
    } catch (error) {
      if (error.status !== 503 || tries === PATIENCE) throw error;
      await pause(1000 * Math.min(error.wait || 1, 10), signal);
    }
  }
}

// Send webcam frames, one at a time; show(bitmap, record, milliseconds) gets each with its answer.
export async function webcam(show, problem, signal) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Refused("The browser gives a webcam to https pages and to 127.0.0.1 only.");
  }
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 } },
      audio: false,
    });
  } catch (error) {
    throw new Refused(error.name === "NotAllowedError"
      ? "The browser was not allowed to use the webcam; allow it beside the address and try again."
      : "No webcam was found; connect one and try again.");
  }
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = media;
  try {
    await video.play();
    while (!signal.aborted) {
      if (document.hidden) {
        await pause(300, signal);
        continue;
      }
      const scale = Math.min(1, WEBCAM_EDGE / Math.max(video.videoWidth, video.videoHeight));
      const canvas = shrunk(video, scale, video.videoWidth, video.videoHeight);
      const start = performance.now();
      try {
        const record = await detect(await toJpeg(canvas, 0.8), signal);
        show(canvas, record, performance.now() - start);
        problem(null);
      } catch (error) {
        if (signal.aborted) return;
        problem(error);
        show(canvas, null, 0);
        await pause(1000 * (error.wait || 1), signal);
      }
      await new Promise(requestAnimationFrame);
    }
  } finally {
    media.getTracks().forEach((track) => track.stop());
  }
}

// Show a source's frames until the signal, or until it has ended; comes back after a break.
export async function watch(source, show, problem, signal, ended) {
  const pauses = new Pauses();
  while (!signal.aborted) {
    let wait = 0;
    try {
      for await (const { record, jpeg } of frames(source, signal)) {
        if (signal.aborted) return;
        show(await createImageBitmap(jpeg), record);
        problem(null);
        pauses.worked();
      }
      if (ended()) return;
    } catch (error) {
      if (signal.aborted) return;
      problem(error instanceof Refused ? error : new Refused("The stream was interrupted."));
      if (error.status === 404) return;
      wait = 1000 * (error.wait || 0);
    }
    await pause(pauses.next(wait), signal);
  }
}

function shrunk(picture, scale, width = picture.width, height = picture.height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const toJpeg = (canvas, quality) =>
  new Promise((done) => canvas.toBlob(done, "image/jpeg", quality));

const pause = (milliseconds, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
