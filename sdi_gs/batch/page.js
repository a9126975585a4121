"use strict";
(() => {
  const batch = JSON.parse(document.getElementById("data").textContent);
  const rows = batch.rows, order = ["finished", "running", "failed", "stopped", "lost", "waiting"];
  const size = {pictures: 48, list: 200};
  const find = (id) => document.getElementById(id);

  // Texts of strangers enter the page as text only, never as markup.
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  const worded = (name) => name.replaceAll("_", " ");
  const file = (row, name) => "runs/" + encodeURIComponent(row.key) + "/" + name;
  const number = (value) => Number.isInteger(value) ? String(value) : value.toFixed(3);
  function duration(seconds) {
    if (seconds < 99.5) return seconds.toFixed(seconds < 9.95 ? 1 : 0) + " s";
    const minutes = Math.round(seconds / 60);
    return minutes < 100 ? minutes + " min" : (minutes / 60).toFixed(1) + " h";
  }

  const scores = [...new Set(rows.flatMap((row) => Object.keys(row.scores || {})))];
  const columns = [
    {id: "order", title: "order of the list", value: (row) => row.index},
    {id: "prompt", title: "prompt", value: (row) => row.prompt.toLowerCase()},
    {id: "seed", title: "seed", value: (row) => row.seed},
    {id: "status", title: "status", value: (row) => order.indexOf(row.status)},
    {id: "step", title: "step", value: (row) => row.step},
    {id: "seconds", title: "seconds", value: (row) => row.seconds || null},
    ...scores.map((name) => ({id: "score:" + name, title: worded(name), value: (row) => (row.scores || {})[name]})),
  ];
  const settingsOf = (row) => Object.entries(row.settings || {}).map(([name, value]) => name + " " +
    (Array.isArray(value) ? value.join(" ") : value)).join(", ");
  // Of a prompt with a single run that one is no choice.
  const groupOf = (row) => JSON.stringify([row.prompt, Object.entries(row.settings || {}).sort()]);
  const runsOf = new Map();
  for (const row of rows) {
    runsOf.set(groupOf(row), (runsOf.get(groupOf(row)) || 0) + 1);
    row.text = [row.prompt, row.name || "", row.reason || "", "seed " + row.seed, settingsOf(row)].join("\n").toLowerCase();
  }

  const isChosen = (row) => row.best && runsOf.get(groupOf(row)) > 1;
  // Not where no run has the score: everything would be hidden.
  const onlyBest = rows.some(isChosen);

  // What is chosen lives in the address, so that it survives reading the page again and can be passed on.
  const chosen = {query: "", statuses: new Set(), sort: "order", down: false, view: "pictures", best: false, page: 0};
  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    chosen.query = given.get("q") || "";
    chosen.statuses = new Set((given.get("status") || "").split(",").filter((status) => order.includes(status)));
    chosen.sort = columns.some((column) => column.id === given.get("sort")) ? given.get("sort") : "order";
    chosen.down = given.get("down") === "1";
    chosen.view = given.get("view") === "list" ? "list" : "pictures";
    chosen.best = given.has("best") ? given.get("best") === "1" : onlyBest;
    chosen.page = Math.max((parseInt(given.get("page"), 10) || 1) - 1, 0);
  }
  function writeAddress() {
    const given = new URLSearchParams();
    if (chosen.query) given.set("q", chosen.query);
    if (chosen.statuses.size) given.set("status", [...chosen.statuses].join(","));
    if (chosen.sort !== "order") given.set("sort", chosen.sort);
    if (chosen.down) given.set("down", "1");
    if (chosen.view !== "pictures") given.set("view", chosen.view);
    if (chosen.best !== onlyBest) given.set("best", chosen.best ? "1" : "0");
    if (chosen.page) given.set("page", chosen.page + 1);
    history.replaceState(null, "", "#" + given);
  }

  function shownRows() {
    const words = chosen.query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => (!chosen.statuses.size || chosen.statuses.has(row.status)) &&
      (!chosen.best || row.best || row.status !== "finished") && words.every((word) => row.text.includes(word) || row.key === word));
    const {value} = columns.find((column) => column.id === chosen.sort), sign = chosen.down ? -1 : 1;
    return found.map((row) => [value(row), row]).sort(([a, left], [b, right]) => {
      // Rows without the value stand last, whichever way it goes.
      const missing = (a === null || a === undefined) - (b === null || b === undefined);
      return missing || (a < b ? -sign : a > b ? sign : 0) || left.index - right.index;
    }).map(([, row]) => row);
  }

  function picture(row) {
    const media = make("div", {class: "media"});
    const source = row.sheet ? "contact_sheet.png" : row.preview;
    if (source) {
      const text = (row.sheet ? "Eight sides of " : "A preview of ") + row.prompt;
      media.append(make("img", {src: file(row, source), alt: text, loading: "lazy", decoding: "async"}));
    } else {
      media.classList.add("empty");
      media.append(row.status === "waiting" ? "not started" : row.status === "running" ? "no preview yet" : "no picture");
    }
    return media;
  }
  // Beside the picture: on it, it would cover a side.
  function turner(row, media) {
    if (!row.film) return null;
    const button = make("button", {type: "button", class: "turn", onclick: () => {
      const isTurning = media.querySelector("video") !== null;
      if (isTurning) media.replaceChildren(...picture(row).childNodes);
      else turn(row, media);
      label(!isTurning);
    }});
    function label(isTurning) {
      button.textContent = isTurning ? "Sides" : "Turn";
      button.setAttribute("aria-label", (isTurning ? "Sides of " : "Turn ") + row.prompt);
    }
    label(false);
    return button;
  }
  function turn(row, media) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const film = make("video", {src: file(row, "turntable.mp4"), controls: true, loop: true, playsinline: true, tabindex: 0});
    film.muted = true;
    film.setAttribute("aria-label", "Turntable of " + row.prompt);
    media.replaceChildren(film);
    if (!still) film.play().catch(() => {});
  }
  function links(row) {
    const parts = [];
    if (row.ply) parts.push(make("a", {href: file(row, "splats.ply"), download: row.key + ".ply"}, "splats.ply"));
    if (row.folder) parts.push(make("a", {href: file(row, "")}, "folder"));
    return parts.flatMap((part, place) => place ? [" · ", part] : [part]);
  }
  function statusText(row) {
    if (row.status === "running" && row.steps) return "running, step " + row.step + " of " + row.steps;
    if (row.status === "stopped" && row.step) return "stopped after step " + row.step + (row.steps ? " of " + row.steps : "");
    return row.status;
  }
  const badge = (row) => isChosen(row) ? make("span", {class: "badge"}, " ★ best" + (batch.keep > 1 ? " " + batch.keep : "")) : null;

  function card(row) {
    const values = Object.entries(row.scores || {});
    const facts = ["seed " + row.seed, row.seconds ? duration(row.seconds) : null, row.name || null].filter(Boolean).join(" · ");
    const media = picture(row);
    return make("li", {class: "card" + (isChosen(row) ? " best" : "")}, media, make("div", {class: "text"},
      make("h2", {}, row.prompt),
      make("p", {class: "facts"}, make("span", {class: "is-" + row.status}, statusText(row)), " · " + facts, badge(row)),
      Object.keys(row.settings || {}).length ? make("p", {class: "settings"}, settingsOf(row)) : null,
      row.reason ? make("p", {class: "reason"}, row.reason) : null,
      values.length ? make("dl", {}, ...values.flatMap(([name, value]) => [make("dt", {}, worded(name)), make("dd", {}, number(value))])) : null,
      make("p", {class: "links"}, make("span", {}, ...links(row)), turner(row, media))));
  }
  function table(found) {
    const numeric = (column) => column.id !== "prompt" && column.id !== "status";
    const head = columns.map((column) => {
      const sorted = chosen.sort === column.id;
      const arrow = sorted ? (chosen.down ? "\u00a0↓" : "\u00a0↑") : "";
      const press = () => { chosen.down = sorted && !chosen.down; chosen.sort = column.id; chosen.page = 0; show();
        document.querySelector(`th[data-column="${CSS.escape(column.id)}"] button`).focus(); };
      return make("th", {scope: "col", class: numeric(column) ? "number" : null, "data-column": column.id,
        "aria-sort": sorted ? (chosen.down ? "descending" : "ascending") : null},
        make("button", {type: "button", onclick: press}, (column.id === "order" ? "#" : column.title) + arrow));
    });
    const lines = found.map((row) => make("tr", {class: isChosen(row) ? "best" : null},
      make("td", {class: "number"}, String(row.index + 1)),
      make("td", {class: "prompt"}, row.prompt, badge(row), row.name ? make("div", {class: "facts"}, row.name) : null,
        row.reason ? make("div", {class: "reason"}, row.reason) : null),
      make("td", {class: "number"}, String(row.seed)),
      make("td", {class: "is-" + row.status}, row.status),
      make("td", {class: "number"}, row.steps ? row.step + "/" + row.steps : ""),
      make("td", {class: "number"}, row.seconds ? row.seconds.toFixed(1) : ""),
      ...scores.map((name) => make("td", {class: "number"}, name in (row.scores || {}) ? number(row.scores[name]) : "")),
      make("td", {class: "files"}, ...links(row))));
    return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs"}, make("table", {},
      make("thead", {}, make("tr", {}, ...head, make("th", {scope: "col"}, "files"))), make("tbody", {}, ...lines)));
  }

  function show() {
    const found = shownRows(), count = size[chosen.view], pages = Math.max(Math.ceil(found.length / count), 1);
    chosen.page = Math.min(chosen.page, pages - 1);
    const first = chosen.page * count, part = found.slice(first, first + count);
    const content = !part.length ? make("p", {class: "none"}, rows.length ? "No run is like that." : "No runs.")
      : chosen.view === "list" ? table(part) : make("ul", {class: "cards"}, ...part.map(card));
    find("runs").replaceChildren(content);
    for (const where of document.querySelectorAll(".where")) {
      where.textContent = found.length ? `${first + 1}–${first + part.length} of ${found.length}` : "0 runs";
    }
    for (const button of document.querySelectorAll("[data-turn]")) {
      const to = chosen.page + Number(button.dataset.turn);
      button.disabled = to < 0 || to >= pages;
    }
    for (const button of find("statuses").children) button.setAttribute("aria-pressed", chosen.statuses.has(button.dataset.status));
    find("query").value = chosen.query;
    find("sort").value = chosen.sort;
    find("direction").textContent = chosen.down ? "Descending" : "Ascending";
    find("direction").setAttribute("aria-pressed", chosen.down);
    find("best").checked = chosen.best;
    document.querySelector(`[name="view"][value="${chosen.view}"]`).checked = true;
    writeAddress();
  }
  function change(what) { what(); chosen.page = 0; show(); }
  function turnPage(by) { chosen.page = Math.max(chosen.page + by, 0); show(); find("runs").focus({preventScroll: true}); scrollTo(0, find("controls").offsetTop); }

  function head() {
    const counts = new Map(order.map((status) => [status, rows.filter((row) => row.status === status).length]));
    const done = counts.get("finished");
    document.title = `${done} of ${rows.length} · ${batch.title}`;
    document.querySelector("h1").textContent = batch.title;
    find("source").textContent = `${batch.source}, begun ${new Date(batch.begun).toLocaleString()}, sdi-gs ${batch.version}`;
    const parts = order.filter((status) => counts.get(status)).map((status) => `${counts.get(status)} ${status}`);
    const left = batch.running && batch.left !== null ? `, about ${duration(batch.left)} left` : "";
    find("totals").textContent = `${rows.length} run${rows.length === 1 ? "" : "s"}: ${parts.join(", ") || "none"}${left}`;
    find("bar").setAttribute("aria-label", find("totals").textContent);
    for (const status of order) {
      if (counts.get(status)) {
        const piece = make("span", {class: "on-" + status});
        piece.style.width = 100 * counts.get(status) / rows.length + "%";
        find("bar").append(piece);
        find("statuses").append(make("button", {type: "button", class: "is-" + status, "data-status": status, "aria-pressed": "false",
          onclick: () => change(() => { if (!chosen.statuses.delete(status)) chosen.statuses.add(status); })}, `${status} ${counts.get(status)}`));
      }
    }
    find("sort").append(...columns.map((column) => make("option", {value: column.id}, column.title)));
    if (onlyBest) {
      find("best-text").textContent = `only the best ${batch.keep > 1 ? batch.keep + " " : ""}of each prompt's seeds, by ${batch.score}`;
      find("best-label").hidden = false;
    }
    find("reload-label").hidden = !batch.running;
    const age = (Date.now() - new Date(batch.written)) / 1000;
    const silent = batch.running && age > 900 ? ` That is ${duration(age)} ago: the batch may have ended.` : "";
    find("written").textContent = `Written ${new Date(batch.written).toLocaleString()}.${silent}`;
  }

  readAddress();
  head();
  show();
  let typing = 0;
  find("query").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => change(() => { chosen.query = find("query").value; }), 120);
  });
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("sort").addEventListener("change", () => change(() => { chosen.sort = find("sort").value; }));
  find("direction").addEventListener("click", () => change(() => { chosen.down = !chosen.down; }));
  find("best").addEventListener("change", () => change(() => { chosen.best = find("best").checked; }));
  for (const radio of document.querySelectorAll('[name="view"]')) radio.addEventListener("change", () => change(() => { chosen.view = radio.value; }));
  for (const button of document.querySelectorAll("[data-turn]")) button.addEventListener("click", () => turnPage(Number(button.dataset.turn)));
  addEventListener("hashchange", () => { readAddress(); show(); });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT|VIDEO)$/.test(event.target.tagName)) return;
    if (event.key === "/") { event.preventDefault(); find("query").focus(); }
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const by = event.key === "ArrowLeft" ? -1 : 1;
      if (!document.querySelector(`[data-turn="${by}"]`).disabled && !event.target.closest(".scroll")) turnPage(by);
    }
  });
  if (batch.running) setInterval(() => {
    // Not under a person's hands, nor while a film plays.
    const busy = /^(INPUT|SELECT)$/.test(document.activeElement.tagName) && document.activeElement.type !== "checkbox";
    if (find("reload").checked && !document.hidden && !busy && !document.querySelector("video")) location.reload();
  }, 30000);
})();
