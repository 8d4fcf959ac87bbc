import { ask } from "./api.js";
import { Rows, at, make, put } from "./dom.js";
import { number, percent, seconds } from "./format.js";

let refresh = () => {};

const rows = new Rows(at("instances").tBodies[0], create, fill);

export function start(again) {
  refresh = again;
}

export function update(state) {
  rows.update(state.instances, (i) => i.name);
}

function create(i) {
  const button = make("button", { type: "button" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await ask(`/v1/instances/${encodeURIComponent(i.name)}/${button.dataset.does}`, "POST");
      await refresh();
    } finally {
      button.disabled = false;
    }
  });
  const row = make("tr", {}, make("th", { scope: "row" }));
  row.append(...Array.from({ length: 8 }, () => make("td")));
  const [name, state, , , kv, , , , action] = row.cells;
  name.append(make("span", { text: i.name }), make("small"));
  state.classList.add("left");
  state.append(make("span", { class: "state" }), make("small"));
  kv.append(make("span", { class: "bar", "aria-hidden": "true" }, make("i")), make("span", { class: "figure" }));
  action.append(button);
  return row;
}

function fill(row, i) {
  const [name, state, running, waiting, kv, backlog, scale, sent, action] = row.cells;
  const split = i.tp * i.pp > 1 ? `, TP${i.tp} × PP${i.pp}` : "";
  put(name.children[1], `${i.gpu.toUpperCase()}${split}, ${i.llm}`);
  put(state.children[0], i.state);
  state.children[0].dataset.state = i.state;
  put(state.children[1], i.reason);
  state.children[1].title = i.reason;
  put(running, `${i.running} / ${i.seats}`);
  put(waiting, String(i.waiting));
  kv.firstChild.firstChild.style.setProperty("--share", Math.min(Math.max(i.kv_usage, 0), 1).toFixed(3));
  put(kv.lastChild, percent(i.kv_usage));
  put(backlog, seconds(i.backlog_seconds));
  put(scale, `× ${number(i.scale)}`);
  put(sent, `${i.sent.toLocaleString("en")} / ${i.errors.toLocaleString("en")}`);
  const button = action.firstChild;
  const does = i.state === "draining" ? "resume" : "drain";
  button.dataset.does = does;
  put(button, does === "drain" ? "Drain" : "Resume");
  button.setAttribute("aria-label", `${button.textContent} ${i.name}`);
}
