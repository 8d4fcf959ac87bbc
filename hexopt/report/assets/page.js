const at = (name, k) => document.getElementById(`${name}-${k}`);
const drawn = new Set();

function gantt(k) {
  const figure = data[k].gantt[at("policy", k).value];
  const { drawn: some, of: all } = figure.layout.meta;
  at("shown", k).textContent = some < all ? ` Shown: ${some} of ${all} calls.` : "";
  return plot(at("gantt", k), figure);
}

function show(k) {
  document.querySelectorAll("[role=tab]").forEach((tab, i) => {
    tab.setAttribute("aria-selected", i === k);
    tab.tabIndex = i === k ? 0 : -1;
    at("panel", i).hidden = i !== k;
  });
  if (!drawn.has(k)) {
    drawn.add(k);
    plot(at("attainment", k), data[k].attainment);
    plot(at("tail", k), data[k].tail);
    gantt(k);
  } else {
    for (const name of ["attainment", "tail", "gantt"]) Plotly.Plots.resize(at(name, k));
  }
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
data.forEach((_, k) => at("policy", k).addEventListener("change", () => gantt(k)));
document.querySelectorAll(".key").forEach((key) => key.addEventListener("click", () => {
  const on = key.getAttribute("aria-pressed") !== "true";
  const k = key.closest("[role=tabpanel]").id.split("-")[1];
  key.setAttribute("aria-pressed", on);
  for (const name of ["attainment", "tail"]) Plotly.restyle(at(name, k), { visible: on }, [Number(key.dataset.curve)]);
}));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const k of drawn) for (const name of ["attainment", "tail", "gantt"]) Plotly.relayout(at(name, k), themed());
});
show(0);
