// Drag and drop of a folder or files: each file is sent as it is, with its own progress bar, then
// checked. Without this script the form below sends the same files in one request.
"use strict";

const drop = document.getElementById("drop");
const list = document.getElementById("sending");
const token = drop.querySelector("[name=csrfmiddlewaretoken]").value;

async function call(method, path, body) {
  const answer = await fetch(`/api/v1/uploads${path}`, {
    method,
    headers: { "X-CSRFToken": token, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const data = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw new Error(data.error || `The site answered ${answer.status}.`);
  return data;
}

function sendFile(draft, file, row) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/v1/uploads/${draft}/files/${encodeURIComponent(file.name)}`);
    request.setRequestHeader("X-CSRFToken", token);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) row.bar.value = event.loaded / event.total;
    });
    request.addEventListener("load", () => {
      if (request.status < 300) return resolve();
      let text = `The site answered ${request.status}.`;
      try {
        text = JSON.parse(request.responseText).error || text;
      } catch {
        // The text above says enough.
      }
      reject(new Error(text));
    });
    request.addEventListener("error", () => reject(new Error("The connection was lost. Send it again.")));
    request.send(file);
  });
}

function addRow(file) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = file.name;
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", `Sending ${file.name}`);
  const state = document.createElement("span");
  item.append(name, bar, state);
  list.append(item);
  return { item, bar, state };
}

async function sendAll(files) {
  if (!files.length) return;
  list.replaceChildren();
  try {
    const draft = drop.dataset.upload || (await call("POST", "", {})).id;
    drop.dataset.upload = draft;
    let failed = false;
    for (const file of files) {
      const row = addRow(file);
      try {
        await sendFile(draft, file, row);
        row.bar.value = 1;
        row.state.textContent = "received";
      } catch (error) {
        failed = true;
        row.item.classList.add("bad");
        row.state.textContent = error.message;
      }
    }
    if (failed) {
      window.showToast("Some files were not received; the others are kept in the draft.", "danger");
      return;
    }
    await call("POST", `/${draft}/check`, {});
    window.location.assign(`/upload/${draft}`);
  } catch (error) {
    window.showToast(error.message, "danger");
  }
}

async function readEntry(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const found = [];
  // A folder is read in portions until one is empty.
  for (;;) {
    const portion = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!portion.length) return found;
    for (const child of portion) found.push(...(await readEntry(child)));
  }
}

drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const files = [];
  for (const entry of entries) files.push(...(await readEntry(entry)));
  sendAll(files.filter((file) => !file.name.startsWith(".")));
});
drop.addEventListener("submit", (event) => {
  event.preventDefault();
  sendAll([...drop.querySelector("[type=file]").files]);
});
drop.querySelector("[type=file]").addEventListener("change", (event) => sendAll([...event.target.files]));
