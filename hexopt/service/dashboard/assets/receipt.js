// One decision in full: what it knew, what every candidate would have meant, and what the plan weighed.
import { facts, make } from "./dom.js";
import { clock, DASH, number, percent, seconds } from "./format.js";

export function receipt(r) {
  const known = make("dl", { class: "facts" });
  facts(known, [
    ["Workflow", r.workflow],
    ["Call", `${r.kind} (${r.stage})`],
    ["Decided", `${clock(r.time)} by ${r.policy}`],
    ["Queued before", seconds(r.queued_seconds)],
    ["Prompt", `${number(r.prompt_tokens)} tokens`],
    ["Expected output", `${number(r.expected_output_tokens)} tokens`],
    ["Rest of the workflow", seconds(r.tail_seconds)],
    ["Slack", seconds(r.slack_seconds)],
    ["Urgency", number(r.urgency)],
    ["Shadow", r.shadow ? `${r.shadow.policy}: ${r.shadow.instance}` : DASH],
  ]);
  const parts = [make("p", { text: why(r) }), known, make("h3", { text: "Candidates" }), candidates(r)];
  if (r.plan) parts.push(...plan(r));
  return parts;
}

function why(r) {
  const words = [`${r.chosen} was chosen (${r.decided_by}).`];
  if (r.margin !== null && r.margin !== undefined) {
    words.push(
      r.margin >= 0
        ? `By cost it leads the second best by ${number(r.margin)}.`
        : `Taken alone another would have cost ${number(-r.margin)} less; the rest of the plan or queue spoke for this one.`,
    );
  }
  if (r.plan?.decided_by_term) words.push(`In the plan, ${r.plan.decided_by_term} spoke most against the second best.`);
  return words.join(" ");
}

function candidates(r) {
  const rows = r.candidates.map((c) => {
    if (c.excluded) return [c.chosen, c.instance, `excluded: ${c.excluded}`, DASH, DASH, DASH, DASH];
    return [
      c.chosen, c.instance, seconds(c.predicted_seconds), seconds(c.imposed_seconds),
      number(c.prompt_tokens_to_compute), seconds(c.memory_wait_seconds), number(c.cost),
    ];
  });
  return table(
    "Candidates of this call",
    ["Instance", "Predicted", "Delay to others", "Prompt to compute", "Memory wait", "Cost"],
    rows,
  );
}

function plan(r) {
  const { plan } = r;
  const told = make("dl", { class: "facts" });
  facts(told, [
    ["Solver", plan.solver],
    ["Calls in the plan", number(plan.stages)],
    ["Objective", number(plan.objective, 4)],
    ["Bound", number(plan.bound, 4)],
    ["Gap", percent(plan.gap, 1)],
    ["Solved in", seconds(plan.seconds)],
  ]);
  const parts = [make("h3", { text: "Plan" }), told];
  if (!plan.candidates?.length) return parts;
  const terms = Object.keys(plan.candidates[0].terms).filter((name) => plan.candidates.some((c) => c.terms[name] !== 0));
  const rows = plan.candidates.map((c, k) => [
    k === 0, c.instance, seconds(c.finish_seconds), number(c.objective, 4), ...terms.map((name) => signed(c.terms[name])),
  ]);
  parts.push(
    make("p", { class: "note", text: "What the whole plan would cost with this call elsewhere, and which terms would change." }),
    table("The call's candidates in the plan", ["Instance", "Ends in", "Objective", ...terms], rows),
  );
  return parts;
}

const signed = (value) => (value > 0 ? `+${number(value)}` : value < 0 ? `−${number(-value)}` : "0");

function table(caption, head, rows) {
  const names = make("tr", {}, ...head.map((text) => make("th", { scope: "col", text })));
  const lines = rows.map(([chosen, name, ...cells]) => {
    const row = make("tr", {}, make("th", { scope: "row", text: chosen ? `✓ ${name}` : name }));
    row.append(...cells.map((text) => make("td", { text })));
    row.toggleAttribute("data-chosen", chosen);
    return row;
  });
  const found = make(
    "table", {}, make("caption", { class: "hidden", text: caption }), make("thead", {}, names), make("tbody", {}, ...lines),
  );
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, found);
}
