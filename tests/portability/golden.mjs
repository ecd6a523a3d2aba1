// Runs the stages of a detector over the golden vectors: node golden.mjs golden.json.gz > verdicts.json
import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import { Detector } from "../../examples/browser/detector.mjs";

const golden = JSON.parse(gunzipSync(await readFile(process.argv[2])));
const detector = new Detector(golden.host);
const known = (numbers) => numbers.map((value) => value ?? NaN);
const verdicts = golden.readings.map((reading, row) =>
  detector.step(known(reading), golden.quantiles[row].map(known)));
const events = new Map(verdicts.filter(({ event }) => event).map(({ event }) => [event.number, event]));
process.stdout.write(JSON.stringify({
  scores: verdicts.map(({ score }) => score),
  range_scores: verdicts.map(({ surprises }) => surprises[1]),
  slow_scores: verdicts.map(({ slowScore }) => slowScore),
  contributions: verdicts.map(({ contributions }) => contributions),
  statuses: verdicts.map(({ status }) => status),
  events: [...events.values()].map((one) =>
    [one.start, one.end, one.peakAt, one.kind, one.shares.map((x) => Number(x.toFixed(6))), one.isOpen]),
}));
