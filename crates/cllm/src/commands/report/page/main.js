// Puts the page together: a section for each kind of data there is.

function themeButton() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => {
    button.textContent = dark() ? "Light theme" : "Dark theme";
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();
}

function build(data) {
  const some = (list, make) => (list && list.length > 0 ? make(list) : null);
  const traces = (data.traces || []).filter((trace) => trace.answers.length > 0);
  const sections = [
    some(traces, gridSection), some(traces, raceSection), ...(data.analyses || []).map(analysisSection),
    some(data.evals, evalSection), some(data.benches, benchSection), some(data.trainings, trainingSection),
  ].filter((section) => section !== null);
  document.getElementById("main").replaceChildren(...sections);
  document.getElementById("contents").append(...sections.map((section) => h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)));
}

themeButton();
build(JSON.parse(document.getElementById("data").textContent));
