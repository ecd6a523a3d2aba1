// A stream in Node: node stream.mjs model.onnx readings.csv [onnxruntime-web]
// The readings have one column for each channel, by its name; a blank field is a missing reading.
// Prints a line for each reading: the forecast in raw units, [steps ahead][channels][levels].
import { readFileSync } from "node:fs";

const [path, readings, runtime = "onnxruntime-node"] = process.argv.slice(2);
const ort = await import(runtime);
const bytes = readFileSync(path);
const contract = readContract(bytes);
const options = { intraOpNumThreads: 1 }; // a step is too small to share
const session = await ort.InferenceSession.create(bytes, options);
const tensor = (data, dims) => new ort.Tensor("float32", Float32Array.from(data), dims);
if (contract.columns.length) throw new Error("this example feeds no covariates");

let state = Object.fromEntries(contract.state.map(({ name, shape, initial }) => {
  const size = shape.reduce((product, length) => product * length, 1);
  return [name, tensor([initial].flat().length > 1 ? initial : Array(size).fill(initial), shape)];
}));
const [header, ...rows] = readFileSync(readings, "utf8").trimEnd().split(/\r?\n/);
const places = contract.channels.map((channel) => header.split(",").indexOf(channel));
if (places.includes(-1)) throw new Error(`the readings need the columns ${contract.channels}`);
for (const row of rows) {
  const fields = row.split(",");
  const values = places.map((place) => Number(fields[place]?.trim() || NaN));
  const results = await session.run({ reading: tensor(values, [1, values.length]), ...state });
  state = Object.fromEntries(contract.state.map(({ name }) => [name, results[`${name}_next`]]));
  console.log(results.forecast.data.join());
}

// onnxruntime's JavaScript does not tell the metadata, so look into the file: field 14 of a model
// (Protocol Buffers) holds entries of a key (1) and a value (2).
function readContract(bytes) {
  const texts = fields(bytes, 14).map((entry) => [1, 2].map((number) => fields(entry, number)[0]));
  const entry = texts.find(([key]) => new TextDecoder().decode(key) === "xlstm_ts");
  if (!entry) throw new Error("this is not a step graph of xlstm-ts");
  return JSON.parse(new TextDecoder().decode(entry[1]));
}

function fields(bytes, wanted) {
  let at = 0;
  const varint = () => {
    for (let value = 0, unit = 1; ; unit *= 128) {
      value += (bytes[at] & 127) * unit;
      if (bytes[at++] < 128) return value;
    }
  };
  const found = [];
  while (at < bytes.length) {
    const tag = varint();
    const length = [null, 8, null, null, null, 4][tag & 7] ?? varint();
    if (![0, 1, 2, 5].includes(tag & 7)) throw new Error("this is not an ONNX file");
    if (tag >>> 3 === wanted && (tag & 7) === 2) found.push(bytes.subarray(at, at + length));
    if (tag & 7) at += length;
  }
  return found;
}
