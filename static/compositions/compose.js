// The compose page: shows only the parts that the chosen method needs, adds rows without a round
// trip, and marks which rows are for fitting. The page works without it.
"use strict";

const form = document.getElementById("compose-form");
const table = document.getElementById("rows");

function isFilled(row) {
  return [...row.querySelectorAll("textarea")].some((field) => field.value.trim());
}

// <div data-when="method=screened,hand"> is there while the field has one of the values.
function showParts() {
  const data = new FormData(form);
  for (const part of form.querySelectorAll("[data-when]")) {
    const [name, values] = part.dataset.when.split("=");
    part.hidden = !values.split(",").includes(data.get(name));
  }
}

function markRows() {
  const split = document.querySelector("#split [data-fit]");
  const fit = split ? Number(split.dataset.fit) : 0;
  let place = 0;
  for (const row of table.tBodies[0].rows) {
    const badge = row.querySelector("[data-use]");
    const filled = isFilled(row);
    if (filled) place += 1;
    badge.textContent = filled ? (place <= fit ? "fit" : "held-out") : "";
    badge.classList.toggle("accent", filled && place <= fit);
    badge.hidden = !filled;
  }
}

function addRow() {
  const rows = table.tBodies[0].rows;
  const fresh = rows[rows.length - 1].cloneNode(true);
  const number = rows.length + 1;
  fresh.cells[0].textContent = number;
  fresh.querySelectorAll("textarea").forEach((field, place) => {
    field.value = "";
    field.textContent = "";
    field.setAttribute("aria-label", `${place ? "Output" : "Input"} of row ${number}`);
  });
  table.tBodies[0].append(fresh);
  return fresh;
}

form.addEventListener("click", (event) => {
  if (!event.target.closest("[data-add-row]")) return;
  event.preventDefault();
  const fresh = addRow();
  markRows();
  fresh.querySelector("textarea").focus();
});

form.addEventListener("input", (event) => {
  if (event.target.closest("#rows")) {
    const rows = table.tBodies[0].rows;
    if (isFilled(rows[rows.length - 1])) addRow();
    markRows();
  }
});

form.addEventListener("change", (event) => {
  showParts();
  if (event.target.name === "examples_file" && event.target.files.length) {
    form.requestSubmit(document.getElementById("read-rows"));
  }
});

document.addEventListener("htmx:afterSettle", () => markRows());

showParts();
markRows();
