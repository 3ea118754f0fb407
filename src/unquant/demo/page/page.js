const byId = (id) => document.getElementById(id);
const checked = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const number = (value) => value.toLocaleString("en");
const seconds = (value) => (value == null ? "–" : `${value.toFixed(2)} s`);
const contentUrl = (key, suffix) => `api/content/${key}.${suffix}`;

// What there is: photograph is null for a file that was given; left by what it shows; made: what it was made with; turn: counts
// what was opened, for what comes in late is not of it.
const state = { models: [], photograph: null, file: null, drawn: null, left: {}, map: null, made: {}, turn: 0 };

// ---- the server ----

async function put(path, body) {
  let response;
  try {
    response = await fetch(`api/${path}`, { method: "PUT", body });
  } catch {
    throw new Error("The server does not answer: is it still running?");
  }
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}
const ask = (path, asked) => put(path, JSON.stringify(asked));

// ---- work: one thing at a time, always with the newest settings ----

let running = false;
let again = false;
async function refresh() {
  again = true;
  if (running) return;
  running = true;
  document.body.setAttribute("aria-busy", "true");
  while (again) {
    again = false;
    try {
      await work();
      byId("error").hidden = true;
    } catch (error) {
      fail(error);
    }
  }
  running = false;
  document.body.setAttribute("aria-busy", "false");
}

function fail(error) {
  say("");
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

const say = (text) => (byId("status").textContent = text);
const mapped = () => byId("map").getAttribute("aria-pressed") === "true";
const valid = () => byId("settings").checkValidity();

async function work() {
  const { photograph, turn } = state;
  const late = () => state.turn !== turn;
  if (!valid() || !(photograph || state.file)) return say("");
  if (photograph) {
    const { name: model, draws_avif: av1 } = chosenModel();
    const wanted = { photograph: photograph.key, name: photograph.name, model, bpp: Number(byId("bpp").value) };
    if (av1) Object.assign(wanted, { effort: Number(byId("effort").value), container: checked("container") });
    if (state.made.file !== JSON.stringify(wanted)) {
      say("Encoding");
      forgetFile();
      const found = await ask("encode", wanted);
      if (late()) return;
      state.file = found;
      state.made.file = JSON.stringify(wanted);
      show();
      if (again) return;
    }
  }
  const { key: file, model } = state.file;
  const steps = byId("steps").value;
  const wanted = { file, model, realism: Number(byId("realism").value), seed: byId("seed").value };
  if (steps !== "") wanted.steps = Number(steps);
  if (state.made.drawn !== JSON.stringify(wanted)) {
    say("Drawing");
    const found = await ask("decode", wanted);
    if (late()) return;
    state.drawn = found;
    state.made.drawn = JSON.stringify(wanted);
    show();
    if (again) return;
  }
  const left = checked("left");
  if (left !== "original" && !state.left[left]) {
    say(left === "preview" ? "Drawing the preview" : `Looking for ${left.toUpperCase()} of the same bytes`);
    const found = left === "preview"
      ? await ask("decode", { file, model, preview: true })
      : await ask("compare", { photograph: photograph.key, codec: left, target_bytes: state.file.bytes });
    if (late()) return;
    state.left[left] = found;
  }
  if (mapped() && !state.map) {
    say("Looking for what was invented: five decodes");
    const found = await ask("invented", { file, model });
    if (late()) return;
    state.map = found;
  }
  show();
  say(`${state.file.name}: ${number(state.file.bytes)} bytes, ${state.file.bpp.toFixed(3)} bits per pixel`);
}

function forgetFile() {
  Object.assign(state, { file: null, drawn: null, left: {}, map: null, made: {} });
}

async function open(what, begin) {
  say("Opening");
  byId("error").hidden = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    take(what, await begin());
    await refresh();
  } catch (error) {
    fail(error);
    document.body.setAttribute("aria-busy", String(running));
  }
}

function take(what, found) {
  forgetFile();
  state.turn += 1;
  state.photograph = what === "photograph" ? found : null;
  byId("encoding").disabled = !state.photograph;
  for (const value of ["original", "avif", "jpeg"]) {
    document.querySelector(`input[name="left"][value="${value}"]`).disabled = !state.photograph;
  }
  if (!state.photograph) {
    state.file = found;
    byId("realism").value = found.realism;
    byId("steps").value = found.steps ?? "";
    byId("seed").value = found.seed;
  }
  document.querySelector(`input[name="left"][value="${state.photograph ? "original" : "preview"}"]`).checked = true;
  for (const image of [byId("left-image"), byId("right-image")]) image.hidden = true;
  byId("stage").style.setProperty("--ratio", found.width / found.height);
  byId("split").style.setProperty("--ratio", found.width / found.height);
  zoomTo(1);
  show();
}

