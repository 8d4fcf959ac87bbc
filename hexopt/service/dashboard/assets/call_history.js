// What ran where, put together from polls: when a call is gone, it has ended between the last poll and this one.
const KEPT_SECONDS = 620;
const KEPT = 4000;

export class CallHistory {
  constructor() {
    this.running = new Map();
    this.done = [];
    this.seen = new Set();
    this.lanes = new Map();
    this.before = null;
  }

  get calls() {
    return [...this.done, ...this.running.values()];
  }

  update(state, decisions) {
    const now = state.now;
    const finishes = new Map(state.ended.map((w) => [w.id, w.finish]));
    const calls = new Map();
    for (const call of state.calls) if (call.instance !== null && call.dispatched !== null) calls.set(call.id, call);
    for (const [id, bar] of this.running) {
      const call = calls.get(id);
      // Another start is another attempt.
      if (call && call.dispatched === bar.start) bar.predicted = call.predicted_finish;
      else this.close(id, bar, call ? call.dispatched : this.endOf(bar, finishes.get(bar.workflow), now));
    }
    const fresh = [];
    for (const [id, call] of calls) {
      if (this.running.has(id)) continue;
      fresh.push({
        id, workflow: call.workflow, kind: call.kind, instance: call.instance, start: call.dispatched, end: null,
        predicted: call.predicted_finish, exact: true,
      });
    }
    for (const d of decisions) {
      // Not among the calls and not known: it began and ended since the last poll, or before the page was opened.
      if (d.route_only || d.time > now || calls.has(d.id) || this.seen.has(d.id)) continue;
      fresh.push({
        id: d.id, workflow: d.workflow, kind: d.kind, instance: d.chosen, start: d.time, predicted: d.predicted_finish,
        end: Math.max(d.time, Math.min(d.predicted_finish ?? now, now)), exact: false,
      });
    }
    fresh.sort((a, b) => a.start - b.start);
    for (const bar of fresh) this.open(bar);
    this.before = now;
    this.forget(now);
  }

  endOf(bar, finish, now) {
    const from = Math.max(this.before ?? bar.start, bar.start);
    return finish > from && finish <= now ? finish : (from + now) / 2;
  }

  open(bar) {
    if (!this.lanes.has(bar.instance)) this.lanes.set(bar.instance, []);
    const lanes = this.lanes.get(bar.instance);
    // An end is known to a second or so: a call that takes its seat says when it was.
    let lane = lanes.findIndex((last) => last.end !== null && last.end - bar.start < 1.5 && last.start < bar.start);
    if (lane < 0) lane = lanes.length;
    else lanes[lane].end = Math.min(lanes[lane].end, bar.start);
    lanes[lane] = bar;
    bar.lane = lane;
    this.seen.add(bar.id);
    if (bar.end === null) this.running.set(bar.id, bar);
    else this.done.push(bar);
  }

  close(id, bar, end) {
    bar.end = Math.max(end, bar.start);
    this.running.delete(id);
    this.done.push(bar);
  }

  forget(now) {
    const kept = this.done.filter((bar) => bar.end > now - KEPT_SECONDS).slice(-KEPT);
    if (kept.length === this.done.length) return;
    this.done = kept;
    this.seen = new Set(this.calls.map((bar) => bar.id));
  }
}
