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
  if (isLast()) show(found, named, spec);
}

function show(found, named, spec) {
  const by = `by ${spec.name}, version ${spec.version}. Scores are cosines; 1 is the same direction.`;
  const names = found ? found.ids[0] : named.classes[0];
  const scores = (found || named).scores[0];
  results.replaceChildren(...names.map((name, at) => row(at + 1, String(name), scores[at])));
  if (!found) return tell(`${names.length} nearest classes ${by}`);
  const nearest = named ? `Class ${named.classes[0][0]} (${named.scores[0][0].toFixed(4)}). ` : "";
  tell(`${nearest}${names.length} nearest ${by}`);
}

function row(rank, id, score) {
  const item = document.createElement("li");
  for (const [name, text] of [["rank", rank], ["id", id], ["score", score.toFixed(4)]]) {
    const cell = document.createElement("span");
    cell.className = name;
    cell.textContent = text;
    item.append(cell);
  }
  const meter = document.createElement("meter");
  meter.value = Math.max(0, score);
  meter.setAttribute("aria-hidden", "true");
  item.append(meter);
  return item;
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
