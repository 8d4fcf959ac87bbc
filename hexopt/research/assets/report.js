"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const config = { displayModeBar: false, responsive: true };
// On a touch screen a drag over a chart has to scroll the page.
const dragmode = matchMedia("(hover: none)").matches ? false : "zoom";
const hiddenPolicies = new Set();
const panels = document.querySelectorAll("[role=tabpanel]");
let open = 0;

function themed() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const layout = {
    "font.color": colour("--text"), "font.family": "system-ui, sans-serif", "font.size": 12,
    "hoverlabel.bgcolor": colour("--back"), "hoverlabel.font.color": colour("--text"),
    "hoverlabel.bordercolor": colour("--line"),
    dragmode,
  };
  for (const axis of ["xaxis", "yaxis"]) {
    layout[`${axis}.gridcolor`] = colour("--grid");
    layout[`${axis}.linecolor`] = colour("--line");
  }
  return layout;
}

function plot(id, figure) {
  const traces = figure.data.map((trace) => ({ ...trace, visible: !hiddenPolicies.has(trace.name) }));
  return Plotly.react(id, traces, figure.layout, config).then(() => Plotly.relayout(id, themed()));
}

function draw(k) {
  const chosen = Number(document.getElementById(`cell-${k}`).value);
  for (const [name, figure] of Object.entries(data[k].overview)) plot(`${name}-${k}`, figure);
  for (const [name, figure] of Object.entries(data[k].cells[chosen])) plot(`${name}-${k}`, figure);
  panels[k].querySelectorAll(".cell").forEach((cell, i) => { cell.hidden = i !== chosen; });
}

function show(k) {
  open = k;
  document.querySelectorAll("[role=tab]").forEach((tab, i) => {
    tab.setAttribute("aria-selected", i === k);
    tab.tabIndex = i === k ? 0 : -1;
    panels[i].hidden = i !== k;
  });
  draw(k);
}

document.querySelectorAll("[role=tab]").forEach((tab, k, tabs) => {
  tab.addEventListener("click", () => show(k));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (k + step + tabs.length) % tabs.length;
    tabs[next].focus();
    show(next);
  });
});
document.querySelectorAll(".pick select").forEach((select, k) => select.addEventListener("change", () => draw(k)));
document.querySelectorAll(".key").forEach((key) => key.addEventListener("click", () => {
  const on = key.getAttribute("aria-pressed") !== "true";
  key.setAttribute("aria-pressed", on);
  hiddenPolicies[on ? "delete" : "add"](key.dataset.policy);
  draw(open);
}));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(open));
show(0);
