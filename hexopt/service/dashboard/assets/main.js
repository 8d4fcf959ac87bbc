// Asks for the state once a second while the page can be seen, and hands it to the parts.
import { ask, forgetKey, hasKey, keepKey, Unauthorized } from "./api.js";
import * as decisions from "./decisions.js";
import { at, put } from "./dom.js";
import * as gantt from "./gantt.js";
import * as glance from "./glance.js";
import * as instances from "./instances.js";
import * as objective from "./objective.js";
import * as policy from "./policy.js";
import * as trend from "./trend.js";
import * as tuning from "./tuning.js";
import * as workflows from "./workflows.js";

const EVERY = 1; // seconds
const LONGEST = 15;
const ROWS = 200;
const FIRST_DECISIONS = 500; // what is drawn of the time before the page was opened
const DECISIONS = 100;

let timer = 0;
let failures = 0;
let asked = false;
let asking = null;

async function look() {
  // First the decisions: a call among them that the state no longer has, has ended.
  const latest = (await ask(`/v1/decisions?limit=${asked ? DECISIONS : FIRST_DECISIONS}`)).decisions;
  const state = await ask(`/v1/state?limit=${ROWS}`);
  asked = true;
  glance.update(state);
  instances.update(state);
  gantt.update(state, latest);
  workflows.update(state);
  decisions.update(latest);
  trend.update(state);
  tuning.update(state);
  await Promise.all([policy.update(state), objective.update(state)]);
}

function tell(state, text) {
  at("connection").dataset.state = state;
  put(at("connection"), text);
}

async function poll() {
  clearTimeout(timer);
  let wait = EVERY;
  try {
    await look();
    failures = 0;
    tell("live", "Live");
  } catch (error) {
    if (error instanceof Unauthorized) {
      askForKey();
      return;
    }
    failures += 1;
    wait = Math.min(EVERY * 2 ** failures, LONGEST);
    const why = error instanceof TypeError || error.name === "TimeoutError" ? "does not answer" : `says: ${error.message}`;
    tell("broken", `The service ${why}. What you see is old; next try in ${wait} s.`);
    if (!(error instanceof TypeError || error instanceof DOMException)) console.warn(error);
  }
  if (!document.hidden) timer = setTimeout(refresh, 1000 * wait);
}

// One look at a time; who asks meanwhile waits for it.
function refresh() {
  asking ??= poll().finally(() => { asking = null; });
  return asking;
}

function askForKey() {
  put(at("key-error"), hasKey() ? "That key is wrong." : "");
  forgetKey();
  tell("waiting", "Waiting for the key");
  if (!at("key-dialog").open) at("key-dialog").showModal();
}

at("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key").value);
  at("key").value = "";
  at("key-dialog").close();
  refresh();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    tell("paused", "Paused while it cannot be seen");
  } else refresh();
});
for (const part of [instances, objective, policy, tuning]) part.start(refresh);
refresh();
