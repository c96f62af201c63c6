"use strict";
// What the page computes, apart from what it shows: these functions know no document.

const FIXED = ["dataset", "model", "seed"], MOST_KEYS = 8, NO_TEST = 65535;

/** One object for each run; `keys` holds the settings that vary. */
function rowsOf(data) {
  return data.runs.map((folder, i) => {
    const keys = {};
    for (const [key, { values, of }] of Object.entries(data.keys)) if (of[i] >= 0) keys[key] = values[of[i]];
    return { i, folder, keys, valid: data.valid[i], test: data.test[i], valid_metric: data.valid_metric[i],
      best_epoch: data.best_epoch[i], seconds: data.seconds[i], curve: data.curves[i] };
  });
}

const textOf = (value) => value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);

/** The rows that have all `wanted` values (key to text) and all `words` somewhere. */
function filtered(rows, wanted, words) {
  const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => {
    if (!Object.entries(wanted).every(([key, text]) => textOf(row.keys[key]) === text)) return false;
    if (!parts.length) return true;
    const all = [row.folder, ...Object.entries(row.keys).map(([key, value]) => `${key}=${textOf(value)}`)]
      .join(" ").toLowerCase();
    return parts.every((part) => all.includes(part));
  });
}

/** The columns for some rows: the data set, the model, keys that vary among them, and results by one metric. */
function columnsOf(data, rows, metric) {
  const varying = Object.keys(data.keys).filter((key) => !FIXED.includes(key) &&
    new Set(rows.map((row) => textOf(row.keys[key]))).size > 1).slice(0, MOST_KEYS);
  const at = data.metrics.indexOf(metric);
  const result = (split) => (row) => row[split] && row[split][at] !== null ? row[split][at] : undefined;
  return [
    ...[...FIXED, ...varying].map((key) => ({ name: key, value: (row) => row.keys[key] })),
    { name: `valid ${metric}`, number: true, digits: 4, value: result("valid") },
    { name: `test ${metric}`, number: true, digits: 4, value: result("test") },
    { name: "best epoch", number: true, value: (row) => row.best_epoch ?? undefined },
    { name: "seconds", number: true, digits: 0, value: (row) => row.seconds ?? undefined },
  ];
}

/** The rows in order of a column; a missing value is always last. */
function sorted(rows, column, down) {
  return [...rows].sort((a, b) => {
    const x = column.value(a), y = column.value(b);
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = typeof x === "number" && typeof y === "number" ? x - y :
      textOf(x).localeCompare(textOf(y), "en", { numeric: true });
    return down ? -order : order;
  });
}

/** Where the paired test of two runs says something: its split, its users, and the p value of a metric. */
function pairTest(data, a, b) {
  const test = data.tests.find(({ runs }) => runs.includes(a) && runs.includes(b));
  if (!test) return null;
  const [i, j] = [test.runs.indexOf(a), test.runs.indexOf(b)].sort((x, y) => x - y), n = test.runs.length;
  const place = 2 * (i * n - i * (i + 1) / 2 + j - i - 1);
  const p = (metric) => {
    const bytes = atob(test.p[metric] ?? "");
    const level = bytes.length > place + 1 ? bytes.charCodeAt(place) + 256 * bytes.charCodeAt(place + 1) : NO_TEST;
    return level === NO_TEST ? undefined : 10 ** (-level / 1000);
  };
  return { split: test.split, users: test.users, p };
}

/** Two runs: the keys that differ, and each metric of a split that both have with its difference and p value. */
function compared(data, a, b) {
  const keys = Object.keys(data.keys).map((key) => [key, textOf(a.keys[key]), textOf(b.keys[key])])
    .filter(([, x, y]) => x !== y);
  const split = a.test && b.test ? "test" : "valid", tested = pairTest(data, a.i, b.i);
  const metrics = data.metrics.map((metric, at) => [metric, a[split]?.[at], b[split]?.[at],
    tested?.split === split ? tested.p(metric) : undefined])
    .filter(([, x, y]) => typeof x === "number" && typeof y === "number");
  return { keys, split, metrics, users: tested?.split === split ? tested.users : 0 };
}