const openPhotograph = (file) => open("photograph", () => put(`photographs?name=${encodeURIComponent(file.name)}`, file));
const openFile = (file) => open("file", () => put(`files?name=${encodeURIComponent(file.name)}`, file));

// ---- what is shown ----

const chosenModel = () => state.models.find((model) => model.name === byId("model").value);

function show() {
  const { photograph, file, drawn } = state;
  const given = photograph ?? file;
  const left = checked("left");
  const onLeft = left === "original" ? photograph : state.left[left];
  const names = { original: "Original", avif: "AVIF", jpeg: "JPEG", preview: "Preview" };
  const sized = (found) => (found?.bytes ? `, ${number(found.bytes)} bytes` : "");
  showImage("left", onLeft, names[left] + (left === "original" ? "" : sized(onLeft)));
  showImage("right", drawn, file ? `unquant ${file.model}${sized(file)}` : "");

  const map = byId("map-image");
  map.hidden = !(mapped() && state.map && drawn);
  byId("map-hint").hidden = map.hidden;
  if (!map.hidden) map.src = contentUrl(state.map.picture, "png");

  link("download-file", file, file?.key, file?.name.split(".").pop(), file?.name);
  const stem = given?.name.replace(/\.[^.]*$/, "") || "picture";
  link("download-png", drawn, drawn?.picture, "png", `${stem}.png`);

  const rows = [];
  if (file) rows.push([`unquant, ${file.name}`, file, seconds(file.seconds), seconds(drawn?.seconds)]);
  for (const name of ["avif", "jpeg"]) {
    const found = state.left[name];
    if (found) rows.push([found.fits ? found.title : `${found.title}, its smallest`, found, "–", "–"]);
  }
  byId("rows").replaceChildren(...rows.map(([name, found, encode, decode]) => {
    const row = document.createElement("tr");
    for (const [index, text] of [name, number(found.bytes), found.bpp.toFixed(3), encode, decode].entries()) {
      const cell = document.createElement(index ? "td" : "th");
      if (!index) cell.scope = "row";
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  }));

  const notes = [...new Set([photograph, file, drawn].flatMap((found) => found?.notes ?? []))];
  byId("notes").hidden = !notes.length;
  byId("notes").replaceChildren(...notes.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  showSettings();
}

function showImage(side, found, name) {
  const image = byId(`${side}-image`);
  const tag = byId(`${side}-name`);
  if (found) {
    const url = contentUrl(found.picture, "png");
    if (!image.src.endsWith(url)) image.src = url;
    image.alt = name;
  }
  // the decode before stays until there is a new one; the left side must not lie
  image.hidden = found ? false : side === "left" || !image.src || image.hidden;
  tag.textContent = name;
  tag.hidden = image.hidden;
  byId("line").hidden = byId("left-image").hidden;
}

function link(id, there, key, suffix, name) {
  const anchor = byId(id);
  anchor.hidden = !there;
  if (!there) return;
  anchor.href = contentUrl(key, suffix);
  anchor.download = name;
  anchor.textContent = name;
}

function showSettings() {
  const bpp = Number(byId("bpp").value);
  const { photograph } = state;
  byId("rate-bytes").textContent = photograph && bpp > 0
    ? `at most ${number(Math.floor((bpp * photograph.width * photograph.height) / 8))} bytes` : "";
  const model = chosenModel();
  byId("effort").disabled = !model?.draws_avif;
  byId("effort-value").textContent = model?.draws_avif ? byId("effort").value : "of av1 alone";
  for (const input of document.querySelectorAll('input[name="container"]')) {
    input.disabled = !model?.draws_avif && input.value === "avif";
    if (input.disabled && input.checked) document.querySelector('input[name="container"][value="unq"]').checked = true;
  }
  byId("realism-value").textContent = Number(byId("realism").value).toFixed(2);
}

// ---- the stage: divider, zoom and place; scale in --zoom, place in --x and --y as percent of the stage ----

const stage = byId("stage");
const view = { zoom: 1, x: 0, y: 0 };
const pixelScale = () => ((byId("left-image").naturalWidth || byId("right-image").naturalWidth) || stage.clientWidth) / stage.clientWidth;
const farthest = () => Math.max(8, 8 * pixelScale());
const within = (offset) => Math.min(0, Math.max(offset, 100 * (1 - view.zoom)));

function zoomTo(zoom, px = 50, py = 50) {
  const before = view.zoom;
  view.zoom = Math.min(farthest(), Math.max(1, zoom));
  move(px - ((px - view.x) * view.zoom) / before - view.x, py - ((py - view.y) * view.zoom) / before - view.y);
}
function move(dx, dy) {
  view.x = within(view.x + dx);
  view.y = within(view.y + dy);
  stage.style.setProperty("--zoom", view.zoom);
  stage.style.setProperty("--x", `${view.x}%`);
  stage.style.setProperty("--y", `${view.y}%`);
  showZoom();
}
function showZoom() {
  const scale = view.zoom / pixelScale();
  stage.classList.toggle("zoomed", view.zoom > 1);
  stage.classList.toggle("pixels", scale >= 2);
  byId("zoom").textContent = `${Math.round(100 * scale)}%`;
}
function splitTo(percent) {
  byId("split").value = percent;
  stage.style.setProperty("--split", `${byId("split").value}%`);
}
const percentOf = (event) => {
  const box = stage.getBoundingClientRect();
  return [(100 * (event.clientX - box.x)) / box.width, (100 * (event.clientY - box.y)) / box.height];
};

const keys = {
  "+": () => zoomTo(view.zoom * 1.5), "=": () => zoomTo(view.zoom * 1.5), "-": () => zoomTo(view.zoom / 1.5),
  "0": () => zoomTo(1), "1": () => zoomTo(pixelScale()),
  ArrowLeft: () => move(10, 0), ArrowRight: () => move(-10, 0), ArrowUp: () => move(0, 10), ArrowDown: () => move(0, -10),
};
stage.addEventListener("keydown", (event) => {
  const arrow = event.key.startsWith("Arrow");
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey || (arrow && view.zoom === 1)) return;
  event.preventDefault();
  keys[event.key]();
});
for (const button of document.querySelectorAll("[data-key]")) button.addEventListener("click", () => keys[button.dataset.key]());
// the page scrolls on over the stage until it was chosen
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !stage.contains(document.activeElement)) return;
  event.preventDefault();
  zoomTo(view.zoom * Math.exp(-event.deltaY / 300), ...percentOf(event));
}, { passive: false });
stage.addEventListener("dblclick", (event) => zoomTo(view.zoom * 2, ...percentOf(event)));

