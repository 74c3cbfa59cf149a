"use strict";
// Several runs: a link to one of them opens it.
const show = () => {
  const run = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (run && run.matches("details")) run.open = true;
};
addEventListener("hashchange", show);
show();
// Tables: a button in a column's head sorts by it; again, the other way round.
const value = cell => cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), column = head.cellIndex;
    const first = head.dataset.first || "descending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const one of table.querySelectorAll("thead th")) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map(row => [value(row.cells[column]), row]);
    rows.sort((a, b) => sign * compare(a[0], b[0]));
    table.tBodies[0].append(...rows.map(pair => pair[1]));
  });
}
// Confusion matrices: rows and columns are sorted alike; a cell that is pointed at or focused tells its count.
const tip = document.getElementById("tip");
for (const table of document.querySelectorAll("table.confusion")) {
  const body = table.tBodies[0], names = new Map([...body.rows].map(row => [row.dataset.place, row.cells[0].title]));
  let at = null;
  const orders = {
    place: (a, b) => a.place - b.place,
    name: (a, b) => names.get(a.place).localeCompare(names.get(b.place)),
    videos: (a, b) => b.videos - a.videos,
    recall: (a, b) => a.recall - b.recall,
    errors: (a, b) => b.errors - a.errors,
  };
  const leave = () => {
    for (const one of table.querySelectorAll(".at")) one.classList.remove("at");
    at = null;
    tip.textContent = "";
  };
  const sort = order => {
    leave();
    const rows = [...body.rows], before = rows.map(row => row.dataset.place);
    rows.sort((a, b) => orders[order](a.dataset, b.dataset) || a.dataset.place - b.dataset.place);
    const columns = rows.map(row => before.indexOf(row.dataset.place) + 1);
    for (const row of [table.tHead.rows[0], ...rows]) {
      const cells = [...row.cells];
      row.append(...columns.map(column => cells[column]));
    }
    body.append(...rows);
  };
  const buttons = [...document.querySelectorAll(`[data-sorts="${table.id}"] button`)];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
      sort(button.dataset.order);
    });
  }
  const enter = cell => {
    if (cell === at) return;
    leave();
    at = cell;
    const row = cell.parentElement, place = body.rows[cell.cellIndex - 1].dataset.place, videos = row.dataset.videos;
    const count = cell.textContent || "0", label = names.get(row.dataset.place), predicted = names.get(place);
    cell.classList.add("at");
    row.cells[0].classList.add("at");
    table.tHead.rows[0].cells[cell.cellIndex].classList.add("at");
    const share = videos > 0 ? ` (${(100 * count / videos).toFixed(1)} %)` : "";
    const what = row.dataset.place === place ? `of ${label} recognised` : `of ${label} taken for ${predicted}`;
    tip.textContent = `${count} of ${videos} videos ${what}${share}`;
    const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(box.left, document.documentElement.clientWidth - own.width - 4))}px`;
    tip.style.top = `${box.bottom + own.height + 12 > innerHeight ? box.top - own.height - 6 : box.bottom + 6}px`;
  };
  const cellOf = event => event.target.closest("tbody td");
  body.addEventListener("mouseover", event => { const cell = cellOf(event); if (cell) enter(cell); });
  table.addEventListener("mouseleave", leave);
  body.addEventListener("focusin", event => { const cell = cellOf(event); if (cell) enter(cell); });
  table.addEventListener("focusout", leave);
  table.closest(".scroll").addEventListener("scroll", () => { if (!table.contains(document.activeElement)) leave(); });
  const go = cell => {
    for (const one of body.querySelectorAll("td[tabindex]")) one.removeAttribute("tabindex");
    cell.tabIndex = 0;
    cell.focus();
  };
  body.addEventListener("click", event => { const cell = cellOf(event); if (cell) go(cell); });
  body.addEventListener("keydown", event => {
    const cell = cellOf(event);
    if (!cell) return;
    const row = cell.parentElement.sectionRowIndex, column = cell.cellIndex, last = body.rows.length - 1;
    const to = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1], Home: [row, 1], End: [row, last + 1], PageUp: [0, column], PageDown: [last, column],
    }[event.key];
    if (event.key === "Escape") leave();
    if (!to) return;
    event.preventDefault();
    go(body.rows[Math.max(0, Math.min(to[0], last))].cells[Math.max(1, Math.min(to[1], last + 1))]);
  });
  if (body.rows.length) body.rows[0].cells[1].tabIndex = 0;
}
