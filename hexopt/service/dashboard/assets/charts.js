import { at } from "./dom.js";

const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false, showTips: false };
const drawings = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");

const loaded = new Promise((resolve) => {
  if (window.Plotly) resolve();
  else at("plotly").addEventListener("load", () => resolve());
});

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, fixedrange: true };
  return {
    template: {}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
    font: { color: colour("--text"), family: "system-ui, sans-serif", size: 12 },
    hoverlabel: {
      bgcolor: colour("--back"), bordercolor: colour("--line"), font: { color: colour("--text") }, namelength: -1,
      align: "left",
    },
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
}

function redraw(id) {
  const [data, layout] = drawings.get(id);
  return loaded.then(() => window.Plotly.react(id, data(), themed(layout()), CONFIG));
}

const near = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) near.delete(target.id);
    else {
      near.add(target.id);
      if (drawings.has(target.id)) redraw(target.id);
    }
  }
}, { rootMargin: "100px" });

// Draws what the functions say, now if it can be seen, otherwise once it can.
export function draw(id, data, layout) {
  if (!drawings.has(id)) watcher.observe(at(id));
  drawings.set(id, [data, layout]);
  if (near.has(id)) redraw(id);
}

dark.addEventListener("change", () => near.forEach(redraw));

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Plotly reads a few tags in texts.
export const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
