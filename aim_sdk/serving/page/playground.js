// One picture, answered in every mode side by side.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { json, uri } from "./api.js";
import { Drop, Picture, Problem, useWork } from "./parts.js";

const MODES = [
  ["zero-shot", "Zero-shot", "no demonstrations"],
  ["text-only", "Text-only", "their texts, no images"],
  ["aim", "AIM", "fused tokens"],
  ["interleaved", "Interleaved", "all images in one prompt"],
];

export function Playground({ model, bank }) {
  const [picture, setPicture] = useState(null);
  const [text, setText] = useState("");
  const [shots, setShots] = useState("");
  const [answers, setAnswers] = useState({});
  const [busy, problem, run] = useWork();
  useEffect(() => setAnswers({}), [bank]);

  const choose = ([file]) => file && setPicture({ file, url: URL.createObjectURL(file) });
  const send = (event) => {
    event.preventDefault();
    run(async () => {
      setAnswers({});
      const image = await uri(picture.file);
      const content = [{ type: "image_url", image_url: { url: image } }];
      if (text) content.unshift({ type: "text", text });
      for (const [mode] of MODES) {
        const asked = { model, messages: [{ role: "user", content }], mode, max_tokens: 64 };
        if (mode !== "zero-shot") {
          asked.bank = bank;
          if (shots) asked.shots = Number(shots);
        }
        let found;
        try {
          found = await json("/v1/chat/completions", { method: "POST", body: asked });
        } catch (error) {
          if (error.code !== "not_supported" && error.code !== "context_length_exceeded") throw error;
          found = { error: error.message }; // of this mode; the others may do
        }
        setAnswers((before) => ({ ...before, [mode]: found }));
      }
    });
  };

  return html`<section aria-label="Playground">
    <form onSubmit=${send}>
      <div class="row">
        <div>
          <${Drop} label="Drop a picture to ask about" chosen=${choose} />
          ${picture && html`<div class="picked"><img src=${picture.url} alt="The picture that is asked about" /></div>`}
        </div>
        <div>
          <label>Question <input value=${text} placeholder="What is it?" onInput=${(event) => setText(event.target.value)} /></label>
          <label>
            Demonstrations
            <input type="number" min="1" placeholder="up to 8" value=${shots} onInput=${(event) => setShots(event.target.value)} />
          </label>
          <button type="submit" disabled=${!picture || busy} aria-busy=${busy}>Answer in every mode</button>
        </div>
      </div>
    </form>
    <${Problem} text=${problem} />
    <div class="modes" aria-live="polite">
      ${MODES.filter(([mode]) => answers[mode]).map(
        ([mode, title, how]) => html`<${Said} key=${mode} title=${title} how=${how} bank=${bank} found=${answers[mode]} />`,
      )}
    </div>
  </section>`;
}

function Said({ title, how, bank, found }) {
  if (found.error) return html`<article><header>${title}: ${how}</header><${Problem} text=${found.error} /></article>`;
  const { usage, aim } = found;
  return html`<article>
    <header>${title}: ${how}</header>
    <p class="said">${found.choices[0].message.content || "(nothing)"}</p>
    <small>${usage.prompt_tokens} + ${usage.completion_tokens} tokens, ${aim.milliseconds} ms</small>
    ${aim.bank &&
    html`<ul class="thumbs" aria-label="Demonstrations that were shown, in their order">
      ${aim.demonstrations.map((key) => html`<${Shown} key=${key} bank=${bank} demonstration=${key} />`)}
    </ul>`}
  </article>`;
}

function Shown({ bank, demonstration }) {
  const at = `/v1/banks/${encodeURIComponent(bank)}/demonstrations/${demonstration}`;
  const [one, setOne] = useState(null);
  useEffect(() => {
    json(at).then(setOne, () => setOne(null));
  }, [at]);
  return one && html`<li><${Picture} src=${one.thumbnail} alt=${one.answer} />${one.answer}</li>`;
}
