"use strict";
// Fills, sorts and filters tables. Text from processes becomes text nodes only, never markup.

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const tables = (() => {
  const given = new WeakMap(); // the rows of a table, in the server's order
  const sorting = new WeakMap(); // by which column a table is sorted: { column, sign }
  let wanted = "";

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

  function numeric(text) {
    if (text.startsWith("<")) return Number.MIN_VALUE;
    const number = Number(text.replaceAll(",", ""));
    return Number.isNaN(number) ? -1 : number;
  }

  function compare(table, { column, sign }) {
    const text = (row) => row.cells[column].textContent;
    if (table.tHead.rows[0].cells[column].classList.contains("number")) return (a, b) => sign * (numeric(text(a)) - numeric(text(b)));
    return (a, b) => sign * text(a).localeCompare(text(b), "en", { numeric: true });
  }

  function arrange(table) {
    const body = table.tBodies[0];
    const rows = [...given.get(table)];
    if (sorting.has(table)) rows.sort(compare(table, sorting.get(table)));
    const filtered = wanted && table.classList.contains("filtered");
    const shown = filtered ? rows.filter((row) => row.textContent.toLowerCase().includes(wanted)) : rows;
    const nothing = rows.length && !shown.length ? "None matches the filter." : body.dataset.nothing;
    const columns = table.tHead.rows[0].cells.length;
    body.replaceChildren(...(shown.length ? shown : [element("tr", {}, element("td", { class: "soft", colspan: columns }, nothing))]));
  }

  function fill(table, { rows, shares = [], marked = null }) {
    const made = rows.map((cells) => row(table, cells));
    shares.forEach((share, number) => made[number].cells[0].append(bar(share)));
    if (marked !== null) made[marked].className = "on";
    given.set(table, made);
    arrange(table);
  }

  function prepend(table, rows, most) {
    const made = rows.map((cells) => row(table, cells)).reverse();
    given.set(table, [...made, ...given.get(table)].slice(0, most));
    arrange(table);
  }

  function sortBy(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const before = sorting.get(table);
    const first = heads[column].classList.contains("number") ? -1 : 1; // numbers: the largest first
    const sign = before && before.column === column ? -before.sign : first;
    sorting.set(table, { column, sign });
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    arrange(table);
  }

  function filter(text) {
    wanted = text.trim().toLowerCase();
    for (const table of document.querySelectorAll("table.filtered")) arrange(table);
  }

  for (const table of document.querySelectorAll("table")) {
    given.set(table, [...table.tBodies[0].rows].filter((row) => row.cells.length > 1));
    if (!table.classList.contains("filtered")) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = element("button", { type: "button", class: "sort" }, ...head.childNodes);
      button.addEventListener("click", () => sortBy(table, column));
      head.append(button);
    });
  }

  return { fill, prepend, filter };
})();
