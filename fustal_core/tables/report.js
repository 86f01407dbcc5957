"use strict";
// Sorting of tables, enlarging of figures on small screens, folded parts opened for print.
// Without this script everything can still be read.

// The number that a text begins with: "39.7 ± 7.5", "[+0.3, 1.9]", "−5.1 points"; null if none.
function leadingNumber(text) {
  const found = /^[\[(~<>≈]?\s*([+\-−]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)/i.exec(text);
  return found ? Number(found[1].replace("−", "-")) : null;
}

function isBlank(text) {
  return ["", "-", "—", "–", "nan"].includes(text.toLowerCase());
}

function textOf(row, column) {
  return row.cells[column].textContent.trim();
}

function numberOf(row, column) {
  const exact = row.cells[column].dataset.value;
  if (exact === undefined) return leadingNumber(textOf(row, column));
  return Number(exact.replace("inf", "Infinity"));
}

// Compares two rows by a column; cells without content come last in either direction.
function comparison(rows, column, direction) {
  const filled = rows.filter((row) => !isBlank(textOf(row, column)));
  const numeric = filled.every((row) => numberOf(row, column) !== null);
  return (a, b) => {
    const [first, second] = [textOf(a, column), textOf(b, column)];
    if (isBlank(first) || isBlank(second)) return isBlank(first) - isBlank(second);
    const order = numeric
      ? numberOf(a, column) - numberOf(b, column)
      : first.localeCompare(second, "en", { numeric: true });
    return direction * order;
  };
}

const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

function sortBy(table, header) {
  const state = NEXT[header.getAttribute("aria-sort")];
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", state);
  const direction = state === "descending" ? -1 : 1;
  // All rows decide together whether the column is one of numbers; groups are sorted one by one.
  const all = [...table.tBodies].flatMap((body) => body.originalRows);
  const compare = comparison(all, header.cellIndex, direction);
  for (const body of table.tBodies) {
    const rows = [...body.originalRows];
    body.append(...(state === "none" ? rows : rows.sort(compare)));
  }
}

function makeSortable(table) {
  for (const body of table.tBodies) {
    body.originalRows = [...body.rows].filter((row) => !row.classList.contains("group"));
  }
  if ([...table.tBodies].every((body) => body.originalRows.length < 2)) return;
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(table, header));
    header.append(button);
    header.setAttribute("aria-sort", "none");
  }
}

function makeEnlargeable(card) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.textContent = "Enlarge";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const large = card.classList.toggle("large");
    button.setAttribute("aria-pressed", String(large));
  });
  card.after(button);
}

document.querySelectorAll("table").forEach(makeSortable);
document.querySelectorAll(".card").forEach(makeEnlargeable);

let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
});
window.addEventListener("afterprint", () => {
  for (const part of opened) part.open = false;
});

