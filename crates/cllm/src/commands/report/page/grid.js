// The trajectory grid: a row is an iteration, a column a position of the answer. It can be
// played, stepped, pointed at, and walked with the arrow keys.

const CELL = 14, GRID_LEFT = 44, GRID_TOP = 20;

/// A list of choices with a label.
function choice(label, options, onchange) {
  const select = h("select", { onchange: () => onchange(select.selectedIndex) }, options.map((text) => h("option", {}, text)));
  return { select, label: h("label", {}, label, select) };
}

/// A prompt cut to a line: without the template's roles where it has them.
function promptTitle(answer) {
  const text = answer.prompt || answer.prompt_tokens.map((token) => tokenText(answer, token)).join("");
  const asked = text.split(/<\|im_start\|>user\n|<\|user\|>\n/).pop().split(/<\|im_end\|>|<\|end\|>/)[0];
  const line = asked.replace(/\s+/g, " ").trim();
  return line.length > 64 ? `${line.slice(0, 63)}…` : line || "(prompt)";
}

function describe(answer, iteration, cell) {
  const went = cell.before === undefined ? "nothing was guessed" : `went in as “${visible(tokenText(answer, cell.before))}”`;
  const sure = cell.probability === null || cell.probability === undefined ? "" : `; probability ${number(cell.probability, 3)}`;
  const meaning = STATES[cell.state][1].split(":")[0];
  return `Iteration ${iteration}, position ${cell.position}: “${visible(tokenText(answer, cell.token))}”, ${meaning}${cell.settled && cell.state !== "fixed" ? ", settles" : ""}; ${went}${sure}`;
}

