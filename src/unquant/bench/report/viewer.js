"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
document.documentElement.classList.add("js");

// A switch shows the parts that its choice names.
for (const field of all("[data-switch]")) {
  const parts = all(`[data-of="${field.dataset.switch}"]`);
  const show = () => {
    const choice = field.querySelector("input:checked").value;
    for (const part of parts) part.hidden = part.dataset.part !== choice;
  };
  field.addEventListener("change", show);
  show();
}

// The legend hides curves in every chart at once.
const setSeries = (button, shown) => {
  button.setAttribute("aria-pressed", String(shown));
  for (const part of all(`[data-series="${CSS.escape(button.dataset.toggle)}"]`)) part.classList.toggle("off", !shown);
};
for (const button of all("[data-toggle]")) {
  button.addEventListener("click", () => setSeries(button, button.getAttribute("aria-pressed") !== "true"));
}
for (const button of all("[data-toggle-all]")) {
  button.addEventListener("click", () => {
    const others = all(`[data-kind="${button.dataset.toggleAll}"][data-toggle]`);
    const shown = others.every((other) => other.getAttribute("aria-pressed") !== "true");
    for (const other of others) setSeries(other, shown);
  });
}

// The point nearest to the pointer tells what it is; the native title would need a hit on the marker.
const tip = document.getElementById("tip");
const REACH = 22;
const nearest = (event) => {
  let best = null;
  let least = REACH;
  for (const point of all("[data-series]:not(.off) use", event.currentTarget)) {
    const box = point.getBoundingClientRect();
    const away = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
    if (away < least && point.querySelector("title")) [best, least] = [point, away];
  }
  return best;
};
for (const chart of all(".chart")) {
  const tell = (event) => {
    const point = nearest(event);
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = point.querySelector("title").textContent;
    const width = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY + 18}px`;
  };
  chart.addEventListener("pointermove", tell);
  chart.addEventListener("pointerdown", tell);
  chart.addEventListener("pointerleave", () => (tip.hidden = true));
}

// All crops of an image zoom and move together: scale in --zoom, place in --x and --y as percent of a crop.
const FARTHEST = 12;
for (const view of all(".view")) {
  const state = { zoom: 1, x: 0, y: 0 };
  const within = (offset) => Math.min(0, Math.max(offset, 100 * (1 - state.zoom)));
  const apply = () => {
    state.x = within(state.x);
    state.y = within(state.y);
    view.style.setProperty("--zoom", state.zoom);
    view.style.setProperty("--x", `${state.x}%`);
    view.style.setProperty("--y", `${state.y}%`);
    view.classList.toggle("zoomed", state.zoom > 1);
    view.querySelector("output").textContent = `${Number(state.zoom.toFixed(1))}×`;
  };
  const zoomAt = (factor, px = 50, py = 50) => {
    const before = state.zoom;
    state.zoom = Math.min(FARTHEST, Math.max(1, before * factor));
    state.x = px - ((px - state.x) * state.zoom) / before;
    state.y = py - ((py - state.y) * state.zoom) / before;
    apply();
  };
  const move = (dx, dy) => {
    state.x += dx;
    state.y += dy;
    apply();
  };
  const actions = {
    "+": () => zoomAt(1.5), "=": () => zoomAt(1.5), "-": () => zoomAt(1 / 1.5), "0": () => zoomAt(1 / FARTHEST),
    ArrowLeft: () => move(10, 0), ArrowRight: () => move(-10, 0), ArrowUp: () => move(0, 10), ArrowDown: () => move(0, -10),
  };
  for (const button of all("[data-zoom]", view)) button.addEventListener("click", () => actions[button.dataset.zoom]());
  view.addEventListener("keydown", (event) => {
    const arrow = event.key.startsWith("Arrow");
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey || (arrow && state.zoom === 1)) return;
    event.preventDefault();
    actions[event.key]();
  });

  const originals = all(".original img", view).map((img) => img.src);
  const flip = view.querySelector("[data-flip]");
  const flipTo = (on) => {
    if ((flip.getAttribute("aria-pressed") === "true") === on) return;
    flip.setAttribute("aria-pressed", String(on));
    for (const img of all(".decoded img", view)) {
      img.dataset.own ??= img.src;
      img.src = on ? originals[0] : img.dataset.own;
    }
  };
  flip.addEventListener("click", () => flipTo(flip.getAttribute("aria-pressed") !== "true"));

  for (const stage of all(".stage", view)) {
    const percent = (event) => {
      const box = stage.getBoundingClientRect();
      return [(100 * (event.clientX - box.x)) / box.width, (100 * (event.clientY - box.y)) / box.height];
    };
    // the page scrolls on over crops until one image was chosen
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !view.contains(document.activeElement)) return;
      event.preventDefault();
      zoomAt(Math.exp(-event.deltaY / 300), ...percent(event));
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => zoomAt(2, ...percent(event)));
    let last = null;
    stage.addEventListener("pointerdown", (event) => {
      view.focus({ preventScroll: true });
      last = percent(event);
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!last || state.zoom === 1) return;
      const here = percent(event);
      move(here[0] - last[0], here[1] - last[1]);
      last = here;
    });
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (last = null));
  }
}
