import { ask } from "./api.js";
import { at, options, put } from "./dom.js";

const NONE = "";

let told = null;
let refresh = () => {};

export function start(again) {
  refresh = again;
}

export async function update(state) {
  const label = `${state.policy} ${state.shadow?.policy ?? ""}`;
  if (label !== told) {
    show(await ask("/v1/policy"));
    told = label;
  }
  const { same, different } = state.shadow ?? {};
  put(
    at("shadow-counts"),
    state.shadow === null
      ? "A shadow policy decides beside the active one and is only compared."
      : `${state.shadow.policy} would have decided alike ${same.toLocaleString("en")} times, otherwise `
        + `${different.toLocaleString("en")} times${same + different ? ` (${Math.round((100 * same) / (same + different))}% alike)` : ""}.`,
  );
}

function show(found) {
  const names = found.policies;
  // A label begins with its policy's name and may go on with parameters.
  const shadow = names.filter((name) => found.shadow?.startsWith(name)).sort((a, b) => b.length - a.length)[0] ?? NONE;
  options(at("policy"), names.map((name) => [name, name]), found.policy);
  options(at("shadow"), [[NONE, "none"], ...names.map((name) => [name, name])], shadow);
}

async function change(event, body) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  put(at("policy-error"), "");
  try {
    show(await ask("/v1/policy", "PUT", body));
    await refresh();
  } catch (error) {
    put(at("policy-error"), error.message);
  } finally {
    button.disabled = false;
  }
}

at("policy-form").addEventListener("submit", (event) => change(event, { policy: at("policy").value }));
at("shadow-form").addEventListener("submit", (event) => change(event, { shadow: at("shadow").value }));
