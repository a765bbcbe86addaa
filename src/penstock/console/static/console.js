// What pages gain with script: times in the reader's zone, charts, live regions that keep still, a playground that streams.
// Every page works without it.
"use strict";

document.documentElement.classList.add("script");

// ---- times ----------------------------------------------------------------------------------------------------------

const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const other = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const older = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const now = new Date();
    const format = moment.toDateString() === now.toDateString() ? today
      : now - moment < 180 * 86400e3 ? other : older;
    element.textContent = format.format(moment);
    element.title = whole.format(moment);
  }
}

// ---- charts ---------------------------------------------------------------------------------------------------------

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const three = (value) => value === 0 ? "0" : Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
const UNITS = {
  s: (v) => v === 0 ? "0" : Math.abs(v) < 0.001 ? `${three(v * 1e6)} µs` : Math.abs(v) < 1 ? `${three(v * 1e3)} ms` : `${three(v)} s`,
  percent: (v) => `${three(v * 100)} %`,
  points: (v) => `${three(v * 100)} pts`,
  usd: (v) => `$${three(v)}`,
  count: (v) => Math.abs(v) >= 1e6 ? `${three(v / 1e6)} M` : Math.abs(v) >= 1e4 ? `${three(v / 1e3)} k` : three(v),
};

function draw(element) {
  const data = JSON.parse(element.dataset.chart);
  const format = UNITS[data.unit] || UNITS.count;
  const strokes = [colour("--accent"), colour("--dim"), colour("--warn")];
  const ink = colour("--dim"), line = colour("--line");
  const columns = [data.x], series = [{}], bands = [];
  data.lines.forEach((entry, index) => {
    columns.push(entry.values);
    series.push({ label: entry.name, stroke: strokes[index % 3], width: index ? 1.25 : 1.75, points: lonely,
      fill: data.fill && !index ? strokes[0] + "1f" : undefined, paths: data.bars ? uPlot.paths.bars({ size: [0.8, 12] }) : undefined });
    if (entry.high) {
      columns.push(entry.high, entry.low);
      const edge = { stroke: strokes[index % 3] + "66", width: 1, points: lonely };
      series.push({ ...edge, label: "" }, { ...edge, label: "" });
      bands.push({ series: [columns.length - 2, columns.length - 1], fill: strokes[index % 3] + "26" });
    }
  });
  const axis = { stroke: ink, font: "11px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: line, width: 1 } };
  const figure = element.closest("figure");
  const reading = figure && figure.querySelector(".reading");
  const options = {
    width: element.clientWidth, height: element.clientHeight, legend: { show: false }, series, bands,
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true, range: (_u, low, high) => data.x.length === 1 ? [data.x[0] - 60, data.x[0] + 60] : [low, high] }, y: { range: (_u, low, high) => extent(low, high, data) } },
    axes: [
      { ...axis, grid: { show: false }, size: 24, space: 72, values: moments },
      { ...axis, size: 54, space: 26, values: (_u, ticks) => ticks.map(format) },
    ],
    hooks: {
      drawAxes: data.zero ? [(u) => zero(u, ink)] : [],
      setCursor: [(u) => { if (reading) reading.textContent = told(u, data, format) || reading.dataset.note; }],
    },
  };
  element.replaceChildren();
  element.plot = new uPlot(options, columns, element);
}

function moments(u, ticks) {
  const span = u.scales.x.max - u.scales.x.min;
  const format = span < 720 ? today : span < 2 * 86400 ? hour : day;
  return ticks.map((at) => format.format(new Date(at * 1000)));
}

// A value without neighbours has no line: it is shown as a point.
const lonely = {
  show: false,
  size: 5,
  filter: (u, index) => {
    const values = u.data[index];
    const alone = [...values.keys()].filter((i) => values[i] != null && values[i - 1] == null && values[i + 1] == null);
    return alone.length ? alone : null;
  },
};

function extent(low, high, data) {
  if (low === null || high === null) return [0, 1];
  if (data.zero) { low = Math.min(low, 0); high = Math.max(high, 0); } else { low = 0; }
  const room = (high - low || 1) * 0.08;
  return [data.zero ? low - room : 0, high + room];
}

