// The difference of two texts, for people: words that go and words that come.

const NEAR_CHARS = 60;
const MOST_CELLS = 4e6;

const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

// [kind, text] in order, with kind "del", "ins" or "", by the longest common subsequence of words.
export const difference = (before, after) => {
  let [a, b] = [words(before), words(after)];
  let head = 0;
  while (head < Math.min(a.length, b.length) && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const [start, end] = [a.slice(0, head).join(""), tail ? a.slice(-tail).join("") : ""];
  [a, b] = [a.slice(head, a.length - tail), b.slice(head, b.length - tail)];
  if (a.length * b.length > MOST_CELLS) return [["", start], ["del", a.join("")], ["ins", b.join("")], ["", end]];
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const parts = [["", start]];
  const add = (kind, word) => {
    if (parts.at(-1)[0] === kind) parts.at(-1)[1] += word;
    else parts.push([kind, word]);
  };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { add("", a[i]); i += 1; j += 1; }
    else if (i < a.length && (j === b.length || lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) { add("del", a[i]); i += 1; }
    else { add("ins", b[j]); j += 1; }
  }
  add("", end);
  return parts;
};

// Of long text that stays as it was, what is near a change.
export const nearby = (text, isFirst, isLast) => {
  const [head, tail] = [isFirst ? "" : text.slice(0, NEAR_CHARS), isLast ? "" : text.slice(-NEAR_CHARS)];
  return head.length + tail.length >= text.length ? text : `${head} ⋯ ${tail}`;
};
