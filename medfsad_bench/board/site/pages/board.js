// Shows one board of the payload: chosen by the filters, which the address keeps behind its #. Nothing is computed
// here: ranks, means, intervals and letters are those of the command line.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("payload").textContent);
  const form = document.getElementById("filters");
  const place = document.getElementById("board");
  const FILTERS = ["benchmark", "shots", "holdout", "track"];
  const KINDS = ["small", "confounded"];
  const SVG = "http://www.w3.org/2000/svg";
  let state = {};

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const drawn = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const fileOf = (method) => method.replaceAll(":", "-");
  const shown = (value) => value.toFixed(3);
  const unique = (values) => [...new Set(values)];

  // Filters: what is offered in each depends on those before it, so that no choice is empty.

  function tracksLike(filters) {
    return data.tracks.filter((track) => filters.every((name) => String(track[name]) === state[name]));
  }

  function settle() {
    FILTERS.forEach((name, number) => {
      const offered = unique(tracksLike(FILTERS.slice(0, number)).map((track) => String(track[name])));
      if (name === "shots") offered.sort((a, b) => a - b);
      if (!offered.includes(state[name])) state[name] = name === "shots" && offered.includes("4") ? "4" : offered[0];
      fill(name, offered.map((value) => [value, value]));
    });
    const boards = tracksLike(FILTERS)[0].boards;
    const metrics = data.metrics.filter((metric) => metric.name in boards);
    if (!metrics.some((metric) => metric.name === state.metric)) state.metric = metrics[0].name;
    fill("metric", metrics.map((metric) => [metric.name, metric.title]));
    for (const kind of KINDS) form.elements[kind].checked = state[kind] === "1";
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
    const kept = [...FILTERS, "metric", ...KINDS, "sort", "down"].filter((name) => state[name]);
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
    const mean = element("p", { class: "quiet" }, `The mean is over ${board.in_mean.join(", ")}.`);
    const table = element("table", { "aria-labelledby": "title" }, head(targets), body(board, targets, metric));
    const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table);
    place.replaceChildren(heading, mean, scroll, element("p", { class: "quiet" }, "In a terminal: ", command(track, board, leftOut)));
  }

  function command(track, board, leftOut) {
    const words = ["medfsad leaderboard", `--track ${quoted(track.title)}`];
    if (state.metric !== data.metrics[0].name) words.push(`--metric ${state.metric}`);
    if (leftOut.length) words.push(...board.in_mean.map((target) => `--target ${target}`));
    return element("code", {}, words.join(" "));
  }

  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  function head(targets) {
    const columns = [["rank", "#"], ["label", "method"], ["mean", "mean"], ["", "letters"], ["", ""]];
    for (const target of targets) columns.push([`target:${target.name}`, target.name, target]);
    const cells = columns.map(([key, text, target]) => {
      const cell = element("th", { scope: "col" });
      if (!key) cell.append(text || element("span", { class: "tag" }, "on the axis"));
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

  function body(board, targets, metric) {
    const letters = unique(board.lines.flatMap((line) => split(line.letters)));
    const lines = sorted(board.lines, metric);
    return element("tbody", {}, ...lines.map((line) => row(line, targets, metric, letters)));
  }

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

  function row(line, targets, metric, letters) {
    const name = element("th", { scope: "row" }, element("a", { href: `methods/${fileOf(line.method)}.html` }, line.label));
    if (line.reproduced) name.append(" ✓");
    if (line.note) name.append(element("span", { class: "note" }, line.note));
    const mean = element("td", { class: "number" }, "–");
    const axis = element("td", { "aria-hidden": "true" });
    if (line.mean !== undefined) {
      mean.replaceChildren(...figure(line.mean, ...(line.interval || [])));
      if (line.sd !== undefined) mean.append(element("br"), element("small", {}, `sd over seeds ${shown(line.sd)}`));
      axis.append(interval(line.mean, line.interval || [], metric));
    }
    const own = new Set(split(line.letters));
    const brackets = element("td", { class: "letters" }, letters.map((each) => (own.has(each) ? each : " ".repeat(each.length))).join(""));
    const cells = targets.map((target) => cell(line.rows[target.name], metric));
    const rank = element("td", {}, line.rank === undefined ? "–" : String(line.rank));
    return element("tr", line.rank === undefined ? { class: "unranked" } : {}, rank, name, mean, brackets, axis, ...cells);
  }

  // "abz" are three letters, "aabb" two of the second round: the same sign doubled.
  const split = (text) => (text || "").match(/([a-z])\1*/g) || [];

  function cell(number, metric) {
    if (number === undefined) return element("td", {}, "–");
    const figures = data.rows[number];
    const link = element("a", { href: `cells/${figures.run}.html` }, ...figure(...figures.m[metric.name]));
    return element("td", { class: "number" }, link);
  }

  function figure(value, low, high) {
    const ends = low === undefined || low === null ? "" : ` [${shown(low)}, ${shown(high)}]`;
    return [shown(value), element("small", {}, ends)];
  }

  function interval(value, [low, high], metric) {
    const width = 180;
    const at = (x) => (6 + ((width - 12) * (x - metric.low)) / (metric.high - metric.low)).toFixed(1);
    const svg = drawn("svg", { width, height: 16, viewBox: `0 0 ${width} 16` });
    svg.append(drawn("line", { class: "axis", x1: 6, x2: width - 6, y1: 8, y2: 8 }));
    if (metric.has_effect_size) svg.append(drawn("line", { class: "chance", x1: at(0.5), x2: at(0.5), y1: 0, y2: 16 }));
    if (low !== undefined) svg.append(drawn("line", { class: "bar", x1: at(low), x2: at(high), y1: 8, y2: 8 }));
    svg.append(drawn("circle", { class: "dot", cx: at(value), cy: 8, r: 4 }));
    return svg;
  }

  form.addEventListener("change", () => {
    for (const name of [...FILTERS, "metric"]) state[name] = form.elements[name].value;
    for (const kind of KINDS) state[kind] = form.elements[kind].checked ? "1" : "";
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
