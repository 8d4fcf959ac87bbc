// Weights that the service found by simulation: to be applied or refused here, beside the present ones.
import { ask } from "./api.js";
import { at, facts, put } from "./dom.js";
import { clock, percent } from "./format.js";

const WORDS = { attainment: "In time", p95: "P95 latency", cost: "Cost" };

let shown = null;
let refresh = () => {};

export function start(again) {
  refresh = again;
}

export function update(state) {
  const tuning = state.tuning;
  at("tuning").hidden = tuning === null;
  if (tuning === null) return;
  put(at("tuning-note"), note(tuning));
  const proposal = tuning.proposal?.state === "proposed" ? tuning.proposal : null;
  at("proposal").hidden = proposal === null;
  shown = proposal?.id ?? null;
  if (proposal === null) return;
  put(at("proposal-weights"), proposal.objective);
  facts(at("proposal-gains"), proposal.gains.map((gain) => [WORDS[gain.goal] ?? gain.goal, said(gain)]));
}

function said({ goal, mean, low, high }) {
  if (goal === "attainment") return `${points(mean)} points (${points(low)} to ${points(high)})`;
  return `${change(mean)} (${change(low)} to ${change(high)})`;
}

const signed = (text, value) => (value > 0 ? `+${text}` : text);
const points = (gain) => signed((100 * gain).toFixed(1), gain);
// Gains of latency and cost are logarithms of ratios.
const change = (gain) => signed(percent(Math.exp(-gain) - 1, 1), -gain);

function note({ mode, searching, last_search: last, last_result: result, proposal }) {
  if (proposal?.state === "applied") {
    const { before, after, workflows } = proposal.watched ?? {};
    const found = workflows ? `: ${percent(before, 1)} in time before, ${percent(after, 1)} of ${workflows} since` : "";
    return `Tuned weights applied at ${clock(proposal.changed)} are watched${found}.`;
  }
  if (proposal?.state === "rolled back") return "The last tuned weights were taken back: fewer workflows were in time.";
  if (searching) return "Simulating recent traffic with other weights…";
  if (last === null) return `Tuning (${mode}) has not searched yet.`;
  return `Searched at ${clock(last)}: ${result}.`;
}

async function decide(event, what) {
  event.preventDefault();
  put(at("tuning-error"), "");
  try {
    await ask(`/v1/tuning/${what}`, "POST", { id: shown });
    await refresh();
  } catch (error) {
    put(at("tuning-error"), error.message);
  }
}

at("accept").addEventListener("click", (event) => decide(event, "accept"));
at("dismiss").addEventListener("click", (event) => decide(event, "dismiss"));
