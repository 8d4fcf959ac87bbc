import { colour, draw } from "./charts.js";

const WINDOW = 100; // workflows
const KEPT_SECONDS = 1800;

const seen = new Set();
let latest = [];
let points = [];
let now = 0;

export function update(state) {
  now = state.now;
  const fresh = state.ended.filter((w) => !seen.has(key(w))).sort((a, b) => a.finish - b.finish);
  for (const w of fresh) {
    seen.add(key(w));
    latest = [...latest.slice(1 - WINDOW), w];
    const taken = latest.map((one) => one.finish - one.arrival).sort((a, b) => a - b);
    points.push({
      time: w.finish,
      share: (100 * latest.filter((one) => one.met).length) / latest.length,
      p95: taken[Math.min(Math.floor(0.95 * taken.length), taken.length - 1)],
    });
  }
  points = points.filter((point) => point.time > now - KEPT_SECONDS);
  if (seen.size > 10 * state.ended.length + 1000) {
    seen.clear();
    state.ended.forEach((w) => seen.add(key(w)));
  }
  draw("attainment", () => curve("share", "%{y:.1f}% in time", "--accent"), () => layout({ range: [0, 102], ticksuffix: "%" }));
  draw("latency", () => curve("p95", "P95 %{y:.3g} s", "--late"), () => layout({ rangemode: "tozero", ticksuffix: " s" }));
}

const key = (w) => `${w.tenant}\n${w.id}\n${w.arrival}`;

function curve(name, hover, hue) {
  const ended = points.length ? [...points, { ...points.at(-1), time: now }] : [];
  return [{
    type: "scatter", mode: "lines", x: ended.map((point) => new Date(1000 * point.time)), y: ended.map((point) => point[name]),
    line: { color: colour(hue), width: 2, shape: "hv" }, hovertemplate: `%{x|%H:%M:%S}<br>${hover}<extra></extra>`,
  }];
}

function layout(yaxis) {
  // At least two minutes, so that the first workflows do not stretch over all of it.
  const from = Math.min(points.length ? points[0].time : now, now - 120);
  return {
    margin: { l: 8, r: 10, t: 8, b: 8 }, hovermode: "x",
    xaxis: { type: "date", range: [new Date(1000 * from), new Date(1000 * now)], tickformat: "%H:%M:%S", nticks: 5, automargin: true },
    yaxis: { automargin: true, nticks: 5, ...yaxis },
  };
}
