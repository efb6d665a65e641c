// Small pieces that both views use.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { ask } from "./api.js";

// A picture that may need the API key, which <img> alone cannot send.
export function Picture({ src, alt }) {
  const [shown, show] = useState(null);
  const [failed, fail] = useState("");
  useEffect(() => {
    let url = "";
    let left = false;
    ask(src)
      .then((answer) => answer.blob())
      .then((blob) => {
        if (left) return;
        url = URL.createObjectURL(blob);
        show(url);
      })
      .catch((error) => fail(error.message));
    return () => {
      left = true;
      if (url) URL.revokeObjectURL(url);
    };
  }, [src]);
  if (failed) return html`<div class="missing" title=${failed}>no image</div>`;
  return shown ? html`<img src=${shown} alt=${alt} />` : html`<div class="missing" aria-busy="true"></div>`;
}

// A place for files: drop them, or choose them by mouse or keyboard.
export function Drop({ label, multiple, chosen }) {
  const [over, setOver] = useState(false);
  const stop = (event, isOver) => {
    event.preventDefault();
    setOver(isOver);
  };
  const [left, setLeft] = useState([]);
  const take = (files) => {
    const given = [...files];
    setLeft(given.filter((file) => !file.type.startsWith("image/")).map((file) => file.name));
    chosen(given.filter((file) => file.type.startsWith("image/")));
  };
  return html`<label
    class=${over ? "drop over" : "drop"}
    onDragOver=${(event) => stop(event, true)}
    onDragLeave=${(event) => stop(event, false)}
    onDrop=${(event) => {
      stop(event, false);
      take(event.dataTransfer.files);
    }}
  >
    ${label}
    <input
      type="file"
      accept="image/*"
      multiple=${multiple}
      onChange=${(event) => {
        take(event.target.files);
        event.target.value = "";
      }}
    />
    ${left.length > 0 && html`<span class="problem" role="alert">Not a picture: ${left.join(", ")}</span>`}
  </label>`;
}

export function Problem({ text }) {
  return text ? html`<p class="problem" role="alert">${text}</p>` : null;
}

// Runs something that may be refused; returns [busy, problem, run]. `run` says whether it was done.
export function useWork() {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const run = async (work) => {
    setBusy(true);
    setProblem("");
    try {
      await work();
      return true;
    } catch (error) {
      setProblem(error.message);
      return false;
    } finally {
      setBusy(false);
    }
  };
  return [busy, problem, run];
}
