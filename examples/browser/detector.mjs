// The stages of a detector around its graph, in float64: the twin of the Python package xlstm_ts/anomaly,
// class for class, of what a stream does. `Detector` reads the record that export_detector put into
// the file; tests/anomaly/golden.json.gz says what it must give.

import { inside, isThere, shaped, shareOfSpan, sum, within } from "./stages.mjs";
import { Correction, Whitening } from "./whitening.mjs";

const NONE = 0, OPEN = 1, DORMANT = 2;
const BY_ERROR = 0, BY_LEVEL = 1, BY_STILLNESS = 2;
const VIEW_OF = [0, 0, 1, 2, 3]; // forecast, forecast, level, recent, relation
export const VIEWS = ["point", "range", "level", "recent", "relation"];

class ForecastErrors {
  constructor(state, { half_life }) {
    this.correction = new Correction(inside(state, "correction"), half_life);
    this.usual = state("usual");
  }

  step(error, quantiles) { // quantiles of each channel
    if (!quantiles) return error;
    const own = this.correction.step(error.map((x, c) => {
      const levels = quantiles[c], width = (levels.at(-1) - levels[0]) / this.usual[c];
      if (!isThere(width)) return x;
      return (x - levels[Math.floor(levels.length / 2)]) / Math.min(Math.max(width, 0.2), 1);
    }));
    return error.map((x, c) => {
      const joint = Math.sqrt((1 + Math.abs(x)) * (1 + Math.abs(own[c]))) - 1;
      return own[c] < 0 ? -joint : joint;
    });
  }
}

class Aggregate {
  constructor(state, { span }) {
    [this.running] = state("running");
    Object.assign(this, { regular: state("regular"), square: state("square"), logarithm: state("logarithm") });
    this.share = shareOfSpan(span);
  }

  weigh(views) { return views.map((view, v) => view.map((x, c) => x / this.regular[v][c])); }

  step(views) {
    const speaks = views.map((view) => view.some(isThere));
    if (!speaks[0]) return VIEWS.map(() => NaN);
    const squares = views.map((view, v) => view.map((x, c) => {
      if (isThere(x)) return Math.min(x * x, 1e12);
      return speaks[v] ? this.square[v][c] : NaN;
    }));
    const lately = views[0].map((x, c) =>
      (isThere(x) ? Math.log1p(Math.min(Math.abs(x), 1e6)) : this.logarithm[c]));
    this.running += this.share * (sum(lately) / lately.length - this.running);
    const [point, level, recent, relation] = squares.map((row) => Math.max(sum(row) / row.length, 0.01));
    return [point, this.running, level, recent, relation];
  }
}

class Tail {
  constructor(state, largestShape) {
    Object.assign(this, { largestShape, knots: state("knots"), peaks: state("peaks") });
    for (const name of ["rate", "shape", "size", "count", "calm", "length", "record"]) [this[name]] = state(name);
  }

  surprise(score) {
    const [low, half, most, start] = this.knots, levels = [0.5, 0.2].map((p) => -Math.log10(p));
    const top = -Math.log10(this.rate);
    if (score > start) return Math.min(12, this.beyond(score - start));
    if (score > most) return levels[1] + Math.max(0, top - levels[1]) * ((score - most) / (start - most));
    if (score > half) return levels[0] + (levels[1] - levels[0]) * ((score - half) / (most - half));
    return levels[0] * (Math.max(0, score - low) / (half - low));
  }

  update(score, surprise) {
    const isPeak = this.isPeak(surprise), isRecord = isPeak && !this.calm;
    if (surprise >= (isRecord ? 7 : 5)) return;
    const excess = score - this.knots[3];
    this.rate += (Number(excess > 0) - this.rate) / 8000;
    if (!(excess > 0 && isPeak)) return;
    this.peaks[this.count % 400] = excess;
    this.count += 1;
    if (this.count % 5 === 0) this.fitPareto(this.peaks.slice(0, Math.min(this.count, 400)));
  }

  isPeak(surprise) {
    if (surprise < 2) {
      this.calm = Math.min(this.calm + 1, 21);
    } else {
      if (this.calm >= 20) this.length = this.record = 0;
      this.calm = 0;
    }
    this.length += 1;
    const isRecord = !this.calm && surprise > this.record;
    this.record = Math.max(this.record, surprise);
    return isRecord || this.calm > 20 || this.length > 1000;
  }

  beyond(excess) {
    let ratio = excess / this.size;
    if (this.shape > 1e-6) ratio = Math.log1p(this.shape * ratio) / this.shape;
    return -Math.log10(this.rate) + ratio / Math.LN10;
  }

