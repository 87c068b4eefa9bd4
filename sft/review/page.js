// The page of `sft review`. A record's texts become text nodes and values of fields, never markup.

import { difference, nearby } from "./difference.js";
import { forget, isKept, keep, kept, newName, ownerOf } from "./kept.js";
import { ask, Away, insist, Refusal, Renewed, Trouble, wait } from "./server.js";
import { spelled } from "./spelled.js";

(() => {
  const byId = (id) => document.getElementById(id);
  const REASONS = ["wrong answer", "does not do what is asked", "unclear or impossible", "copy of another record",
    "private, unsafe or offensive", "bad language or form"];
  const SAID = { accept: "Accepted", edit: "Edited and accepted", reject: "Rejected", skip: "Skipped", flag: "Flagged", undo: "Undone" };
  const BEAT_MS = 20000;

  let current = null; // the record that is shown
  let began = 0;
  let reviewer = "";
  let owner = ownerOf("", ""); // of the decisions that this browser keeps
  let sending = null; // the decision that is on its way
  let isBusy = false;
  let isOver = false; // another server has taken the place of this page's
  let isEditing = false;

  const isReload = performance.getEntriesByType("navigation")[0]?.type === "reload";
  const ownWindow = (isReload && sessionStorage.getItem("window")) || crypto.randomUUID();
  sessionStorage.setItem("window", ownWindow);
  const decided = JSON.parse((isReload && sessionStorage.getItem("said")) || "[]"); // name and record of each, for undo
  const remember = () => sessionStorage.setItem("said", JSON.stringify(decided.slice(-1000)));

  const query = (path, given) => ask(`${path}?${new URLSearchParams({ ...given, window: ownWindow })}`);

  const put = (id, text) => byId(id).replaceChildren(...spelled(text));
  const say = (text) => put("status", text);
  const sayAway = (text) => {
    byId("away").hidden = text === "";
    put("away", text);
  };
  const AWAY = "The server is away. What was said to be saved is saved.";
  const AGAIN = "A new server is there: open the address that it prints.";
  const KEPT = " Your last decision is not saved yet: this browser keeps it, and sends it as soon as it can.";
  const ONLY_HERE = " Your last decision is not saved yet. It is too long for the browser's store: leave this window open.";
  const sayTrouble = (error) => {
    const what = error instanceof Renewed ? AGAIN : error instanceof Away ? AWAY : `The server cannot do it now: ${error.message}.`;
    const isOnlyHere = sending && !isKept(owner, sending);
    sayAway(what + (isOnlyHere ? ONLY_HERE : kept(owner).length ? KEPT : ""));
  };

  // ---- one thing at a time ----

  const setBusy = (busy) => {
    isBusy = busy;
    for (const button of document.querySelectorAll(".actions button")) button.disabled = busy;
  };

  // Whatever comes of the work, the next may begin behind it: unless there is no server any more to do it.
  const alone = async (work) => {
    if (isBusy) return;
    setBusy(true);
    try {
      await work();
      sayAway("");
    } catch (error) {
      isOver = error instanceof Renewed;
      if (error instanceof Trouble) sayTrouble(error);
      else if (error instanceof Refusal) say(`${error.message}.`);
      else throw error;
    } finally {
      setBusy(isOver);
    }
  };

  // ---- decisions ----

  // Until the server has answered; what it refuses has `refused`, and is kept no longer.
  const send = async (decision) => {
    sending = decision;
    let answer;
    try {
      answer = await insist(() => ask("decide", { ...decision, window: ownWindow }), sayTrouble);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answer = { refused: error.message };
    }
    forget(owner, decision);
    sending = null;
    const { name, verdict, record, undoes } = decision;
    const place = decided.findIndex((one) => one.name === undoes);
    if (place >= 0) decided.splice(place, 1); // also where it is refused: it is not the last word any more
    else if (verdict !== "undo" && !answer.refused) decided.push({ name, record });
    remember();
    return answer;
  };

  const decide = (verdict, more = {}, record = current?.id) => record && alone(async () => {
    say("Saving …");
    const seconds = (performance.now() - began) / 1000;
    const decision = { name: newName(), record, verdict, seconds, ...more };
    keep(owner, decision);
    const answer = await send(decision);
    const said = answer.refused ? `Not saved: ${answer.refused}.` : `${SAID[verdict]}, saved.`;
    if (answer.unshown) showNothing(`${said} What comes next cannot be shown now: ${answer.unshown}.`);
    else if ("record" in answer) show(answer, said);
    else say(said); // what was refused is still there, such as an edit
  });

  const undo = () => {
    const last = decided.at(-1) ?? current?.said?.find((one) => one.reviewer === reviewer);
    if (last === undefined) say("There is nothing to undo in this window.");
    else decide("undo", { undoes: last.name }, last.record);
  };

  // ---- what is shown ----

  const element = (tag, text = "", inside = []) => {
    const made = document.createElement(tag);
    made.append(...spelled(text), ...inside);
    return made;
  };
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

  const setEditing = (editing) => {
    isEditing = editing;
    byId("editing").hidden = !editing;
    byId("actions").hidden = editing;
  };

  const showNothing = (said) => {
    current = null;
    setEditing(false);
    byId("record").hidden = true;
    say(said);
  };

  const show = ({ record, progress }, said = "") => {
    showProgress(progress);
    if (record === null) return showNothing(`${said} Nothing is left for you but what other windows have open.`.trim());
    current = record.gone ? { ...record, texts: [], about: {}, said: [] } : record;
    began = performance.now();
    setEditing(false);
    byId("record").hidden = false;
    put("title", current.task || "a record");
    const facts = [`id ${current.id}`, current.state === "open" ? "" : current.state, current.risk ? `risk ${current.risk}` : ""];
    put("facts", facts.filter(Boolean).join(" · "));
    const note = current.gone ? "This record is not in the file any more: skip it."
      : current.note && `It cannot be trained on as it is: ${current.note}.`;
    byId("note").hidden = !note;
    put("note", note || "");
    byId("said").replaceChildren(...current.said.map((one) =>
      element("li", `${one.reviewer}: ${one.verdict}${one.reason && ` – ${one.reason}`}`)));
    showTexts();
    const rendered = current.rendered?.flatMap(([isLearned, text]) => (isLearned ? [element("mark", text)] : spelled(text)));
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
    reviewer = progress.reviewer;
    owner = ownerOf(progress.set, reviewer);
    const { num, total, tasks, sample, agreement } = progress;
    const done = num - total.open - total.flagged;
    put("data", progress.data);
    put("reviewer", `as ${reviewer}`);
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
    setEditing(true);
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
    fields().at(-1)?.focus({ preventScroll: true });
    fields().at(-1)?.scrollIntoView({ block: "center" });
    say("Editing. Control and Enter saves, Escape leaves it as it was.");
  };
  const endEdit = () => {
    setEditing(false);
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
      const shown = parts.flatMap(([kind, text], i) => (kind ? [element(kind, text)]
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
        const excerpt = element("span", one.excerpt);
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
  const openRecord = (record) => {
    byId("search").close();
    alone(async () => show(await query("record", { record })));
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
      if (current === null) await alone(showNext); // a window may have been closed
    } catch (error) {
      sayTrouble(error);
    }
  };
  const showNext = async () => {
    const found = await ask("next", { window: ownWindow });
    if (found.record !== null) show(found);
  };
  const begin = async () => {
    showProgress(await insist(() => query("progress", {}), sayTrouble));
    const said = [];
    const waiting = kept(owner);
    for (const decision of waiting) {
      const answer = await send(decision);
      if (answer.refused) said.push(`Not saved: ${decision.verdict} of ${decision.record}: ${answer.refused}.`);
    }
    const num = waiting.length - said.length;
    if (num) said.push(`${num} that waited in this browser: saved.`);
    show(await insist(() => ask("next", { window: ownWindow }), sayTrouble), said.join(" "));
  };
  setInterval(beat, BEAT_MS);
  addEventListener("pagehide", () => {
    const body = JSON.stringify({ window: ownWindow });
    fetch("leave", { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body }).catch(() => {});
  });
  alone(begin);
})();
