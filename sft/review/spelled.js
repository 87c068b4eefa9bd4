// Spells out the characters of a text that cannot be seen.

// Letters of scripts that joiners belong to, such as Arabic and Devanagari, marks, and emoji that are joined.
const JOINED = "[^\\P{L}\\p{Script=Latin}\\p{Script=Greek}\\p{Script=Cyrillic}\\p{Script=Han}\\p{Script=Hiragana}"
  + "\\p{Script=Katakana}\\p{Script=Hangul}]|[\\p{M}\\p{Extended_Pictographic}\\p{Emoji_Modifier}]";

const UNSEEN = new RegExp(`(${[
  "[^\\P{C}\\p{Cn}\\n\\t\\u200c\\u200d]", // control, format, private use, half a pair of surrogates
  "[\\p{Zl}\\p{Zp}]",
  "[^\\P{Default_Ignorable_Code_Point}\\u200c\\u200d\\ufe0f]", // fillers, selectors of variants, tags
  "(?<!\\p{Extended_Pictographic})\\ufe0f(?!\\u20e3)", // behind anything but an emoji or a key
  `(?<!${JOINED})[\\u200c\\u200d]`,
].join("|")})`, "u");

// Nodes to append: the text itself, and an element for each such character.
export const spelled = (text) => text.split(UNSEEN).map((part, i) => {
  if (i % 2 === 0) return part;
  const made = document.createElement("span");
  made.textContent = `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  made.className = "spelled";
  return made;
}).filter((part) => part !== "");
