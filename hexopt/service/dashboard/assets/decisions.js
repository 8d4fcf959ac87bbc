import { ask } from "./api.js";
import { colourOf } from "./colours.js";
import { Rows, at, make, put } from "./dom.js";
import { clock, number, seconds } from "./format.js";
import { receipt } from "./receipt.js";

const SHOWN = 30;

const rows = new Rows(at("decisions").tBodies[0], create, () => {});
let paused = false;

export function update(decisions) {
  if (paused) return;
  rows.update(decisions.slice(0, SHOWN), (d) => `${d.id} ${d.time}`);
  at("no-decisions").hidden = decisions.length > 0;
}

function create(d) {
  const dot = make("span", { class: "dot", "aria-hidden": "true" });
  dot.style.backgroundColor = colourOf(d.workflow);
  const call = make("button", { type: "button", class: "pick", title: d.workflow }, dot, d.kind);
  call.addEventListener("click", () => open(d.id));
  const chosen = d.candidates.find((c) => c.chosen);
  return make(
    "tr", {},
    make("th", { scope: "row" }, call, make("small", { text: d.workflow })),
    make("td", {}, d.chosen, make("small", { text: d.decided_by })),
    make("td", { text: seconds(chosen?.predicted_seconds) }),
    make("td", { text: number(d.margin) }),
    make("td", { text: clock(d.time) }),
  );
}

async function open(id) {
  const body = at("receipt-body");
  body.replaceChildren(make("p", { class: "note", text: "Asking …" }));
  at("receipt").showModal();
  try {
    body.replaceChildren(...receipt(await ask(`/v1/decisions/${encodeURIComponent(id)}`)));
  } catch (error) {
    body.replaceChildren(make("p", { class: "error", text: error.message }));
  }
}

at("close-receipt").addEventListener("click", () => at("receipt").close());
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
  put(at("pause"), paused ? "Paused" : "Pause");
});
