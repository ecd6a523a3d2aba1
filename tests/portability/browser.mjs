// Uses the page as a person would, in a real browser, and prints what it shows as JSON:
// node browser.mjs chromium '[["model.onnx", "readings.csv"], ...]' [folder for pictures]
// Any request that leaves this machine's own server is refused and told.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const EXAMPLES = fileURLToPath(new URL("../../examples/", import.meta.url));
const { chromium } = createRequire(join(EXAMPLES, "package.json"))("playwright-core");
const [executablePath, tasks, pictures] = process.argv.slice(2);
const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };

const server = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, "http://localhost").pathname);
  try {
    const body = await readFile(join(EXAMPLES, path));
    response.writeHead(200, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const results = [];
try {
  for (const [number, [model, readings]] of JSON.parse(tasks).entries()) {
    const page = await browser.newPage({ colorScheme: number % 2 ? "dark" : "light" });
    const result = { foreign: [], sent: [], problems: [], forecast: {} };
    await page.route((url) => url.origin !== origin, (route) => {
      result.foreign.push(route.request().url());
      return route.abort();
    });
    page.on("request", (asked) => { if (asked.method() !== "GET") result.sent.push(asked.url()); });
    page.on("pageerror", (error) => result.problems.push(String(error)));
    await page.goto(`${origin}/browser/index.html`);
    await page.getByLabel("Model").setInputFiles(model);
    await page.getByLabel("Readings (.csv)").setInputFiles(readings);
    await page.waitForFunction(() =>
      !document.getElementById("run").disabled || document.getElementById("error").textContent);
    result.error = await page.getByRole("alert").textContent();
    if (!result.error) {
      await page.getByLabel("Readings a second").selectOption("as many as it can");
      await page.getByRole("button", { name: "Start" }).click();
      await page.getByRole("button", { name: "Again" }).waitFor({ timeout: 120000 });
      result.status = await page.getByRole("status").textContent();
      await page.getByText("In numbers").click();
      for (const channel of await page.getByLabel("Channel").locator("option").allTextContents()) {
        await page.getByLabel("Channel").selectOption(channel);
        const rows = await page.locator("tbody tr").evaluateAll((rows) =>
          rows.map((row) => [...row.querySelectorAll("td")].map((cell) => cell.title)));
        result.forecast[channel] = rows.map((row) => row.map(Number));
        result.rows = rows;
      }
      result.labels = await page.locator("#chart text").allTextContents();
      result.caption = await page.locator("figcaption").textContent();
      result.score = await page.locator("#score").isVisible();
      result.drawn = await page.locator("#chart path").evaluateAll((paths) =>
        paths.map((path) => [path.getAttribute("class"), path.getTotalLength()]));
      result.shaded = await page.locator("#score .event").count();
    }
    if (pictures) await page.screenshot({ path: join(pictures, `page${number}.png`), fullPage: true });
    results.push(result);
    await page.close();
  }
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(results));
