// AVIF redrawn in the browser. As a script it offers `unquant`, and redraws every <img data-unquant> once the page is there.

import { turned } from "./turn.js";
import worker from "worker";

const calls = new Map();
let thread = null, last = Promise.resolve(), count = 0;

function started() {
  thread = new Worker(URL.createObjectURL(new Blob([worker], { type: "text/javascript" })));
  thread.onmessage = ({ data: { id, progress, result, error } }) => {
    if (progress) return calls.get(id).tell?.(progress);
    if (error === undefined) calls.get(id).resolve(result);
    else calls.get(id).reject(new Error(error));
    calls.delete(id);
  };
  thread.onerror = (event) => calls.forEach((call) => call.reject(new Error(event.message || "the worker failed")));
  return thread;
}

function post(message, tell) {
  const id = count++;
  return new Promise((resolve, reject) => {
    calls.set(id, { resolve, reject, tell });
    (thread ?? started()).postMessage({ ...message, id });
  });
}

/** Loads the network, which the first picture else waits for. */
export function prepare() {
  return post({ call: "prepare" });
}

/** An AVIF file that is open, until `close`. base: AV1's own picture. realism: what the file asks for. */
export class Picture {
  #id = count++;
  #ends = new Map();

  /** bytes: an ArrayBuffer. Rejects with an Error that says what is not followed. */
  static async open(bytes) {
    const picture = new Picture();
    return Object.assign(picture, await post({ call: "open", picture: picture.#id, bytes }));
  }

  /** ImageData as coded, neither turned nor mirrored. realism: 0 … 1. tell: gets { done, total } windows. */
  async draw(realism = this.realism, tell = undefined) {
    const ends = await Promise.all([0, 1].map((end) => (end ? realism > 0 : realism < 1) && this.#end(end, tell)));
    const [zero, one] = [ends[0] || ends[1], ends[1] || ends[0]];
    const image = new ImageData(new Uint8ClampedArray(this.base.data), this.width, this.height);
    for (let i = 0, at = 0; i < zero.length; i++, at += at % 4 === 2 ? 2 : 1) {
      image.data[at] = Math.round((zero[i] + realism * (one[i] - zero[i])) / 256);
    }
    return image;
  }

  #end(end, tell) {
    if (!this.#ends.has(end)) {
      // one after another: the network has one session
      const drawn = last.then(() => post({ call: "draw", picture: this.#id, end }, tell));
      last = drawn.catch(() => {});
      this.#ends.set(end, drawn);
    }
    return this.#ends.get(end);
  }

  /** A canvas with an ImageData of this picture, turned and mirrored as the file asks. */
  canvas(image, canvas = document.createElement("canvas")) {
    const { width, height, orientation } = this, source = document.createElement("canvas");
    Object.assign(source, { width, height });
    source.getContext("2d").putImageData(image, 0, 0);
    Object.assign(canvas, orientation > 4 ? { width: height, height: width } : { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(...turned(orientation, width, height));
    context.drawImage(source, 0, 0);
    return canvas;
  }

  close() {
    post({ call: "close", picture: this.#id });
  }
}

/** Redraws an <img> of an AVIF file in its place. realism: 0 … 1, else what the file asks for. */
export async function redraw(img, realism = undefined) {
  const answer = await fetch(img.currentSrc || img.src);
  const picture = await Picture.open(await answer.arrayBuffer());
  try {
    const canvas = picture.canvas(await picture.draw(realism));
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    img.removeAttribute("srcset");
    img.src = URL.createObjectURL(blob);
    await img.decode();
  } finally {
    picture.close();
  }
}

async function redrawAll() {
  for (const img of document.querySelectorAll("img[data-unquant]")) {
    const asked = parseFloat(img.dataset.unquant);
    try {
      await redraw(img, Number.isFinite(asked) ? Math.min(Math.max(asked, 0), 1) : undefined);
    } catch (error) {
      console.warn(`${img.src}: not redrawn: ${error.message}`); // its base stays
    }
  }
}

if (document.readyState === "complete") redrawAll();
else addEventListener("load", redrawAll);
