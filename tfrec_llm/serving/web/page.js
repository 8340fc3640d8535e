// The page: asks the server's own routes, and shows what they answer as text, never as markup.

import { read, within } from "./measures.js";
import { preferred, words } from "./words.js";

const LIST = 10; // items recommended, and found
const EVERY = 2000; // milliseconds between two looks at the measures
const LOOKS = 60; // that the curve shows

const at = (id) => document.getElementById(id);

const state = {
  language: localStorage.getItem("language") ?? preferred(navigator.languages),
  key: sessionStorage.getItem("key") ?? "",
  about: null,
  byUser: true,
  user: "",
  chosen: [], // items, the oldest first
  shown: [], // ids of the list on the screen
  answer: null,
  history: [],
  measured: [],
};
const facts = new Map();
let asked = 0; // so that an answer that comes late does not replace a newer one

function say(key, values = {}) {
  const text = words[state.language][key];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const number = (value, digits) =>
  value.toLocaleString(state.language, { maximumFractionDigits: digits });

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

// Asks the server. Without a key that it knows, it has the page ask for one.
async function ask(path, body, method) {
  const headers = state.key ? { "X-API-Key": state.key } : {};
  const options = { headers, method: method ?? (body ? "POST" : "GET") };
  if (body) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (response.status === 401) {
    askForKey();
    throw new Error("no key");
  }
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    notice(say("failed", { reason: told.error ?? response.status }));
    throw new Error(`status ${response.status}`);
  }
  return response.headers.get("content-type").includes("json") ? response.json() : response.text();
}

function askForKey() {
  if (state.key) notice(say("wrong_key"));
  state.key = "";
  sessionStorage.removeItem("key");
  at("key").hidden = false;
  at("shop").hidden = true;
}

async function know(items) {
  const unknown = [...new Set(items.map(String))].filter((item) => !facts.has(item));
  for (let first = 0; first < unknown.length; first += 50) {
    const query = new URLSearchParams(unknown.slice(first, first + 50).map((item) => ["id", item]));
    for (const one of (await ask(`/v1/items?${query}`)).items) facts.set(String(one.item), one);
  }
}

// ---- what is shown

function describe(item) {
  const known = facts.get(String(item));
  const further = [known?.name ? known.category : null, item].filter((one) => one != null);
  const about = make("div", { className: "about" });
  about.append(
    make("span", { textContent: known?.name ?? known?.category ?? item }),
    make("small", { textContent: further.join(" · ") }),
  );
  return about;
}

function figure(value, label) {
  return make("div", { className: "figure" },
    make("span", { textContent: value }), make("small", { textContent: label }));
}

function price(item) {
  const known = facts.get(String(item))?.price;
  return known == null ? [] : [figure(number(known, 2), say("price"))];
}

function acts(item) {
  const kinds = state.about.behaviors.length ? state.about.behaviors : ["view"];
  const buttons = kinds.slice(0, 3).map((kind) => {
    const key = `do_${kind}`;
    const textContent = key in words.en ? say(key) : kind;
    return make("button", { type: "button", textContent, onclick: () => happened(item, kind) });
  });
  return make("div", { className: "acts" }, ...buttons);
}

function showHistory() {
  const rows = state.history.map(({ item, behavior, remove }) => {
    const row = make("li", {}, describe(item), ...price(item));
    if (behavior) row.append(make("small", { textContent: behavior }));
    if (remove) {
      row.append(make("button", { type: "button", textContent: say("remove"), onclick: remove }));
    }
    return row;
  });
  at("history").replaceChildren(...rows);
  at("no-history").hidden = rows.length > 0;
  at("forget").hidden = rows.length === 0;
  at("forget").textContent = say(state.byUser ? "erase" : "start_again");
}

function showList() {
  if (!state.answer) return;
  const before = state.shown;
  const rows = state.answer.items.map(({ item, score }, place) => {
    const from = before.indexOf(item);
    const up = from - place;
    let moved = "";
    if (before.length && from < 0) moved = say("new_here");
    else if (before.length && up) moved = up > 0 ? `↑${up}` : `↓${-up}`;
    return make("li", {},
      make("span", { className: "rank", textContent: place + 1 }),
      describe(item),
      make("span", { className: "moved", textContent: moved }),
      ...price(item),
      figure(score == null ? "–" : number(score, 3), say("score")),
      acts(item));
  });
  at("list").replaceChildren(...rows);
  const source = `by_${state.answer.source}`;
  at("source").textContent = source in words.en ? say(source) : state.answer.source;
}

function showWords() {
  document.documentElement.lang = state.language;
  document.title = say("title");
  at("language").value = state.language;
  for (const element of document.querySelectorAll("[data-words]")) {
    element.textContent = say(element.dataset.words);
  }
  if (!state.about) return;
  const { model, version, items } = state.about;
  at("model").textContent = say("model", { model, version, items: number(items, 0) });
  showHistory();
  showList();
  showMeasures();
}

// ---- what is asked

async function refresh() {
  const turn = ++asked;
  const { user, byUser } = state;
  let history = [];
  if (byUser) {
    const { events } = await ask(`/v1/users/${encodeURIComponent(user)}`);
    history = events.reverse().map(({ item, behavior }) => ({ item, behavior }));
  } else {
    history = state.chosen.map((item, place) => ({
      item,
      remove: () => choose(state.chosen.filter((_, other) => other !== place)),
    })).reverse();
  }
  const k = Math.min(LIST, state.about.max_k);
  const whom = byUser ? { user } : { history: state.chosen };
  const answer = await ask("/v1/recommend", { ...whom, k });
  await know([...history, ...answer.items].map(({ item }) => item));
  if (turn !== asked) return;
  notice("");
  state.shown = state.answer ? state.answer.items.map(({ item }) => item) : [];
  Object.assign(state, { history, answer });
  state.about.version = Math.max(state.about.version, answer.version);
  showHistory();
  showList();
}

