// Figures of the operator's view, none without its n.

/** Quantile by linear interpolation between order statistics (type 7 of Hyndman and Fan); null of nothing. */
export function quantile(values, q) {
  if (!values.length) return null;
  const sorted = Float64Array.from(values).sort();
  const place = q * (sorted.length - 1);
  const low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** Wilson's 95 % interval of a share (Wilson 1927); null of nothing. */
export function wilson(k, n) {
  if (!n) return null;
  const z = 1.959963984540054;
  const share = k / n;
  const centre = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
  return [k === 0 ? 0 : centre - half, k === n ? 1 : centre + half];
}
