"use strict";

const MOST_KEPT = 20; // pairs of latencies of which the speed-up is the median
const byId = (id) => document.getElementById(id);
const roles = ["student", "teacher"].filter((role) => byId(role));
const mostBytes = Number(document.body.dataset.mostBytes);
const speedUps = [];
let shown = null; // the picture of the result: a file and its name
let urls = {}; // of the results, by figure
let busy = false;

// -- one picture ----------------------------------------------------------------------------------

async function translate(file, name) {
  if (busy) return;
  setBusy(true);
  try {
    if (file.size > mostBytes) {
      throw new Error(`The file has more than ${mostBytes / 2 ** 20} MiB, which is the most here: shrink it.`);
    }
    // in turn, as the first of two may find a warmer or a slower machine
    const order = speedUps.length % 2 ? [...roles].reverse() : roles;
    const steps = ["source", ...order];
    const made = {};
    for (const [done, step] of steps.entries()) {
      report(step === "source" ? `Reading ${name}` : `The ${step} works on ${name}`, done, steps.length);
      made[step] = await post(step, file);
    }
    shown = { file, name };
    await show(made, name);
    report(`${name} is translated.`);
  } catch (error) {
    report("");
    byId("error").textContent = `${name}: ${error.message}`;
  } finally {
    setBusy(false);
  }
}

async function post(step, file) {
  let response;
  try {
    response = await fetch(`${step}?size=${byId("size").value}`, { method: "POST", body: file });
  } catch {
    throw new Error("The demo doesn't answer: see whether it still runs in its terminal.");
  }
  if (response.status === 503) throw new Error("Others use the demo right now: try again in a moment.");
  if (response.status >= 500) throw new Error("The demo has failed: its terminal shows why.");
  if (!response.ok) throw new Error(await response.text());
  const timing = /dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
  return { picture: await response.blob(), milliseconds: timing ? Number(timing[1]) : 0 };
}

function setBusy(now) {
  busy = now;
  document.body.classList.toggle("busy", now);
  for (const control of document.querySelectorAll(".choose input, .choose select, .choose button")) {
    control.disabled = now;
  }
  if (now) byId("error").textContent = "";
  byId("progress").hidden = !now;
}

function report(text, done = 0, steps = 1) {
  byId("status").textContent = text;
  byId("progress").max = steps;
  byId("progress").value = done;
}

// -- its results ----------------------------------------------------------------------------------

async function show(made, name) {
  Object.values(urls).forEach(URL.revokeObjectURL);
  urls = {};
  const stem = name.replace(/\.[^.]*$/, "");
  for (const [step, { picture, milliseconds }] of Object.entries(made)) {
    const figure = byId(step);
    urls[step] = URL.createObjectURL(picture);
    figure.querySelector("img").src = urls[step];
    figure.querySelector("img").alt = step === "source" ? `Source, ${name}` : `${name} by the ${step}`;
    if (step === "source") continue;
    figure.querySelector("figcaption > span").textContent = inMilliseconds(milliseconds);
    const link = figure.querySelector("a");
    link.href = urls[step];
    link.download = `${stem}_${step}.png`;
  }
  byId("result").hidden = false;
  compare();
  await Promise.all(["left", "right"].map((side) => byId(side).decode()));
  byId("compare").style.setProperty("--aspect", byId("left").naturalWidth / byId("left").naturalHeight);
  byId("compare").scrollIntoView({ block: "nearest" });
  if (made.teacher && made.student.milliseconds > 0) {
    speedUps.push(made.teacher.milliseconds / made.student.milliseconds);
    speedUps.splice(0, speedUps.length - MOST_KEPT);
    byId("speed").textContent = `${median(speedUps).toFixed(1)}×`;
    const count = speedUps.length;
    byId("speed-detail").textContent = count > 1 ? `median of your last ${count} pictures` : "with one picture";
  }
}

function compare() {
  const left = document.querySelector("[name=left]:checked")?.value ?? "source";
  for (const [side, step] of [["left", left], ["right", "student"]]) {
    byId(side).src = urls[step];
    byId(side).alt = `${step}, on the ${side}`;
    byId(`${side}-tag`).textContent = step;
  }
  slide();
}

function slide() {
  const slider = byId("slider");
  byId("compare").style.setProperty("--at", `${slider.value}%`);
  const left = byId("left-tag").textContent;
  slider.setAttribute("aria-valuetext", `${Math.round(slider.value)} percent ${left}, the rest student`);
}

function inMilliseconds(value) {
  return value < 999.5 ? `${value.toPrecision(3)} ms` : `${(value / 1000).toPrecision(3)} s`;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// -- choosing a picture ---------------------------------------------------------------------------

function drop(event) {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) translate(file, file.name);
}

async function chooseSample({ dataset }) {
  try {
    const response = await fetch(`samples/${dataset.sample}`);
    if (!response.ok) throw new Error(await response.text());
    await translate(await response.blob(), dataset.name);
  } catch (error) {
    byId("error").textContent = `${dataset.name}: ${error.message}`;
  }
}

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", drop);
byId("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (file) translate(file, file.name);
});
byId("size").addEventListener("change", () => shown && translate(shown.file, shown.name));
byId("slider").addEventListener("input", slide);
for (const sample of document.querySelectorAll("[data-sample]")) {
  sample.addEventListener("click", () => chooseSample(sample));
}
for (const choice of document.querySelectorAll("[name=left]")) choice.addEventListener("change", compare);
