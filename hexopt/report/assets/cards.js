const charts = Object.keys(data);
for (const name of charts) plot(name, data[name]);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const name of charts) Plotly.relayout(name, themed());
});
