"use strict";
// Texts from data reach the document as text alone: `element` sets textContent, and nothing here sets markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const COLOURS = {
  light: ["#0b6b63", "#c25a1a", "#3b5fae", "#9a3d78", "#6d6f12", "#7a4a2b", "#28738f", "#8a2d2d"],
  dark: ["#5fc6b8", "#f0a169", "#93b0f5", "#e39acb", "#cfd067", "#d3a587", "#7cc7e2", "#f09a9a"],
};
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const PLOT = { displayModeBar: false, responsive: true, scrollZoom: false };
const several = data.runs.length > 1;
const runNames = new Map(data.runs.map((run) => [run.id, run.name]));
const plots = [];
// charts on paper: as wide as a card on A4 or letter, two on a page
const PAPER = { width: 660, height: 250 };
let printing = false;

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return made;
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return Math.abs(value) >= 1000 ? value.toLocaleString("en-US", { maximumFractionDigits: 1 }) : String(Number(value.toPrecision(4)));
}

// ---- CSV: numbers as they are; a text that a spreadsheet would take for a formula gets an apostrophe
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
  return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}
const toCsv = (columns, rows) => [columns, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";

function download(name, text) {
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// ---- tables
function table(every, all, most, label) {
  // one run needs no column that names it
  const kept = every.map((_, i) => i).filter((i) => several || every[i] !== "run_id");
  const columns = kept.map((i) => every[i]), rows = all.map((row) => kept.map((i) => row[i]));
  const numeric = columns.map((_, i) => rows.some((row) => typeof row[i] === "number"));
  // short texts stay on one line, long ones get room
  const longest = columns.map((_, i) => Math.max(...rows.slice(0, most).map((row) => (typeof row[i] === "string" ? row[i].length : 0))));
  const align = (i) => ({ class: numeric[i] ? "number" : longest[i] > 28 ? "long" : "short" });
  const head = element("tr", {}, ...columns.map((name, i) => element("th", { scope: "col", ...align(i) }, name.replaceAll("_", " "))));
  const body = rows.slice(0, most).map((row) =>
    element("tr", {}, ...row.map((cell, i) => element("td", align(i), columns[i] === "run_id" ? runNames.get(cell) || cell : shown(cell))))
  );
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  const more = rows.length > most ? element("p", { class: "note" }, `The first ${most} of ${rows.length.toLocaleString("en-US")} rows; the CSV has all.`) : null;
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, made, more);
}

function source(figure) {
  const csv = element("button", { type: "button", class: "csv" }, "CSV");
  csv.setAttribute("aria-label", `Data of ${figure.title} as CSV`);
  csv.addEventListener("click", () => download(`${figure.key}.csv`, toCsv(figure.columns, figure.rows)));
  const isSql = !figure.source.startsWith("smoothcert ");
  const code = element("details", {}, element("summary", {}, isSql ? "SQL" : "Command"),
    element("pre", { tabindex: "0", role: "region", "aria-label": `What made ${figure.title}` }, figure.source));
  const rows = figure.chart
    ? element("details", {}, element("summary", {}, "Data"), table(figure.columns, figure.rows, 200, `Data of ${figure.title}`))
    : null;
  return element("div", { class: "tools" }, csv, rows, code);
}

// ---- charts
const theme = () => document.documentElement.dataset.theme;
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function faint(colour, alpha) {
  const n = parseInt(colour.slice(1), 16);
  return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${alpha})`;
}
// plotly reads some tags and $...$ in labels: none of it is meant here
const plain = (text) => String(text).replaceAll(">=", "≥").replaceAll("<", "‹").replaceAll(">", "›").replaceAll("$", "＄").replaceAll("&", "＆");
const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

const isShare = (chart) => chart.scale === "share" || chart.scale === "near";

function lines(figure, panel) {
  const { chart, columns } = figure;
  const at = (name) => columns.indexOf(name);
  const run = at("run_id");
  const groups = new Map();
  for (const row of figure.rows) {
    if (chart.panel && row[at(chart.panel)] !== panel) continue;
    const parts = chart.series.map((name) => row[at(name)]);
    const key = JSON.stringify([row[run], ...parts]);
    if (!groups.has(key)) groups.set(key, { run: row[run], name: parts.join(" "), rows: [] });
    groups.get(key).rows.push(row);
  }
  return [...groups.values()].map((group) => ({
    run: group.run, curve: group.name,
    x: group.rows.map((row) => row[at(chart.x)]), y: group.rows.map((row) => row[at(chart.y)]),
    low: chart.low ? group.rows.map((row) => row[at(chart.low)]) : null,
    high: chart.high ? group.rows.map((row) => row[at(chart.high)]) : null,
  }));
}

function curveTraces(figure, panel) {
  const colours = COLOURS[theme()];
  const found = lines(figure, panel).filter((line) => line.y.some((y) => y !== null));
  const curves = [...new Set(found.map((line) => line.curve))];
  const runs = data.runs.map((run) => run.id);
  const traces = [];
  for (const line of found) {
    const byRun = several && curves.length === 1;
    const number = byRun ? runs.indexOf(line.run) : curves.indexOf(line.curve);
    const colour = colours[number % colours.length];
    const dash = several && !byRun ? DASHES[runs.indexOf(line.run) % DASHES.length] : DASHES[number < colours.length ? 0 : 1];
    const name = plain(several ? [line.curve, cut(runNames.get(line.run) || line.run, 40)].filter(Boolean).join(" · ") : line.curve || "pairs");
    const known = line.low ? line.x.map((_, i) => i).filter((i) => line.low[i] !== null && line.high[i] !== null) : [];
    if (known.length > 1 && found.length <= (several ? 3 : 5)) {
      traces.push({ type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, legendgroup: name, line: { width: 0 }, fill: "toself",
        fillcolor: faint(colour, 0.1), x: [...known, ...known.slice().reverse()].map((i) => line.x[i]),
        y: [...known.map((i) => line.high[i]), ...known.slice().reverse().map((i) => line.low[i])] });
    }
    const beside = line.curve === figure.chart.dashed; // drawn over what it may be equal to
    const points = beside ? line.x.length === 1 : figure.chart.markers || line.x.length === 1;
    traces.push({ type: "scatter", mode: points ? "lines+markers" : "lines", name, legendgroup: name, x: line.x, y: line.y,
      connectgaps: false, line: { color: colour, width: 2, dash: beside ? "6px,10px" : dash },
      marker: beside ? { color: colour, size: 16, symbol: "line-ew-open", line: { width: 2 } } : { color: colour, size: 6 },
      hovertemplate: `%{y${isShare(figure.chart) ? ":.1%" : ":.4g"}}<extra>${name}</extra>` });
  }
  if (traces.length === 1) traces[0].showlegend = true;
  return traces;
}

function barTraces(figure) {
  const { chart, columns } = figure;
  const at = (name) => columns.indexOf(name);
  const rows = figure.rows.slice(0, chart.most).reverse();
  const x = rows.map((row) => row[at(chart.x)]);
  const error = (name, sign) => rows.map((row, i) => (row[at(name)] === null || x[i] === null ? 0 : sign * (row[at(name)] - x[i])));
  const colour = COLOURS[theme()][0];
  return [{ type: "scatter", mode: "markers", x, y: rows.map((_, i) => i), marker: { color: colour, size: 8 },
    text: rows.map((row) => plain(cut(String(row[at(chart.y)]), 80))), hovertemplate: `%{text}: %{x${isShare(chart) ? ":.1%" : ":.3g"}}<extra></extra>`,
    error_x: { type: "data", symmetric: false, array: error(chart.high, 1), arrayminus: error(chart.low, -1), color: faint(colour, 0.55), thickness: 1.5, width: 0 } }];
}

function columnTraces(figure) {
  return lines(figure, null).map((line, i) => ({ type: "bar", name: plain(line.curve || cut(runNames.get(line.run) || line.run, 40)), x: line.x, y: line.y,
    width: line.x.length === 1 && !figure.chart.categories ? Math.max(1, line.x[0] * 0.15) : undefined,
    marker: { color: faint(COLOURS[theme()][i % 8], 0.75) }, hovertemplate: "%{y:,} pairs<extra></extra>" }));
}

// entries of the legend: none where the title says it all
function named(figure, traces) {
  const found = traces.filter((trace) => trace.showlegend !== false).length;
  return found > 1 || figure.chart.series.length ? found : 0;
}

function layout(figure, traces) {
  const { chart } = figure;
  const ink = variable("--soft"), grid = variable("--line");
  const axis = { gridcolor: grid, zeroline: false, linecolor: grid, tickcolor: grid, automargin: true, fixedrange: true, tickfont: { size: 12 } };
  const made = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: variable("--sans"), size: 12.5, color: ink },
    margin: { l: 52, r: 12, t: 8, b: 44 }, hovermode: "x unified", barmode: "group",
    showlegend: named(figure, traces) > 0,
    legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0, font: { size: 12 } },
    hoverlabel: { bgcolor: variable("--card"), bordercolor: grid, font: { color: variable("--ink"), size: 12 } },
    xaxis: { ...axis, title: { text: chart.x_title, standoff: 10 }, rangemode: "tozero" },
    yaxis: { ...axis, title: { text: chart.y_title, standoff: 8 }, rangemode: "tozero" },
  };
  if (chart.categories) { made.xaxis.type = "category"; delete made.xaxis.rangemode; }
  if (chart.scale === "log") { made.yaxis.type = "log"; made.yaxis.exponentformat = "power"; delete made.yaxis.rangemode; }
  if (chart.scale === "near") {
    const ends = [chart.y, chart.low, chart.high].flatMap((name) => figure.rows.map((row) => row[figure.columns.indexOf(name)])).filter((v) => v !== null);
    made.yaxis.range = [Math.max(-0.01, Math.min(...ends) - 0.03), Math.min(1.01, Math.max(...ends) + 0.03)];
  }
  if (chart.scale === "cosine" || chart.scale === "score") made.yaxis.range = [Math.min(0, ...traces.flatMap((t) => t.y.filter((y) => y !== null))), 1.03];
  if (chart.kind === "curve" && chart.scale === "share") made.yaxis.range = [-0.02, 1.03];
  if (chart.kind === "columns" && !traces.some((t) => t.y.some((y) => y > 5))) made.yaxis.dtick = 1; // pairs are whole
  if (isShare(chart)) (chart.kind === "bars" ? made.xaxis : made.yaxis).tickformat = ".0%";
  if (chart.kind === "bars") {
    const rows = traces[0].text;
    made.hovermode = "closest";
    made.yaxis = { ...axis, tickmode: "array", tickvals: rows.map((_, i) => i), ticktext: rows.map((text) => cut(text, innerWidth < 640 ? 18 : 44)), range: [-0.7, rows.length - 0.3] };
    if (isShare(chart)) made.xaxis.range = [-0.02, 1.02];
    else { made.xaxis.rangemode = "normal"; made.xaxis.zeroline = true; made.xaxis.zerolinecolor = variable("--soft"); }
  }
  return made;
}

function draw(plot) {
  const { figure, place } = plot;
  const kind = figure.chart.kind;
  const traces = kind === "bars" ? barTraces(figure) : kind === "columns" ? columnTraces(figure) : curveTraces(figure, plot.panel);
  // room for the legend below the axis: about three names a line
  const names = kind === "bars" ? 0 : named(figure, traces);
  const width = printing ? PAPER.width : place.clientWidth || 600;
  const perLine = Math.max(1, Math.floor(width / (several ? 300 : 230)));
  const height = kind === "bars" ? 90 + 24 * traces[0].y.length : (printing ? PAPER.height : 340) + (names ? 22 * Math.ceil(names / perLine) : 0);
  place.style.height = `${height}px`;
  const made = layout(figure, traces);
  if (names && figure.chart.categories) Object.assign(made.legend, { y: 1.02, yanchor: "bottom" });
  else if (names) { made.legend.y = -66 / (height - 78 - 22 * Math.ceil(names / perLine)); made.margin.b = 70 + 22 * Math.ceil(names / perLine); }
  if (figure.chart.categories) Object.assign(made.xaxis, { nticks: Math.max(2, Math.floor(width / 110)), tickangle: 0 });
  if (names && figure.chart.categories) made.margin.t = 12 + 22 * Math.ceil(names / perLine);
  if (printing) Object.assign(made, { autosize: false, width, height });
  Plotly.react(place, traces, made, PLOT);
  place.dataset.drawn = "true";
}

function figureCard(figure) {
  const card = element("article", { class: "card", id: `figure-${figure.key}` }, element("h3", {}, figure.title), element("p", { class: "note" }, figure.note));
  if (!figure.chart) {
    card.append(table(figure.columns, figure.rows, 200, figure.title), source(figure));
    return card;
  }
  const place = element("div", { class: "plot", role: "img", "aria-label": `Chart: ${figure.title}. Its numbers are under Data.` });
  const plot = { figure, place, panel: null };
  if (figure.chart.panel) {
    const column = figure.columns.indexOf(figure.chart.panel);
    const values = [...new Set(figure.rows.map((row) => row[column]))].sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
    plot.panel = values[typeof values[0] === "number" ? Math.floor(values.length / 2) : 0];
    const select = element("select", {}, ...values.map((value, i) => element("option", { value: i, selected: value === plot.panel }, cut(shown(value), 80))));
    select.addEventListener("change", () => { plot.panel = values[Number(select.value)]; draw(plot); });
    if (values.length > 1) card.append(element("label", { class: "panel" }, figure.chart.panel_title, select));
    else card.append(element("p", { class: "panel" }, `${figure.chart.panel_title} ${shown(values[0])}`));
  }
  card.append(place, source(figure));
  plots.push(plot);
  return card;
}

// ---- pairs
const NUMBERS = [
  ["label", "label"], ["predicted_label", "predicted"], ["certified_radius", "certified radius"], ["vote_label", "voted"], ["vote_radius", "radius by vote"],
  ["smooth_norm_lcb", "smoothed norm, at least"], ["robustness_score_lcb", "robustness score, at least"], ["draws", "draws"], ["error_class", "error"], ["error_message", "why"],
];
const SORTS = [["", "as chosen"], ["certified_radius", "certified radius"], ["vote_radius", "radius by vote"], ["smooth_norm_lcb", "smoothed norm"], ["draws", "draws"], ["caption", "caption"], ["label", "label"]];

function picture(uri, caption, alt) {
  return uri ? element("figure", {}, element("img", { src: uri, alt, decoding: "async" }), element("figcaption", {}, caption)) : null;
}

function pairItem(pair) {
  const bad = pair.status !== "ok";
  const what = pair.caption || pair.label || pair.pair_id;
  const item = element("li", { class: "pair" }, element("header", {}, element("span", { class: bad ? "kind bad" : "kind" }, pair.shown)));
  const published = pair.command === null;
  const attacked = pair.attacked || {};
  const pictures = [
    picture(pair.pictures.clean, "as it is", cut(what, 120)), picture(pair.pictures.noisy, "a noisy copy", "with noise"),
    picture(attacked.attacked, `attacked, l2 ${shown(attacked.l2)}`, "under the strongest attack"),
    picture(attacked.difference, `difference × ${shown(attacked.factor)}`, "what the attack added"),
  ].filter(Boolean);
  item.append(pictures.length ? element("div", { class: "pictures" }, ...pictures) : element("p", { class: "note" }, published ? "no picture: a published log has none" : "no picture: the source was not read or is gone"));
  if (pair.caption) item.append(element("p", { class: "caption", dir: "auto", tabindex: pair.caption.length > 250 ? "0" : null }, pair.caption));
  const numbers = element("dl", { class: "numbers" });
  for (const [column, name] of NUMBERS) {
    if (pair[column] !== null && pair[column] !== undefined) numbers.append(element("dt", {}, name), element("dd", {}, shown(pair[column])));
  }
  item.append(numbers);
  if (pair.attacks.length) {
    item.append(element("details", {}, element("summary", {}, "Under attack"), element("ul", {}, ...pair.attacks.map((a) =>
      element("li", {}, `${a.attack} on ${a.subject}, ${a.norm} ${shown(a.budget)}, ${a.objective}: ${a.success ? "succeeded" : "failed"}; cosine ${shown(a.cosine_to_clean)}` +
        (a.clean_label !== null ? `; ${a.clean_label} → ${a.attacked_label}` : ""))))));
  }
  if (pair.answers.length) {
    item.append(element("details", {}, element("summary", {}, "Answers"), element("ul", {}, ...pair.answers.map((a) =>
      element("li", { dir: "auto" }, `${a.question} – ${a.subject}: ${a.answer}` + (a.reference !== null ? ` (reference: ${a.reference})` : "") + (a.vote_radius !== null ? `; certified up to ${shown(a.vote_radius)}` : ""))))));
  }
  if (pair.attacked_answers.length) {
    item.append(element("details", {}, element("summary", {}, "Answers under attack"), element("ul", {}, ...pair.attacked_answers.map((a) =>
      element("li", { dir: "auto" }, `${a.question} – ${a.subject}, ${a.attack}, ${a.norm} ${shown(a.budget)}: ${a.clean_answer} → ${a.answer}` + (a.reference !== null ? ` (reference: ${a.reference})` : "") + (a.changed ? "" : "; unchanged"))))));
  }
  item.append(pair.command
    ? element("details", {}, element("summary", {}, "Certify it again"), element("p", { class: "note" }, pair.pair_id), element("pre", { tabindex: "0", role: "region", "aria-label": "Command" }, pair.command))
    : element("p", { class: "note" }, pair.pair_id));
  return item;
}

function pairsSection() {
  if (!data.pairs.length) return;
  byId("pairs").hidden = false;
  byId("pairs-note").textContent = "The least and the most robust pairs" + (several ? ` of ${data.runs[0].name}` : "") +
    ", and quarantined ones." + (data.pairs.some((pair) => pair.pictures.noisy) ? " The noisy copy is an illustration of the noise level. " : " ") + data.missing.join(" ");
  const options = (select, values, all) => select.append(element("option", { value: "" }, all), ...values.map((v) => element("option", { value: v }, cut(v, 60))));
  const unique = (column) => [...new Set(data.pairs.map((pair) => pair[column]).filter((v) => v !== null))].sort();
  options(byId("filter-label"), unique("label"), "all");
  options(byId("filter-shown"), unique("shown"), "all");
  for (const [value, name] of SORTS) {
    if (!value || data.pairs.some((pair) => pair[value] !== null)) byId("sort").append(element("option", { value }, name));
  }
  const update = () => {
    const text = byId("filter-text").value.toLowerCase(), label = byId("filter-label").value, kind = byId("filter-shown").value, by = byId("sort").value;
    const kept = data.pairs.filter((pair) => (!label || pair.label === label) && (!kind || pair.shown === kind) &&
      (!text || `${pair.caption || ""}\n${pair.pair_id}`.toLowerCase().includes(text)));
    if (by) kept.sort((a, b) => (a[by] === null) - (b[by] === null) || (typeof a[by] === "number" ? a[by] - b[by] : String(a[by]).localeCompare(String(b[by]))));
    byId("pair-list").replaceChildren(...kept.map(pairItem));
    byId("filter-count").textContent = `${kept.length} of ${data.pairs.length} pairs`;
  };
  for (const id of ["filter-text", "filter-label", "filter-shown", "sort"]) byId(id).addEventListener("input", update);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  update();
  const columns = Object.keys(data.pairs[0]).filter((name) => !["pictures", "attacked", "attacks", "answers", "attacked_answers", "command"].includes(name));
  byId("pairs-source").append(source({ key: "pairs", title: "Pairs", source: data.pairsSql, columns, rows: data.pairs.map((pair) => columns.map((name) => pair[name])), chart: null }));
}

// ---- the page
function sentence(text) {
  // the share stands out, or whether there is an alarm
  const found = /^()((?:Alarm|No alarm) (?:since|in) [^:]+)(:.*)$/s.exec(text) || /^(.*?)(\d+(?:\.\d+)?%)(.*)$/s.exec(text);
  return element("p", { class: "lead" }, ...(found ? [found[1], element("strong", {}, found[2]), found[3]] : [text]));
}

function build() {
  byId("title").textContent = data.title;
  for (const run of data.runs) {
    if (several) byId("sentences").append(element("p", { class: "run-name" }, run.name));
    byId("sentences").append(...(several ? run.sentences.slice(0, 1) : run.sentences).map(sentence));
    if (!run.sentences.length) byId("sentences").append(element("p", { class: "lead" }, "Nothing is committed yet."));
    if (run.brief) byId("sentences").append(element("p", { class: "note" }, `${run.brief} `, element("a", { href: "#about" }, "Digests, seeds, and what is not promised")));
    const rows = run.facts.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)));
    if (several) byId("facts").append(element("p", { class: "run-name" }, run.name));
    byId("facts").append(element("table", {}, element("tbody", {}, ...rows)));
  }
  const sections = new Map();
  for (const figure of data.figures) {
    if (!sections.has(figure.section)) {
      const id = `section-${sections.size + 1}`;
      const made = element("section", { "aria-labelledby": `${id}-title`, id }, element("h2", { id: `${id}-title` }, figure.section));
      sections.set(figure.section, made);
      byId("figures").append(made);
    }
    sections.get(figure.section).append(figureCard(figure));
  }
  pairsSection();
  byId("not-promised").append(...data.notPromised.map((line) => element("li", {}, line)));
  if (data.about) byId("about-title").textContent = data.about;
  const [note, command] = data.ask;
  byId("query-note").textContent = note;
  byId("query").textContent = command;
  byId("foot").textContent = `Made ${data.made} by smoothcert. This file is complete in itself and loads nothing.`;
  const link = (id, text) => element("a", { href: `#${id}` }, text);
  byId("contents").append(...[...sections].map(([name, section]) => link(section.id, name)), ...(data.pairs.length ? [link("pairs", "Pairs")] : []), link("about", "About"));
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
  for (const plot of plots) draw(plot);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
build();
setTheme(theme());
byId("theme").addEventListener("click", () => setTheme(theme() === "dark" ? "light" : "dark"));
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
let before = null;
addEventListener("beforeprint", () => { before = theme(); printing = true; setTheme("light"); });
addEventListener("afterprint", () => { printing = false; if (before) setTheme(before); });
document.documentElement.dataset.ready = "true";
