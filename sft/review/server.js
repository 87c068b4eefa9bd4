// Asks the server; what goes wrong is one of four errors.

// The server does nothing for this page at the moment, or not any more.
export class Trouble extends Error {}
// It does not answer.
export class Away extends Trouble {}
// It cannot do this now, such as with a full disk, but may later; the message says why.
export class Later extends Trouble {}
// It does not know this page: another server has taken its place.
export class Renewed extends Trouble {}
// It does not take this, now or later; the message says why.
export class Refusal extends Error {}

const RENEWED = [403, 404, 421];
const LATER = [503, 507];
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export const ask = async (path, body) => {
  const how = { cache: "no-store", signal: AbortSignal.timeout(30000) };
  if (body !== undefined) {
    Object.assign(how, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  }
  let response, text;
  try {
    response = await fetch(path, how);
    text = await response.text();
  } catch {
    throw new Away();
  }
  if (response.ok) return JSON.parse(text);
  if (RENEWED.includes(response.status)) throw new Renewed();
  throw LATER.includes(response.status) ? new Later(text) : new Refusal(text);
};

// Does it again and again until the server is there and can do it.
export const insist = async (work, sayTrouble) => {
  for (let tries = 0; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Away || error instanceof Later)) throw error;
      sayTrouble(error);
      await wait(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
    }
  }
};