  fitPareto(excesses) { // probability-weighted moments
    const count = excesses.length, mean = sum(excesses) / count;
    const ordered = excesses.toSorted((x, y) => x - y);
    const weighted = sum(ordered.map((x, k) => x * (1 - (k + 0.65) / count))) / count;
    const rest = mean - 2 * weighted;
    const shape = count < 10 || rest <= 0 ? 0 : 2 - mean / rest;
    this.shape = Math.min(Math.max(shape, 0), this.largestShape);
    this.size = mean * (1 - this.shape);
  }
}

class RateFeedback {
  constructor(state) {
    Object.assign(this, { shifts: state("shifts"), starts: state("starts"), quiet: state("quiet") });
  }

  correct(surprise) {
    let below = 0, reached = 0;
    for (const [j, shift] of this.shifts.entries()) {
      const decade = j + 1, threshold = Math.max(decade + shift, below + 1e-3);
      if (surprise < threshold) return reached + ((surprise - below) / (threshold - below)) * (decade - reached);
      [below, reached] = [threshold, decade];
    }
    return reached + surprise - below;
  }

  update(corrected) {
    const steps = [0.01, 0.03, 0.1, 0.25], quiet = [5, 50, 50, 50];
    this.shifts.forEach((shift, j) => {
      if (corrected >= j + 1) {
        if (this.quiet[j] >= quiet[j]) this.starts[j] = shift;
        this.quiet[j] = 0;
        this.shifts[j] = Math.max(shift, Math.min(4, this.starts[j] + 0.5, shift + steps[j]));
      } else {
        this.quiet[j] = Math.min(this.quiet[j] + 1, quiet[j]);
        this.shifts[j] = Math.max(-1, shift - steps[j] * 10 ** -(j + 1));
      }
    });
  }
}

class SlowChannel {
  constructor(state, { slow_span }) {
    for (const name of ["mean", "reference", "limit", "away", "since"]) this[name] = state(name);
    this.share = shareOfSpan(slow_span);
  }

  isHeld(c) { return this.limit[c] < 1e9; }

  step(reading) { return reading.map((value, c) => this.stepOne(c, value)); }

  stepOne(c, value) {
    const known = isThere(value) ? value : this.mean[c], reference = this.reference[c];
    this.mean[c] += this.share * (reference + within(known - reference, 8) - this.mean[c]);
    const off = Math.abs(this.mean[c] - reference) / this.limit[c];
    this.away[c] = off >= 0.5 ? this.away[c] + 1 : 0;
    const moved = isThere(value) ? within(value - this.since[c], 8) : 0;
    const share = Math.max(1 / Math.max(this.away[c], 1), 1 / 250);
    this.since[c] = this.away[c] > 0 ? this.since[c] + share * moved : this.mean[c];
    return off;
  }

  rebase() {
    this.reference = this.reference.map((x, c) => (this.away[c] > 0 ? this.since[c] : x));
    Object.assign(this, { mean: [...this.reference], since: [...this.reference] });
    this.away.fill(0);
  }
}

class StuckRule {
  constructor(state) { for (const name of ["last", "run", "change", "longest", "least"]) this[name] = state(name); }

  step(reading) {
    return reading.map((value, c) => {
      if (!isThere(value)) return false;
      const size = Math.abs(value - this.last[c]);
      if (size > 0) this.change[c] += shareOfSpan(20) * (size - this.change[c]);
      this.run[c] = size === 0 ? this.run[c] + 1 : 1;
      this.last[c] = value;
      return this.run[c] >= this.longest[c] || this.change[c] < this.least[c];
    });
  }
}

class Learning { // whether what comes is usual: beyond what training saw of a level only if it lasts
  constructor(state, config) {
    Object.assign(this, { longest: Math.round(1.2 * config.n_rebase), rebase: config.n_rebase });
    for (const name of ["held", "calm"]) [this[name]] = state(name);
  }

  step(level) {
    if (level < 0.5) {
      this.calm = Math.min(this.calm + 1, this.rebase);
      if (this.calm === this.rebase) this.held = 0;
      return true;
    }
    [this.held, this.calm] = [Math.min(this.held + 1, this.longest), 0];
    return this.held >= this.longest;
  }
}

class EventMachine {
  constructor(state, config) {
    this.config = config;
    for (const name of ["row", "phase", "number", "start", "end", "peak", "peak_at", "calm", "alarms", "rest"]) {
      [this[name]] = state(name);
    }
    Object.assign(this, { counts: state("counts"), votes: state("votes"), blamed: state("blamed") });
  }

