// Draws who starts what as a flame graph, above the table that shows the same without a script. Names become text nodes only.
(() => {
  const EVERY_MS = 5000;
  const LEAST_PERCENT = 0.2; // narrower frames are left out; the table and the API have them
  const COLOURS = 6;
  const table = document.getElementById("lineage");
  if (!table) return;

  const BY = {
    processes: ["processes", (node) => node.processes],
    cpu: ["CPU", (node) => node.cpu_seconds],
    runtime: ["lifetime", (node) => node.runtime_seconds],
  };

  const select = element("select", {}, ...Object.entries(BY).map(([key, [text]]) => element("option", { value: key }, text)));
  const graph = element("div", { class: "flame", role: "tree", "aria-label": "Flame graph: who starts what" });
  const about = element("p", { class: "soft", id: "flame-about" });
  const hint = element("p", { class: "soft" }, "Click or Enter zooms in, Escape zooms out, arrow keys move.");
  const figure = element("figure", {}, element("label", { class: "soft" }, "Width: ", select), graph, about, hint);
  const wide = table.closest(".wide");
  const details = element("details", {}, element("summary", {}, "Table"));
  wide.before(figure);
  figure.append(details);
  details.append(wide);

  let root = null; // the tree, as the API gives it
  let zoomed = []; // names from the root to what fills the width
  let current = []; // names from the root to the frame that the keyboard is on

  const value = (node) => BY[select.value][1](node);
  const key = (path) => JSON.stringify(path);

  function find(path) {
    let node = root;
    for (const name of path) node = node && node.children.find((child) => child.name === name);
    return node;
  }

  function share(part, whole) {
    return whole ? (100 * part) / whole : 0;
  }

  function describe(node) {
    const cpu = node.cpu_unknown === node.processes ? "unknown" : `${node.cpu_seconds.toFixed(3)} s`;
    const numbers = `${node.processes.toLocaleString("en")} processes, CPU ${cpu}, lifetime ${node.runtime_seconds.toFixed(3)} s`;
    return `${node.name || "all"}: ${numbers}, ${share(value(node), value(root)).toFixed(1)} % of all`;
  }

  function colour(name) {
    if (["", "unknown", "deep", "other"].includes(name)) return "none";
    let sum = 0;
    for (const char of name) sum = (31 * sum + char.codePointAt(0)) % 9973;
    return sum % COLOURS;
  }

  function add(frames, node, path, left, width) {
    if (width < LEAST_PERCENT) return;
    frames.push({ node, path, left, width });
    const focus = path.length < zoomed.length && path.every((name, at) => name === zoomed[at]) ? zoomed[path.length] : null;
    for (const child of node.children) {
      if (focus !== null && child.name !== focus) continue;
      const part = focus === null ? (width * share(value(child), value(node))) / 100 : width;
      add(frames, child, [...path, child.name], left, part);
      left += part;
    }
  }

  function draw() {
    if (!root || !root.processes) return graph.replaceChildren();
    while (!find(zoomed)) zoomed.pop();
    const hadFocus = graph.contains(document.activeElement);
    const frames = [];
    add(frames, root, [], 0, 100);
    if (!frames.some(({ path }) => key(path) === key(current))) current = [...zoomed];
    const made = frames.map(({ node, path, left, width }) => {
      const frame = element("div", { role: "treeitem", class: `frame f${colour(node.name)}`, "aria-level": path.length + 1 }, node.name || "all");
      frame.setAttribute("aria-label", describe(node));
      frame.title = describe(node);
      frame.tabIndex = key(path) === key(current) ? 0 : -1;
      frame.dataset.path = key(path);
      frame.classList.toggle("above", path.length < zoomed.length);
      Object.assign(frame.style, { left: `${left}%`, width: `${width}%`, top: `${1.6 * path.length}rem` });
      return frame;
    });
    graph.style.height = `${1.6 * (1 + Math.max(...frames.map(({ path }) => path.length)))}rem`;
    graph.replaceChildren(...made);
    if (hadFocus) frameOf(current).focus({ preventScroll: true });
  }

  const frameOf = (path) => [...graph.children].find((frame) => frame.dataset.path === key(path));
  const pathOf = (frame) => JSON.parse(frame.dataset.path);

  function zoom(path) {
    zoomed = [...path];
    current = [...path];
    draw();
    frameOf(current).focus({ preventScroll: true });
  }

  function move(path) {
    const frame = frameOf(path);
    if (!frame) return;
    frameOf(current).tabIndex = -1;
    frame.tabIndex = 0;
    current = path;
    frame.focus();
  }

  function beside(path, step) {
    const level = [...graph.children].filter((frame) => pathOf(frame).length === path.length);
    const next = level[level.findIndex((frame) => frame.dataset.path === key(path)) + step];
    return next ? pathOf(next) : path;
  }

  const KEYS = {
    ArrowUp: (path) => move(path.slice(0, -1)),
    ArrowDown: (path) => move(graph.querySelector(`[aria-level="${path.length + 2}"]`) ? firstBelow(path) : path),
    ArrowLeft: (path) => move(beside(path, -1)),
    ArrowRight: (path) => move(beside(path, 1)),
    Home: () => move([]),
    Enter: zoom,
    " ": zoom,
    Escape: () => zoom(zoomed.slice(0, -1)),
  };

  function firstBelow(path) {
    const below = [...graph.children].find((frame) => {
      const its = pathOf(frame);
      return its.length === path.length + 1 && key(its.slice(0, -1)) === key(path);
    });
    return below ? pathOf(below) : path;
  }

  graph.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.altKey || event.metaKey || !event.target.dataset.path) return;
    event.preventDefault();
    act(pathOf(event.target));
  });
  graph.addEventListener("click", (event) => event.target.dataset.path && zoom(pathOf(event.target)));
  for (const name of ["focusin", "mouseover"])
    graph.addEventListener(name, (event) => {
      if (event.target.dataset.path) about.textContent = event.target.title;
    });

  async function load() {
    try {
      const response = await fetch(`api/v1/lineage?by=${select.value}&limit=500`);
      if (!response.ok) return;
      const answer = await response.json();
      root = answer.lineage;
      hint.textContent = `Click or Enter zooms in, Escape zooms out, arrow keys move.${answer.dropped ? ` A sample: ${answer.dropped.toLocaleString("en")} processes are missing.` : ""}`;
      draw();
    } catch {
      // The stream tells that the exporter is gone
    }
  }

  select.addEventListener("change", load);
  const refresh = () => document.hidden || document.body.hasAttribute("data-paused") || load();
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, EVERY_MS);
  load();
})();
