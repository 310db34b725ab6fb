// The race: traces of one prompt side by side, each forward at the time it was really done.

/// Prompts that more than one trace answered, each with its lanes.
function heats(traces) {
  const byPrompt = new Map();
  for (const { name, answers } of traces) {
    for (const answer of answers) {
      const key = answer.prompt_tokens.join(" ");
      if (!byPrompt.has(key)) byPrompt.set(key, []);
      const lanes = byPrompt.get(key);
      if (!lanes.some((lane) => lane.name === name)) lanes.push({ name, answer });
    }
  }
  return [...byPrompt.values()].filter((lanes) => lanes.length > 1);
}

/// Tokens settled after each forward, with its time: `[[ms, tokens], ...]` from 0 on.
function course(answer) {
  let tokens = 0;
  return [[0, 0], ...answer.forwards.map((forward) => [forward.ms, (tokens += forward.settled)])];
}

function raceSection(traces) {
  const all = heats(traces);
  if (all.length === 0) return null;
  const board = h("div", { class: "lanes" });
  const drawing = h("div", {});
  const clock = h("output", { id: "race-clock" });
  const verdict = h("p", { id: "race-verdict" });
  const rates = [[4, "four times as fast"], [1, "real time"], [0.5, "half speed"], [0.25, "quarter speed"], [0.1, "tenth of the speed"]];
  const rate = h("select", { id: "race-rate", "aria-label": "Speed" }, rates.map(([value, text]) => h("option", { value, selected: value === 0.25 }, text)));
  const play = h("button", { type: "button", id: "race-play", onclick: () => (running ? stop() : start()) }, "Start");
  const slider = h("input", { type: "range", min: 0, step: 1, id: "race-time", "aria-label": "Time in milliseconds", oninput: () => { stop(); show(Number(slider.value)); } });
  let lanes, end, now, running = false, chart, head;

  function load(index) {
    stop();
    lanes = all[index].map(({ name, answer }) => {
      const text = h("p", { class: "lane-text", tabindex: "0", role: "region", "aria-label": `${name}: its answer so far` });
      const figures = h("p", { class: "note" });
      const bar = h("progress", { max: answer.tokens.length, "aria-label": `${name}: tokens so far` });
      const course_ = course(answer);
      return { name, answer, text, figures, bar, course: course_, end: course_[course_.length - 1][0], shown: -1 };
    });
    end = Math.max(...lanes.map((lane) => lane.end));
    slider.max = Math.ceil(end);
    board.replaceChildren(...lanes.map((lane) => h("article", { class: "lane", "aria-label": lane.name },
      h("h3", {}, lane.name), h("p", { class: "note" }, `${lane.answer.model} · ${lane.answer.decoder}`), lane.bar, lane.figures, lane.text)));
    chart = lines({ title: "Tokens against time", xLabel: "milliseconds since the start", yLabel: "tokens settled", low: 0, steps: true, dots: false,
      series: lanes.map((lane) => ({ name: lane.name, points: lane.course })) });
    head = s("line", { class: "axis", y1: TOP, y2: HEIGHT - BOTTOM });
    chart.svg.append(head);
    drawing.replaceChildren(chart);
    verdict.textContent = outcome();
    show(calm() ? end : 0);
  }

  function outcome() {
    const speed = (lane) => lane.answer.figures.tokens_per_second;
    const places = [...lanes].sort((a, b) => a.end - b.end).map((lane) => `${lane.name} after ${number(lane.end, 0)} ms (${number(speed(lane), 1)} tokens/s)`);
    const ar = lanes.find((lane) => lane.answer.decoder === "ar");
    const same = (lane) => ar && lane !== ar && lane.answer.tokens.join() === ar.answer.tokens.join();
    const against = lanes.filter(same).map((lane) => ` ${lane.name} has the tokens of ${ar.name}, at ${number(speed(lane) / speed(ar), 2)} times its speed.`);
    return `Done: ${places.join(", ")}.${against.join("")}`;
  }

  function show(ms) {
    now = Math.max(0, Math.min(end, ms));
    slider.value = now;
    clock.textContent = `${number(now, 0)} ms`;
    head.setAttribute("x1", chart.place(now));
    head.setAttribute("x2", chart.place(now));
    for (const lane of lanes) {
      let at = 0;
      while (at + 1 < lane.course.length && lane.course[at + 1][0] <= now) at += 1;
      if (at === lane.shown) continue;
      lane.shown = at;
      const tokens = lane.course[at][1], last = at > 0 ? lane.answer.forwards[at - 1].settled : 0;
      const text = (from, to) => lane.answer.tokens.slice(from, to).map((token) => tokenText(lane.answer, token)).join("");
      const done = at === lane.course.length - 1;
      lane.bar.value = tokens;
      lane.text.replaceChildren(text(0, tokens - last), last > 0 && !done ? h("mark", {}, text(tokens - last, tokens)) : text(tokens - last, tokens));
      lane.text.scrollTop = lane.text.scrollHeight;
      lane.figures.textContent = `${tokens} of ${lane.answer.tokens.length} tokens, ${at} forwards${done ? `, done after ${number(lane.end, 0)} ms` : ""}`;
    }
  }

  function start() {
    if (now >= end) show(0);
    running = true;
    play.textContent = "Pause";
    let before = performance.now(), drawn = 0;
    const beat = (time) => {
      if (!running) return;
      // With reduced motion the picture changes four times a second.
      if (!calm() || time - drawn >= 250) {
        show(now + (time - before) * Number(rate.value));
        before = drawn = time;
      }
      if (now >= end) stop();
      else requestAnimationFrame(beat);
    };
    requestAnimationFrame(beat);
  }

  function stop() {
    running = false;
    play.textContent = "Start";
  }

  const picked = choice("Prompt", all.map((heat) => promptTitle(heat[0].answer)), load);
  const keys = (event) => {
    if (event.key === " " && event.target.classList.contains("lane-text")) { event.preventDefault(); play.click(); }
  };
  const section = h("section", { id: "race", "aria-labelledby": "race-title", onkeydown: keys },
    h("h2", { id: "race-title" }, "Race"),
    h("p", {}, "The same prompt, each forward shown at the time it was done when the trace was written; reading the prompt is included."),
    h("div", { class: "controls" }, picked.label),
    h("div", { class: "controls" }, play, h("button", { type: "button", id: "race-reset", onclick: () => { stop(); show(0); } }, "Reset"), slider, clock, rate),
    verdict, board, drawing);
  load(0);
  return section;
}
