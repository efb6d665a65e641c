// Asks the service. The key, if it needs one, stays in this tab.

let key = sessionStorage.getItem("aim-key") || "";

export class Refused extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
  }
}

export function keep(given) {
  key = given.trim();
  sessionStorage.setItem("aim-key", key);
}

export async function ask(path, { method = "GET", body, headers = {} } = {}) {
  const sent = { ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  if (body !== undefined && !(body instanceof FormData)) {
    sent["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: sent });
  } catch {
    throw new Refused(0, { message: "The service does not answer. Is it running?", code: "gone" });
  }
  if (answer.ok) return answer;
  let error = { message: `The service answers ${answer.status}.`, code: "unknown" };
  try {
    error = (await answer.json()).error;
  } catch { /* not from the service: a proxy, say */ }
  throw new Refused(answer.status, error);
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

// Calls `each` with every event of a stream.
export async function events(path, options, each) {
  const answer = await ask(path, { ...options, headers: { Accept: "text/event-stream" } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") each(JSON.parse(data));
    }
  }
}

// A file as a data URI.
export function uri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}