  step(given, threshold) { // the event that is open or has just closed, and whether to rebase
    // Where a sensor is stuck says nothing of a level.
    const evidence = { ...given, slow: given.slow.map((off, c) => (given.stuck[c] ? 0 : off)) };
    const row = this.row++, wasOpen = this.phase === OPEN, highest = Math.max(...evidence.slow);
    const causes = [evidence.score >= threshold, highest >= 1, evidence.stuck.some(Boolean)];
    if (causes.some(Boolean)) {
      this.alarm(row, evidence, causes);
    } else if (this.phase !== NONE) {
      const closing = Math.min(threshold, Math.max(threshold - 1, Math.log10(2 * this.config.quiet)));
      const isNear = evidence.score >= closing || highest > 0.5;
      this.calm = isNear && this.phase === OPEN ? 0 : this.calm + 1;
      this.wait();
    }
    const rebases = this.phase === OPEN && this.config.policy === "auto" && this.isDue();
    if (rebases) [this.phase, this.calm] = [DORMANT, 0];
    return { event: wasOpen || this.phase === OPEN ? this.event() : null, rebases };
  }

  event() {
    const votes = this.votes[this.cause()], total = sum(votes);
    return {
      number: this.number, start: this.start, end: this.end, peak: this.peak, peakAt: this.peak_at,
      kind: this.kind(), isOpen: this.phase === OPEN,
      shares: votes.map((vote) => (total > 0 ? vote / total : 1 / votes.length)),
    };
  }

  acknowledge() {
    if (this.phase !== OPEN) return false;
    [this.phase, this.calm] = [DORMANT, 0];
    return true;
  }

  isDue() { return this.cause() === BY_LEVEL && this.row - this.start > this.config.n_rebase; }

  alarm(row, evidence, causes) {
    const { score, z, slow, stuck } = evidence;
    if (this.phase === NONE) {
      this.blamed.fill(false);
      this.begin(row);
    } else if (this.phase === DORMANT && this.isAnother(evidence, causes)) {
      this.blamed = this.withPart();
      this.begin(row);
    }
    [this.phase, this.calm, this.end] = [OPEN, 0, row];
    this.alarms += 1;
    causes.forEach((is, cause) => { this.counts[cause] += Number(is); });
    if (score > this.peak) [this.peak, this.peak_at] = [score, row];
    slow.forEach((level, c) => {
      this.votes[BY_ERROR][c] += isThere(z[c]) ? Math.log1p(Math.abs(z[c])) : 0;
      this.votes[BY_LEVEL][c] += level >= 1 ? level : 0;
      this.votes[BY_STILLNESS][c] += Number(stuck[c]);
    });
  }

  isAnother({ score, z, slow, stuck }, causes) { // whether an alarm in the cool-down has a cause of its own
    if (score > this.peak + 1 || this.isDue()) return true;
    const errors = z.map((value) => (isThere(value) ? Math.abs(value) : 0)), known = this.withPart();
    const loudest = causes[BY_ERROR] ? errors.indexOf(Math.max(...errors)) : -1;
    return known.some((is, c) => !is && (slow[c] >= 1 || stuck[c] || c === loudest));
  }

  withPart() { // channels with a part in this event, or in those before in whose cool-down it began
    const votes = this.votes.filter((_, cause) => this.counts[cause] > 0);
    return this.blamed.map((was, c) => was || votes.some((of) => of[c] >= 0.5 * Math.max(...of)));
  }

  begin(row) {
    Object.assign(this, { number: this.number + 1, start: row, peak: 0, peak_at: row, alarms: 0 });
    this.rest = this.config.cooldown;
    this.counts.fill(0);
    this.votes.forEach((row) => row.fill(0));
  }

  wait() {
    const isHeld = this.config.policy === "hold" && this.isDue();
    if (this.phase === OPEN && this.calm >= this.config.quiet && !isHeld) {
      this.phase = DORMANT;
    } else if (this.phase === DORMANT) {
      this.rest -= 1;
      this.phase = this.rest > 0 ? DORMANT : NONE;
    }
  }

  cause() {
    const { [BY_LEVEL]: level, [BY_STILLNESS]: stillness } = this.counts;
    if (stillness && stillness >= level) return BY_STILLNESS;
    return 2 * level > this.alarms ? BY_LEVEL : BY_ERROR;
  }

