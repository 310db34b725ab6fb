// Opens a page made by `cllm report` of the traces in samples/ in headless Chromium and uses
// it: no network, no errors, the right cells, keys, export, contrast in both themes.
//
//   CLLM_BIN         the program; otherwise target/release/cllm or target/debug/cllm
//   CHROMIUM         the browser; otherwise /usr/bin/chromium
//   CLLM_SCREENSHOT  where to put a picture; otherwise none is kept

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");
const sample = (name) => join(here, "samples", name);
const { gridRows } = createRequire(import.meta.url)(join(root, "crates/cllm/src/commands/report/page/states.js"));

const folder = mkdtempSync(join(tmpdir(), "cllm-report-"));
const file = join(folder, "report.html");
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

let browser, page, data;
const requests = [], complaints = [];

function makePage() {
  const places = [process.env.CLLM_BIN, join(root, "target/release/cllm"), join(root, "target/debug/cllm")];
  const program = places.find((place) => place && existsSync(place));
  assert.ok(program, `cllm was not built: looked for ${places.filter(Boolean).join(", ")}`);
  execFileSync(program, ["report", "--out", file,
    "--trace", `ar=${sample("ar.jsonl")}`, "--trace", `teacher=${sample("teacher.jsonl")}`, "--trace", `cllm=${sample("cllm.jsonl")}`,
    "--eval", sample("eval-teacher.json"), sample("eval-cllm.json"), "--bench", sample("bench-decode.json"), sample("bench-forward.json"),
    "--train-log", sample("train.jsonl")], { stdio: ["ignore", "ignore", "inherit"] });
}

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, offline: true, ...options });
  const opened = await context.newPage();
  opened.on("request", (request) => requests.push(request.url()));
  opened.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  opened.on("pageerror", (error) => complaints.push(String(error)));
  await opened.goto(pathToFileURL(file).href);
  return opened;
}

before(async () => {
  makePage();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
  page = await open({ colorScheme: "light" });
  data = JSON.parse(await page.locator("#data").textContent());
});

after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

/// The index of the iteration shown.
const iteration = async () => Number(await page.locator("#grid-iteration").inputValue());

test("every kind of data has its section, and a link to it", async () => {
  const sections = await page.locator("main > section").evaluateAll((all) => all.map((one) => one.id));
  assert.deepEqual(sections, ["trajectory", "race", "analysis", "eval", "bench", "training"]);
  assert.equal(await page.locator("nav a").count(), sections.length);
  assert.ok(await page.locator("#analysis svg").count() >= 5);
  assert.ok(await page.locator("#analysis .collocations tbody tr").count() > 0);
  assert.equal(await page.locator("#eval tbody").first().locator("tr").count(), 2);
});

test("the grid has a cell for every output, in the class that it has", async () => {
  for (const [index, { answer }] of data.traces.flatMap((trace) => trace.answers.map((answer) => ({ answer }))).entries()) {
    await page.locator("#trajectory select").first().selectOption({ index });
    const rows = gridRows(answer);
    assert.equal(rows.reduce((sum, row) => sum + row.settled, 0), answer.tokens.length);
    const expected = {}, found = {};
    for (const cell of rows.flatMap((row) => row.cells)) expected[cell.state] = (expected[cell.state] || 0) + 1;
    for (const state of Object.keys(expected)) found[state] = await page.locator(`#grid rect.cell.${state}`).count();
    assert.deepEqual(found, expected);
    assert.equal(await page.locator("#grid g.row").count(), rows.length);
  }
  const fills = await page.evaluate(() => ["guess", "new", "stationary", "fixed", "eos"].map((state) => getComputedStyle(document.querySelector(`.legend .swatch.${state}`)).backgroundColor));
  assert.equal(new Set(fills).size, 5, `five colours: ${fills}`);
});

test("the states are those of the definition", () => {
  // The second 12 is right behind a wrong 9, and stays: stationary. Then all settle.
  const forward = (start, draft, output, settled) => ({ start, draft, output, settled });
  const rows = gridRows({ tokens: [10, 11, 12, 13, 2], stop_tokens: [2], forwards: [
    forward(0, [], [10], 1), forward(1, [0, 0, 0], [11, 9, 13, 2], 1), forward(2, [9, 13, 2], [12, 13, 2], 1), forward(3, [13, 2], [13, 2], 2)] });
  assert.deepEqual(rows.map((row) => row.cells.map((cell) => cell.state)), [["new"], ["new", "guess", "new", "eos"], ["new", "stationary", "eos"], ["fixed", "eos"]]);
});

