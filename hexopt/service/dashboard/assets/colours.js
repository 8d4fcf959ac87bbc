// The same hues as in the report's Gantt charts: workflows that come one after the other look different.
const HUES = 24;
const KEPT = 5000;
const PALETTE = Array.from({ length: HUES }, (_, k) => {
  const hue = (k * 137.508) % 360;
  return `hsl(${hue.toFixed(1)}, 58%, ${[46, 58, 68][k % 3]}%)`;
});
const numbers = new Map();
let count = 0;

export function colourOf(workflow) {
  if (!numbers.has(workflow)) {
    numbers.set(workflow, count++);
    if (numbers.size > KEPT) numbers.delete(numbers.keys().next().value);
  }
  return PALETTE[numbers.get(workflow) % HUES];
}
