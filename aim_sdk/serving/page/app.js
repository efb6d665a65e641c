// The page: which bank, and what of it.
import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { json, keep } from "./api.js";
import { Bank } from "./bank.js";
import { Problem, useWork } from "./parts.js";
import { Playground } from "./playground.js";

function App() {
  const [model, setModel] = useState("");
  const [banks, setBanks] = useState([]);
  const [chosen, choose] = useState("");
  const [view, setView] = useState("bank");
  const [locked, setLocked] = useState("");
  const [key, setKey] = useState({ name: "", may: [] });
  const [, problem, run] = useWork();

  const load = () =>
    run(async () => {
      try {
        setKey(await json("/v1/key"));
        const models = await json("/v1/models");
        setModel(models.data[0].id);
        const found = (await json("/v1/banks")).data;
        setBanks(found);
        setLocked("");
        const asked = decodeURIComponent(location.hash.slice(1));
        const known = (name) => found.some((one) => one.name === name);
        choose((before) => [before, asked, found.length ? found[0].name : ""].find(known) || "");
      } catch (error) {
        if (error.status !== 401) throw error;
        setLocked(error.code === "missing_api_key" ? " " : error.message);
      }
    });
  useEffect(() => {
    load();
  }, []);
  useEffect(() => {
    if (chosen) history.replaceState(null, "", `#${encodeURIComponent(chosen)}`);
  }, [chosen]);

  const unlock = (event) => {
    event.preventDefault();
    keep(new FormData(event.target).get("key"));
    load();
  };
  const create = () => {
    const name = prompt("Name of the new bank: 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first");
    if (!name) return;
    run(() => json("/v1/banks", { method: "POST", body: { name } })).then((done) => {
      if (!done) return;
      choose(name);
      load();
    });
  };
  const leave = () => {
    keep("");
    load();
  };
  const remove = () =>
    confirm(`Delete the bank "${chosen}" and all that it holds?`) &&
    run(() => json(`/v1/banks/${encodeURIComponent(chosen)}`, { method: "DELETE" })).then((done) => done && load());

  const writes = key.may.includes("write");
  if (locked)
    return html`<main class="container">
      <h1>AIM SDK</h1>
      <form onSubmit=${unlock}>
        <${Problem} text=${locked.trim()} />
        <label>API key <input name="key" type="password" autocomplete="current-password" required /></label>
        <button type="submit">Open</button>
      </form>
    </main>`;
  return html`<header class="container">
      <h1>AIM SDK <small>${model}</small></h1>
      <nav class="tabs" aria-label="Views">
        ${[["bank", "Bank"], ["playground", "Playground"]].map(
          ([name, title]) => html`<button
            key=${name}
            class=${view === name ? "" : "outline"}
            aria-pressed=${view === name}
            onClick=${() => setView(name)}
          >
            ${title}
          </button>`,
        )}
        <a href="/docs">API reference</a>
        ${key.name !== "anyone" && html`<button class="outline secondary" onClick=${leave}>Forget the key of ${key.name}</button>`}
      </nav>
    </header>
    <main class="container">
      <div class="row">
        <label>
          Bank
          <select value=${chosen} onChange=${(event) => choose(event.target.value)}>
            ${banks.map(
              ({ name, demonstrations, error }) =>
                html`<option key=${name} value=${name}>${name} (${error ? "cannot be opened" : demonstrations})</option>`,
            )}
          </select>
        </label>
        ${writes && html`<button class="narrow outline" onClick=${create}>New bank</button>`}
        ${writes &&
        html`<button class="narrow outline secondary" disabled=${!chosen} onClick=${remove}>Delete bank</button>`}
      </div>
      <${Problem} text=${problem} />
      ${chosen
        ? view === "bank"
          ? html`<${Bank} key=${chosen} name=${chosen} writes=${writes} changed=${load} />`
          : html`<${Playground} model=${model} bank=${chosen} />`
        : html`<p>There is no bank yet. Make one, and drop pictures into it.</p>`}
    </main>`;
}

render(html`<${App} />`, document.body);