function zero(u, ink) {
  const y = Math.round(u.valToPos(0, "y", true));
  u.ctx.save();
  u.ctx.strokeStyle = ink;
  u.ctx.setLineDash([4, 4]);
  u.ctx.beginPath();
  u.ctx.moveTo(u.bbox.left, y);
  u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
  u.ctx.stroke();
  u.ctx.restore();
}

function told(u, data, format) {
  const index = u.cursor.idx;
  if (index === null || index === undefined) return "";
  const parts = [today.format(new Date(data.x[index] * 1000))];
  for (const entry of data.lines) {
    const value = entry.values[index];
    if (value === null) continue;
    const interval = entry.high ? ` [${format(entry.low[index])}, ${format(entry.high[index])}]` : "";
    parts.push(`${entry.name} ${format(value)}${interval}`);
  }
  return parts.join(" · ");
}

const watcher = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.plot && target.clientWidth) target.plot.setSize({ width: target.clientWidth, height: target.clientHeight });
  }
});

function charts(root) {
  for (const element of root.querySelectorAll("[data-chart]")) {
    draw(element);
    watcher.observe(element);
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts(document));

// ---- live regions ---------------------------------------------------------------------------------------------------

let still = false;
const open = new Set();

document.addEventListener("htmx:sseBeforeMessage", (event) => {
  if (still) event.preventDefault();
});
document.addEventListener("toggle", (event) => {
  const { id } = event.target;
  if (id) event.target.open ? open.add(id) : open.delete(id);
}, true);
document.addEventListener("htmx:sseMessage", (event) => arrive(event.target));

function pauseButtons() {
  for (const button of document.querySelectorAll("[data-pause]")) {
    button.addEventListener("click", () => {
      still = !still;
      button.setAttribute("aria-pressed", String(still));
      button.textContent = still ? "Resume updates" : "Pause updates";
    });
  }
}

function copyButtons(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }
}

function arrive(root) {
  localTimes(root);
  charts(root);
  copyButtons(root);
  for (const id of open) {
    const element = document.getElementById(id);
    if (element) element.open = true;
  }
}

// ---- playground -----------------------------------------------------------------------------------------------------

function playground(form) {
  const answer = document.getElementById("answer");
  const facts = document.getElementById("facts");
  const trouble = document.getElementById("trouble");
  const send = form.querySelector("[type=submit]");
  const stop = document.getElementById("stop");
  let going = null;

  stop.addEventListener("click", () => going && going.abort());
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (going) return;
    going = new AbortController();
    document.getElementById("result").hidden = false;
    answer.textContent = "";
    facts.replaceChildren();
    trouble.hidden = true;
    answer.setAttribute("aria-busy", "true");
    send.disabled = true;
    stop.hidden = false;
    try {
      const reply = await fetch(form.dataset.stream, { method: "POST", body: new URLSearchParams(new FormData(form)), signal: going.signal });
      if (!reply.ok) throw new Error((await reply.text()) || `status ${reply.status}`);
      for await (const [name, data] of events(reply.body)) {
        if (name === "delta") answer.append(data.text);
        else if (name === "facts") { facts.innerHTML = data.html; arrive(facts); }
        else if (name === "trouble") complain(data.message);
      }
    } catch (error) {
      complain(error.name === "AbortError" ? "Stopped. The engine's work was cancelled." : `No answer: ${error.message}`);
    } finally {
      going = null;
      answer.setAttribute("aria-busy", "false");
      send.disabled = false;
      stop.hidden = true;
    }
  });

  function complain(text) {
    trouble.textContent = text;
    trouble.hidden = false;
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const pieces = (rest + value).split("\n\n");
    rest = pieces.pop();
    for (const piece of pieces) {
      const fields = Object.fromEntries(piece.split("\n").map((text) => [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 2)]));
      if (fields.event) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

arrive(document);
pauseButtons();
for (const form of document.querySelectorAll("form[data-stream]")) playground(form);
