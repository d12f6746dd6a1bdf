// The upload page: files or a folder are dropped or chosen, sent one by one through the API with
// progress, continued where the connection broke, and checked. Without script it is a plain form.
"use strict";

const API = "/api/v1/uploads";
const SENDABLE = /^([A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(json|md|txt|jsonl|yaml|yml|jinja)|adapter_model\.(safetensors|bin))$/;
const ATTEMPTS = 8;

for (const form of document.querySelectorAll("form[data-upload]")) begin(form);

function begin(form) {
  const find = (name) => form.querySelector(`[data-${name}]`);
  const zone = find("drop");
  const input = form.querySelector("input[type=file]");
  const state = { form, find, input, draft: form.dataset.draft || "", request: null, cancelled: false };

  // With script the field hides behind two buttons: a folder can be chosen as well.
  input.hidden = true;
  find("send").hidden = true;
  find("choose").hidden = false;
  find("choose-files").addEventListener("click", () => choose(input, false));
  find("choose-folder").addEventListener("click", () => choose(input, true));
  input.addEventListener("change", () => send(state, [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }))));

  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    // The entries are gone once the event is over: take them before the first await.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    const loose = [...event.dataTransfer.files];
    const found = entries.some(Boolean) ? await readEntries(entries.filter(Boolean)) : loose.map((file) => ({ file, path: file.name }));
    send(state, found);
  });
  find("cancel").addEventListener("click", () => {
    state.cancelled = true;
    if (state.request) state.request.abort();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
}

function choose(input, folder) {
  input.webkitdirectory = folder;
  input.value = "";
  input.click();
}

// ---- folders ------------------------------------------------------------------------------------
async function readEntries(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      let batch;
      do {
        batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        found.push(...(await readEntries(batch)));
      } while (batch.length);
    }
  }
  return found;
}

// Of a folder with checkpoints in it, take the adapter that lies highest; leave out what is none.
function pick(found) {
  const depth = (item) => item.path.split("/").length;
  const folder = (item) => item.path.split("/").slice(0, -1).join("/");
  const configs = found.filter((item) => item.file.name === "adapter_config.json");
  configs.sort((a, b) => depth(a) - depth(b) || a.path.localeCompare(b.path));
  const home = configs.length ? folder(configs[0]) : null;
  const near = home === null ? found : found.filter((item) => folder(item) === home);
  const files = near.filter((item) => SENDABLE.test(item.file.name)).map((item) => item.file);
  const left = found.map((item) => item.file.name).filter((name) => !files.some((file) => file.name === name));
  // Both forms of the weights: the safe one is the one.
  const safe = files.some((file) => file.name === "adapter_model.safetensors");
  return { files: safe ? files.filter((file) => file.name !== "adapter_model.bin") : files, left };
}

// ---- sending --------------------------------------------------------------------------------------
async function send(state, found) {
  const { files, left } = pick(found);
  hideTrouble(state);
  state.cancelled = false;
  if (!files.length) {
    const seen = left.length ? `What you chose (${left.slice(0, 4).join(", ")}) is not part of a LoRA adapter. ` : "";
    showTrouble(state, [`${seen}Choose the folder that save_pretrained() wrote, or adapter_config.json and adapter_model.safetensors from it.`]);
    return;
  }
  const limit = Number(state.form.dataset.weightsLimit) || Infinity;
  const large = files.filter((file) => file.size > limit);
  if (large.length) {
    showTrouble(state, large.map((file) => `${file.name} has ${size(file.size)}; at most ${size(limit)} are allowed. Save in float16, or train with a smaller rank or fewer modules.`));
    return;
  }
  const rows = showRows(state, files);
  const fresh = !state.draft;
  try {
    if (fresh) state.draft = (await call(state, "POST", API, {})).id;
    for (const [place, file] of files.entries()) {
      say(state, `Sending ${file.name}, ${place + 1} of ${files.length}${left.length ? `; left out: ${left.slice(0, 4).join(", ")}` : ""}`);
      await sendFile(state, file, rows[place]);
    }
    say(state, "Checking the files against their base model…");
    await check(state);
    location.assign(`/upload/${state.draft}`);
  } catch (error) {
    if (state.cancelled) {
      if (fresh && state.draft) await discard(state);
      reset(state);
    } else {
      showTrouble(state, error.texts || [error.message], Boolean(state.draft));
    }
  }
}