const pText = (p) => p === undefined ? "–" : p < 0.0001 ? p.toExponential(0) : p.toFixed(4);
const linkTo = (folder) => "./" + folder.split("/").map(encodeURIComponent).join("/");

// The page.

function start(data) {
  const rows = rowsOf(data), find = (id) => document.getElementById(id);
  const state = { wanted: {}, column: "", down: true, most: 100, chosen: [], shown: [] };

  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "text", "line"].includes(tag);
    const one = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) one.addEventListener(name.slice(2), value);
      else if (value !== false) one.setAttribute(name, value === true ? "" : value);
    }
    one.append(...children.map((child) => typeof child === "object" ? child : String(child)));
    return one;
  }
  const options = (select, texts, first) => select.replaceChildren(
    ...(first === undefined ? [] : [make("option", { value: "" }, first)]),
    ...texts.map((text) => make("option", { value: text }, text === "" ? "(empty)" : text)));
  const valuesOf = (key) => data.keys[key].values.map(textOf)
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const titleOf = (row) => `${row.keys.model} on ${row.keys.dataset}, ${row.folder.split("/").pop()}`;
  const table = (head, body) => make("table", {}, make("thead", {}, make("tr", {}, ...head.map((word, i) =>
    make("th", { scope: "col", class: i ? "number" : "" }, word)))), make("tbody", {}, ...body.map((cells) =>
    make("tr", {}, ...cells.map((cell, i) => make("td", { class: i ? "number" : "" }, cell))))));

  function showTable() {
    state.shown = filtered(rows, state.wanted, find("words").value);
    const columns = columnsOf(data, state.shown, find("metric").value);
    const wanted = columns.find(({ name }) => name === state.column), down = wanted ? state.down : true;
    const column = wanted ?? columns.find(({ name }) => name.startsWith("valid ")); // a key that no longer varies has none
    const focus = document.activeElement?.id;
    find("head").replaceChildren(make("th", { scope: "col" }, "choose"), ...columns.map((one) => make("th", {
      scope: "col", class: one.number ? "number" : "",
      "aria-sort": one === column ? (down ? "descending" : "ascending") : false,
    }, make("button", { type: "button", id: `sort-${one.name}`, onclick: () => {
      state.down = one === column ? !down : Boolean(one.number);
      state.column = one.name;
      showTable();
    } }, one.name))), make("th", { scope: "col" }, "folder"));
    find("body").replaceChildren(...sorted(state.shown, column, down).slice(0, state.most).map((row) => make("tr", {},
      make("td", {}, make("input", { type: "checkbox", "aria-label": `choose ${titleOf(row)}`,
        checked: state.chosen.includes(row), onchange: () => choose(row) })),
      ...columns.map((one) => {
        const value = one.value(row);
        const text = one.digits !== undefined && typeof value === "number" ? value.toFixed(one.digits) : textOf(value);
        return make("td", { class: one.number ? "number" : "" }, text);
      }),
      make("td", {}, make("a", { href: linkTo(row.folder) }, row.folder)))));
    find("count").textContent = `${Math.min(state.most, state.shown.length)} of ${state.shown.length} runs` +
      (state.shown.length < rows.length ? ` (${rows.length} in all)` : "");
    find("more").hidden = state.shown.length <= state.most;
    find("filters").replaceChildren(...Object.entries(state.wanted).filter(([key]) => !["dataset", "model"].includes(key))
      .map(([key, text]) => make("button", { type: "button", "aria-label": `remove the filter ${key} = ${text}`,
        onclick: () => { delete state.wanted[key]; showTable(); } }, `${key} = ${text} ×`)));
    if (focus) find(focus)?.focus();
  }

  function choose(row) {
    state.chosen = state.chosen.includes(row) ? state.chosen.filter((one) => one !== row) : [...state.chosen, row];
    showChosen();
  }

  function showChosen() {
    find("chosen").hidden = !state.chosen.length;
    find("legend").replaceChildren(...state.chosen.map((row, n) => make("li", {},
      make("svg", { viewBox: "0 0 24 8", class: "line", "aria-hidden": "true" },
        make("path", { d: "M0 4H24", class: `c${n % 6} d${Math.floor(n / 6) % 3}` })),
      `${titleOf(row)} (${row.valid_metric || "no curve"}) `,
      make("button", { type: "button", "aria-label": `leave out ${titleOf(row)}`, onclick: () => {
        choose(row);
        showTable();
      } }, "×"))));
    showCurves();
    const pair = state.chosen.slice(0, 2);
    if (pair.length < 2) return find("compare").replaceChildren(make("p", {}, "Choose two runs to compare them."));
    const found = compared(data, ...pair), names = pair.map((row, n) => `${"AB"[n]}: ${row.folder.split("/").pop()}`);
    const sign = (x) => (x.toFixed(4) > 0 ? "+" : "") + x.toFixed(4).replace(/^-(?=0\.0+$)/, "");
    find("compare").replaceChildren(
      make("p", {}, `A is ${titleOf(pair[0])}; B is ${titleOf(pair[1])}: the first two chosen.`),
      table(["key", ...names], found.keys),
      table([`${found.split} metric`, ...names, "B − A", "p"], found.metrics.map(([metric, x, y, p]) =>
        [metric, x.toFixed(4), y.toFixed(4), sign(y - x), pText(p)])),
      make("p", {}, found.users ? `p: paired t-test over ${found.users} users, not corrected for several tests.` :
        "No paired test: other data or users, no values per user, or not among the runs that validation ranks first; " +
        "a board of these two folders alone has it."));
  }

  function showCurves() {
    const lines = state.chosen.map(({ curve }) => curve).filter(([x]) => x.length);
    const all = lines.flatMap(([x, y]) => y), last = Math.max(2, ...lines.flatMap(([x]) => x));
    if (!all.length) return find("curves").replaceChildren();
    const low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
    const across = (epoch) => (70 + 560 * (epoch - 1) / (last - 1)).toFixed(1);
    const up = (value) => (260 - 245 * (value - low) / span).toFixed(1);
    find("curves").replaceChildren(
      ...[low, (low + high) / 2, high].flatMap((value) => [
        make("line", { x1: 70, x2: 630, y1: up(value), y2: up(value), class: "grid" }),
        make("text", { x: 64, y: +up(value) + 4, "text-anchor": "end" }, value.toFixed(4))]),
      make("text", { x: 70, y: 280 }, "epoch 1"), make("text", { x: 630, y: 280, "text-anchor": "end" }, last),
      ...state.chosen.map(({ curve: [x, y] }, n) => x.length ? make("path", { class: `c${n % 6} d${Math.floor(n / 6) % 3}`,
        d: "M" + (x.length > 1 ? x : [x[0], last]).map((epoch, i) => `${across(epoch)} ${up(y[i] ?? y[0])}`).join("L") }) : "")
        .filter(Boolean));
  }

  options(find("dataset"), valuesOf("dataset"), "all");
  options(find("model"), valuesOf("model"), "all");
  options(find("metric"), data.metrics);
  find("metric").value = data.valid_metric.find((metric) => data.metrics.includes(metric)) ?? data.metrics[0] ?? "";
  options(find("key"), Object.keys(data.keys).filter((key) => !["dataset", "model"].includes(key)), "–");
  for (const key of ["dataset", "model"]) find(key).addEventListener("change", () => {
    if (find(key).value) state.wanted[key] = find(key).value; else delete state.wanted[key];
    showTable();
  });
  find("key").addEventListener("change", () => options(find("value"), find("key").value ? valuesOf(find("key").value) : [], "–"));
  find("value").addEventListener("change", () => {
    if (find("value").selectedIndex > 0) state.wanted[find("key").value] = find("value").value;
    showTable();
  });
  find("metric").addEventListener("change", showTable);
  find("words").addEventListener("input", showTable);
  find("more").addEventListener("click", () => { state.most += 500; showTable(); });
  find("studies").replaceChildren(...data.studies.map(({ name, folder, report }) =>
    make("li", {}, make("a", { href: linkTo(folder) + (report ? "/report.html" : "") }, name), report ? " (report)" : "")));
  find("left_out").replaceChildren(...data.left_out.map((line) => make("li", {}, line)));
  for (const name of ["studies", "left_out"]) find(name).parentElement.hidden = !data[name].length;
  showTable();
  showChosen();
}

if (typeof document !== "undefined") start(JSON.parse(document.getElementById("data").textContent));
