// The run page while it is open: curves that answer the pointer (uPlot), and a run that goes on (server-sent events, htmx).
// The page is whole without this file: the curves are drawn by the server, and a refresh shows what is new.
"use strict";

(() => {
  const zooms = new Map(); // a chart's title -> its x range, kept when the page is refreshed in place
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // ---- curves: the numbers come with each chart, a list a column

  const short = (value) => {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    if (size >= 100) return Math.round(value).toLocaleString("en");
    return size !== 0 && size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(3));
  };

  function draw(figure) {
    const plot = figure.querySelector("svg.plot");
    const data = JSON.parse(figure.dataset.numbers);
    if (!plot || data.length < 2 || data[0].length < 2 || figure.querySelector(".uplot")) return;
    const names = [...figure.querySelectorAll("thead th")].map((cell) => cell.textContent);
    const title = figure.querySelector("h3").textContent;
    const strokes = [["--accent", 2], ["--soft", 1.5]];
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui", size: 44 };
    const place = document.createElement("div");
    place.className = "curve";
    place.setAttribute("aria-hidden", "true");
    figure.insertBefore(place, plot.nextSibling);
    const chart = new uPlot({
      width: figure.clientWidth, height: 190,
      cursor: { ...(names[0] === "step" ? { sync: { key: "step" } } : {}), points: { size: 6 } },
      legend: { live: true },
      scales: { x: { time: false }, y: { range: (u, low, high) => { const floor = Math.min(low, 0), reach = high - floor || 1; return [floor < 0 ? floor - reach * 0.05 : 0, high + reach * 0.08]; } } },
      axes: [{ ...axis, size: 26 }, { ...axis, values: (u, marks) => marks.map(short) }],
      series: [{ label: names[0] }, ...names.slice(1).map((name, i) => ({
        label: name, stroke: colour(strokes[i][0]), width: strokes[i][1], value: (u, v) => short(v), dash: i ? [4, 3] : undefined, spanGaps: true, points: { show: false },
      }))],
      hooks: { setScale: [(u, key) => { if (key === "x") zooms.set(title, [u.scales.x.min, u.scales.x.max, u.data[0].at(0), u.data[0].at(-1)]); }] },
    }, data, place);
    const zoom = zooms.get(title);
    if (zoom && (zoom[0] > zoom[2] || zoom[1] < zoom[3])) chart.setScale("x", { min: zoom[0], max: zoom[1] });
    figure.classList.add("drawn");
    new ResizeObserver(() => chart.setSize({ width: figure.clientWidth, height: 190 })).observe(figure);
  }

  function drawAll() {
    for (const figure of document.querySelectorAll("figure.chart.lines")) {
      if (figure.clientWidth > 0) draw(figure);
    }
  }

  function redraw() {
    for (const place of document.querySelectorAll("div.curve")) place.remove();
    drawAll();
  }

  // ---- a run that goes on

  function follow() {
    const address = document.getElementById("run")?.dataset.events;
    const log = document.getElementById("log"), link = document.getElementById("link");
    if (!address || !log || !link) return;
    const source = new EventSource(address); // it reconnects by itself and says from where (Last-Event-ID)
    const say = (words) => { link.textContent = words; };
    let waiting = null;
    const refresh = () => {
      waiting ??= setTimeout(() => {
        waiting = null;
        htmx.ajax("GET", location.href, { target: "#run", select: "#run", swap: "outerHTML", headers: { "Cache-Control": "no-cache" } });
      }, 2500);
    };
    source.onopen = () => say("Connected: lines appear as they are written.");
    source.onerror = () => say("The connection was lost; the browser is trying again.");
    source.addEventListener("log", (event) => {
      const line = document.createElement("li");
      line.textContent = JSON.parse(event.data); // text, never markup
      const box = log.parentElement, atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
      log.append(line);
      if (atEnd) box.scrollTop = box.scrollHeight;
      refresh();
    });
    source.addEventListener("end", (event) => {
      source.close();
      say(`The run is over: ${JSON.parse(event.data)}.`);
      refresh();
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    drawAll();
    follow();
    const log = document.getElementById("log");
    if (log) log.parentElement.scrollTop = log.parentElement.scrollHeight;
    document.addEventListener("htmx:after:swap", redraw);
    document.addEventListener("toggle", drawAll, true); // charts under a fold have no width before
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  });
})();