async function sendFile(state, file, row) {
  let offset = 0;
  for (let attempt = 1; ; attempt += 1) {
    try {
      await put(state, file, offset, row);
      row.querySelector("[data-done]").textContent = "hashed";
      return;
    } catch (error) {
      const passing = !error.status || [408, 409, 429, 502, 503, 504].includes(error.status);
      if (state.cancelled || !passing || attempt === ATTEMPTS) throw error;
      row.querySelector("[data-done]").textContent = "connecting again";
      await wait(Math.min(8000, 500 * 2 ** attempt));
      const draft = await call(state, "GET", `${API}/${state.draft}`).catch(() => null);
      const part = draft && draft.files.find((item) => item.path === file.name);
      offset = part && !part.complete && part.received < file.size ? part.received : 0;
    }
  }
}

function put(state, file, offset, row) {
  const bar = row.querySelector("progress");
  const done = row.querySelector("[data-done]");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    state.request = request;
    request.open("PUT", `${API}/${state.draft}/files/${encodeURIComponent(file.name)}?offset=${offset}&size=${file.size}`);
    request.setRequestHeader("X-CSRFToken", token(state));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      const share = file.size ? Math.floor((100 * (offset + event.loaded)) / file.size) : 100;
      bar.value = Math.min(100, share);
      done.textContent = `${Math.min(100, share)} %`;
    });
    request.addEventListener("load", () => {
      bar.value = 100;
      if (request.status < 300) resolve(parse(request.responseText));
      else reject(refusal(request.status, parse(request.responseText)));
    });
    request.addEventListener("error", () => reject(refusal(0, { error: "The connection broke off." })));
    request.addEventListener("abort", () => reject(refusal(0, { error: "Cancelled." })));
    request.send(offset ? file.slice(offset) : file);
  });
}

async function check(state) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call(state, "POST", `${API}/${state.draft}/validate`, {});
    } catch (error) {
      if (error.status !== 409 || attempt === ATTEMPTS) throw error;
      await wait(1500);
    }
  }
}

async function discard(state) {
  await call(state, "DELETE", `${API}/${state.draft}`).catch(() => null);
  state.draft = "";
}

async function call(state, method, address, body) {
  const headers = { "X-CSRFToken": token(state), Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
  } catch {
    throw refusal(0, { error: "The server cannot be reached. Check the connection and try again." });
  }
  const data = parse(await answer.text());
  if (!answer.ok) throw refusal(answer.status, data);
  return data;
}

function refusal(status, data) {
  const problems = data.problems && !Array.isArray(data.problems) ? Object.values(data.problems).flat() : [];
  const texts = problems.length ? problems : [data.error || data.detail || `The server could not do this (error ${status}).`];
  return Object.assign(new Error(texts.join(" ")), { status, texts });
}

function parse(text) {
  try {
    return JSON.parse(text) || {};
  } catch {
    return {};
  }
}

// ---- what is seen ---------------------------------------------------------------------------------
function showRows(state, files) {
  state.find("drop").hidden = true;
  state.find("sending").hidden = false;
  const body = state.find("rows");
  body.replaceChildren();
  return files.map((file) => {
    body.append(state.find("row").content.cloneNode(true));
    const row = body.lastElementChild;
    row.querySelector("[data-name]").textContent = file.name;
    row.querySelector("[data-size]").textContent = size(file.size);
    row.querySelector("progress").setAttribute("aria-label", `Sent of ${file.name}`);
    return row;
  });
}

function reset(state) {
  state.find("drop").hidden = false;
  state.find("sending").hidden = true;
}

function showTrouble(state, texts, kept) {
  reset(state);
  const box = state.find("trouble-text");
  box.replaceChildren();
  for (const text of texts) {
    const line = document.createElement("p");
    line.textContent = text;
    box.append(line);
  }
  if (kept && !state.form.dataset.draft) {
    const line = document.createElement("p");
    const link = document.createElement("a");
    link.href = `/upload/${state.draft}`;
    link.textContent = "Open the draft";
    line.append("What arrived is kept. ", link, ", or choose the files again.");
    box.append(line);
  }
  state.find("trouble").hidden = false;
}

function hideTrouble(state) {
  state.find("trouble").hidden = true;
}

function say(state, text) {
  state.find("status").textContent = text;
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB"];
  let value = bytes / 1000;
  let place = 0;
  while (value >= 1000 && place < units.length - 1) {
    value /= 1000;
    place += 1;
  }
  return `${value.toFixed(1)} ${units[place]}`;
}

function token(state) {
  return state.form.querySelector("input[name=csrfmiddlewaretoken]").value;
}

function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// ---- the draft page: the way to a folded part opens it ----------------------------------------------
function openTarget() {
  const target = location.hash === "#replace" && document.getElementById("replace");
  if (target) target.open = true;
}
window.addEventListener("hashchange", openTarget);
document.addEventListener("click", (event) => {
  if (event.target instanceof Element && event.target.closest("a[href='#replace']")) {
    const target = document.getElementById("replace");
    if (target) target.open = true;
  }
});
openTarget();