// What was refused or failed is told already; the page goes on.
const attempt = (work) => async (...given) => {
  try {
    await work(...given);
  } catch (error) {
    if (error instanceof TypeError) notice(say("unreachable"));
  }
};

const happened = attempt(async (item, behavior) => {
  if (!state.byUser) return choose([...state.chosen, item]);
  const event = { user: state.user, item, behavior, id: crypto.getRandomValues(new Uint32Array(4)).join("-") };
  await ask("/v1/events", { events: [event] });
  await refresh();
});

const choose = attempt(async (items) => {
  state.chosen = items.slice(-state.about.max_history);
  await refresh();
});

const showUser = attempt(async (user) => {
  state.user = user;
  at("user").value = user;
  if (![...at("users").options].some((one) => one.value === user)) {
    at("users").append(make("option", { value: user }));
  }
  state.answer = null;
  await refresh();
});

const switchTo = attempt(async (byUser) => {
  state.byUser = byUser;
  at("by-user").ariaPressed = byUser;
  at("by-items").ariaPressed = !byUser;
  at("user-form").hidden = !byUser;
  at("items-form").hidden = byUser;
  state.answer = null;
  await refresh();
});

const newcomer = () => `visitor-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;

let searched = 0;
const search = attempt(async () => {
  const turn = ++searched;
  const text = at("find").value.trim();
  const query = new URLSearchParams({ q: text, limit: LIST });
  const found = text ? (await ask(`/v1/items?${query}`)).items : [];
  if (turn !== searched) return;
  const rows = found.map((one) => {
    facts.set(String(one.item), one);
    const add = () => choose([...state.chosen, one.item]);
    const textContent = say("add");
    return make("li", {}, describe(one.item), ...price(one.item),
      make("button", { type: "button", textContent, onclick: add }));
  });
  at("found").replaceChildren(...rows);
});

const forget = attempt(async () => {
  if (!state.byUser) return choose([]);
  const path = `/v1/users/${encodeURIComponent(state.user)}`;
  const { erased } = await ask(path, undefined, "DELETE");
  await refresh();
  notice(say("erased", { count: erased }));
});

// ---- measures

async function measure() {
  if (!document.hidden && state.about) {
    try {
      const headers = state.key ? { "X-API-Key": state.key } : {};
      const response = await fetch("/metrics", { headers });
      if (response.ok) {
        state.measured.push({ time: performance.now(), ...read(await response.text()) });
        state.measured = state.measured.slice(-LOOKS - 1);
        showMeasures();
      }
    } catch {
      // The server is away; the next look may find it.
    }
  }
  setTimeout(measure, EVERY);
}

function showMeasures() {
  const { measured } = state;
  const now = measured.at(-1);
  if (!now) return;
  const rates = measured.slice(1).map((one, place) => {
    const before = measured[place];
    return Math.max(0, (1000 * (one.requests - before.requests)) / (one.time - before.time));
  });
  const time = (share) => {
    const seconds = within(share, now);
    return Number.isFinite(seconds) ? say("milliseconds", { value: number(1000 * seconds, 1) }) : "–";
  };
  const figures = {
    rate: number(rates.at(-1) ?? 0, 1),
    median: time(0.5),
    slowest: time(0.99),
    batch: now.calls ? number(now.batched / now.calls, 1) : "–",
    lists: number(now.lists, 0),
    by_the_model: number(now.by_the_model, 0),
    events: number(now.events, 0),
  };
  at("figures").replaceChildren(...Object.entries(figures).map(([key, value]) =>
    make("div", {}, make("dt", { textContent: say(key) }), make("dd", { id: `figure-${key}`, textContent: value }))));
  const most = Math.max(1, ...rates);
  const points = rates.map((rate, place) =>
    `${(300 * (place + LOOKS - rates.length)) / (LOOKS - 1)},${46 - (44 * rate) / most}`);
  at("curve").querySelector("polyline").setAttribute("points", points.join(" "));
}

// ---- start

const start = attempt(async () => {
  state.about = await ask("/v1/about");
  at("key").hidden = true;
  at("shop").hidden = false;
  notice("");
  showWords();
  if (!state.user) at("user").value = state.user = newcomer();
  await switchTo(state.byUser);
});

at("language").onchange = (event) => {
  state.language = event.target.value;
  localStorage.setItem("language", state.language);
  showWords();
  search();
};
at("key").onsubmit = (event) => {
  event.preventDefault();
  state.key = at("key-text").value;
  at("key-text").value = "";
  if (/[^\x20-\x7e]/.test(state.key)) return askForKey(); // nothing that a header may hold
  sessionStorage.setItem("key", state.key);
  start();
};
at("user-form").onsubmit = (event) => {
  event.preventDefault();
  showUser(at("user").value);
};
at("items-form").onsubmit = (event) => event.preventDefault();
at("newcomer").onclick = () => showUser(newcomer());
at("by-user").onclick = () => switchTo(true);
at("by-items").onclick = () => switchTo(false);
at("find").oninput = search;
at("forget").onclick = forget;

if (!(state.language in words)) state.language = "en";
showWords();
start();
measure();
