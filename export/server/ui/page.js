"use strict";

const find = (id) => document.getElementById(id);
const [drop, file, hint, preview, results, state] =
  ["drop", "file", "hint", "preview", "results", "status"].map(find);
const [model, version] = ["model", "version"].map(find);
let image = null;
let asked = 0; // Only the answer to the last question is shown.

class Told extends Error {}

function tell(text, { error = false } = {}) {
  state.textContent = text;
  state.classList.toggle("error", error);
}

async function ask(path, body) {
  let response;
  try {
    response = await fetch(path, body && { method: "POST", body: JSON.stringify(body) });
  } catch {
    throw new Told("The server does not answer. Is it still running?");
  }
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  throw new Told(inWords(response.status, found.error || ""));
}

function inWords(status, message) {
  const [, refused] = message.match(/assertion failed: \[(.*(?:WebP|BMP).*?)\]/) || [];
  if (refused) return refused;
  if (/Unknown image file format|decode_image|Invalid PNG|JPEG|GIF|BMP/i.test(message)) {
    return "That is not an image the model can read. It takes JPEG, PNG, GIF, BMP, WebP and JPEG XL.";
  }
  if (status === 404) return "This version is no longer served. Choose another one.";
  if (status === 413) return "The image is larger than the server takes.";
  if (status === 429) return "The server is busy. Try again in a moment.";
  return `The server answered with an error (${status}): ${message}`;
}

const base = () => `/v1/models/${encodeURIComponent(model.value)}`;
const chosen = () => base() + (version.value && `/versions/${version.value}`);

async function guarded(work) {
  const turn = ++asked;
  const isLast = () => turn === asked;
  try {
    await work(isLast);
  } catch (error) {
    if (!isLast()) return;
    results.replaceChildren();
    tell(error instanceof Told ? error.message : `The page failed: ${error.message}`,
      { error: true });
  } finally {
    if (isLast()) results.removeAttribute("aria-busy");
  }
}

async function fillModels() {
  const names = await ask("/ui/models");
  model.replaceChildren(...names.map((name) => new Option(name)));
  await fillVersions();
}

async function fillVersions() {
  version.replaceChildren(new Option("latest", ""));
  const { model_version_status: found } = await ask(base());
  for (const { version: number, state: at } of found) {
    if (at === "AVAILABLE") version.add(new Option(number));
  }
}

async function base64(blob) {
  const reader = new FileReader();
  return new Promise((resolve, reject) => {
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Told("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

async function search(isLast) {
  if (!image) return;
  results.setAttribute("aria-busy", "true");
  tell("Searching …");
  const { model_spec: spec, metadata } = await ask(`${chosen()}/metadata`);
  const has = metadata.signature_def.signature_def;
  if (!has.search_bytes && !has.top_classes_bytes) {
    throw new Told(`${spec.name}, version ${spec.version}, has no gallery to search in. ` +
      "Publish it with --gallery.");
  }
  const b64 = await base64(image);
  // The version by number: another may become the latest in between.
  const answer = async (signature) => has[signature] && (await ask(
    `${base()}/versions/${spec.version}:predict`,
    { signature_name: signature, inputs: { image_bytes: [{ b64 }] } },
  )).outputs;
  const [found, named] = [await answer("search_bytes"), await answer("top_classes_bytes")];
  const pictures = found ? await gallery(spec, found.ids[0].map(String)) : [];
  if (isLast()) show(found, named, pictures, spec);
}

async function gallery(spec, ids) {
  const found = [];
  for (let at = 0; at < ids.length; at += 20) { // An address has no room for all.
    const query = new URLSearchParams(ids.slice(at, at + 20).map((id) => ["id", id]));
    found.push(...await ask(`/ui/gallery/${encodeURIComponent(spec.name)}/${spec.version}?${query}`));
  }
  return found;
}

function show(found, named, pictures, spec) {
  const by = `by ${spec.name}, version ${spec.version}. Scores are cosines; 1 is the same direction.`;
  const names = found ? found.ids[0] : named.classes[0];
  const scores = (found || named).scores[0];
  const threshold = found && found.threshold && found.threshold[0];
  const decided = (score) => (threshold ?? null) === null ? null : score >= threshold;
  results.classList.toggle("pictured", pictures.some((one) => one.thumbnail));
  results.replaceChildren(...names.map((name, at) => row({
    rank: at + 1, id: String(name), score: scores[at], known: decided(scores[at]), ...pictures[at],
  })));
  if (!found) return tell(`${names.length} nearest classes ${by}`);
  const nearest = named ? `Class ${named.classes[0][0]} (${named.scores[0][0].toFixed(4)}). ` : "";
  tell(`${verdict(found, threshold)}${nearest}${names.length} nearest ${by}`);
}

function verdict(found, threshold) {
  if (!found.unknown) return "";
  const from = `from ${threshold.toFixed(4)} on`;
  return found.unknown[0] ? `Unknown: nothing ${from}. ` : `Known, ${from}. `;
}

function row({ rank, id, score, known, thumbnail, class: label }) {
  const item = document.createElement("li");
  item.append(cell("rank", rank), picture(thumbnail, id));
  const what = cell("what", "");
  if (label !== undefined) what.append(cell("class", `class ${label}`));
  what.append(cell("id", id));
  const answer = cell("answer", "");
  answer.append(cell("score", score.toFixed(4)));
  if (known !== null) answer.append(cell(known ? "known" : "unknown", known ? "known" : "unknown"));
  const meter = document.createElement("meter");
  meter.value = Math.max(0, score);
  meter.setAttribute("aria-hidden", "true");
  item.append(what, answer, meter);
  return item;
}

function cell(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}

function picture(thumbnail, id) {
  if (!thumbnail) return cell("picture", "");
  const image = document.createElement("img");
  image.className = "picture";
  image.alt = id;
  image.addEventListener("load", () => {
    image.classList.toggle("coarse", image.naturalWidth < 48); // Few pixels stay what they are.
  });
  image.src = thumbnail;
  return image;
}

function take(blob) {
  if (!blob) {
    tell("That holds no image. Drop or paste an image file.", { error: true });
    return;
  }
  image = blob;
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.alt = `The query: ${blob.name || "pasted image"}`;
  preview.hidden = false;
  hint.textContent = blob.name || "Pasted image";
  guarded(search);
}

preview.addEventListener("error", () => { preview.hidden = true; });
file.addEventListener("change", () => {
  if (file.files.length) take(file.files[0]);
  file.value = ""; // So that the same file can be chosen again.
});
model.addEventListener("change", () => guarded(async (isLast) => {
  await fillVersions();
  await search(isLast);
}));
version.addEventListener("change", () => guarded(search));
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files[0]);
});
guarded(fillModels);
