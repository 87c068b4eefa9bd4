// Asks the server; what goes wrong is one of three errors.

// It does not answer.
export class Away extends Error {}
// It does not take this; the message says why.
export class Refusal extends Error {}
// It does not know this page: another server has taken its place.
export class Renewed extends Error {}

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
  throw [409, 413, 507].includes(response.status) ? new Refusal(text) : new Renewed();
};
