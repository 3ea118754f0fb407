// node build.mjs MODEL.onnx MODEL.json OUT: decode.html and unquant.js, which holds all that it needs. MODEL.json: what
// `unquant export onnx --json` prints.

import { build } from "esbuild";
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";

const [onnx, description, out] = process.argv.slice(2);
const wasm = createRequire(import.meta.url).resolve("onnxruntime-web/ort-wasm-simd-threaded.wasm");
const packed = async (path) => gzipSync(await readFile(path), { level: 9 }).toString("base64");
const { halo, default_realism } = JSON.parse(await readFile(description, "utf8"));
const network = `export default { halo: ${halo}, default_realism: ${default_realism},
  onnx: "${await packed(onnx)}", wasm: "${await packed(wasm)}" };`;

const made = (name, contents) => ({
  name,
  setup({ onResolve, onLoad }) {
    onResolve({ filter: new RegExp(`^${name}$`) }, () => ({ path: name, namespace: "made" }));
    onLoad({ filter: new RegExp(`^${name}$`), namespace: "made" }, () => contents);
  },
});
const shared = { bundle: true, minify: true, format: "iife", target: "es2022", legalComments: "inline", logLevel: "warning" };
const worker = await build({
  ...shared,
  entryPoints: [new URL("src/worker.js", import.meta.url).pathname],
  plugins: [made("network", { contents: network })],
  define: { "import.meta.url": "location.href" },
  write: false,
});
await mkdir(out, { recursive: true });
await build({
  ...shared,
  entryPoints: [new URL("src/unquant.js", import.meta.url).pathname],
  plugins: [made("worker", { contents: worker.outputFiles[0].text, loader: "text" })],
  globalName: "unquant",
  outfile: `${out}/unquant.js`,
});
await copyFile(new URL("decode.html", import.meta.url), `${out}/decode.html`);
