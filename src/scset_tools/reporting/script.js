"use strict";
// a click on a heading sorts: numbers by value, texts as people do, empty ones last
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, i) => head.addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = (row) => row.cells[i].dataset.v ?? row.cells[i].textContent.trim();
    const is_number = [...body.rows].some((row) => row.cells[i].dataset.v !== undefined);
    const compare = (a, b) => (a === "") - (b === "") || sign * (is_number ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    body.append(...[...body.rows].map((row) => [value(row), row]).sort((a, b) => compare(a[0], b[0])).map((pair) => pair[1]));
  }));
}
// a sample that is pointed at or tapped is shown in every map and table
const readout = document.querySelector(".readout"), marked = document.querySelectorAll("[data-s]");
const show = (s) => {
  for (const element of marked) element.classList.toggle("chosen", element.dataset.s === s);
  const point = s === null ? null : document.querySelector(`.point[data-s="${s}"] title`);
  readout.textContent = point === null ? "" : point.textContent;
};
for (const event of ["pointerover", "click"]) document.addEventListener(event, (e) => {
  const found = e.target.closest ? e.target.closest("[data-s]") : null;
  if (found !== null) show(found.dataset.s); else if (event === "click") show(null);
});
