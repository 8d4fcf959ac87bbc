import { colourOf } from "./colours.js";
import { Rows, at, make, put } from "./dom.js";
import { pick } from "./gantt.js";
import { seconds } from "./format.js";

const TIGHT = 0.15; // share of its time that is to spare

const table = at("workflows");
const rows = new Rows(table.tBodies[0], create, fill);
const key = (w) => `${w.tenant}\n${w.id}`;
let order = new Map();
let picked = null;

export function update(state) {
  const list = [...state.workflows];
  const spare = (w) => w.slack_seconds ?? w.remaining_seconds;
  list.sort((a, b) => spare(a) - spare(b));
  // Rows that somebody points at do not move away.
  if (table.matches(":hover, :focus-within")) {
    const place = (w) => order.get(key(w)) ?? list.length + order.size;
    list.sort((a, b) => place(a) - place(b));
  }
  order = new Map(list.map((w, k) => [key(w), k]));
  rows.update(list, key);
  const all = state.workflows_alive;
  put(at("workflows-shown"), all > list.length ? `${list.length} of ${all.toLocaleString("en")} shown, by deadline` : "");
  at("no-workflows").hidden = list.length > 0;
  if (picked && !order.has(picked)) choose(null, null);
}

function choose(name, workflow) {
  picked = name;
  for (const [other, row] of rows.rows) mark(row, other === picked);
  pick(workflow);
}

function mark(row, on) {
  row.toggleAttribute("data-picked", on);
  row.querySelector("button").setAttribute("aria-pressed", on);
}

function create(w) {
  const name = make("button", { type: "button", class: "pick", "aria-pressed": "false", title: w.id });
  const dot = make("span", { class: "dot", "aria-hidden": "true" });
  dot.style.backgroundColor = colourOf(w.id);
  name.append(dot, w.id);
  name.addEventListener("click", () => (picked === key(w) ? choose(null, null) : choose(key(w), w.id)));
  const head = make("th", { scope: "row" }, name);
  if (w.tenant) head.append(make("small", { text: w.tenant }));
  const slack = make("td", {}, make("span", { class: "bar slack", "aria-hidden": "true" }, make("i")), make("span", { class: "mood" }));
  return make("tr", {}, head, slack, make("td"), make("td"));
}

function fill(row, w) {
  const [, slack, left, stages] = row.cells;
  const spare = w.slack_seconds ?? w.remaining_seconds;
  const share = spare / Math.max(w.deadline - w.arrival, 1e-3);
  const idle = w.slack_seconds === null && spare >= 0;
  slack.firstChild.dataset.mood = spare < 0 ? "late" : idle ? "idle" : share < TIGHT ? "tight" : "calm";
  slack.firstChild.firstChild.style.setProperty("--share", Math.min(Math.abs(share), 1).toFixed(3));
  put(slack.lastChild, spare < 0 ? `${seconds(-spare)} late` : idle ? "no open call" : `${seconds(spare)} spare`);
  put(left, w.remaining_seconds < 0 ? `−${seconds(-w.remaining_seconds)}` : seconds(w.remaining_seconds));
  put(stages, `${w.finished} · ${w.running} · ${w.waiting}${w.failed ? ` · ${w.failed} failed` : ""}`);
}
