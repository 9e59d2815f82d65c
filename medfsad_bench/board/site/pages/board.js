// Shows one board of the payload: chosen by the filters, which the address keeps behind its #. Nothing is computed
// here: ranks, means, intervals and letters are those of the command line.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("payload").textContent);
  const form = document.getElementById("filters");
  const place = document.getElementById("board");
  const FILTERS = ["benchmark", "shots", "holdout", "track"];
  const KINDS = ["small", "confounded"];
  const CHECKS = [...KINDS, "drawn"];
  const FIRST = 30; // lines that are shown at once: more take the browser longer than a reader waits
  const MOST_BARS = 24; // letters that a line has room for side by side
  let state = {};

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const fileOf = (method) => method.replaceAll(":", "-");
  const shown = (value) => value.toFixed(3);
  const brief = (value) => (value < 100 ? value.toPrecision(2) : value.toFixed(0));
  const unique = (values) => [...new Set(values)];

  // Filters: what is offered in each depends on those before it, so that no choice is empty.

  function tracksLike(filters) {
    return data.tracks.filter((track) => filters.every((name) => String(track[name]) === state[name]));
  }

  function settle() {
    FILTERS.forEach((name, number) => {
      const left = tracksLike(FILTERS.slice(0, number));
      const offered = unique(left.map((track) => String(track[name])));
      if (name === "shots") offered.sort((a, b) => a - b);
      if (!offered.includes(state[name])) state[name] = usual(name, offered, left);
      fill(name, offered.map((value) => [value, value]));
    });
    const boards = tracksLike(FILTERS)[0].boards;
    const metrics = data.metrics.filter((metric) => metric.name in boards);
    if (!metrics.some((metric) => metric.name === state.metric)) state.metric = metrics[0].name;
    fill("metric", metrics.map((metric) => [metric.name, metric.title]));
    for (const name of CHECKS) form.elements[name].checked = state[name] === "1";
  }

  // What is shown to whoever asks for nothing: 4 shots, and of tracks that differ in nothing else the largest.
  function usual(name, offered, tracks) {
    if (name === "shots" && offered.includes("4")) return "4";
    if (name !== "track") return offered[0];
    const lines = (track) => Object.values(track.boards)[0][""].lines.length;
    return tracks.reduce((largest, track) => (lines(track) > lines(largest) ? track : largest)).track;
  }

  function fill(name, options) {
    const select = form.elements[name];
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    select.value = state[name];
  }

  function readHash() {
    state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  function writeHash() {
    const kept = [...FILTERS, "metric", ...CHECKS, "sort", "down", "all"].filter((name) => state[name]);
    const hash = new URLSearchParams(kept.map((name) => [name, state[name]])).toString();
    if (hash !== location.hash.slice(1)) history.replaceState(null, "", "#" + hash);
  }

  // The board: a table whose cells hold figures and, beside each mean, its place on the axis.

  function show() {
    settle();
    writeHash();
    const track = tracksLike(FILTERS)[0];
    const metric = data.metrics.find((each) => each.name === state.metric);
    const boards = track.boards[metric.name];
    const there = KINDS.filter((kind) => track.targets.some((target) => target[kind]));
    for (const kind of KINDS) form.elements[kind].closest("label").hidden = !there.includes(kind);
    const leftOut = there.filter((kind) => state[kind] === "1");
    const names = new Set(Object.values(boards[""].lines).flatMap((line) => Object.keys(line.rows)));
    const targets = track.targets.filter(
      (target) => names.has(target.name) && !leftOut.some((kind) => target[kind]),
    );
    const board = boards[leftOut.filter((kind) => track.targets.some((t) => names.has(t.name) && t[kind])).join(" ")];
    if (!board) {
      place.replaceChildren(element("p", {}, "No set is left. Take a mark out of “leave out”."));
      return;
    }
    const title = `${track.title}: ${metric.title}, mean over draws, 95 % interval`;
    const heading = element("h2", { id: "title" }, title);
    const lead = board.verdict ? [element("p", { class: "lead" }, board.verdict)] : [];
    const mean = element("p", { class: "quiet" }, `The mean is over ${board.in_mean.join(", ")}.`);
    const axis = axisOf(board.lines, metric);
    const table = element(
      "table", { "aria-labelledby": "title" }, head(targets, axis), body(board, targets, metric, axis),
    );
    const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table);
    const inTerminal = element("p", { class: "quiet" }, "In a terminal: ", command(track, board, leftOut));
    place.replaceChildren(heading, ...lead, mean, scroll, ...more(board.lines.length), inTerminal);
  }

  function more(count) {
    if (count <= FIRST || state.all === "1") return [];
    const button = element("button", { type: "button" }, `Show all ${count} lines`);
    button.addEventListener("click", () => {
      state.all = "1";
      show();
      place.querySelector(".scroll").focus();
    });
    return [element("p", { class: "more" }, `The first ${FIRST}. `, button)];
  }

  function command(track, board, leftOut) {
    const words = [data.command, `--track ${quoted(track.title)}`];
    if (state.metric !== data.metrics[0].name) words.push(`--metric ${state.metric}`);
    if (leftOut.length) words.push(...board.in_mean.map((target) => `--target ${target}`));
    return element("code", {}, words.join(" "));
  }

  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  // From the least to the greatest end of the lines' intervals, with chance, in steps of a tenth of the metric's range.
  function axisOf(lines, metric) {
    const ends = lines.filter((line) => line.mean !== undefined).flatMap((line) => [line.mean, ...(line.interval || [])]);
    if (metric.has_effect_size) ends.push(0.5);
    const step = (metric.high - metric.low) / 10;
    const low = metric.low + step * Math.floor((Math.min(...ends) - metric.low) / step);
    const high = metric.low + step * Math.ceil((Math.max(...ends) - metric.low) / step);
    const known = ends.length > 0 && high > low;
    return { ...metric, low: known ? low : metric.low, high: known ? high : metric.high };
  }

  function head(targets, axis) {
    const ends = element("span", { class: "ends" });
    ends.append(...[axis.low, axis.high].map((end) => element("span", {}, String(Number(end.toFixed(2))))));
    const columns = [["rank", "#"], ["label", "method"], ["mean", "mean"], ["", "letters"], ["", ends], ["ms", "ms / image"]];
    for (const target of targets) columns.push([`target:${target.name}`, target.name, target]);
    const cells = columns.map(([key, text, target]) => {
      const cell = element("th", { scope: "col" });
      if (!key) cell.append(text);
      else cell.append(sorter(key, text));
      if (key && state.sort === key) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      const marks = target ? KINDS.filter((kind) => target[kind]) : [];
      if (marks.length) cell.append(element("br"), element("span", { class: "tag" }, marks.join(", ")));
      return cell;
    });
    return element("thead", {}, element("tr", {}, ...cells));
  }

  function sorter(key, text) {
    const button = element("button", { type: "button", "data-key": key }, text);
    button.addEventListener("click", () => {
      const again = state.sort === key;
      state.down = (again ? !state.down : !["rank", "label"].includes(key)) ? "1" : "";
      state.sort = key;
      show();
      place.querySelector(`button[data-key="${CSS.escape(key)}"]`).focus();
    });
    return button;
  }

  // Rows are written as text and parsed at once, which takes a third of the time of making their elements one by one;
  // so every text of the payload goes through `safe`.
  function body(board, targets, metric, axis) {
    const letters = unique(board.lines.flatMap((line) => split(line.letters)));
    const lines = sorted(board.lines, metric).slice(0, state.all === "1" ? undefined : FIRST);
    const made = document.createElement("tbody");
    made.innerHTML = lines.map((line) => row(line, targets, metric, letters, axis)).join("");
    return made;
  }

  const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const safe = (text) => String(text).replace(/[&<>"']/g, (sign) => ENTITIES[sign]);

  function sorted(lines, metric) {
    if (!state.sort) return lines;
    const keyed = lines.map((line) => [sortKey(line, state.sort, metric), line]);
    const sign = state.down ? -1 : 1;
    keyed.sort(([a], [b]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
    });
    return keyed.map(([, line]) => line);
  }

  function sortKey(line, key, metric) {
    if (!key.startsWith("target:")) return line[key];
    const number = line.rows[key.slice("target:".length)];
    return number === undefined ? undefined : data.rows[number].m[metric.name][0];
  }

  function row(line, targets, metric, letters, axis) {
    const mark = line.reproduced ? " ✓" : "";
    const note = line.note ? `<span class="note">${safe(line.note)}</span>` : "";
    const name = `<a href="methods/${safe(encodeURIComponent(fileOf(line.method)))}.html">${safe(line.label).replaceAll("_", "_<wbr>")}</a>${mark}${note}`;
    const known = line.mean !== undefined;
    const spread = known && line.sd !== undefined ? `<br><small>sd over seeds ${shown(line.sd)}</small>` : "";
    const mean = known ? figure(line.mean, ...(line.interval || [])) + spread : "–";
    const plot = known ? interval(line.mean, line.interval || [], axis, 180) : "";
    const cells = targets.map((target) => cell(line.rows[target.name], metric)).join("");
    const rank = line.rank === undefined ? "–" : line.rank;
    const kind = line.rank === undefined ? ' class="unranked"' : "";
    return `<tr${kind}><td>${rank}</td><th scope="row">${name}</th><td class="number">${mean}</td>${
      brackets(line, letters)}<td aria-hidden="true">${plot}</td><td class="number">${
      line.ms === undefined ? "–" : brief(line.ms)}</td>${cells}</tr>`;
  }

  // Lines that can't be told apart share a bar, which runs on from line to line as long as they stand by rank.
  function brackets(line, letters) {
    if (letters.length > MOST_BARS) return `<td class="number">${safe(abbreviated(split(line.letters)))}</td>`;
    const own = new Set(split(line.letters));
    const text = letters.map((each) => (own.has(each) ? each : " ".repeat(each.length))).join(" ");
    let at = 0;
    const bars = [];
    for (const each of letters) {
      if (own.has(each)) bars.push(`linear-gradient(var(--mark),var(--mark)) ${at}ch 0/2px 100% no-repeat`);
      at += each.length + 1;
    }
    const style = bars.length ? ` style="background:${bars.join(",")}"` : "";
    return `<td class="letters"${style}>${safe(text)}</td>`;
  }

  // Of very many methods: the first letter, the last, and how many there are.
  const abbreviated = (own) => (own.length > 3 ? `${own[0]} … ${own.at(-1)} (${own.length})` : own.join(" "));

  // "abz" are three letters, "aabb" two of the second round: the same sign doubled.
  const split = (text) => (text || "").match(/([a-z])\1*/g) || [];

  function cell(number, metric) {
    if (number === undefined) return "<td>–</td>";
    const { run, m } = data.rows[number];
    const [value, low, high] = m[metric.name];
    const plot = state.drawn === "1" ? interval(value, [low, high], metric, 110) : "";
    return `<td class="number"><a href="cells/${safe(encodeURIComponent(run))}.html">${figure(value, low, high)}</a>${plot}</td>`;
  }

  function figure(value, low, high) {
    const ends = low === undefined || low === null ? "" : ` [${shown(low)}, ${shown(high)}]`;
    return `${shown(value)}<small>${ends}</small>`;
  }

  function interval(value, [low, high], metric, width) {
    const at = (x) => (6 + ((width - 12) * (x - metric.low)) / (metric.high - metric.low)).toFixed(1);
    const chance = metric.has_effect_size ? `<path class="chance" d="M${at(0.5)} 0v16"/>` : "";
    const ends = low === undefined || low === null ? "" : `<path class="bar" d="M${at(low)} 8H${at(high)}"/>`;
    return `<svg width="${width}" height="16" viewBox="0 0 ${width} 16" aria-hidden="true"><path class="axis" d="M6 8H${
      width - 6}"/>${chance}${ends}<circle class="dot" cx="${at(value)}" cy="8" r="4"/></svg>`;
  }

  form.addEventListener("change", () => {
    for (const name of [...FILTERS, "metric"]) state[name] = form.elements[name].value;
    for (const name of CHECKS) state[name] = form.elements[name].checked ? "1" : "";
    state.all = "";
    show();
  });
  window.addEventListener("hashchange", () => {
    if (location.hash.includes("=") || location.hash.length < 2) {
      readHash();
      show();
    }
  });
  if (location.hash.includes("=")) readHash();
  form.hidden = false;
  show();
})();
