import { at, facts, put } from "./dom.js";
import { DASH, number, percent, seconds } from "./format.js";

const of = (name) => at("glance").querySelector(`[data-of=${name}]`);

export function update(state) {
  put(of("policy"), state.policy);
  put(of("workflows"), state.workflows_alive.toLocaleString("en"));
  put(of("running"), state.running.toLocaleString("en"));
  put(of("waiting"), state.waiting.toLocaleString("en"));
  put(of("attainment"), percent(state.attainment, 1));
  put(of("p95"), seconds(state.p95_seconds));
  put(of("uptime"), seconds(state.uptime_seconds));
  const { solver, store } = state;
  facts(at("solver"), solver === null ? [["Last plan", "none"]] : [
    ["Last plan", `${solver.name}, ${solver.stages} calls`],
    ["Gap", solver.gap === null ? DASH : percent(solver.gap, 1)],
    ["Solved in", seconds(solver.seconds)],
    ["Objective", number(solver.objective, 4)],
    ["Solved", number(solver.solved)],
    ["Late", number(solver.late)],
    ["Failed", number(solver.failed)],
    ["Deaths", number(solver.deaths)],
  ]);
  facts(at("store"), store === null ? [["State", "none"]] : [
    ["State", store.degraded ? "cannot write" : "well"],
    ["Written", number(store.written)],
    ["Pending", number(store.pending)],
    ["Dropped", number(store.dropped)],
  ]);
}
