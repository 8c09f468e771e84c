"use strict";
// Tables: a heading sorts, missing values last; a search keeps the rows that contain every word; a long table
// has its rows as JSON and shows them page by page.
const PAGE = {{ page_rows }};
function rowsOf(table) {
  const stored = document.getElementById(table.id + "-rows");
  if (stored === null) return [...table.tBodies[0].rows].map((element) => ({ element, cells: [...element.cells] }));
  const { rows, styles, labels, more, texts } = JSON.parse(stored.textContent);
  return rows.map((cells, place) => ({
    cells, style: styles[place] ?? "", label: labels[place] ?? labels[0],
    more: texts[more[place]].replaceAll("\0", Array.isArray(cells[0]) ? cells[0][0] : cells[0]),
  }));
}
function key(row, column, numeric) {
  const cell = row.cells[column];
  if (cell instanceof Element) {
    const given = cell.dataset.value;
    if (given === undefined) return cell.textContent.trim().toLowerCase();
    return given === "" ? null : Number(given);
  }
  if (Array.isArray(cell)) return cell[1];
  if (!numeric) return cell.toLowerCase();
  const number = Number(cell.replaceAll(",", ""));
  return cell === "" || Number.isNaN(number) ? null : number;
}
function words(row) {
  row.words ??= (row.element ? row.element.textContent : row.cells.map((c) => (Array.isArray(c) ? c[0] : c)).join(" ") + " " + row.more).toLowerCase();
  return row.words;
}
function build(row, heads) {
  if (row.element) return row.element;
  const element = (row.element = document.createElement("tr"));
  element.className = row.style;
  row.cells.forEach((cell, column) => {
    const made = document.createElement(column ? "td" : "th");
    if (!column) made.scope = "row";
    if (heads[column].classList.contains("n")) made.className = "n";
    made.textContent = Array.isArray(cell) ? cell[0] : cell;
    element.append(made);
  });
  if (row.more) {
    const fold = document.createElement("details"), summary = document.createElement("summary"), pre = document.createElement("pre");
    summary.textContent = row.label;
    pre.textContent = row.more;
    fold.append(summary, pre);
    element.lastChild.append(fold);
  }
  return element;
}
function wake(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const tools = (name) => document.querySelector(`${name}[data-table="${table.id}"]`);
  const turns = [...document.querySelectorAll(`button[data-table="${table.id}"]`)];
  const count = document.getElementById(table.id + "-count"), box = tools("input");
  const size = turns.length ? PAGE : Infinity;
  let all = null, page = 0, shown = [];
  const rows = () => (all ??= rowsOf(table));
  function show() {
    const wanted = (box?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    shown = wanted.length ? rows().filter((row) => wanted.every((word) => words(row).includes(word))) : rows();
    const last = Math.max(0, Math.ceil(shown.length / size) - 1);
    page = Math.min(Math.max(0, page), last);
    const start = size === Infinity ? 0 : page * size, part = shown.slice(start, start + size);
    body.replaceChildren(...part.map((row) => build(row, heads)));
    for (const turn of turns) turn.disabled = turn.dataset.turn < 0 ? page === 0 : page === last;
    const text = (number) => number.toLocaleString("en");
    const span = part.length < shown.length ? `${text(start + 1)}–${text(start + part.length)} of ` : "";
    const found = shown.length < rows().length || !span ? `${text(shown.length)} of ` : "";
    if (count) count.textContent = span + found + text(rows().length);
  }
  table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (!heading?.hasAttribute("aria-sort")) return;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows().map((row) => [key(row, heading.cellIndex, heading.classList.contains("n")), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    });
    all = keyed.map(([, row]) => row);
    page = 0;
    show();
  });
  box?.addEventListener("input", () => { page = 0; show(); });
  for (const turn of turns) turn.addEventListener("click", () => { page += Number(turn.dataset.turn); show(); });
}
for (const table of document.querySelectorAll("table.sortable")) wake(table);
