// What a person gives to the page: a model and a table.

// onnxruntime's JavaScript does not tell the metadata, so look into the file: field 14 of a model
// (Protocol Buffers) holds entries of a key (1) and a value (2).
// Returns the contract, and the record of the stages if it is a detector.
export function readModel(bytes, name) {
  const text = (part) => new TextDecoder().decode(part);
  const entries = new Map(fields(bytes, 14, name).map((entry) => {
    const [key, value] = [1, 2].map((n) => fields(entry, n, name)[0]);
    return [text(key), value];
  }));
  const read = (key) => (entries.has(key) ? JSON.parse(text(entries.get(key))) : null);
  const contract = read("xlstm_ts"), record = read("xlstm_ts_detector");
  if (entries.has("xlstm_ts_scores")) {
    throw new Error(`${name} scores readings by itself, for devices; this page takes the detector that was written beside it.`);
  }
  if (!contract) {
    throw new Error(`${name} is an ONNX file, but no step graph of xlstm-ts: write one with export_onnx or export_detector.`);
  }
  if (contract.version !== 2) throw new Error(`${name} is of version ${contract.version}; this page reads version 2.`);
  if (contract.columns.length && !record) {
    const columns = contract.columns.map((column) => column.name).join(", ");
    throw new Error(`${name} also needs the covariates ${columns}, which this page cannot give it.`);
  }
  return { contract, record };
}

function fields(bytes, wanted, name) {
  const found = [];
  let at = 0;
  const varint = () => {
    for (let value = 0, unit = 1; at < bytes.length; unit *= 128) {
      value += (bytes[at] & 127) * unit;
      if (bytes[at++] < 128) return value;
    }
    throw new Error(`${name} is not an ONNX file.`);
  };
  while (at < bytes.length) {
    const tag = varint(), kind = tag & 7;
    if (![0, 1, 2, 5].includes(kind)) throw new Error(`${name} is not an ONNX file.`);
    const length = { 1: 8, 5: 4 }[kind] ?? varint();
    if (tag >>> 3 === wanted && kind === 2) found.push(bytes.subarray(at, at + length));
    if (kind) at += length;
  }
  return found;
}

export function readTable(text, name) {
  const lines = text.replace(/^\ufeff/, "").split(/\r?\n/).filter((line) => line.trim());
  const cells = lines.map((line) => line.split(",").map((cell) => cell.trim().replace(/^"(.*)"$/, "$1")));
  if (cells.length < 2) throw new Error(`${name} has no readings: a header is expected, and a line for each.`);
  return { name, names: cells[0], rows: cells.slice(1) };
}

// The readings in the order of the channels; an empty cell is a missing one.
export function matchColumns({ name, names, rows }, channels) {
  const lacking = channels.filter((channel) => !names.includes(channel));
  if (lacking.length) {
    throw new Error(`${name} lacks the column ${lacking.join(", ")}. The model reads ` +
      `${channels.join(", ")}; the file has ${names.join(", ")}.`);
  }
  const places = channels.map((channel) => names.indexOf(channel));
  return rows.map((row, line) => places.map((place, channel) => {
    const cell = row[place] ?? "";
    const value = cell === "" || cell.toLowerCase() === "nan" ? NaN : Number(cell);
    if (Number.isNaN(value) && cell !== "" && cell.toLowerCase() !== "nan") {
      throw new Error(`${name}, line ${line + 2}, ${channels[channel]}: "${cell}" is not a number.`);
    }
    return value;
  }));
}
