export const DASH = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);

export function number(value, digits = 3) {
  if (!known(value)) return DASH;
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export function seconds(value) {
  if (!known(value)) return DASH;
  const size = Math.abs(value);
  if (size >= 5400) return `${(value / 3600).toFixed(1)} h`;
  if (size >= 120) return `${Math.round(value / 60)} min`;
  if (size >= 10) return `${Math.round(value)} s`;
  if (size >= 0.1 || size === 0) return `${value.toFixed(1)} s`;
  return `${(1000 * value).toPrecision(2)} ms`;
}

export const percent = (value, digits = 0) => (known(value) ? `${(100 * value).toFixed(digits)}%` : DASH);

export const clock = (unix) => new Date(1000 * unix).toLocaleTimeString("en-GB");
