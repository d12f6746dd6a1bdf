// Small behaviour for every page. Everything works without it: pages are links and forms.
// What belongs to one page only lives in static/<app>/<page>.js.
"use strict";

// ---- copy buttons: <button data-copy="text"> or <button data-copy-from="#id"> ----------------
async function copyFrom(button) {
  const source = button.dataset.copyFrom && document.querySelector(button.dataset.copyFrom);
  const text = source ? source.textContent.trim() : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https the clipboard is closed to scripts: select the text, so that Ctrl+C copies it.
    if (source) getSelection().selectAllChildren(source);
    showToast(source ? "Press Ctrl+C to copy the selected text." : `Copy it from here: ${text}`);
    return;
  }
  const use = button.querySelector("use");
  const before = use && use.getAttribute("href");
  if (use) use.setAttribute("href", "#i-check");
  button.classList.add("copied");
  showToast("Copied.", "ok");
  setTimeout(() => {
    if (use) use.setAttribute("href", before);
    button.classList.remove("copied");
  }, 2000);
}

// ---- toasts: short notes about something the page itself does not show -------------------------
function showToast(text, kind = "") {
  const box = document.getElementById("toasts");
  if (!box) return;
  const toast = document.createElement("div");
  toast.className = `toast ${kind}`.trim();
  const words = document.createElement("div");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "plain";
  close.textContent = "Close";
  close.addEventListener("click", () => toast.remove());
  toast.append(words, close);
  box.append(toast);
  while (box.children.length > 3) box.firstElementChild.remove();
  if (kind !== "danger") setTimeout(() => toast.remove(), 5000);
}
window.showToast = showToast;

// ---- clicks ---------------------------------------------------------------------------------------
document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target) return;
  for (const menu of document.querySelectorAll("details.pop[open]")) {
    if (!menu.contains(target)) menu.open = false;
  }
  // A disabled control carries its reason in its text; it stays focusable and does nothing.
  if (target.closest("[aria-disabled=true]")) {
    event.preventDefault();
    event.stopPropagation();
    return;
  }
  const copy = target.closest("[data-copy], [data-copy-from]");
  if (copy) {
    event.preventDefault();
    copyFrom(copy);
    return;
  }
  const opener = target.closest("[data-open]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.open);
    if (dialog && dialog.showModal) {
      event.preventDefault();
      dialog.showModal();
    }
    return;
  }
  const dialog = target.closest("dialog");
  if (dialog && (target === dialog || target.closest("[data-close]"))) {
    if (target.closest("[data-close]")) event.preventDefault();
    dialog.close();
  }
}, true);

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.pop[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// ---- forms ------------------------------------------------------------------------------------------
// A form is sent once: a second press of the same button would start a second job.
document.addEventListener("submit", (event) => {
  const form = event.target;
  // Not form.method: a field called "method" would hide it.
  const posts = (form.getAttribute("method") || "").toLowerCase() === "post";
  if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) {
    event.preventDefault();
    event.stopPropagation();
    return;
  }
  if (!posts || event.defaultPrevented || form.matches("[hx-post], [hx-put]")) return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  if (event.submitter) event.submitter.setAttribute("aria-busy", "true");
});
// Coming back with the browser's back button shows the page as it was left: make it usable again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of document.querySelectorAll("form [aria-busy=true]")) {
    button.removeAttribute("aria-busy");
  }
});

// <select data-submit> sends its form at once; the form's own button is for pages without script.
document.addEventListener("change", (event) => {
  const field = event.target;
  if (field instanceof Element && field.matches("[data-submit]") && !field.closest("[hx-get]")) {
    field.form.requestSubmit();
  }
});

// ---- htmx: say what went wrong instead of staying silent -----------------------------------------------
document.addEventListener("htmx:responseError", (event) => {
  const status = event.detail.xhr.status;
  const words = {
    403: "This is not allowed, or you were signed out. Reload the page and try again.",
    404: "This is not here any more. Reload the page.",
    413: "That is too large.",
    429: "Too many requests. Wait a minute and try again.",
  };
  showToast(words[status] || `The server could not do this (error ${status}). Try again.`, "danger");
});
document.addEventListener("htmx:sendError", () => {
  showToast("The server cannot be reached. Check the connection and try again.", "danger");
});
