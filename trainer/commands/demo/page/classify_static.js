// Ask the model in this page: model.onnx has all that is done to a picture, from its pixels on.
import * as ort from "./ort.wasm.bundle.min.mjs";

const MOST_PIXELS = 4e6; // a larger picture is shrunk by the browser first, for a phone's memory
const SMALLEST_SIDE = 192; // of a shown image; smaller ones are enlarged by a whole number
const STRONGEST = 0.75; // how much of the image the strongest colour covers
const PNG = 0x89504e47; // how such a file begins; its bits a channel are the byte after 24 others
const RED = [214, 39, 40];

ort.env.wasm.numThreads = 1; // more need headers that web spaces seldom send
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };

const facts = fetch("model.json").then((response) => response.json());
const session = ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
session.catch(() => {}); // whoever asks is told

export async function classify(picture, { explained = null, invert = false } = {}) {
  const known = await facts;
  const { data, width, height } = await decode(picture, known.max_megapixels);
  const colours = new Uint8Array(3 * width * height);
  for (let place = 0; place < width * height; place++) {
    colours[3 * place] = data[4 * place];
    colours[3 * place + 1] = data[4 * place + 1];
    colours[3 * place + 2] = data[4 * place + 2];
  }
  const given = {
    pictures: new ort.Tensor("uint8", colours, [1, height, width, 3]),
    invert: new ort.Tensor("float32", [invert ? 1 : 0], []),
  };
  const found = await (await session).run(given);
  const probabilities = [...found.probabilities.data];
  if (!probabilities.every(Number.isFinite)) throw new Error("the model gives no probabilities");
  const names = known.class_names;
  const best = probabilities.indexOf(Math.max(...probabilities));
  const asked = explained === null ? best : names.indexOf(explained);
  const image = enlarge(found.image);
  return {
    ...answer(known, probabilities, best),
    probabilities: Object.fromEntries(names.map((name, label) => [name, probabilities[label]])),
    explained: names[asked],
    image: draw(image),
    map: found.maps ? draw(colour(image, mapOf(found.maps, asked))) : null,
  };
}

async function decode(picture, mostMegapixels) {
  const head = new DataView(await picture.slice(0, 26).arrayBuffer());
  if (head.byteLength === 26 && head.getUint32(0) === PNG && head.getUint8(24) === 16) {
    throw new Error("has 16 bits a channel, of which a browser reads 8; save it with 8 bits");
  }
  let bitmap;
  try {
    // Upright by its EXIF orientation, and with its numbers as they are, as in a training.
    bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("is not a picture that this browser can read");
  }
  const pixels = bitmap.width * bitmap.height;
  if (pixels > mostMegapixels * 1e6) {
    throw new Error(`has ${(pixels / 1e6).toFixed(1)} megapixels; ${mostMegapixels} are allowed`);
  }
  const share = Math.min(1, Math.sqrt(MOST_PIXELS / pixels));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(share * bitmap.width));
  canvas.height = Math.max(1, Math.round(share * bitmap.height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // under what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function answer(known, probabilities, best) {
  if (known.thresholds) {
    const labels = [...probabilities.keys()];
    const chosen = labels.filter((label) => probabilities[label] >= known.thresholds[label]);
    return {
      class: chosen.map((label) => known.class_names[label]),
      probability: chosen.map((label) => probabilities[label]),
    };
  }
  const isSure = probabilities[best] >= Math.fround(known.min_confidence);
  return { class: isSure ? known.class_names[best] : null, probability: probabilities[best] };
}

// The image that the network sees, (1, channels, height, width), as ImageData.
function enlarge(tensor) {
  const [, channels, height, width] = tensor.dims;
  const factor = Math.ceil(SMALLEST_SIDE / Math.min(height, width));
  const image = new ImageData(width * factor, height * factor);
  for (let row = 0; row < image.height; row++) {
    for (let column = 0; column < image.width; column++) {
      const from = Math.floor(row / factor) * width + Math.floor(column / factor);
      const to = 4 * (row * image.width + column);
      for (let channel = 0; channel < 3; channel++) {
        image.data[to + channel] = tensor.data[(channels === 3 ? channel : 0) * width * height + from];
      }
      image.data[to + 3] = 255;
    }
  }
  return image;
}

// What speaks for a class, of (1, classes, height, width).
function mapOf(tensor, label) {
  const [, , height, width] = tensor.dims;
  const begin = label * height * width;
  const values = tensor.data.slice(begin, begin + height * width).map((value) => Math.max(value, 0));
  return { values, height, width };
}

// The image in grey, with red where the map is high.
function colour(image, map) {
  const found = new ImageData(image.width, image.height);
  const highest = Math.max(...map.values) || 1;
  for (let row = 0; row < image.height; row++) {
    const y = between(row, image.height, map.height);
    for (let column = 0; column < image.width; column++) {
      const x = between(column, image.width, map.width);
      const at = (line, place) => map.values[line * map.width + place];
      const upper = at(y.from, x.from) * (1 - x.share) + at(y.from, x.to) * x.share;
      const lower = at(y.to, x.from) * (1 - x.share) + at(y.to, x.to) * x.share;
      const strength = (STRONGEST * (upper * (1 - y.share) + lower * y.share)) / highest;
      const to = 4 * (row * image.width + column);
      const [red, green, blue] = image.data.subarray(to, to + 3);
      const grey = 0.299 * red + 0.587 * green + 0.114 * blue;
      RED.forEach((part, channel) => {
        found.data[to + channel] = grey * (1 - strength) + part * strength;
      });
      found.data[to + 3] = 255;
    }
  }
  return found;
}

// Between which places of a map a place of the image lies.
function between(place, length, places) {
  const exact = Math.min(Math.max(((place + 0.5) * places) / length - 0.5, 0), places - 1);
  const from = Math.floor(exact);
  return { from, to: Math.min(from + 1, places - 1), share: exact - from };
}

function draw(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}
