// Opens AVIF files and runs the network, away from the page's own thread.

import * as ort from "onnxruntime-web/wasm";
import network from "network";
import { readAvif } from "./avif.js";
import { seededNoise } from "./noise.js";
import { turned } from "./turn.js";

const STRIDE = 16;
const WINDOW = 64; // positions of STRIDE pixels; memory goes with its square
const pictures = new Map();
let session = null;

async function unpacked(base64) {
  const packed = await fetch(`data:;base64,${base64}`);
  return new Uint8Array(await new Response(packed.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

async function load() {
  // several threads need a page that is isolated from other origins
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked(network.wasm);
  return ort.InferenceSession.create(await unpacked(network.onnx), { executionProviders: ["wasm"] });
}

function loaded() {
  return (session ??= load());
}

// nothing of the session can be posted
async function prepare() {
  await loaded();
}

async function open({ picture, bytes }) {
  const head = readAvif(new Uint8Array(bytes));
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/avif" }), options);
  const { width, height, orientation } = head;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  // browsers turn it; the network sees it as it is coded
  const [across, down] = orientation > 4 ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
  if (across !== width || down !== height) throw new Error("AVIF: of another size than it says, or cropped");
  context.setTransform(...turned(orientation, bitmap.width, bitmap.height, true));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const base = context.getImageData(0, 0, width, height);
  pictures.set(picture, { ...head, base });
  return { width, height, base, orientation, realism: head.realism ?? network.default_realism };
}

// x̂_0 or x̂_1 as (h, w, 3), in 256ths of a level
async function draw({ picture, end }, tell) {
  const { width, height, base, coding, lossless, seed } = pictures.get(picture);
  const out = new Uint16Array(3 * width * height);
  if (lossless) {
    for (let i = 0, o = 0; i < base.data.length; i++) if (i % 4 < 3) out[o++] = base.data[i] * 256;
    return out;
  }
  const running = await loaded();
  const rows = Math.ceil(height / STRIDE), columns = Math.ceil(width / STRIDE), windows = [];
  for (let top = 0; top < rows; top += WINDOW) for (let left = 0; left < columns; left += WINDOW) windows.push([top, left]);
  for (const [done, [top, left]] of windows.entries()) {
    tell({ done, total: windows.length });
    await new Promise((resolve) => setTimeout(resolve)); // lets it hear that nobody waits any more
    if (!pictures.has(picture)) throw new Error("closed");
    const bottom = Math.min(top + WINDOW, rows), right = Math.min(left + WINDOW, columns);
    const from = [Math.max(0, top - network.halo), Math.max(0, left - network.halo)];
    const to = [Math.min(rows, bottom + network.halo), Math.min(columns, right + network.halo)];
    const h = to[0] - from[0], w = to[1] - from[1], size = STRIDE * STRIDE * h * w;
    const x = new Float32Array(3 * size);
    for (let i = 0, y = STRIDE * from[0]; y < STRIDE * to[0]; y++) {
      const row = Math.min(y, height - 1) * width;
      for (let column = STRIDE * from[1]; column < STRIDE * to[1]; column++, i++) {
        const at = 4 * (row + Math.min(column, width - 1));
        for (let c = 0; c < 3; c++) x[c * size + i] = base.data[at + c] / 255;
      }
    }
    const noise = (stream, channels, scale) => {
      const shape = [channels, scale * h, scale * w];
      const values = end
        ? seededNoise(seed, stream, ...shape, scale * from[0], scale * from[1])
        : new Float32Array(shape.reduce((a, b) => a * b));
      return new ort.Tensor("float32", values, [1, ...shape]);
    };
    const { x: drawn } = await running.run({
      x_q: new ort.Tensor("float32", x, [1, 3, STRIDE * h, STRIDE * w]),
      coding: new ort.Tensor("float32", coding, [1, coding.length]),
      realism: new ort.Tensor("float32", [end], [1, 1, 1, 1]),
      coarse_noise: noise(0, 4, 2),
      fine_noise: noise(1, 1, 8),
    });
    for (let y = STRIDE * top; y < Math.min(STRIDE * bottom, height); y++) {
      for (let column = STRIDE * left; column < Math.min(STRIDE * right, width); column++) {
        const i = (y - STRIDE * from[0]) * STRIDE * w + column - STRIDE * from[1];
        for (let c = 0; c < 3; c++) out[3 * (y * width + column) + c] = Math.round(drawn.data[c * size + i] * 255 * 256);
      }
    }
    drawn.dispose();
  }
  return out;
}

function close({ picture }) {
  pictures.delete(picture);
}

onmessage = async ({ data }) => {
  const tell = (progress) => postMessage({ id: data.id, progress });
  try {
    const result = await { prepare, open, draw, close }[data.call](data, tell);
    postMessage({ id: data.id, result });
  } catch (error) {
    postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};
