// What became of every output of every forward: the classes that the grid colours. Pure, so
// that node can test it.

/// The classes with the sign each has and what it means.
const STATES = {
  guess: ["", "guess: not what the answer has there"],
  new: ["+", "newly right: right now, not in the state before"],
  stationary: ["=", "stationary: still right, though something before it had not settled"],
  fixed: ["", "fixed: settled"],
  eos: ["■", "EOS: the stop token"],
};

/// One row for each forward that gave a token: its cells are the outputs for the unknowns
/// from `start` on; what stands before `start` has settled earlier.
function gridRows(answer) {
  const stops = new Set(answer.stop_tokens), last = answer.tokens.length - 1;
  let right = new Set();
  const rows = [];
  for (const forward of answer.forwards) {
    if (forward.settled === 0) continue;
    const now = new Set();
    const cells = forward.output.map((token, i) => {
      const position = forward.start + i;
      const isRight = position <= last && token === answer.tokens[position];
      let state = "guess";
      if (isRight) {
        now.add(position);
        if (position === last && stops.has(token)) state = "eos";
        else if (!right.has(position)) state = "new";
        else state = i < forward.settled ? "fixed" : "stationary";
      }
      return { position, token, state, before: forward.draft[i], settled: i < forward.settled,
        probability: forward.probabilities ? forward.probabilities[i] : null };
    });
    right = now;
    rows.push({ ...forward, cells });
  }
  return rows;
}

/// The text of a token.
function tokenText(answer, token) {
  return answer.texts[token] ?? `‹${token}›`;
}

if (typeof module !== "undefined") module.exports = { gridRows, STATES };
