// Making elements, and small helpers that every other part uses. Text only ever enters the
// page as text nodes: a token that looks like HTML stays a token.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

/// An HTML element.
function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/// An SVG element.
function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/// A number for people; a dash where there is none.
function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return Number(value).toLocaleString("en", {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  });
}

/// A share as per cent.
function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${number(100 * value, digits)} %`;
}

/// White space made visible, for single tokens and n-grams.
function visible(text) {
  return text.replace(/\r/g, "␍").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ +| +$/g, (blanks) => "␣".repeat(blanks.length));
}

/// A table; a column that holds words is marked by a `*` before its heading.
function table(caption, headings, rows) {
  const words = headings.map((heading) => heading.startsWith("*"));
  const kind = (i) => (words[i] ? { class: "words" } : {});
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { "aria-label": caption },
      h("thead", {}, h("tr", {}, headings.map((heading, i) =>
        h("th", { scope: "col", ...kind(i) }, heading.replace(/^\*/, ""))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) => h("td", kind(i), cell)))))));
}

/// Whether the reader asked for less motion.
function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/// A file name made of a title.
function fileName(title) {
  return title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "figure";
}
