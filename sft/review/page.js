// The page of `sft review`. A record's texts become text nodes and values of fields, never markup.

import { difference, nearby } from "./difference.js";
import { ask, Away, Refusal, wait } from "./server.js";

(() => {
  const byId = (id) => document.getElementById(id);
  const REASONS = ["wrong answer", "does not do what is asked", "unclear or impossible", "copy of another record",
    "private, unsafe or offensive", "bad language or form"];
  const SAID = { accept: "Accepted", edit: "Edited and accepted", reject: "Rejected", skip: "Skipped", flag: "Flagged", undo: "Undone" };
  const RETRY_MS = [500, 1000, 2000, 4000, 8000];
  const BEAT_MS = 20000;
  const UNSEEN = /([^\P{C}\n\t\u200c\u200d\p{Cn}]|[\p{Zl}\p{Zp}])/u;

  let current = null; // the record that is shown
  let began = 0;
  let set = ""; // the name of the set of records
  let isBusy = true; // nothing is decided while a decision is on its way
  let isEditing = false;

  const isReload = performance.getEntriesByType("navigation")[0]?.type === "reload";
  const ownWindow = (isReload && sessionStorage.getItem("window")) || crypto.randomUUID();
  sessionStorage.setItem("window", ownWindow);
  const decided = JSON.parse((isReload && sessionStorage.getItem("decided")) || "[]"); // ids, for undo
  const remember = () => sessionStorage.setItem("decided", JSON.stringify(decided.slice(-1000)));

  const query = (path, given) => ask(`${path}?${new URLSearchParams({ ...given, window: ownWindow })}`);

  const say = (text) => { byId("status").textContent = text; };
  const sayAway = (text) => {
    byId("away").hidden = text === "";
    byId("away").textContent = text;
  };
  const AWAY = "The server is away. What was said to be saved is saved.";
  const AGAIN = "A new server is there: open the address that it prints.";
  const KEPT = " Your last decision is not saved yet: this browser keeps it, and sends it as soon as it can.";

  // ---- decisions: kept in the browser until the server says that they are on disk ----

  const keyOf = (name) => `sft-review ${set} ${name}`;
  const pending = () => Object.keys(localStorage).filter((key) => key.startsWith(keyOf(""))).sort();

  const setBusy = (busy) => {
    isBusy = busy;
    for (const button of document.querySelectorAll(".actions button")) button.disabled = busy;
  };

  // The same decision has the same name however often it is sent, and the server takes a name once.
  const deliver = async (key, decision) => {
    for (let tries = 0; ; tries += 1) {
      try {
        const answer = await ask("decide", { ...decision, window: ownWindow });
        localStorage.removeItem(key);
        sayAway("");
        return answer;
      } catch (error) {
        if (error instanceof Refusal) {
          localStorage.removeItem(key);
          throw error;
        }
        if (!(error instanceof Away)) {
          sayAway(AGAIN + KEPT);
          throw error;
        }
        sayAway(AWAY + KEPT);
        await wait(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
      }
    }
  };

  const decide = async (verdict, more = {}, record = current?.id) => {
    if (isBusy || !record) return;
    setBusy(true);
    say("Saving …");
    const seconds = (performance.now() - began) / 1000;
    const decision = { name: crypto.randomUUID(), record, verdict, seconds, ...more };
    const key = keyOf(decision.name);
    try {
      localStorage.setItem(key, JSON.stringify(decision));
    } catch {
      // Too long for the browser's store: it is kept by this window alone.
    }
    try {
      const answer = await deliver(key, decision);
      if (answer.refused) {
        isEditing = false;
        show(answer, `Not saved: ${answer.refused}.`);
        setBusy(false);
        return;
      }
      if (verdict === "undo") decided.splice(decided.lastIndexOf(record), decided.includes(record) ? 1 : 0);
      else decided.push(record);
      remember();
      isEditing = false;
      const shown = verdict === "undo" ? await query("record", { record }) : answer;
      show(shown, `${SAID[verdict]}, saved.`);
      setBusy(false);
    } catch (error) {
      if (error instanceof Refusal) {
        say(`Not saved: ${error.message}.`);
        setBusy(false);
      } else if (error instanceof Away) {
        sayAway(AWAY); // undone and saved; what it was cannot be shown now
      }
    }
  };

  const undo = () => {
    const own = current?.said?.some((one) => one.reviewer === byId("reviewer").dataset.name);
    const record = decided.at(-1) ?? (own ? current.id : undefined);
    if (record === undefined) say("There is nothing to undo in this window.");
    else decide("undo", {}, record);
  };

  // ---- what is shown ----

  const element = (tag, text = "", inside = []) => {
    const made = document.createElement(tag);
    if (text !== "") made.textContent = text;
    made.append(...inside);
    return made;
  };
  const spelled = (text) => text.split(UNSEEN).map((part, i) => {
    if (i % 2 === 0) return part;
    const made = element("span", `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
    made.className = "spelled";
    return made;
  });
  const box = (label, inside, name = "") => {
    const pre = element("pre", "", inside);
    pre.dir = "auto";
    pre.tabIndex = 0;
    pre.className = name;
    pre.setAttribute("role", "region");
    pre.setAttribute("aria-label", label);
    return pre;
  };

  const showTexts = () => {
    byId("difference").hidden = true;
    byId("template").hidden = !current.rendered;
    byId("texts").replaceChildren(...current.texts.flatMap(({ who, text }) => [element("h3", who), box(who, spelled(text))]));
  };

  const show = ({ record, progress }, said = "") => {
    showProgress(progress);
    current = record?.gone ? { ...record, texts: [], about: {}, said: [] } : record;
    began = performance.now();
    byId("record").hidden = current === null;
    byId("editing").hidden = true;
    byId("actions").hidden = false;
    if (current === null) {
      say(`${said} Nothing is left for you but what other windows have open.`.trim());
      return;
    }
    byId("title").textContent = current.task || "a record";
    const facts = [`id ${current.id}`, current.state === "open" ? "" : current.state, current.risk ? `risk ${current.risk}` : ""];
    byId("facts").textContent = facts.filter(Boolean).join(" · ");
    const note = current.gone ? "This record is not in the file any more: skip it."
      : current.note && `It cannot be trained on as it is: ${current.note}.`;
    byId("note").hidden = !note;
    byId("note").textContent = note || "";
    byId("said").replaceChildren(...current.said.map((one) =>
      element("li", `${one.reviewer}: ${one.verdict}${one.reason && ` – ${one.reason}`}`)));
    showTexts();
    const rendered = current.rendered?.flatMap(([isLearned, text]) => {
      if (!isLearned) return spelled(text);
      const made = element("mark", "", spelled(text));
      return [made];
    });
    byId("rendered").replaceChildren(...(rendered ? [box("as the template renders it", rendered)] : []));
    byId("about").replaceChildren(...Object.entries(current.about).map(([name, text]) => {
      const made = element("details", "", [element("summary", name), box(name, spelled(text), "data")]);
      made.open = name === "evidence";
      return made;
    }));
    say(`${said} ${byId("left").textContent}.`.trim());
    scrollTo(0, 0);
    byId("title").focus({ preventScroll: true });
  };

  const showProgress = (progress) => {
    set = progress.set;
    const { num, total, tasks, sample, agreement } = progress;
    const done = num - total.open - total.flagged;
    byId("data").textContent = progress.data;
    byId("reviewer").textContent = `as ${progress.reviewer}`;
    byId("reviewer").dataset.name = progress.reviewer;
    byId("left").textContent = `${done} of ${num} decided`;
    byId("bar").value = num ? done / num : 1;
    byId("rows").replaceChildren(...tasks.map((row) => element("tr", "", [element("td", row.task || "–"),
      ...["accepted", "edited", "rejected", "flagged", "open"].map((state) => element("td", String(row[state] ?? 0)))])));
    byId("change").hidden = !progress.change;
    if (byId("change").textContent !== progress.change) byId("change").textContent = progress.change;
    byId("sample").hidden = !sample;
    byId("sample-text").textContent = sample ?? "";
    if (agreement) byId("agreement").textContent = agreement.join(" ");
  };

  // ---- editing ----

  const fields = () => [...byId("texts").querySelectorAll("textarea")];

  const beginEdit = () => {
    if (isBusy || !current || current.gone) return;
    isEditing = true;
    byId("texts").replaceChildren(...current.texts.flatMap(({ place, who, text, is_edited_here: canEdit }) => {
      if (!canEdit) return [element("h3", who), box(who, spelled(text))];
      const field = element("textarea");
      field.value = text;
      Object.assign(field.dataset, { place, who });
      field.dir = "auto";
      field.rows = Math.min(10, 1 + text.split("\n").reduce((sum, line) => sum + 1 + Math.floor(line.length / 90), 0));
      field.setAttribute("aria-label", who);
      field.before_ = field.value; // as the browser has it: it knows one kind of line end
      field.addEventListener("input", showDifference);
      return [element("h3", who), field];
    }));
    byId("template").hidden = true; // of the record as it was
    byId("editing").hidden = false;
    byId("actions").hidden = true;
    fields().at(-1)?.focus({ preventScroll: true });
    fields().at(-1)?.scrollIntoView({ block: "center" });
    say("Editing. Control and Enter saves, Escape leaves it as it was.");
  };
  const endEdit = () => {
    isEditing = false;
    byId("editing").hidden = true;
    byId("actions").hidden = false;
    showTexts();
    byId("title").focus({ preventScroll: true });
    say("Left as it was.");
  };
  const saveEdit = () => {
    const changed = fields().filter((field) => field.value !== field.before_);
    if (changed.length === 0) say("Nothing is changed. Escape goes back.");
    else decide("edit", { texts: Object.fromEntries(changed.map((field) => [field.dataset.place, field.value])) });
  };

  const showDifference = () => {
    const changed = fields().filter((field) => field.value !== field.before_);
    byId("difference").hidden = changed.length === 0;
    byId("changes").replaceChildren(...changed.flatMap((field) => {
      const parts = difference(field.before_, field.value).filter(([, text]) => text !== "");
      const shown = parts.flatMap(([kind, text], i) => (kind ? [element(kind, "", spelled(text))]
        : spelled(nearby(text, i === 0, i === parts.length - 1))));
      return [element("h3", field.dataset.who), box(`difference in ${field.dataset.who}`, shown)];
    }));
  };

  // ---- dialogs ----

  const open = (dialog, focused) => {
    if (isBusy || byId(dialog).open) return;
    byId(dialog).showModal();
    byId(focused).focus();
  };
  const reject = (reason) => {
    if (reason.trim() === "") {
      byId("reason").focus();
      return;
    }
    byId("why").close();
    decide("reject", { reason: reason.trim() });
  };
  REASONS.forEach((reason, i) => {
    const button = element("button", reason);
    button.type = "button";
    button.id = `reason-${i + 1}`;
    button.addEventListener("click", () => reject(reason));
    byId("reasons").append(element("li", "", [button]));
  });
  byId("send").addEventListener("click", () => reject(byId("reason").value));
  byId("why").addEventListener("keydown", (event) => {
    const isText = event.target === byId("reason");
    if (!isText && /^[1-6]$/.test(event.key)) reject(REASONS[event.key - 1]);
    else if (isText && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      reject(byId("reason").value);
    }
  });
  const beginReject = () => {
    if (!current) return;
    byId("reason").value = "";
    open("why", "reason-1");
  };

  let searching = 0;
  const search = async () => {
    const own = (searching += 1);
    const text = byId("words").value.trim();
    if (text === "") {
      byId("found").replaceChildren();
      byId("hits").textContent = "";
      return;
    }
    await wait(200);
    if (own !== searching) return;
    byId("hits").textContent = "Searching …";
    try {
      const found = await query("search", { words: text });
      if (own !== searching) return;
      byId("hits").textContent = found.length === 50 ? "The first 50 records" : `${found.length} found`;
      byId("found").replaceChildren(...found.map((one) => {
        const excerpt = element("span", "", spelled(one.excerpt));
        excerpt.dir = "auto";
        const button = element("button", "", [element("small", `${one.task || "–"} · ${one.state} · ${one.id}`), excerpt]);
        button.type = "button";
        button.addEventListener("click", () => openRecord(one.id));
        return element("li", "", [button]);
      }));
    } catch {
      byId("hits").textContent = "The server does not answer.";
    }
  };
  const openRecord = async (record) => {
    byId("search").close();
    try {
      show(await query("record", { record }));
    } catch (error) {
      say(error instanceof Refusal ? error.message : "The server does not answer.");
    }
  };
  byId("words").addEventListener("input", search);
  byId("search").addEventListener("keydown", (event) => {
    const found = [...byId("found").querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && event.target === byId("words")) {
      event.preventDefault();
      found[0]?.click();
    } else if (step && found.length) {
      event.preventDefault();
      const place = found.indexOf(document.activeElement) + step;
      (place < 0 ? byId("words") : found[Math.min(place, found.length - 1)]).focus();
    }
  });
  byId("close").addEventListener("click", () => byId("help").close());

  // ---- keys ----

  const move = (step) => {
    const boxes = [...byId("record").querySelectorAll("pre")].filter((one) => one.checkVisibility());
    const place = boxes.indexOf(document.activeElement);
    boxes[Math.min(Math.max(place + step, 0), boxes.length - 1)]?.focus();
  };
  const actions = {
    accept: () => { if (!current?.gone) decide("accept"); },
    edit: beginEdit,
    reject: beginReject,
    skip: () => decide("skip"),
    flag: () => decide("flag"),
    undo,
    find: () => { byId("words").value = ""; search(); open("search", "words"); },
    keys: () => open("help", "close"),
    save: saveEdit,
    cancel: endEdit,
  };
  for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
  const KEYS = { a: actions.accept, e: beginEdit, r: beginReject, s: actions.skip, f: actions.flag, u: undo,
    t: () => { byId("template").open = !byId("template").open; }, "/": actions.find, "?": actions.keys, j: () => move(1), k: () => move(-1) };

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || document.querySelector("dialog[open]")) return;
    if (isEditing) {
      if (event.key === "Escape" && !isBusy) endEdit();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) saveEdit();
      return;
    }
    // A key that is held down decides nothing more.
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("input, textarea")) return;
    const isLatin = /^[\x20-\x7e]$/.test(event.key);
    const act = KEYS[isLatin ? event.key.toLowerCase() : event.code.replace(/^Key/, "").toLowerCase()];
    if (act) {
      event.preventDefault();
      act();
    }
  });

  // ---- the beginning ----

  const beat = async () => {
    try {
      showProgress(await query("progress", {}));
      if (isBusy) return;
      sayAway("");
      if (current === null) {
        const found = await ask("next", { window: ownWindow }); // a window may have been closed
        if (found.record !== null) show(found);
      }
    } catch (error) {
      sayAway((error instanceof Away ? AWAY : AGAIN) + (pending().length ? KEPT : ""));
    }
  };
  const begin = async () => {
    for (let tries = 0; ; tries += 1) {
      try {
        showProgress(await query("progress", {}));
        let num = 0;
        let refused = "";
        for (const key of pending()) {
          try {
            const answer = await deliver(key, JSON.parse(localStorage.getItem(key)));
            if (answer.refused) refused = `Not saved: ${answer.refused}. `;
            else num += 1;
          } catch (error) {
            if (!(error instanceof Refusal)) throw error;
            refused = `Not saved: ${error.message}. `;
          }
        }
        show(await ask("next", { window: ownWindow }), `${refused}${num ? `${num} that waited in this browser: saved.` : ""}`);
        sayAway("");
        setBusy(false);
        return;
      } catch (error) {
        sayAway(error instanceof Away ? AWAY : AGAIN);
        if (!(error instanceof Away)) return;
        await wait(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
      }
    }
  };
  setInterval(beat, BEAT_MS);
  addEventListener("pagehide", () => {
    const body = JSON.stringify({ window: ownWindow });
    fetch("leave", { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body }).catch(() => {});
  });
  begin();
})();
