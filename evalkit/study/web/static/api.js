// Talking to the study: JSON out, JSON back, and never waiting for ever.

const PATIENCE_MS = 15000;

/** Send a submission. Rejects if the study cannot be reached or is cut off; an answer of any status resolves. */
export async function post(path, body, pageToken) {
  return answered(
    await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Study-Token": pageToken },
      body: JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      keepalive: true, // a reload or a closed tab does not call it back
      signal: AbortSignal.timeout(PATIENCE_MS),
    }),
  );
}

/** Read what is stored. */
export async function get(path) {
  return answered(await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) }));
}

async function answered(response) {
  const wait = Number(response.headers.get("Retry-After"));
  const data = response.ok ? await response.json() : await response.json().catch(() => ({})); // a proxy's error page
  return { status: response.status, wait, data };
}

/** A key that no other submission has. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
