// The front of the chain: a reading becomes an innovation, what nothing before it foretold. Twins of the
// classes of guard.py, head.py, correction.py, relation.py and whitening.py in xlstm_ts/anomaly.

import { dot, inside, isThere, shareOfHalfLife, sum, within } from "./stages.mjs";

const SEEN = { spread: 8, error: 3 }; // what the graph may see: FARTHEST and CLIP

class InputGuard {
  constructor(state) { this.beyond = state("beyond"); }

  step(reading, expected, scale) {
    return reading.map((value, c) => {
      const off = value - expected[c], most = 8 * scale[c];
      if (isThere(off)) this.beyond[c] = Math.abs(off) > most ? this.beyond[c] + 1 : 0;
      return expected[c] + (this.beyond[c] >= 3 ? off : within(off, most));
    });
  }
}

class OnlineHead { // recursive least squares
  constructor(state, { forgetting }) {
    Object.assign(this, { forgetting, weights: state("weights"), doubt: state("doubt"), lags: state("lags") });
  }

  forecast() { return this.weights.map((weights, c) => dot(weights, [1, ...this.lags[c]])); }

  update(value, forecast, scale) { value.forEach((_, c) => this.updateOne(c, value[c], forecast[c], scale[c])); }

  updateOne(c, value, forecast, scale) {
    const lags = this.lags[c], low = Math.min(...lags) - 1, high = Math.max(...lags) + 1;
    if (isThere(value)) this.learn(c, within(value - forecast, 4 * scale), [1, ...lags]);
    this.lags[c] = [isThere(value) ? value : Math.min(Math.max(forecast, low), high), ...lags.slice(0, -1)];
  }

  learn(c, error, seen) {
    const doubt = this.doubt[c], informed = doubt.map((row) => dot(row, seen));
    const total = this.forgetting + dot(seen, informed), gain = informed.map((x) => x / total);
    this.weights[c] = this.weights[c].map((weight, k) => weight + gain[k] * error);
    const learnt = doubt.map((row, i) => row.map((x, j) => x - gain[i] * informed[j]));
    const forgets = sum(learnt.map((row, k) => row[k])) < 100 * seen.length;
    this.doubt[c] = forgets ? learnt.map((row) => row.map((x) => x / this.forgetting)) : learnt;
  }
}

export class Correction { // of one row of channels
  constructor(state, halfLife, row = null) {
    const part = (name) => (row === null ? state(name) : [...state(name)[row]]);
    Object.assign(this, { location: part("location"), variance: part("variance"), floor: part("floor") });
    this.share = shareOfHalfLife(halfLife);
  }

  scale() { return this.variance.map(Math.sqrt); }

  step(error) {
    const scale = this.scale();
    return error.map((value, c) => {
      const off = value - this.location[c];
      if (!isThere(off)) return NaN;
      const known = within(off, 3 * scale[c]);
      this.location[c] += this.share * known;
      const moved = this.variance[c] + this.share * (known ** 2 - this.variance[c]);
      this.variance[c] = Math.max(moved, this.floor[c]);
      return off / scale[c];
    });
  }
}

class Relation {
  constructor(state) {
    Object.assign(this, { mean: state("mean"), covariance: state("covariance"), precision: state("precision") });
    [this.count] = state("count");
  }

  step(value) {
    const there = value.map(isThere), gone = value.flatMap((_, c) => (there[c] ? [] : [c]));
    if (gone.length === value.length) return value;
    const off = value.map((x, c) => x - this.mean[c]), P = this.precision;
    const unknown = inverse(gone.map((i) => gone.map((j) => P[i][j])));
    const told = gone.map((i) => sum(P[i].map((x, j) => (there[j] ? x * off[j] : 0))));
    gone.forEach((c, k) => { off[c] = -dot(unknown[k], told); });
    const product = off.map((x) => off.map((y) => x * y));
    gone.forEach((i, k) => gone.forEach((j, l) => { product[i][j] += unknown[k][l]; }));
    const left = P.map((row, c) => dot(row, off) / row[c]);
    this.count += 1;
    const share = 1 / Math.min(this.count, 5000);
    this.mean = this.mean.map((x, c) => x + share * off[c]);
    this.covariance = this.covariance.map((row, i) => row.map((x, j) => x + share * (product[i][j] - x)));
    if (this.count % 50 === 0) {
      this.precision = inverse(this.covariance.map((row, i) =>
        row.map((x, j) => 0.99 * x + (i === j ? 0.01 * x + 1e-6 : 0))));
    }
    return left.map((x, c) => (there[c] ? x : NaN));
  }
}

export class Whitening {
  constructor(state, config) {
    Object.assign(this, { center: state("center"), spread: state("spread"), gap: state("gap") });
    this.guard = new InputGuard(inside(state, "guard"));
    this.head = new OnlineHead(inside(state, "head"), config);
    this.relation = new Relation(inside(state, "relation"));
    this.corrections = [config.half_life, 140, config.half_life].map((halfLife, row) =>
      new Correction(inside(state, "correction"), halfLife, row));
  }

  step(reading) {
    const { center, spread, gap } = this, [correction] = this.corrections;
    const value = reading.map((x, c) => (x - center[c]) / spread[c]);
    const forecast = this.head.forecast(), scale = correction.scale(), location = [...correction.location];
    this.head.update(this.guard.step(value, forecast, scale), forecast, scale);
    this.gap = gap.map((count, c) => (isThere(value[c]) ? 0 : count + 1));
    const wider = gap.map((count) => Math.sqrt(1 + count));
    const seen = value.map((x) => within(x, SEEN.spread));
    const left = value.length === 1 ? [NaN] : this.relation.step(seen);
    const rows = [value.map((x, c) => (x - forecast[c]) / wider[c]), value, left];
    const [error, recent, relation] = this.corrections.map((one, row) => one.step(rows[row]));
    return {
      value, error, recent, relation, gap, seenValue: seen,
      seen: error.map((x) => within(x, SEEN.error)),
      expected: forecast.map((x, c) => (x + location[c] * wider[c]) * spread[c] + center[c]),
      scale: scale.map((x, c) => x * wider[c] * spread[c]),
    };
  }
}

function inverse(matrix) { // Gauss and Jordan, with partial pivoting
  const n = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...row.map((_, j) => Number(i === j))]);
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(rows[i][k]) > Math.abs(rows[pivot][k])) pivot = i;
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    const top = rows[k].map((x) => x / rows[k][k]);
    rows[k] = top;
    for (let i = 0; i < n; i++) if (i !== k) rows[i] = rows[i].map((x, j) => x - rows[i][k] * top[j]);
  }
  return rows.map((row) => row.slice(n));
}
