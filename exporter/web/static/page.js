"use strict";
// Keeps the page up to date. Text from processes becomes text nodes only, never markup.
(() => {
  const MOST_ROWS = 100;
  const AGAIN_MS = 10000;
  const byId = (id) => document.getElementById(id);

  function element(name, attributes, text) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  function bar(percent) {
    const [svg, rect] = ["svg", "rect"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
    svg.setAttribute("class", "bar");
    svg.setAttribute("aria-hidden", "true");
    for (const [key, value] of Object.entries({ width: `${percent}%`, height: "100%", rx: 2 })) rect.setAttribute(key, value);
    svg.append(rect);
    return svg;
  }

  function row(table, cells) {
    const made = document.createElement("tr");
    cells.forEach((cell, number) => {
      const css = table.tHead.rows[0].cells[number].className;
      made.append(number ? element("td", { class: css }, cell) : element("th", { scope: "row", class: css }, cell));
    });
    return made;
  }

  function fill(table, { rows, shares = [], marked = null }) {
    const made = rows.map((cells) => row(table, cells));
    shares.forEach((share, number) => made[number].cells[0].append(bar(share)));
    if (marked !== null) made[marked].className = "on";
    const body = table.tBodies[0];
    if (!made.length) {
      const nothing = document.createElement("tr");
      nothing.append(element("td", { class: "soft", colspan: table.tHead.rows[0].cells.length }, body.dataset.nothing));
      made.push(nothing);
    }
    body.replaceChildren(...made);
  }

  const recent = byId("recent");
  let shown = []; // the records in the rows, oldest first

  const key = (record) => `${record.pid} ${record.ended_at}`;

  function showRecent({ short_processes: records, rows }) {
    shown = records.map(key);
    fill(recent, { rows: rows.reverse() });
  }

  function addRecords({ short_processes: records, rows }) {
    const body = recent.tBodies[0];
    if (!shown.length) body.replaceChildren();
    records.forEach((record, number) => {
      if (shown.includes(key(record))) return;
      shown.push(key(record));
      body.prepend(row(recent, rows[number]));
    });
    shown = shown.slice(-MOST_ROWS);
    while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
  }

  function showStatus({ texts, poor, tables, histogram }) {
    for (const [id, text] of Object.entries(texts)) {
      const place = byId(id);
      if (place.textContent !== text) place.textContent = text; // screen readers would read an equal text again
    }
    byId("state").classList.toggle("poor", poor);
    for (const [id, table] of Object.entries(tables)) fill(byId(id), table);
    fill(byId("runtimes"), histogram);
    const picture = byId("histogram");
    const floor = Number(picture.querySelector("line").getAttribute("y1"));
    picture.querySelectorAll("rect").forEach((rect, number) => {
      rect.setAttribute("y", floor - histogram.bars[number]);
      rect.setAttribute("height", histogram.bars[number]);
    });
  }

  const button = element("button", { type: "button" }, "Pause");
  const state = element("span", { class: "soft", id: "live", role: "status" }, "");
  let paused = false;
  let source = null;
  let retry = null;

  function say(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  function stop() {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  }

  function start() {
    stop();
    source = new EventSource("api/v1/stream");
    const on = (name, handle) => source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    on("recent", (event) => {
      showRecent(event);
      say("Live.");
    });
    on("records", (event) => {
      addRecords(event);
      say(event.left_out ? "Live. Too many to show all." : "Live.");
    });
    on("status", showStatus);
    source.addEventListener("error", () => {
      say("Disconnected. Retrying.");
      if (source && source.readyState === EventSource.CLOSED) retry = setTimeout(start, AGAIN_MS); // the server may allow no further stream now
    });
  }

  // A hidden page needs no updates, and must not occupy a place that a visible page needs
  function adapt() {
    button.textContent = paused ? "Resume" : "Pause";
    document.body.toggleAttribute("data-paused", paused);
    if (paused || document.hidden) {
      stop();
      say("Paused.");
    } else start();
  }

  button.addEventListener("click", () => {
    paused = !paused;
    adapt();
  });
  document.addEventListener("visibilitychange", adapt);
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => event.persisted && adapt());

  const controls = element("div", { class: "controls" }, "");
  controls.append(button, state);
  recent.closest("section").querySelector("h2").after(controls);
  adapt();
})();
