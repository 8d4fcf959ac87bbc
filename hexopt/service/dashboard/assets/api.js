const KEY = "hexopt-key";
const PATIENCE = 10_000; // ms

export class Unauthorized extends Error {}

// The service answered, but not as wished: its problem's detail is the message.
export class Refused extends Error {}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

export async function ask(path, method = "GET", body = undefined) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (answer.status === 401) throw new Unauthorized("the key is missing or wrong");
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Refused(typeof problem.detail === "string" ? problem.detail : `the service answered ${answer.status}`);
  }
  return answer.json();
}
