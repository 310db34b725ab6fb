// Charts drawn by hand as SVG: grouped bars and lines, with axes, legend, a table of the
// same numbers for those who do not see them, and export as a file of its own.

const WIDTH = 460, HEIGHT = 250, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 42;
const DASHES = ["", "6 3", "2 2", "9 3 2 3", "4 4", "1 3"];

/// The colour of the series with index i.
const colour = (i) => `var(--s${i % 6})`;

/// What SVG export takes over from the style sheet.
const EXPORTED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family",
  "font-size", "font-weight", "text-anchor"];

/// The drawing as the text of an SVG file, with the style it has on the page now.
function svgText(svg, title) {
  const copy = svg.cloneNode(true);
  const from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of EXPORTED) {
      const value = style.getPropertyValue(name);
      if (value) to[i].setAttribute(name, value);
    }
    for (const name of ["class", "style", "tabindex", "id", "aria-activedescendant"]) to[i].removeAttribute(name);
  });
  const [, , width, height] = svg.getAttribute("viewBox").split(" ");
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const ground = getComputedStyle(document.body).backgroundColor;
  copy.prepend(s("title", {}, title), s("rect", { width: "100%", height: "100%", fill: ground }));
  return new XMLSerializer().serializeToString(copy);
}

function save(svg, title) {
  const blob = new Blob([svgText(svg, title)], { type: "image/svg+xml" });
  const link = h("a", { href: URL.createObjectURL(blob), download: `${fileName(title)}.svg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/// A button that saves a drawing as a file.
function exportButton(svg, title) {
  const name = `Export “${title}” as SVG`;
  return h("button", { type: "button", class: "export", "aria-label": name, onclick: () => save(svg(), title) }, "SVG");
}

/// Round numbers from 0 or `low` up to `high`, about five of them.
function ticks(low, high) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / 5));
  const step = [1, 2, 5, 10].map((f) => f * power).find((candidate) => span / candidate <= 6);
  const values = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) values.push(v);
  return values;
}

const short = (value) => {
  const size = Math.abs(value);
  if (size >= 10000) return `${number(value / 1000, 0)}k`;
  if (size > 0 && size < 0.001) return value.toExponential(0);
  return String(Number(value.toPrecision(3)));
};

/// The frame of a chart: axes, ticks, labels; `x` and `y` map numbers to places.
function frame(spec, low, high, x, xTicks) {
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${spec.title}. ${spec.yLabel} against ${spec.xLabel}.` });
  for (const value of ticks(low, high)) {
    svg.append(s("line", { class: "tick", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      s("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  const every = Math.ceil(xTicks.length / 12);
  xTicks.forEach(([at, text], i) => {
    if (i % every === 0) svg.append(s("text", { x: x(at), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, text));
  });
  svg.append(
    s("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }),
    s("text", { class: "label", x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, spec.xLabel),
    s("text", { class: "label", x: 0, y: 0, "text-anchor": "middle", transform: `translate(13 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)` }, spec.yLabel));
  return { svg, y };
}

function legend(names, lines) {
  if (names.length < 2) return null;
  return h("ul", { class: "legend" }, names.map((name, i) => h("li", {},
    s("svg", { width: 26, height: 12, viewBox: "0 0 26 12", "aria-hidden": "true" },
      lines ? s("line", { x1: 0, x2: 26, y1: 6, y2: 6, "stroke-width": 2.5, "stroke-dasharray": DASHES[i % 6], style: `stroke:${colour(i)}` })
        : s("rect", { x: 6, y: 0, width: 14, height: 12, style: `fill:${colour(i)}` })),
    name)));
}

function figure(spec, svg, key, headings, rows) {
  return h("figure", {}, h("figcaption", {}, spec.title, exportButton(() => svg, spec.title)), key, svg,
    h("details", {}, h("summary", {}, "The same as a table"), table(spec.title, headings, rows)));
}

/// Grouped bars. `spec`: title, xLabel, yLabel, groups (names), series [{name, values}],
/// digits. Missing values leave a gap.
function bars(spec) {
  const values = spec.series.flatMap((one) => one.values).filter((value) => value !== null && value !== undefined);
  if (values.length === 0) return null;
  const high = Math.max(...values, 0) * 1.05 || 1;
  const group = (WIDTH - LEFT - RIGHT) / spec.groups.length;
  const x = (i) => LEFT + group * (i + 0.5);
  const cut = Math.max(4, Math.floor(group / 6.2));
  const label = (name) => (name.length > cut ? `${name.slice(0, cut - 1)}…` : name);
  const { svg, y } = frame(spec, 0, high, x, spec.groups.map((name, i) => [i, label(String(name))]));
  const width = Math.min(46, (group * 0.8) / spec.series.length);
  spec.series.forEach((one, k) => one.values.forEach((value, i) => {
    if (value === null || value === undefined) return;
    const left = x(i) + (k - spec.series.length / 2) * width;
    svg.append(s("rect", { class: "bar", x: left, y: y(value), width: Math.max(1, width - 1), height: y(0) - y(value), style: `fill:${colour(k)}` },
      s("title", {}, `${one.name}, ${spec.groups[i]}: ${number(value, spec.digits ?? 2)}`)));
  }));
  const rows = spec.groups.map((name, i) => [String(name), ...spec.series.map((one) => number(one.values[i], spec.digits ?? 2))]);
  return figure(spec, svg, legend(spec.series.map((one) => one.name), false), [`*${spec.xLabel}`, ...spec.series.map((one) => one.name)], rows);
}

/// Lines. `spec`: title, xLabel, yLabel, series [{name, points: [[x, y]...]}], low, steps
/// (a level that jumps), dots.
function lines(spec) {
  const series = spec.series.map((one) => ({ ...one, points: one.points.filter(([, value]) => Number.isFinite(value)) }));
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) return null;
  const xs = points.map((point) => point[0]), ys = points.map((point) => point[1]);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const low = spec.low ?? Math.min(...ys), high = Math.max(...ys) + (Math.max(...ys) - low || 1) * 0.05;
  const x = (value) => LEFT + 6 + ((value - left) / (right - left || 1)) * (WIDTH - LEFT - RIGHT - 12);
  const { svg, y } = frame(spec, low, high, x, ticks(left, right).map((value) => [value, short(value)]));
  series.forEach((one, k) => {
    const path = one.points.map(([px, py], i) => {
      if (i === 0) return `M${x(px).toFixed(1)} ${y(py).toFixed(1)}`;
      return spec.steps ? `H${x(px).toFixed(1)}V${y(py).toFixed(1)}` : `L${x(px).toFixed(1)} ${y(py).toFixed(1)}`;
    });
    svg.append(s("path", { class: "series", d: path.join(""), fill: "none", "stroke-width": 2, "stroke-dasharray": DASHES[k % 6], style: `stroke:${colour(k)}` }));
    if (spec.dots !== false && one.points.length <= 60) {
      svg.append(...one.points.map(([px, py]) => s("circle", { cx: x(px), cy: y(py), r: 2.6, style: `fill:${colour(k)}` },
        s("title", {}, `${one.name}, ${short(px)}: ${number(py, 3)}`))));
    }
  });
  const at = [...new Set(xs)].sort((a, b) => a - b);
  const maps = series.map((one) => new Map(one.points));
  const some = at.filter((_, i) => i % Math.ceil(at.length / 40) === 0);
  const rows = some.map((value) => [short(value), ...maps.map((map) => number(map.get(value), 3))]);
  const made = figure(spec, svg, legend(series.map((one) => one.name), true), [spec.xLabel, ...series.map((one) => one.name)], rows);
  return Object.assign(made, { place: x, svg });
}
