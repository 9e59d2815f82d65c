// Searches the passages that the page holds: each word has to be in the passage or in the titles above it.
"use strict";
(() => {
  const LIMIT = 40;
  const passages = JSON.parse(document.getElementById("passages").textContent);
  const input = document.querySelector("header input[name=q]");
  const [count, results, index] = ["count", "results", "index"].map((id) => document.getElementById(id));

  // "D²4FAD" is "d24fad", and "Zürich" is "zurich".
  const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const prepared = passages.map((passage) => ({
    ...passage,
    folded: { page: folded(passage.page), heading: folded(passage.heading), text: folded(passage.text) },
  }));

  const times = (text, word) => text.split(word).length - 1;

  function weight(passage, words) {
    let sum = 0;
    for (const word of words) {
      const { page, heading, text } = passage.folded;
      const found = 20 * times(heading, word) + 8 * times(page, word) + Math.min(times(text, word), 5);
      if (!found) return 0;
      sum += found;
    }
    return sum;
  }

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    Object.assign(made, attributes);
    made.append(...children);
    return made;
  }

  // The text around the first word, each word marked.
  function extract(text, words) {
    const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
    const first = text.search(new RegExp(pattern, "i"));
    const start = Math.max(0, first - 80);
    const shown = (start ? "… " : "") + text.slice(start, start + 220) + (text.length > start + 220 ? " …" : "");
    const parts = shown.split(new RegExp(`(${pattern})`, "i"));
    return element("p", {}, ...parts.map((part, number) => (number % 2 ? element("mark", {}, part) : part)));
  }

  function show() {
    const words = folded(input.value).split(/\s+/).filter(Boolean);
    const hits = words.length ? prepared.map((passage) => [weight(passage, words), passage]).filter(([sum]) => sum) : [];
    hits.sort(([a], [b]) => b - a);
    results.replaceChildren(
      ...hits.slice(0, LIMIT).map(([, passage]) => {
        const title = passage.heading ? `${passage.page}: ${passage.heading}` : passage.page;
        return element("li", {}, element("a", { href: passage.address }, title), extract(passage.text, words));
      }),
    );
    const more = hits.length > LIMIT ? `, the best ${LIMIT} of them` : "";
    count.textContent = hits.length === 1 ? "1 passage" : `${hits.length} passages${more}`;
    for (const part of [count, results]) part.hidden = !words.length;
    index.hidden = words.length > 0;
  }

  input.value = new URLSearchParams(location.search).get("q") || "";
  input.addEventListener("input", show);
  input.form.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `?${new URLSearchParams({ q: input.value })}`);
    show();
  });
  show();
})();
