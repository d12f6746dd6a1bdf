// The page of a running job, be it a composition, an import or an export: at every event of its
// stream the changing part is fetched anew, at most twice a second; where no stream can be had it is
// fetched every two seconds. When the job is over the page is loaded again: then it holds the end.
"use strict";

const box = document.getElementById("live-box");
const statusLine = document.getElementById("job-status");
const PAUSE = 500;
const POLL = 2000;

let isWaiting = false;
let isFetching = false;
let asksAgain = false;
let poller = null;

function announce(live) {
  const sentence = live.dataset.sentence;
  if (statusLine && statusLine.textContent !== sentence) statusLine.textContent = sentence;
}

async function refresh() {
  if (isFetching) {
    asksAgain = true;
    return;
  }
  isFetching = true;
  try {
    const answer = await fetch(box.dataset.progress, { credentials: "same-origin" });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const live = page.getElementById("live");
    if (!live) return;
    if (!["queued", "running"].includes(live.dataset.state)) {
      location.reload();
      return;
    }
    show(live);
  } catch {
    // The next event, or the poller, tries again.
  } finally {
    isFetching = false;
    if (asksAgain) {
      asksAgain = false;
      refreshSoon();
    }
  }
}

function show(live) {
  const log = box.querySelector(".log");
  const wasAtEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  const top = log ? log.scrollTop : 0;
  const hadFocus = log && document.activeElement === log;
  box.replaceChildren(live);
  const fresh = box.querySelector(".log");
  if (fresh) fresh.scrollTop = wasAtEnd ? fresh.scrollHeight : top;
  if (hadFocus && fresh) fresh.focus({ preventScroll: true });
  announce(live);
}

function refreshSoon() {
  if (isWaiting) return;
  isWaiting = true;
  setTimeout(() => {
    isWaiting = false;
    refresh();
  }, PAUSE);
}

function poll() {
  if (poller === null) poller = setInterval(refresh, POLL);
}

function stopPolling() {
  clearInterval(poller);
  poller = null;
}

function listen() {
  const source = new EventSource(box.dataset.stream);
  source.addEventListener("open", stopPolling);
  for (const kind of ["state", "progress", "log"]) source.addEventListener(kind, refreshSoon);
  source.addEventListener("error", () => {
    poll();
    // A stream that was refused is not opened again by the browser.
    if (source.readyState === EventSource.CLOSED) source.close();
  });
}

if (box && box.dataset.progress) {
  const log = box.querySelector(".log");
  if (log) log.scrollTop = log.scrollHeight;
  if ("EventSource" in window && box.dataset.stream) listen();
  else poll();
  refreshSoon();
}
