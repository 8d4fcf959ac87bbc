import { CallHistory } from "./call_history.js";
import { colour, draw, plain } from "./charts.js";
import { colourOf } from "./colours.js";
import { at, put } from "./dom.js";
import { seconds } from "./format.js";

const BARS = 600;
const NAMED = 160; // bars up to which their kinds are written on them

const history = new CallHistory();
let instances = [];
let now = 0;
let picked = null;

export function pick(workflow) {
  picked = workflow;
  show();
}

export function update(state, decisions) {
  history.update(state, decisions);
  instances = state.instances.map((i) => i.name);
  now = state.now;
  show();
}

function show() {
  draw("gantt", data, layout);
}

function visible() {
  const span = Number(at("window").value);
  const bars = history.calls.filter((bar) => (bar.end ?? now) > now - span && instances.includes(bar.instance));
  put(at("gantt-shown"), bars.length > BARS ? ` Shown: the latest ${BARS} of ${bars.length} calls.` : "");
  return bars.sort((a, b) => a.start - b.start).slice(-BARS);
}

function data() {
  const bars = visible();
  const deepest = new Map(instances.map((name) => [name, 4]));
  for (const bar of bars) deepest.set(bar.instance, Math.max(deepest.get(bar.instance), 4 * Math.ceil((bar.lane + 1) / 4)));
  const span = Number(at("window").value);
  const shape = (list, base, x, opacity, text) => ({
    type: "bar", orientation: "h", base: list.map(base), x: list.map(x),
    y: list.map((bar) => instances.indexOf(bar.instance) + 0.05 + (0.9 * (bar.lane + 0.5)) / deepest.get(bar.instance)),
    width: list.map((bar) => 0.8 / deepest.get(bar.instance)),
    marker: {
      color: list.map((bar) => colourOf(bar.workflow)),
      opacity: list.map((bar) => (picked === null || picked === bar.workflow ? opacity : 0.12 * opacity)),
      line: { width: 0 },
    },
    hovertext: list.map(told), hovertemplate: "%{hovertext}<extra></extra>",
    text, textposition: text ? "inside" : "none", insidetextanchor: "middle", textangle: 0, constraintext: "none",
    cliponaxis: true,
  });
  const begin = (bar) => Math.max(bar.start - now, -span);
  const open = bars.filter((bar) => bar.end === null && bar.predicted !== null && bar.predicted > now);
  const names = bars.length <= NAMED ? bars.map((bar) => plain(bar.kind)) : undefined;
  return [
    shape(bars, begin, (bar) => (bar.end ?? now) - now - begin(bar), 0.95, names),
    shape(open, () => 0, (bar) => bar.predicted - now, 0.4),
  ];
}

function told(bar) {
  const lines = [`<b>${plain(bar.kind)}</b>, workflow ${plain(bar.workflow)}`];
  if (bar.end === null) {
    lines.push(`runs for ${seconds(now - bar.start)}`);
    if (bar.predicted !== null) {
      const left = bar.predicted - now;
      lines.push(left >= 0 ? `predicted to end in ${seconds(left)}` : `${seconds(-left)} longer than predicted`);
    }
  } else if (bar.exact) lines.push(`took about ${seconds(bar.end - bar.start)}`);
  else lines.push("has ended; drawn as predicted");
  return lines.join("<br>");
}

function layout() {
  const span = Number(at("window").value);
  const line = (at) => ({
    type: "line", xref: "paper", x0: 0, x1: 1, y0: at, y1: at, line: { color: colour("--line"), width: 1 },
  });
  return {
    barmode: "overlay", bargap: 0, hovermode: "closest", margin: { l: 8, r: 8, t: 6, b: 36 },
    uniformtext: { mode: "hide", minsize: 9 },
    xaxis: {
      range: [-span, span / 4], title: { text: "Seconds from now", standoff: 6 }, automargin: true,
      dtick: span / 4 > 60 ? 60 : span / 4,
    },
    yaxis: {
      range: [instances.length, 0], tickvals: instances.map((_, i) => i + 0.5), ticktext: instances.map(plain),
      showgrid: false, ticks: "", automargin: true,
    },
    shapes: [
      ...instances.slice(1).map((_, i) => line(i + 1)),
      { type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: colour("--text"), width: 1, dash: "dot" } },
    ],
  };
}

at("window").addEventListener("change", show);
