// The scores of a graph: node scores.mjs scores.onnx record.json readings.json runtime
import { readFileSync } from "node:fs";

const [path, recordPath, readingsPath, runtime] = process.argv.slice(2);
const ort = await import(runtime);
const record = JSON.parse(readFileSync(recordPath, "utf8"));
const session = await ort.InferenceSession.create(readFileSync(path), { intraOpNumThreads: 1 });
const tensor = ({ dtype, shape, initial }) => {
  const numbers = initial.map((value) => value ?? NaN);
  const Numbers = dtype === "float64" ? Float64Array : Float32Array;
  return new ort.Tensor(dtype, Numbers.from(numbers), shape);
};
const tensors = (described) => Object.fromEntries(described.map((one) => [one.name, tensor(one)]));
const given = tensors(record.inputs);
let state = tensors(record.state);
for (const row of JSON.parse(readFileSync(readingsPath, "utf8"))) {
  const reading = tensor({ dtype: "float64", shape: [1, row.length], initial: row });
  const results = await session.run({ reading, ...given, ...state });
  state = Object.fromEntries(record.state.map((one) => [one.name, results[one.next]]));
  console.log([results.score.data[0], ...results.contributions.data].join());
}