let drag = null;
stage.addEventListener("pointerdown", (event) => {
  stage.focus({ preventScroll: true });
  drag = { divides: event.target === byId("line") || view.zoom === 1, last: percentOf(event) };
  if (drag.divides && event.pointerType === "mouse") splitTo(drag.last[0]);
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const here = percentOf(event);
  if (drag.divides) splitTo(here[0]);
  else move(here[0] - drag.last[0], here[1] - drag.last[1]);
  drag.last = here;
});
for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (drag = null));
byId("split").addEventListener("input", () => splitTo(byId("split").value));
for (const image of [byId("left-image"), byId("right-image")]) image.addEventListener("load", showZoom);
addEventListener("resize", showZoom);

// ---- controls ----

byId("rate").addEventListener("input", () => {
  byId("bpp").value = Number((2 ** Number(byId("rate").value)).toPrecision(2));
  showSettings();
});
byId("bpp").addEventListener("input", () => {
  byId("rate").value = Math.log2(Number(byId("bpp").value));
  showSettings();
});
for (const id of ["effort", "realism"]) byId(id).addEventListener("input", showSettings);
byId("settings").addEventListener("change", () => {
  showSettings();
  refresh();
});
byId("settings").addEventListener("submit", (event) => event.preventDefault());
byId("left").addEventListener("change", () => {
  show();
  refresh();
});
byId("map").addEventListener("click", () => {
  byId("map").setAttribute("aria-pressed", String(!mapped()));
  show();
  refresh();
});
byId("new-seed").addEventListener("click", () => {
  byId("seed").value = Math.floor(Math.random() * 1e6);
  refresh();
});
byId("bundled").addEventListener("click", () => open("photograph", async () => (await getStart()).photograph));
for (const [id, opener] of [["photograph-input", openPhotograph], ["file-input", openFile]]) {
  byId(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) opener(file);
    event.target.value = ""; // so that the same one may be chosen again
  });
}
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", type === "dragenter" || type === "dragover");
    const file = type === "drop" && event.dataTransfer.files[0];
    if (file) (/\.(unq|avif)$/i.test(file.name) ? openFile : openPhotograph)(file);
  });
}

// ---- start: after the page has been painted ----

async function getStart() {
  const response = await fetch("api/start");
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}
await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
try {
  const start = await getStart();
  state.models = start.models;
  byId("model").replaceChildren(...start.models.map((model) => new Option(model.name)));
  byId("bpp").value = start.bpp;
  byId("rate").value = Math.log2(start.bpp);
  await open("photograph", async () => start.photograph);
} catch (error) {
  fail(error);
}
