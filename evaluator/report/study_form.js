// A study's form: answers stay in memory and, where the browser allows, on this device.
const form = JSON.parse(document.getElementById("form").textContent);
const at = (id) => document.getElementById(id);
const shelf = `evaluator-study/${form.study}/${form.rater}`;
const pictures = Array.from(document.querySelectorAll(".shown-images img"));
const buttons = Array.from(document.querySelectorAll("[data-answer]"));
const allowed = new Set(buttons.map((button) => button.dataset.answer));
const keys = new Map();
for (const button of buttons) {
  for (const key of button.getAttribute("aria-keyshortcuts").split(" ")) keys.set(key, button.dataset.answer);
}
const answers = new Array(form.trials.length).fill(null);
let now = 0, since = 0, ready = false, keeps = true, unsaved = false;

// What lies on the device may be anything: only answers of this form are taken.
const recall = () => {
  let written = null;
  try { written = localStorage.getItem(shelf); } catch { keeps = false; }
  try {
    const kept = JSON.parse(written ?? "[]");
    for (const one of Array.isArray(kept) ? kept : []) {
      const place = Number.isInteger(one?.trial) ? one.trial - 1 : -1;
      if (place < 0 || place >= answers.length || !allowed.has(one.answer)) continue;
      answers[place] = { answer: one.answer, seconds: Number.isFinite(one.seconds) ? one.seconds : 0 };
    }
  } catch { /* not ours: begin anew */ }
};
const given = () => answers.flatMap((one, place) => (one ? [{ trial: place + 1, ...one }] : []));
const keep = () => {
  unsaved = true;
  try { localStorage.setItem(shelf, JSON.stringify(given())); } catch { keeps = false; }
};
const text = () => JSON.stringify({
  format: form.format, version: form.version, study: form.study, rater: form.rater, answers: given(),
}, null, 1);

const only = (name) => {
  for (const id of ["start", "ask", "end"]) at(id).hidden = id !== name;
};
const awaited = (images) => {
  ready = !images;
  document.querySelector(".choices").setAttribute("aria-busy", String(images));
};
const fill = async (place) => {
  awaited(true);
  const trial = form.trials[place];
  await Promise.all(pictures.map((picture, i) => {
    picture.src = form.images[trial.images[i]];
    return picture.decode().catch(() => {});
  }));
  if (place !== now) return;
  for (const picture of pictures) {
    picture.classList.toggle("crisp", Math.max(picture.naturalWidth, picture.naturalHeight) <= 128);
  }
  since = performance.now();
  awaited(false);
};
const ask = (place) => {
  now = place;
  only("ask");
  const trial = form.trials[place];
  at("ask-title").textContent = `Question ${place + 1} of ${form.trials.length}`;
  at("progress").value = given().length;
  at("prompt").hidden = !trial.prompt;
  at("prompt").textContent = trial.prompt ? `“${trial.prompt}”` : "";
  at("back").disabled = place === 0;
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(answers[place]?.answer === button.dataset.answer));
  }
  return fill(place);
};
const end = () => {
  only("end");
  ready = false;
  const count = given().length, whole = count === answers.length;
  at("end-title").textContent = whole ? "Thank you: that was the last question" : "Not all questions are answered yet";
  at("told").textContent = `${count} of ${answers.length} questions are answered. `
    + "Save your answers as a file, and send it to whoever asked you.";
  at("resume").textContent = whole ? "Look at the answers again" : "Go on answering";
  at("text").value = text();
  at("end-title").focus();
};
const next = () => {
  const open = answers.indexOf(null);
  if (open < 0) end();
  else ask(open);
};
const choose = (answer) => {
  if (!ready) return;
  const seconds = Math.round((performance.now() - since) / 100) / 10;
  answers[now] = { answer, seconds: Math.round(10 * (seconds + (answers[now]?.seconds ?? 0))) / 10 };
  keep();
  // Whoever went back to look again goes on from there.
  if (now + 1 < answers.length) ask(now + 1);
  else next();
};
const save = () => {
  const address = URL.createObjectURL(new Blob([text()], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `answers-${form.study.slice(0, 8)}-${form.rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  unsaved = false;
  at("saved").textContent = `Saved as ${link.download}, where your browser keeps downloads.`;
};

recall();
at("kept").textContent = keeps
  ? "Until then they are kept on this device, so that you may close this page and come back."
  : "This browser keeps nothing: do not close this page before you have saved.";
if (given().length) at("begin").textContent = `Go on: ${given().length} of ${answers.length} are answered`;
at("begin").addEventListener("click", () => {
  next();
  if (!at("ask").hidden) at("ask-title").focus();
});
for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.answer));
at("back").addEventListener("click", () => { if (now > 0) ask(now - 1); });
at("stop").addEventListener("click", end);
at("resume").addEventListener("click", () => ask(Math.max(0, answers.indexOf(null))));
at("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (at("ask").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Backspace" && now > 0) ask(now - 1);
  else if (keys.has(event.key)) choose(keys.get(event.key));
  else return;
  event.preventDefault();
});
addEventListener("beforeunload", (event) => { if (unsaved && !keeps) event.preventDefault(); });
