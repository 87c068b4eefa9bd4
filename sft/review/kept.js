// Decisions that the browser keeps until the server says that they are on disk: by reviewer and set, so that nobody
// sends those of another, and the first one first.

export const ownerOf = (set, reviewer) => `sft-review ${set} ${encodeURIComponent(reviewer)} `;

// A decision has its name for ever: it is sent again under this name, and the server takes a name once.
export const newName = () => `${Date.now()}-${crypto.randomUUID()}`;

export const keep = (owner, decision) => {
  try {
    localStorage.setItem(owner + decision.name, JSON.stringify(decision));
  } catch {
    // Too long for the browser's store: this window alone has it.
  }
};

export const forget = (owner, decision) => localStorage.removeItem(owner + decision.name);

export const isKept = (owner, decision) => localStorage.getItem(owner + decision.name) !== null;

export const kept = (owner) => Object.keys(localStorage).filter((key) => key.startsWith(owner)).sort()
  .map((key) => JSON.parse(localStorage.getItem(key)));
