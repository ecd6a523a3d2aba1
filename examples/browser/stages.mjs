// What the stages of a detector share: numbers that may be missing, and the state in the record.

export const isThere = (x) => x === x; // NaN is missing
export const within = (x, most) => Math.min(Math.max(x, -most), most);
export const sum = (xs) => xs.reduce((total, x) => total + x, 0);
export const dot = (xs, ys) => xs.reduce((total, x, k) => total + x * ys[k], 0);
export const shareOfSpan = (span) => 2 / (span + 1);
export const shareOfHalfLife = (readings) => Math.log(2) / readings;

// The state of an inner stage.
export function inside(state, prefix) { return (name) => state(`${prefix}/${name}`); }

export function shaped({ shape, values }) { // null is NaN
  const numbers = values.map((value) => value ?? NaN);
  const cut = (flat, [length, ...rest]) => {
    if (!rest.length) return flat;
    const size = flat.length / length;
    return Array.from({ length }, (_, k) => cut(flat.slice(k * size, (k + 1) * size), rest));
  };
  return cut(numbers, shape);
}
