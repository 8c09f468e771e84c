"use strict";
// Figures are drawn one after another, so that the page can be read while they are drawn.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = read("figures"), dark = read("dark");
const settings = { responsive: true, displaylogo: false, displayModeBar: false };
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

// The same figure in other colours; the cells of a heat map stay light, and so the letters in them dark.
function recoloured(value) {
  if (typeof value === "string") return dark[value] ?? value;
  if (Array.isArray(value)) return value.map(recoloured);
  if (value === null || typeof value !== "object") return value;
  const kept = value.type === "heatmap" ? ["textfont", "colorscale"] : [];
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, kept.includes(key) ? inner : recoloured(inner)]));
}
function drawing(place, key, { light = !prefersDark.matches, paper = false } = {}) {
  const { data, layout } = light ? figures[key] : recoloured(figures[key]);
  const shape = { ...layout };
  if (paper) Object.assign(shape, { width: place.closest(".small") ? 310 : 660, autosize: false });
  else {
    // A phone's first screen also has to hold the answer and the facts.
    const lower = innerWidth < 600 ? Number(place.dataset.phoneHeight) : 0;
    shape.height = lower || layout.height;
    place.style.height = shape.height + "px";
  }
  return Plotly.react(place, data, shape, settings);
}
function recolourLegends() {
  for (const path of document.querySelectorAll(".legend path"))
    for (const name of ["fill", "stroke"]) {
      const own = (path.dataset[name] ??= path.getAttribute(name) ?? "none");
      path.setAttribute(name, prefersDark.matches ? (dark[own] ?? own) : own);
    }
}
recolourLegends();
const places = () => Object.keys(figures).map((key) => [document.getElementById("figure-" + key), key]);
async function draw() {
  for (const [place, key] of places()) {
    if (typeof Plotly === "undefined") {
      place.className = "missing";
      place.style.height = "";
      place.textContent = "This figure needs plotly's script, which lies beside the report: copy it too, or make the " +
        "report again with single_file=true.";
      continue;
    }
    await drawing(place, key);
    place.dataset.drawn = "yes";
    await new Promise((go) => setTimeout(go, 0));
  }
  document.body.dataset.drawn = "yes";
}
draw();
function redraw(how) {
  if (typeof Plotly !== "undefined") for (const [place, key] of places()) if (place.dataset.drawn) drawing(place, key, how);
}
prefersDark.addEventListener("change", () => { redraw(); recolourLegends(); });

// Paper: light figures that fit its width, and nothing folded except the commands of trials.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details.fold:not([open])")];
  for (const fold of folded) fold.open = true;
  redraw({ light: true, paper: true });
});
addEventListener("afterprint", () => {
  for (const fold of folded) fold.open = false;
  redraw();
});

// The navigation marks the section that is read; a link into a fold opens it.
const links = new Map([...document.querySelectorAll("nav a[href^='#']")].map((a) => [a.hash.slice(1), a]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const [id, link] of links) {
      if (id === entry.target.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }
}, { rootMargin: "-15% 0px -75% 0px" });
for (const section of document.querySelectorAll("main > section")) seen.observe(section);
