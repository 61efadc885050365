// Ask the server that this page came from.

export async function classify(picture, { explained = null, invert = false } = {}) {
  const asked = new URLSearchParams();
  if (explained !== null) asked.set("class", explained);
  if (invert) asked.set("invert", "");
  let response;
  try {
    response = await fetch(`predict?${asked}`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: picture,
    });
  } catch {
    throw new Error("the server does not answer");
  }
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}