function gridSection(traces) {
  const answers = traces.flatMap((trace) => trace.answers.map((answer) => ({ name: trace.name, answer })));
  // The last model is the one that the others are compared with, as a rule the CLLM.
  const shown = answers.filter(({ answer }) => answer.decoder !== "ar").pop() ?? answers[0];
  const first = answers.findIndex(({ name }) => name === shown.name);
  let answer, rows, current, cursor, timer = null;

  const box = h("div", { id: "grid-box" });
  const words = h("p", { class: "tokens", id: "grid-text", tabindex: "0", role: "region", "aria-label": "The state after this iteration" });
  const status = h("p", { class: "status", role: "status" });
  const play = h("button", { type: "button", id: "grid-play", onclick: () => (timer ? stop() : start()) }, "Play");
  const slider = h("input", { type: "range", min: 0, id: "grid-iteration", "aria-label": "Iteration", oninput: () => { stop(); show(Number(slider.value)); } });
  const count = h("output", { id: "grid-count" });
  const speed = h("select", { id: "grid-speed", "aria-label": "Iterations per second" }, [1, 2, 4, 8, 16].map((rate) => h("option", { value: rate, selected: rate === 4 }, `${rate} a second`)));
  const step = (by) => { stop(); show(current + by); };
  const picked = choice("Answer", answers.map(({ name, answer: one }) => `${name} · ${promptTitle(one)}`), load);

  const tip = document.getElementById("tip");
  let svg, marks;

  function load(index) {
    stop();
    answer = answers[index].answer;
    rows = gridRows(answer);
    draw();
    slider.max = rows.length - 1;
    const calmly = calm();
    show(calmly ? rows.length - 1 : Math.min(rows.length - 1, Math.floor(rows.length / 3)));
  }

  function draw() {
    const columns = Math.max(...rows.map((row) => row.start + row.cells.length), answer.tokens.length);
    const width = GRID_LEFT + columns * CELL + 8, height = GRID_TOP + rows.length * CELL + 8;
    svg = s("svg", { id: "grid", viewBox: `0 0 ${width} ${height}`, width, height, tabindex: "0", role: "application",
      "aria-label": `Trajectory of ${rows.length} iterations over ${answer.tokens.length} tokens. Up and down step iterations, left and right move along positions, space plays.`,
      onkeydown: key, onpointermove: point, onpointerleave: () => { tip.hidden = true; },
      onclick: (event) => { const at = place(event); if (at) { stop(); cursor = at.cell ? at.cell.position : cursor; show(at.row); } } });
    for (let p = 0; p < columns; p += 8) svg.append(s("text", { class: "label", x: GRID_LEFT + p * CELL + CELL / 2, y: 13, "text-anchor": "middle" }, p));
    marks = rows.map((row, i) => {
      const y = GRID_TOP + i * CELL;
      const line = s("g", { class: "row", "data-row": i });
      if (i % 5 === 0) line.append(s("text", { class: "label", x: GRID_LEFT - 7, y: y + 11, "text-anchor": "end" }, i));
      if (row.start > 0) line.append(s("rect", { class: "run", x: GRID_LEFT, y, width: row.start * CELL - 1, height: CELL - 1 }));
      for (const cell of row.cells) {
        const x = GRID_LEFT + cell.position * CELL;
        line.append(s("rect", { class: `cell ${cell.state}`, x, y, width: CELL - 1, height: CELL - 1 }));
        const sign = STATES[cell.state][0];
        if (sign) line.append(s("text", { class: "sign", x: x + CELL / 2 - 0.5, y: y + 10 }, sign));
      }
      line.append(s("path", { class: "settled", d: `M${GRID_LEFT + (row.start + row.settled) * CELL - 0.5} ${y}v${CELL}` }));
      svg.append(line);
      return line;
    });
    svg.append(s("rect", { class: "now", x: GRID_LEFT - 1, width: columns * CELL + 1, height: CELL + 1 }), s("rect", { class: "cursor", width: CELL + 1, height: CELL + 1 }));
    box.replaceChildren(svg);
  }

  function show(to) {
    const before = current;
    current = Math.max(0, Math.min(rows.length - 1, to));
    const row = rows[current];
    if (before !== current || cursor === undefined || cursor > answer.tokens.length + row.cells.length) {
      if (cursor === undefined || cursor < row.start || cursor >= row.start + row.cells.length) cursor = row.start;
    }
    marks.forEach((line, i) => line.classList.toggle("later", i > current));
    slider.value = current;
    count.textContent = `${current} of ${rows.length - 1}`;
    const now = svg.querySelector(".now");
    now.setAttribute("y", GRID_TOP + current * CELL - 1);
    const known = answer.tokens.slice(0, row.start).map((token) => tokenText(answer, token)).join("");
    words.replaceChildren(known, ...row.cells.map((cell) => h("span", { class: cell.state }, tokenText(answer, cell.token))));
    mark();
    keepInView();
  }

  function mark() {
    const row = rows[current];
    cursor = Math.max(0, Math.min(row.start + row.cells.length - 1, cursor));
    const cell = row.cells[cursor - row.start];
    const at = svg.querySelector(".cursor");
    at.setAttribute("x", GRID_LEFT + cursor * CELL - 1);
    at.setAttribute("y", GRID_TOP + current * CELL - 1);
    status.textContent = cell ? describe(answer, current, cell)
      : `Iteration ${current}, position ${cursor}: “${visible(tokenText(answer, answer.tokens[cursor]))}”, fixed earlier`;
  }

  /// Scrolls the box, never the page.
  function keepInView() {
    const y = GRID_TOP + current * CELL, x = GRID_LEFT + cursor * CELL;
    if (y < box.scrollTop + CELL || y > box.scrollTop + box.clientHeight - 3 * CELL) box.scrollTop = y - box.clientHeight / 2;
    if (x < box.scrollLeft + GRID_LEFT || x > box.scrollLeft + box.clientWidth - 6 * CELL) box.scrollLeft = x - box.clientWidth / 3;
  }

  function place(event) {
    const bounds = svg.getBoundingClientRect();
    const row = Math.floor((event.clientY - bounds.top - GRID_TOP) / CELL);
    const position = Math.floor((event.clientX - bounds.left - GRID_LEFT) / CELL);
    if (!rows[row] || position < 0 || position >= rows[row].start + rows[row].cells.length) return null;
    return { row, position, cell: rows[row].cells[position - rows[row].start] };
  }

  function point(event) {
    const at = place(event);
    tip.hidden = !at;
    if (!at) return;
    tip.textContent = at.cell ? describe(answer, at.row, at.cell)
      : `Position ${at.position}: “${visible(tokenText(answer, answer.tokens[at.position]))}”, fixed earlier`;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
  }

  function key(event) {
    const moves = { ArrowDown: () => step(1), ArrowUp: () => step(-1), Home: () => step(-1e9), End: () => step(1e9),
      PageDown: () => step(10), PageUp: () => step(-10),
      ArrowRight: () => { stop(); cursor += 1; mark(); keepInView(); },
      ArrowLeft: () => { stop(); cursor -= 1; mark(); keepInView(); },
      " ": () => (timer ? stop() : start()) };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    move();
  }

  function start() {
    if (current === rows.length - 1) show(0);
    const beat = () => {
      if (current >= rows.length - 1) return stop();
      show(current + 1);
      timer = setTimeout(beat, 1000 / Number(speed.value));
    };
    timer = setTimeout(beat, 1000 / Number(speed.value));
    play.textContent = "Pause";
    // While it plays a screen reader would be flooded.
    status.setAttribute("aria-live", "off");
  }

  function stop() {
    clearTimeout(timer);
    timer = null;
    play.textContent = "Play";
    status.setAttribute("aria-live", "polite");
  }

  const section = h("section", { id: "trajectory", "aria-labelledby": "trajectory-title" },
    h("h2", { id: "trajectory-title" }, "Trajectory"),
    h("p", {}, "Rows are iterations (one forward each), columns are positions of the answer. The line in each row is how far the answer had settled after it: a jump of more than one cell is fast-forwarding."),
    h("div", { class: "controls" }, picked.label),
    h("div", { class: "controls" },
      h("button", { type: "button", id: "grid-back", "aria-label": "Previous iteration", onclick: () => step(-1) }, "◀"), play,
      h("button", { type: "button", id: "grid-next", "aria-label": "Next iteration", onclick: () => step(1) }, "▶"),
      slider, count, speed, exportButton(() => svg, "Trajectory")),
    h("ul", { class: "legend" }, Object.entries(STATES).map(([state, [sign, meaning]]) =>
      h("li", {}, h("span", { class: `swatch ${state}`, "aria-hidden": "true" }, sign), meaning))),
    box, status, words,
    h("p", { class: "note" }, "Keys, with the grid in focus: ↑ ↓ iterations, ← → positions, Home and End, space plays. Probabilities are there if the trace was written with --probabilities."));
  picked.select.selectedIndex = first;
  load(first);
  return section;
}