test("keys step and play the grid", async () => {
  await page.locator("#grid").focus();
  await page.keyboard.press("Home");
  assert.equal(await iteration(), 0);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  assert.equal(await iteration(), 2);
  await page.keyboard.press("ArrowUp");
  assert.equal(await iteration(), 1);
  const status = page.locator("#trajectory .status");
  assert.match(await status.textContent(), /^Iteration 1, position \d+: “/);
  const first = await status.textContent();
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await status.textContent(), first);
  assert.match(await status.textContent(), /probability [01]\.\d+/);
  await page.locator("#grid-speed").selectOption("16");
  await page.locator("#grid").focus();
  await page.keyboard.press(" ");
  assert.equal(await page.locator("#grid-play").textContent(), "Pause");
  await page.waitForFunction(() => Number(document.getElementById("grid-iteration").value) >= 4);
  await page.keyboard.press(" ");
  assert.equal(await page.locator("#grid-play").textContent(), "Play");
  await page.keyboard.press("End");
  assert.equal(await page.locator("#grid g.row.later").count(), 0);
  await page.locator("#grid-iteration").focus();
  const before = await iteration();
  await page.keyboard.press("ArrowLeft");
  assert.equal(await iteration(), before - 1);
});

test("pointing at a cell tells its probability", async () => {
  await page.locator("#grid").focus();
  await page.keyboard.press("Home");
  await page.locator("#grid g.row[data-row='1'] rect.cell").nth(1).hover();
  assert.match(await page.locator("#tip").textContent(), /^Iteration 1, position 2: “.*”.*went in as “.*probability [01]\.\d+$/s);
});

test("the tab order goes through every control, and the focus is seen", async () => {
  const fresh = await open();
  const seen = [];
  for (let i = 0; i < 24; i += 1) {
    await fresh.keyboard.press("Tab");
    seen.push(await fresh.evaluate(() => {
      const style = getComputedStyle(document.activeElement);
      const grid = document.activeElement.id === "grid" && getComputedStyle(document.getElementById("grid-box"));
      if (grid) return { id: "grid", seen: grid.outlineStyle !== "none" };
      return { id: document.activeElement.id || document.activeElement.className || document.activeElement.tagName, seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 };
    }));
  }
  assert.deepEqual(seen.filter((one) => !one.seen), []);
  const order = seen.map((one) => (typeof one.id === "string" ? one.id : "svg"));
  for (const [a, b] of [["skip", "theme"], ["theme", "grid-back"], ["grid-back", "grid-play"], ["grid-play", "grid-next"], ["grid-next", "grid-iteration"]]) {
    assert.ok(order.indexOf(a) >= 0 && order.indexOf(a) < order.indexOf(b), `${a} before ${b}: ${order}`);
  }
  await fresh.context().close();
});

test("controls, drawings and regions have names", async () => {
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, select, input, svg[role], [role=region], progress")]
    .filter((one) => !one.closest("[aria-hidden]") && !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length || one.getAttribute("aria-labelledby")))
    .map((one) => one.outerHTML.slice(0, 100)));
  assert.deepEqual(nameless, []);
});

test("the race runs to its end", async () => {
  assert.equal(await page.locator(".lane").count(), 3);
  await page.locator("#race-rate").selectOption("4");
  await page.locator("#race-play").focus();
  await page.keyboard.press(" ");
  await page.waitForFunction(() => { const time = document.getElementById("race-time"); return Number(time.value) >= Number(time.max) - 1; }, null, { timeout: 20000 });
  const bars = await page.locator(".lane progress").evaluateAll((all) => all.map((bar) => bar.value === bar.max));
  assert.deepEqual(bars, [true, true, true]);
  assert.match(await page.locator("#race-verdict").textContent(), /\d ms/);
  await page.locator("#race-reset").click();
  assert.deepEqual(await page.locator(".lane progress").evaluateAll((all) => all.map((bar) => bar.value)), [0, 0, 0]);
});

