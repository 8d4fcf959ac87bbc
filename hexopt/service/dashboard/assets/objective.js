import { ask } from "./api.js";
import { at, make, options, put } from "./dom.js";
import { number } from "./format.js";

// Weights are compared by their ratios, so most sliders go by factors, with zero at their left end.
const STEPS = 120;
const LEAST = 1e-2;
const MOST = 1e4;
const LINEAR = { urgency: 3, lost: 1 };
const HIGHEST = { urgency: 10, lost: 1 };
const HINTS = {
  tardiness: "A weighted second that a workflow is late",
  late: "A weighted workflow being late at all",
  completion: "A weighted second until a call ends",
  imposed: "A weighted second of delay of the calls that run already",
  congestion: "A unit of an instance's overload",
  move: "A unit of moving cost",
  price: "A unit of money",
  fairness: "A weighted second of tardiness per share of the tenant who is worst off",
  urgency: "How much more the workflows count that are short of time; 0 treats all alike",
  lost: "Factor on the urgency of workflows that cannot make their deadline any more",
};

const DEFAULT = "deadline";

let told;
let weights = {};
let base = DEFAULT;
let overridden = {};
let refresh = () => {};

export function start(again) {
  refresh = again;
}

export async function update(state) {
  const text = `${state.policy} ${state.objective ?? ""}`;
  if (text === told) return;
  show(await ask("/v1/objective"));
  told = text;
}

function show(found) {
  at("objective").hidden = found.weights === null;
  at("no-objective").hidden = found.weights !== null;
  if (found.weights === null) return;
  weights = found.weights;
  const [preset, values = ""] = found.objective.split(":");
  // An objective from a file has no preset: every weight of it is said then.
  base = found.presets.includes(preset) ? preset : null;
  overridden = base && values ? Object.fromEntries(values.split(",").map((item) => item.split("=")).map(([k, v]) => [k, Number(v)])) : {};
  options(at("preset"), found.presets.map((name) => [name, name]), base ?? DEFAULT);
  if (!at("weights").childElementCount) at("weights").append(...found.names.map(control));
  reset();
}

function control(name) {
  const id = `weight-${name}`;
  const most = LINEAR[name] ? { min: 0, max: LINEAR[name], step: 0.05 } : { min: 0, max: STEPS, step: 1 };
  const slider = make("input", { type: "range", id: `${id}-slider`, "aria-label": `${name}, slider`, ...most });
  const field = make("input", { type: "number", id, min: 0, step: "any", required: "" });
  if (HIGHEST[name]) field.max = HIGHEST[name];
  slider.addEventListener("input", () => {
    field.value = LINEAR[name] ? slider.value : atPosition(Number(slider.value));
    mark(name);
  });
  field.addEventListener("input", () => {
    slider.value = position(name, Number(field.value));
    mark(name);
  });
  const label = make("label", { for: id, title: HINTS[name] ?? name, text: name });
  return make("div", { class: "weight", "data-name": name }, label, slider, field);
}

function atPosition(step) {
  return step === 0 ? 0 : Number((LEAST * (MOST / LEAST) ** ((step - 1) / (STEPS - 1))).toPrecision(2));
}

function position(name, value) {
  if (LINEAR[name]) return value;
  if (!(value > 0)) return 0;
  return Math.round(1 + ((STEPS - 1) * Math.log(value / LEAST)) / Math.log(MOST / LEAST));
}

function mark(name) {
  const field = at(`weight-${name}`);
  at(`${field.id}-slider`).setAttribute("aria-valuetext", number(Number(field.value)));
  field.parentElement.toggleAttribute("data-changed", Number(field.value) !== weights[name]);
  const changed = at("weights").querySelector("[data-changed]") !== null;
  at("apply").disabled = at("reset").disabled = !changed;
}

function reset() {
  for (const [name, value] of Object.entries(weights)) {
    at(`weight-${name}`).value = value;
    at(`weight-${name}-slider`).value = position(name, value);
    mark(name);
  }
}

async function change(event, body) {
  event.preventDefault();
  put(at("objective-error"), "");
  try {
    show(await ask("/v1/objective", "PUT", body));
    await refresh();
  } catch (error) {
    put(at("objective-error"), error.message);
  }
}

at("preset-form").addEventListener("submit", (event) => change(event, { preset: at("preset").value }));
at("weights-form").addEventListener("submit", (event) => {
  const wanted = { ...overridden };
  for (const [name, value] of Object.entries(weights)) {
    const now = Number(at(`weight-${name}`).value);
    if (base === null || now !== value || name in overridden) wanted[name] = now;
  }
  change(event, { preset: base ?? DEFAULT, weights: wanted });
});
at("reset").addEventListener("click", reset);
