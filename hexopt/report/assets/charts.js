"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const config = { displayModeBar: false, responsive: true };
// On a touch screen a drag over a chart has to scroll the page.
const dragmode = matchMedia("(hover: none)").matches ? false : "zoom";

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
  return Plotly.react(id, figure.data, figure.layout, config).then(() => Plotly.relayout(id, themed()));
}
