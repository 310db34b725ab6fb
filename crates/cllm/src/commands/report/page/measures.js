// Documents of `eval` and `bench`, and logs of training, as tables and charts.

function evalSection(evals) {
  const scores = [...new Set(evals.flatMap(({ document: one }) => Object.keys(one.results.scores)))];
  const results = evals.map((one) => ({ name: one.name, ...one.document }));
  const plain = (score) => score.replace(/_/g, " ");
  return h("section", { id: "eval", "aria-labelledby": "eval-title" }, h("h2", { id: "eval-title" }, "Evaluation"),
    table("Evaluations", ["*", "*task", "*model", "*decoder", "examples", ...scores.map(plain), "acceptance", "of ended", "tokens/s", "speed-up", "EOS", "repetition", "exact"],
      results.map(({ name, task, model, settings, results: r }) => [name, task, model, settings.decoder, number(r.examples, 0), ...scores.map((score) => percent(r.scores[score])),
        number(r.mean_acceptance_length), number(r.mean_acceptance_length_ended), number(r.tokens_per_second, 1), number(r.speedup), percent(r.eos_share, 0), percent(r.repetition_rate), number(r.exact, 3)])),
    h("div", { class: "charts" },
      bars({ title: "Scores", xLabel: "evaluation", yLabel: "share of answers that are right", groups: results.map(({ name }) => name), digits: 3,
        series: scores.map((score) => ({ name: plain(score), values: results.map(({ results: r }) => r.scores[score]) })) }),
      bars({ title: "Mean acceptance length in evaluations", xLabel: "evaluation", yLabel: "tokens a forward", groups: results.map(({ name }) => name),
        series: [{ name: "all answers", values: results.map(({ results: r }) => r.mean_acceptance_length) }, { name: "answers that ended", values: results.map(({ results: r }) => r.mean_acceptance_length_ended) }] }),
      bars({ title: "Speed-up over AR in evaluations", xLabel: "evaluation", yLabel: "times AR's tokens/s", groups: results.map(({ name }) => name),
        series: [{ name: "speed-up", values: results.map(({ results: r }) => r.speedup) }] })));
}

function decodeBench({ name, document: one }) {
  const results = one.results, groups = results.map((r) => r.decoder);
  return [h("h3", {}, `Decoders: ${name}`), h("p", { class: "note" }, `${one.model}, ${one.settings.weights}; ${machine(one.machine)}`),
    table(`Decoders of ${name}`, ["*decoder", "prompts", "tokens", "forwards", "rows", "ms a forward", "acceptance", "tokens/s", "speed-up", "with prefill", "EOS", "repetition", "exact"],
      results.map((r) => [r.decoder, number(r.prompts, 0), number(r.tokens, 0), number(r.forwards, 0), number(r.rows, 0), number((1000 * r.seconds) / r.forwards), number(r.mean_acceptance_length), number(r.tokens_per_second, 1), number(r.speedup), number(r.total_speedup), percent(r.eos_share, 0), percent(r.repetition_rate), number(r.exact, 3)])),
    h("div", { class: "charts" },
      bars({ title: `Speed of decoders, ${name}`, xLabel: "decoder", yLabel: "tokens/s", groups, digits: 1, series: [{ name: "tokens/s", values: results.map((r) => r.tokens_per_second) }] }),
      bars({ title: `Mean acceptance length, ${name}`, xLabel: "decoder", yLabel: "tokens a forward", groups, series: [{ name: "acceptance", values: results.map((r) => r.mean_acceptance_length) }] }))];
}

function forwardBench({ name, document: one }) {
  const formats = [...new Set(one.results.map((r) => r.compute))];
  const series = (key) => formats.map((format) => ({ name: format, points: one.results.filter((r) => r.compute === format).map((r) => [r.rows, r[key]]) }));
  return [h("h3", {}, `Forwards: ${name}`), h("p", { class: "note" }, `${one.model}; context ${one.settings.context}; ${machine(one.machine)}`),
    h("div", { class: "charts" },
      lines({ title: `Cost of a forward, ${name}`, xLabel: "rows", yLabel: "T(n) / T(1)", low: 0, series: series("relative") }),
      lines({ title: `Time of a forward, ${name}`, xLabel: "rows", yLabel: "median, ms", low: 0, series: series("median_ms") }))];
}

function accuracyBench({ name, document: one }) {
  return [h("h3", {}, `Accuracy of formats: ${name}`),
    table(`Accuracy of ${name}`, ["*format", "mean KL, nats", "argmax agreement", "perplexity"],
      one.results.map((r) => [r.compute, number(r.mean_kl, 5), percent(r.argmax_agreement), number(r.perplexity, 3)]))];
}

const machine = (m) => (m ? `${m.cpu}, ${m.threads} threads, ${m.isa}` : "");

function benchSection(benches) {
  const draw = (bench) => {
    const first = bench.document.results[0] || {};
    if ("decoder" in first) return decodeBench(bench);
    return "rows" in first ? forwardBench(bench) : accuracyBench(bench);
  };
  return h("section", { id: "bench", "aria-labelledby": "bench-title" }, h("h2", { id: "bench-title" }, "Benchmarks"), benches.map(draw));
}

/// The mean of up to `width` values that end at each.
function smooth(points, width) {
  return points.map(([x], i) => {
    const last = points.slice(Math.max(0, i + 1 - width), i + 1);
    return [x, last.reduce((sum, point) => sum + point[1], 0) / last.length];
  });
}

function trainingSection(logs) {
  const curve = (key, width) => logs.map(({ name, records }) => {
    const points = records.filter((record) => typeof record[key] === "number").map((record) => [record.step, record[key]]);
    return { name, points: width && points.length > 4 * width ? smooth(points, width) : points };
  }).filter((one) => one.points.length > 0);
  const chart = (title, key, yLabel, width, low) => {
    const series = curve(key, width);
    return series.length === 0 ? null : lines({ title, xLabel: "optimizer step", yLabel, series, low });
  };
  const last = (records, key) => records.reduce((found, record) => (typeof record[key] === "number" ? record[key] : found), null);
  return h("section", { id: "training", "aria-labelledby": "training-title" }, h("h2", { id: "training-title" }, "Training"),
    table("Training runs", ["*", "steps", "loss", "AR loss", "consistency loss", "held-out loss", "held-out acceptance", "held-out EOS", "rows/s"],
      logs.map(({ name, records }) => [name, number(last(records, "step"), 0), number(last(records, "loss"), 3), number(last(records, "ar_loss"), 3), number(last(records, "consistency_loss"), 3), number(last(records, "eval_loss"), 3), number(last(records, "eval_mean_acceptance_length")), percent(last(records, "eval_eos_share"), 0), number(last(records, "tokens_per_second"), 0)])),
    h("div", { class: "charts" },
      chart("Loss (mean of 25)", "loss", "loss", 25), chart("Consistency loss (mean of 25)", "consistency_loss", "nats a noisy row", 25), chart("AR loss (mean of 25)", "ar_loss", "nats a token", 25),
      chart("Held-out loss", "eval_loss", "loss"), chart("Held-out mean acceptance length", "eval_mean_acceptance_length", "tokens a forward", 0, 1),
      chart("Held-out repetition rate", "eval_repetition_rate", "share of 4-grams", 0, 0), chart("Learning rate", "learning_rate", "learning rate", 0, 0)));
}