  kind() {
    if (this.cause() === BY_STILLNESS) return "stuck";
    if (this.cause() === BY_LEVEL) return this.counts[BY_ERROR] ? "level_shift" : "drift";
    return this.alarms <= 3 ? "spike" : "deviation";
  }
}

// One stream of a detector: `step` takes a raw reading and what the graph forecast of it.
export class Detector {
  constructor(record) {
    if (record.version !== 3) throw new Error(`The detector is of version ${record.version}; this page reads version 3.`);
    const state = (name) => shaped(record.state[name]), config = record.config;
    Object.assign(this, { alpha: record.alpha, config, settling: state("settling") });
    this.whitening = new Whitening(inside(state, "whitening"), config);
    this.errors = new ForecastErrors(inside(state, "errors"), config);
    this.aggregate = new Aggregate(inside(state, "aggregate"), config);
    this.tails = VIEWS.map((name) => new Tail(inside(state, `comparison/${name}`), 0.5));
    this.joint = new Tail(inside(state, "joint/tail"), 0.2);
    this.feedback = new RateFeedback(inside(state, "joint/feedback"));
    this.slow = new SlowChannel(inside(state, "slow"), config);
    this.stuck = new StuckRule(inside(state, "stuck"));
    this.learning = new Learning(inside(state, "learning"), config);
    this.machine = new EventMachine(inside(state, "machine"), config);
  }

  get threshold() { return -Math.log10(this.alpha); }

  // NaN is missing; `quantiles` of each channel, or null where there is no model.
  step(reading, quantiles) {
    const innovation = this.whitening.step(reading);
    return { innovation, ...this.judge(innovation, quantiles) };
  }

  judge(innovation, quantiles) {
    const { value } = innovation, there = value.map(isThere), settled = this.settle(innovation, there);
    const error = this.errors.step(innovation.error, quantiles);
    const level = value.map((x, c) => (this.slow.isHeld(c) ? x - this.slow.reference[c] : NaN));
    const views = [error, level, innovation.recent, innovation.relation].map((view) =>
      view.map((x, c) => (settled[c] ? x : NaN)));
    const weighed = this.aggregate.weigh(views), raw = this.aggregate.step(weighed);
    const slow = this.slow.step(value).map((off, c) => (settled[c] && there[c] ? off : 0));
    const learns = this.learning.step(Math.max(...slow));
    const surprises = this.compare(raw, learns), largest = Math.max(...surprises);
    const score = isThere(raw[0]) ? this.calibrate(largest, learns) : NaN;
    const blamed = weighed[VIEW_OF[surprises.indexOf(largest)]];
    const stuck = this.stuck.step(value).map((is, c) => is && settled[c]);
    const { event, rebases } = this.machine.step({ score, z: blamed, slow, stuck }, this.threshold);
    if (rebases) this.rebase();
    const slowScore = Math.max(...slow);
    const alarm = score >= this.threshold || slowScore >= 1 || stuck.some(Boolean);
    return {
      score: isThere(score) ? score : 0, surprises, slowScore, alarm, event,
      contributions: shares(blamed), status: status({ there, settled, stuck, alarm }),
    };
  }

  acknowledge() { if (this.machine.acknowledge()) this.rebase(); }

  rebase() {
    this.slow.rebase();
    [this.learning.held, this.learning.calm] = [0, 0];
  }

  compare(raw, learns) {
    return this.tails.map((tail, k) => {
      if (!isThere(raw[k])) return 0;
      const surprise = tail.surprise(raw[k]);
      if (learns && surprise < 3) tail.update(raw[k], surprise);
      return surprise;
    });
  }

  calibrate(largest, learns) {
    const surprise = this.joint.surprise(largest), corrected = this.feedback.correct(surprise);
    if (learns) {
      this.joint.update(largest, surprise);
      this.feedback.update(corrected);
    }
    return corrected;
  }

  settle({ gap }, there) {
    const left = this.settling.map((count, c) =>
      (there[c] && gap[c] > this.config.max_gap ? Math.max(count, this.config.settle) : count));
    this.settling = left.map((count, c) => Math.max(count - Number(there[c]), 0));
    return left.map((count) => count <= 0);
  }
}

function status({ there, settled, stuck, alarm }) {
  if (!there.some(Boolean)) return "missing";
  if (!there.some((is, c) => is && settled[c])) return "warm-up";
  if (stuck.some(Boolean)) return "stuck";
  return alarm ? "alarm" : "ok";
}

function shares(z) {
  const squares = z.map((x) => (isThere(x) ? x * x : 0)), total = sum(squares);
  return squares.map((x) => (total > 0 ? x / total : x));
}
