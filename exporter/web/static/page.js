// Keeps the page up to date: from the stream, or if the client may not see single records, by asking every few seconds.
(() => {
  const MOST_ROWS = 100;
  const AGAIN_MS = 10000;
  const ASK_MS = 3000;
  const byId = (id) => document.getElementById(id);
  const recent = byId("recent");
  let shown = []; // the records in the rows, oldest first

  const key = (record) => `${record.pid} ${record.ended_at}`;

  function showRecent({ short_processes: records, rows }) {
    shown = records.map(key);
    tables.fill(recent, { rows: rows.reverse() });
  }

  function addRecords({ short_processes: records, rows }) {
    const fresh = rows.filter((_, number) => !shown.includes(key(records[number])));
    shown = [...shown, ...records.map(key)].slice(-MOST_ROWS);
    tables.prepend(recent, fresh, MOST_ROWS);
  }

  function draw(picture, heights) {
    const floor = Number(picture.querySelector("line").getAttribute("y1"));
    picture.querySelectorAll("rect").forEach((rect, number) => {
      const height = heights[number] === null ? floor : heights[number];
      rect.classList.toggle("unknown", heights[number] === null);
      rect.setAttribute("y", floor - height);
      rect.setAttribute("height", height);
    });
  }

  function showStatus({ texts, poor, tables: changed, charts }) {
    for (const [id, text] of Object.entries(texts)) {
      const place = byId(id);
      if (place.textContent !== text) place.textContent = text; // screen readers would read an equal text again
    }
    byId("state").classList.toggle("poor", poor);
    for (const [id, table] of Object.entries(changed)) tables.fill(byId(id), table);
    for (const [id, heights] of Object.entries(charts)) draw(byId(id), heights);
  }

  const button = element("button", { type: "button", id: "pause" }, "Pause");
  const state = element("span", { class: "soft", id: "live", role: "status" });
  let paused = false;
  let source = null;
  let asking = null;
  let retry = null;

  function say(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  function stop() {
    clearTimeout(retry);
    if (source) source.close();
    if (asking) asking.abort();
    source = asking = null;
  }

  function follow() {
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

  async function ask() {
    const mine = (asking = new AbortController());
    try {
      const response = await fetch("api/v1/page", { signal: mine.signal });
      if (!response.ok) throw new Error(response.statusText);
      const status = await response.json();
      if (asking !== mine) return; // paused meanwhile
      showStatus(status);
      say("Live.");
    } catch {
      if (asking !== mine) return;
      say("Disconnected. Retrying.");
    }
    retry = setTimeout(ask, ASK_MS);
  }

  function start() {
    stop();
    if (recent) follow();
    else ask();
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

  const filter = element("input", { type: "search", id: "filter", autocomplete: "off", spellcheck: "false" });
  filter.addEventListener("input", () => tables.filter(filter.value));
  byId("controls").append(element("label", {}, "Filter: ", filter), button, state);

  // The clipboard's own interface is only for secure contexts, such as localhost
  async function copy(code) {
    if (navigator.clipboard) return navigator.clipboard.writeText(code.textContent);
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) throw new Error("refused");
  }

  for (const query of document.querySelectorAll(".query")) {
    const copying = element("button", { type: "button" }, "Copy");
    copying.addEventListener("click", () =>
      copy(query.querySelector("code")).then(
        () => (copying.textContent = "Copied"),
        () => (copying.textContent = "Not copied: select the text"),
      ),
    );
    query.append(copying);
  }

  adapt();
})();
