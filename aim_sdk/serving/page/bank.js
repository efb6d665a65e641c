// A bank as pictures: look, filter, add, remove.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { events, json } from "./api.js";
import { Drop, Picture, Problem, useWork } from "./parts.js";

const PAGE = 24;

export function Bank({ name, writes, changed }) {
  const [about, setAbout] = useState(null);
  const [page, setPage] = useState({ total: 0, data: [] });
  const [offset, setOffset] = useState(0);
  const [contains, setContains] = useState("");
  const [where, setWhere] = useState("");
  const [busy, problem, run] = useWork();
  const at = `/v1/banks/${encodeURIComponent(name)}`;

  const load = (from = offset) =>
    run(async () => {
      setPage({ total: 0, data: [] });
      if (where && !where.includes(":")) throw new Error("Metadata: write field:value, as in label:cat.");
      const asked = new URLSearchParams({ offset: from, limit: PAGE });
      if (contains) asked.set("contains", contains);
      if (where) asked.set("where", where);
      setPage(await json(`${at}/demonstrations?${asked}`));
      setOffset(from);
      setAbout(await json(at));
    });
  useEffect(() => {
    const later = setTimeout(() => load(0), 200);
    return () => clearTimeout(later);
  }, [name, contains, where]);

  const after = async () => {
    await load(0);
    changed();
  };
  const remove = (one) =>
    confirm(`Remove "${one.answer}"?`) &&
    run(() => json(`${at}/demonstrations/${one.key}`, { method: "DELETE" })).then((done) => done && after());

  return html`<section aria-label="Bank">
    ${about &&
    html`<p>
      ${about.demonstrations} demonstrations, ${about.fused_tokens} fused tokens,
      ${" "}${(about.bytes / 1e6).toFixed(1)} MB. ${about.verdict || "Not assessed yet."}
    </p>`}
    ${writes && about && !about.read_only && html`<${Add} at=${at} after=${after} />`}
    ${about && about.read_only && html`<p>This bank is published elsewhere: it is read only here.</p>`}
    <div class="row">
      <label>
        Text or answer contains
        <input type="search" value=${contains} onInput=${(event) => setContains(event.target.value)} />
      </label>
      <label>
        Metadata, as field:value
        <input
          type="search"
          placeholder=${about && about.fields.length ? `${about.fields[0]}:...` : "label:..."}
          value=${where}
          onInput=${(event) => setWhere(event.target.value)}
        />
      </label>
    </div>
    <${Problem} text=${problem} />
    <ul class="pictures" aria-busy=${busy}>
      ${page.data.map(
        (one) => html`<li key=${one.key}>
          <article class="card">
            <${Picture} src=${one.thumbnail} alt=${`Demonstration: ${one.answer}`} />
            <span>${one.text}</span>
            <span class="answer">${one.answer}</span>
            <span class="tags">${tags(one.metadata)}</span>
            ${writes &&
            about &&
            !about.read_only &&
            html`<button class="outline secondary" onClick=${() => remove(one)} aria-label=${`Remove ${one.answer}`}>
              Remove
            </button>`}
          </article>
        </li>`,
      )}
    </ul>
    ${!page.data.length && !busy && !problem && html`<p>No demonstration here${contains || where ? " with this filter" : " yet"}.</p>`}
    ${page.total > PAGE &&
    html`<nav aria-label="Pages">
      <button class="outline" disabled=${!offset} onClick=${() => load(offset - PAGE)}>Before</button>
      <span>${offset + 1} to ${Math.min(offset + PAGE, page.total)} of ${page.total}</span>
      <button class="outline" disabled=${offset + PAGE >= page.total} onClick=${() => load(offset + PAGE)}>After</button>
    </nav>`}
  </section>`;
}

function tags(metadata) {
  const pairs = Object.entries(metadata).map(([field, value]) => `${field}: ${value}`);
  return pairs.slice(0, 6).join(", ") + (pairs.length > 6 ? `, and ${pairs.length - 6} more` : "");
}

function Add({ at, after }) {
  const [files, setFiles] = useState([]);
  const [text, setText] = useState("");
  const [done, setDone] = useState(null);
  const [refused, setRefused] = useState([]);
  const [busy, problem, run] = useWork();

  const choose = (chosen) =>
    setFiles([...files, ...chosen.map((file) => ({ file, answer: "", url: URL.createObjectURL(file) }))]);
  const answered = (number, answer) => setFiles(files.map((one, n) => (n === number ? { ...one, answer } : one)));
  const drop = (number) => setFiles(files.filter((_, n) => n !== number));
  const send = (event) => {
    event.preventDefault();
    run(async () => {
      const form = new FormData();
      const listed = files.map(({ answer }, number) => ({ image: `${number}`, text, answer }));
      form.append("demonstrations", JSON.stringify(listed));
      files.forEach(({ file }, number) => form.append("files", file, `${number}`));
      const left = new Set();
      const errors = [];
      await events(`${at}/demonstrations`, { method: "POST", body: form }, (one) => {
        setDone(one.done);
        if (one.status === "refused") {
          left.add(one.index);
          errors.push(`${files[one.index].file.name}: ${one.error.message}`);
        }
      });
      setRefused(errors);
      setFiles(files.filter((_, number) => left.has(number)));
      setDone(null);
    }).then((done) => done && after());
  };

  return html`<form onSubmit=${send} aria-label="Add demonstrations">
    <${Drop} label="Drop pictures here to add them as demonstrations" multiple chosen=${choose} />
    ${files.length > 0 &&
    html`<div class="added">
      <label>
        What is asked of each
        <input value=${text} placeholder="What is it?" onInput=${(event) => setText(event.target.value)} />
      </label>
      ${files.map(
        ({ file, answer, url }, number) => html`<div class="one" key=${url}>
          <img src=${url} alt="" />
          <span>${file.name}</span>
          <input
            required
            aria-label=${`Answer for ${file.name}`}
            placeholder="answer"
            value=${answer}
            onInput=${(event) => answered(number, event.target.value)}
          />
          <button type="button" class="outline secondary" onClick=${() => drop(number)}>Skip</button>
        </div>`,
      )}
      <button type="submit" disabled=${busy} aria-busy=${busy}>
        ${busy ? `Reading: ${done || 0} of ${files.length}` : `Add ${files.length}`}
      </button>
    </div>`}
    <${Problem} text=${[problem, ...refused].filter(Boolean).join("\n")} />
  </form>`;
}
