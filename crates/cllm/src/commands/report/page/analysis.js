// What `cllm analyze` found: how tokens settle, and which n-grams settle together.

const share = (part, whole) => (whole > 0 ? part / whole : null);

function analysisSection({ name, document: analysis }, index) {
  const id = index === 0 ? "analysis" : `analysis-${index + 1}`;
  const models = analysis.models;
  const names = models.map((model) => model.name);
  const figures = table("Figures of each model", ["*", "answers", "tokens", "forwards", "acceptance", "of ended", "tokens/s", "fast-forwarded", "stationary", "EOS", "repetition", "iterations a block"],
    models.map((model) => [model.name, number(model.answers, 0), number(model.figures.tokens, 0), number(model.figures.forwards, 0),
      number(model.figures.mean_acceptance_length), number(model.mean_acceptance_length_ended), number(model.figures.tokens_per_second, 1),
      `${number(model.fast_forwarded_tokens, 0)} (${percent(share(model.fast_forwarded_tokens, model.figures.tokens), 0)})`,
      `${number(model.stationary_tokens, 0)} (${percent(share(model.stationary_tokens, model.figures.tokens), 0)})`,
      percent(model.eos_share, 0), percent(model.repetition_rate), number(model.blocks.mean_iterations)]));

  const most = Math.max(1, ...models.flatMap((model) => model.acceptance.map((bin) => bin.settled)));
  const settled = Array.from({ length: Math.min(most, 16) }, (_, i) => i + 1);
  const histogram = bars({ title: "Tokens settled by a forward", xLabel: "tokens settled", yLabel: "share of forwards", groups: settled, digits: 3,
    series: models.map((model) => ({ name: model.name, values: settled.map((m) => share(model.acceptance.filter((bin) => bin.settled === m).reduce((sum, bin) => sum + bin.forwards, 0), model.figures.forwards)) })) });
  const depth = lines({ title: "Acceptance by position in the window", xLabel: "position in the window, from 1", yLabel: "share of forwards that settle it", low: 0,
    series: models.map((model) => ({ name: model.name, points: model.acceptance_by_rank.map((one) => [one.rank, one.share]) })) });
  const position = lines({ title: "Acceptance by position in the answer", xLabel: "position in the answer", yLabel: "mean acceptance length", low: 1,
    series: models.map((model) => ({ name: model.name, points: model.acceptance_by_position.map((bin) => [bin.from, bin.mean_acceptance_length]) })) });
  const chosen = lines({ title: "Rows of a forward by position in the answer", xLabel: "position in the answer", yLabel: "mean rows", low: 1,
    series: models.map((model) => ({ name: model.name, points: model.acceptance_by_position.map((bin) => [bin.from, bin.mean_rows]) })) });
  const waits = [...new Set(models.flatMap((model) => model.iterations_to_settle.map((bin) => bin.iterations)))].sort((a, b) => a - b);
  const settle = bars({ title: "Iterations until a token settles", xLabel: "iterations in the window", yLabel: "share of tokens", groups: waits, digits: 3,
    series: models.map((model) => { const sum = model.iterations_to_settle.reduce((n, bin) => n + bin.tokens, 0);
      return { name: model.name, values: waits.map((n) => share(model.iterations_to_settle.find((bin) => bin.iterations === n)?.tokens ?? 0, sum)) }; }) });
  const spans = [...new Set(models.flatMap((model) => model.blocks.histogram.map((bin) => bin.iterations)))].sort((a, b) => a - b);
  const blocks = spans.length === 0 ? null : bars({ title: "Iterations to convergence of a block", xLabel: `iterations for a block of ${models[0].blocks.length} tokens`, yLabel: "share of blocks", groups: spans, digits: 3,
    series: models.map((model) => ({ name: model.name, values: spans.map((n) => share(model.blocks.histogram.find((bin) => bin.iterations === n)?.blocks ?? 0, model.blocks.count)) })) });
  const phenomena = bars({ title: "Fast-forwarded and stationary tokens", xLabel: "", yLabel: "share of tokens", groups: ["fast-forwarded", "stationary"], digits: 3,
    series: models.map((model) => ({ name: model.name, values: [share(model.fast_forwarded_tokens, model.figures.tokens), share(model.stationary_tokens, model.figures.tokens)] })) });

  return h("section", { id, "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title` }, index === 0 ? "Analysis" : `Analysis: ${name}`),
    h("p", { class: "note" }, `Of ${names.join(", ")}. Fast-forwarded: settled by a forward beside the guaranteed token. Stationary: came out right while a token before it was wrong, and stayed right.`),
    figures, h("div", { class: "charts" }, phenomena, histogram, depth, position, chosen, settle, blocks), collocations(analysis));
}

function collocations(analysis) {
  const list = analysis.collocations;
  if (!list || list.length === 0) return null;
  const against = analysis.baseline;
  const models = [...new Set(list.map((one) => one.model))];
  const kinds = [["phrases", "Phrases"], ["syntax", "Syntax"], ["numbers", "Numbers"]];
  const example = (one) => (one.examples.length === 0 ? "" : h("span", {}, `…${one.examples[0].before}`, h("strong", {}, one.examples[0].text), `${one.examples[0].after}…`));
  const part = (model, kind, title) => {
    const rows = list.filter((one) => one.model === model && one.kind === kind);
    if (rows.length === 0) return null;
    return [h("h3", {}, models.length > 1 ? `${title}: ${model}` : title),
      table(`${title} of ${model}`, ["*n-gram", "tokens", "lift", "together", against ? `in ${against}` : "*", "*example"],
        rows.map((one) => [h("code", {}, visible(one.text)), number(one.tokens.length, 0), number(one.lift, 1), `${one.together} of ${one.occurrences}`, against ? `${one.baseline_together} of ${one.baseline_occurrences}` : "", example(one)]))];
  };
  return h("div", { class: "collocations" }, h("h3", {}, "Collocations"),
    h("p", {}, "N-grams that settle whole in one forward", against ? `, ranked by lift: the rate at which the model does that over ${against}'s rate for the same n-gram, both smoothed. Counts stand beside it.` : ", most frequent first."),
    models.map((model) => kinds.map(([kind, title]) => part(model, kind, title))));
}
