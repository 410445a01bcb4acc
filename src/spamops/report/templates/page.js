"use strict";
// Lists the single verdicts of a run when somebody opens it. Texts are only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 50;
  const VERDICTS = { "1": "spam", "0": "not spam", "-1": "failed" };
  const FILTERS = [
    ["all", () => true],
    ["spam", (row) => row[2] === 1],
    ["not spam", (row) => row[2] === 0],
    ["failed", (row) => row[2] === -1],
    ["wrong", (row) => row[8] !== null && row[8] !== row[2]],
  ];
  const HEADINGS = ["item", "type", "verdict", "confidence", "given by", "seconds", "indicators, or why it failed", "moderator"];
  const NUMBERS = new Set([3, 5]);

  const make = (name, attributes = {}, text = null) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  };

  const visible = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ").slice(0, 200);

  const itemName = (id) => {
    const bdi = make("bdi", {}, visible(id));
    const holder = data.url === null
      ? make("span", { class: "id" })
      : make("a", { class: "id", href: data.url.replace("{id}", () => encodeURIComponent(id)), rel: "noopener noreferrer" });
    holder.append(bdi);
    return holder;
  };

  const cells = (row) => [
    null,
    data.words[row[1]],
    VERDICTS[row[2]],
    row[3] === null ? "–" : `${(100 * row[3]).toFixed(0)} %`,
    data.words[row[4]] || "–",
    row[5] === null ? "–" : row[5].toFixed(row[5] < 0.1 ? 3 : 2),
    row[2] === -1 ? data.words[row[7]] || "–" : row[6].map((place) => data.words[place]).join(", ") || "–",
    row[8] === null ? "–" : VERDICTS[row[8]],
  ];

  const line = (row) => {
    const tr = make("tr");
    cells(row).forEach((text, place) => {
      const cell = place === 0 ? make("th", { scope: "row" }) : make("td", NUMBERS.has(place) ? {} : { class: "text" });
      if (place === 0) cell.append(itemName(row[0]));
      else cell.append(make("bdi", {}, text));
      tr.append(cell);
    });
    return tr;
  };

  const list = (holder) => {
    const run = holder.dataset.run;
    const rows = data.runs[run] || [];
    let filter = FILTERS[0];
    let page = 0;

    const bar = make("div", { class: "filters", role: "group", "aria-label": `Which verdicts of run ${run}` });
    const buttons = FILTERS.map((each) => {
      const button = make("button", { type: "button" }, `${each[0]} (${rows.filter(each[1]).length})`);
      button.addEventListener("click", () => { filter = each; page = 0; show(); });
      bar.append(button);
      return button;
    });

    const region = make("div", { class: "scroll tall", role: "region", "aria-label": `Verdicts of run ${run}`, tabindex: "0" });
    const table = make("table");
    const head = make("tr");
    HEADINGS.forEach((text, place) => head.append(make("th", NUMBERS.has(place) || place === 0 ? { scope: "col" } : { scope: "col", class: "text" }, text)));
    const thead = make("thead");
    thead.append(head);
    const body = make("tbody");
    table.append(make("caption", {}, `Verdicts of run ${run}`), thead, body);
    region.append(table);

    const pager = make("div", { class: "pager" });
    const back = make("button", { type: "button" }, "previous");
    const status = make("span", { role: "status" });
    const forth = make("button", { type: "button" }, "next");
    back.addEventListener("click", () => { page -= 1; show(); });
    forth.addEventListener("click", () => { page += 1; show(); });
    pager.append(back, status, forth);

    const show = () => {
      const found = rows.filter(filter[1]);
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      body.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(line));
      status.textContent = found.length === 0 ? "none" : `${page * PAGE + 1} to ${Math.min(found.length, (page + 1) * PAGE)} of ${found.length}`;
      back.disabled = page === 0;
      forth.disabled = page >= pages - 1;
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(FILTERS[place] === filter)));
      region.scrollTop = 0;
    };
    show();
    holder.replaceChildren(bar, region, pager);
  };

  const open = (details) => {
    const holder = details.querySelector(".verdicts");
    if (holder && !holder.dataset.listed) {
      holder.dataset.listed = "yes";
      list(holder);
    }
  };
  for (const details of document.querySelectorAll("details.run")) {
    details.addEventListener("toggle", () => { if (details.open) open(details); });
  }

  // A link to a run opens it, also where the browser does not do so by itself.
  const follow = () => {
    const target = /^#run-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (target) {
      target.parentElement.open = true;
      target.parentElement.scrollIntoView();
    }
  };
  window.addEventListener("hashchange", follow);
  follow();
})();