test("SVG export gives files that are SVG by themselves", async () => {
  const buttons = page.locator("button.export");
  const count = await buttons.count();
  assert.ok(count >= 8, `${count} export buttons`);
  for (const index of [0, 1, count - 1]) {
    const [download] = await Promise.all([page.waitForEvent("download"), buttons.nth(index).click()]);
    assert.match(download.suggestedFilename(), /^[a-z0-9-]+\.svg$/);
    const text = readFileSync(await download.path(), "utf8");
    const valid = await page.evaluate((source) => {
      const tree = new DOMParser().parseFromString(source, "image/svg+xml");
      return { root: tree.documentElement.localName, error: tree.querySelector("parsererror")?.textContent, namespace: tree.documentElement.namespaceURI };
    }, text);
    assert.deepEqual(valid, { root: "svg", error: undefined, namespace: "http://www.w3.org/2000/svg" });
    assert.doesNotMatch(text, /var\(--|class=/, "no style sheet is needed");
  }
});

/// Text whose contrast with its ground is below 4.5, and drawn lines below 3.
const faint = () => {
  const rgb = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => { const part = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
  const ground = (one) => { for (let at = one; at; at = at.parentElement) { const colour = rgb(getComputedStyle(at).backgroundColor); if (colour.a > 0) return colour; } return { r: 255, g: 255, b: 255 }; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const bad = [];
  for (const one of document.querySelectorAll("body *")) {
    if (!one.checkVisibility() || ["SCRIPT", "OPTION", "title"].includes(one.tagName)) continue;
    const style = getComputedStyle(one), svg = one instanceof SVGElement;
    if ([...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) && !one.classList.contains("sign")) {
      const found = ratio(rgb(svg ? style.fill : style.color), ground(one));
      if (found < 4.5) bad.push(`${one.tagName}.${one.getAttribute("class")} ${found.toFixed(2)} ${one.textContent.slice(0, 20)}`);
    }
    if (one.matches("svg .series, svg .bar")) {
      const found = ratio(rgb(one.matches(".bar") ? style.fill : style.stroke), ground(one));
      if (found < 3) bad.push(`${one.getAttribute("class")} ${found.toFixed(2)}`);
    }
  }
  return bad;
};

test("light and dark are readable, by the system's wish and by the button", async () => {
  assert.deepEqual(await page.evaluate(faint), []);
  const dark = await open({ colorScheme: "dark", reducedMotion: "reduce" });
  const ground = (at) => at.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.notEqual(await ground(dark), await ground(page));
  assert.deepEqual(await dark.evaluate(faint), []);
  await dark.locator("#theme").click();
  assert.equal(await ground(dark), await ground(page));
  assert.deepEqual(await dark.evaluate(faint), []);
  // With reduced motion everything is there without pressing play.
  assert.equal(await dark.locator("#grid g.row.later").count(), 0);
  await dark.context().close();
});

test("a narrow window needs no sideways scrolling", async () => {
  const narrow = await open({ viewport: { width: 380, height: 800 } });
  const wide = await narrow.evaluate(() => [...document.querySelectorAll("main *")].filter((one) => !one.closest(".scroll *, #grid-box *") && one.getBoundingClientRect().right > innerWidth + 1).map((one) => `${one.tagName} ${one.id} ${one.className}`));
  assert.deepEqual(wide, []);
  assert.ok(await narrow.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await narrow.context().close();
});

test("a picture", { skip: !process.env.CLLM_SCREENSHOT }, async () => {
  const shot = await open({ viewport: { width: 1200, height: 1560 }, colorScheme: "light" });
  await shot.locator("#grid").focus();
  for (let i = 0; i < 6; i += 1) await shot.keyboard.press("ArrowDown");
  await shot.locator("#race-time").evaluate((slider) => { slider.value = slider.max * 0.45; slider.dispatchEvent(new Event("input")); scrollTo(0, 0); });
  await shot.screenshot({ path: process.env.CLLM_SCREENSHOT });
  assert.ok(statSync(process.env.CLLM_SCREENSHOT).size < 500_000);
  await shot.context().close();
});

test("nothing was fetched and nobody complained", () => {
  assert.deepEqual(requests.filter((url) => !url.startsWith("file:") && !url.startsWith("data:") && !url.startsWith("blob:")), []);
  assert.deepEqual(complaints, []);
});
