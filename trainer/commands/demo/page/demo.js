// The page: pictures in, answers out. Whoever answers is in classify.js.
import { classify } from "./classify.js";

const MOST_PICTURES = 20; // at once
const SHOWN_CLASSES = 5;

const part = (id) => document.getElementById(id);
const source = part("source");
const video = part("video");

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function percent(probability) {
  return `${(100 * probability).toFixed(probability > 0.9995 || probability < 0.0005 ? 2 : 1)} %`;
}

function say(text, isError = false) {
  part("status").textContent = text;
  part("status").className = isError ? "error" : "";
}

// Pictures wait for each other, so that a phone sends one at a time.
let last = Promise.resolve();

function show(pictures) {
  const chosen = [...pictures].slice(0, MOST_PICTURES);
  const more = pictures.length > MOST_PICTURES;
  say(more ? `Only the first ${MOST_PICTURES} pictures are shown.` : "", more);
  const invert = part("invert")?.checked ?? false;
  for (const picture of chosen) {
    const card = make("article");
    part("results").prepend(card);
    card.append(make("h2", "", picture.name), make("p", "", "waiting …"));
    last = last.then(() => fill(card, picture, { invert }));
  }
}

async function fill(card, picture, asked) {
  card.setAttribute("aria-busy", "true");
  try {
    const found = await classify(picture, asked);
    const explain = (explained) => fill(card, picture, { ...asked, explained });
    card.replaceChildren(make("h2", "", picture.name), ...describe(found, explain));
  } catch (error) {
    card.replaceChildren(make("h2", "", picture.name), make("p", "error", error.message));
  }
  card.removeAttribute("aria-busy");
}

function describe(found, explain) {
  const views = make("div", "views");
  views.append(figure(found.image, "as the model sees it"));
  if (found.map) views.append(figure(found.map, `in red: what speaks for ${found.explained}`));
  const answer = make("p", "answer", words(found));
  const list = make("ul", "classes");
  const sorted = Object.entries(found.probabilities).sort((one, other) => other[1] - one[1]);
  for (const [name, probability] of sorted.slice(0, SHOWN_CLASSES)) {
    list.append(row(name, probability, name === found.explained, explain));
  }
  return [answer, views, list];
}

function words(found) {
  if (Array.isArray(found.class)) return found.class.join(", ") || "no label";
  if (found.class === null) return "not sure";
  return `${found.class} ${percent(found.probability)}`;
}

function figure(address, caption) {
  const whole = make("figure");
  const image = make("img");
  image.alt = caption;
  image.src = address;
  whole.append(image, make("figcaption", "", caption));
  return whole;
}

function row(name, probability, isExplained, explain) {
  const item = make("li");
  const button = make("button");
  button.type = "button";
  button.title = `show what speaks for ${name}`;
  button.setAttribute("aria-pressed", String(isExplained));
  const bar = make("span", "bar");
  const filled = make("span");
  filled.style.width = `${100 * probability}%`;
  bar.append(filled);
  button.append(make("span", "name", name), make("span", "share", percent(probability)), bar);
  button.addEventListener("click", () => explain(name));
  item.append(button);
  return item;
}

function takeFrom(input) {
  input.addEventListener("change", () => {
    show(input.files);
    input.value = ""; // the same file may be chosen again
  });
}

function closeCamera() {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  part("viewfinder").hidden = true;
  part("camera").focus();
}

async function openCamera() {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 960 } },
    });
    part("viewfinder").hidden = false;
    await video.play();
    part("take").focus();
  } catch (error) {
    say(`The camera cannot be used: ${error.message}`, true);
  }
}

function takePicture() {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => show([new File([blob], "camera")]), "image/png");
}

takeFrom(part("files"));
takeFrom(part("shot"));
// Browsers give a page the camera where it came over https or from this machine.
const hasCamera = Boolean(navigator.mediaDevices?.getUserMedia);
part("camera").hidden = !hasCamera;
part("shoot").hidden = hasCamera;
part("camera").addEventListener("click", openCamera);
part("take").addEventListener("click", takePicture);
part("close").addEventListener("click", closeCamera);
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    source.classList.toggle("over", kind === "dragover");
    if (kind === "drop") show([...event.dataTransfer.files]);
  });
}
