/** Reads what a person types and makes of it what the server is asked. Pure functions. */

/**
 * @typedef {{kind: "text" | "avoid" | "then", text: string, start: number, end: number}} Piece   where it stands in what was typed
 * @typedef {{text: string, avoid: string[], then: string, pieces: Piece[]}} Typed
 */

const TOKEN = /,|(-?)(?:["“”]([^"“”]*)["“”]?|([^\s,"“”]+))/g; // a comma, or a word or a quoted phrase, perhaps with - before it

/**
 * What was typed, in parts.
 *
 *     a dog on grass -beach        a dog on grass, without "beach"
 *     a dog not on the beach       a dog, without "on the beach": `not` reaches to the next comma, or to the end
 *     a dog runs, then it jumps    "it jumps" soon after "a dog runs"
 *     "not a toy"                  quotes keep a phrase as it is; -"sandy beach" avoids both words
 *
 * @param {string} typed
 * @returns {Typed}
 */
export function parse(typed) {
  const tokens = tokensOf(typed);
  const pieces = [];
  let base = "text"; // "then" once that was said
  let piece = null; // what the next word adds to
  const begin = (kind, token) => {
    piece = { kind, text: "", start: token.start, end: token.end };
    pieces.push(piece);
  };
  tokens.forEach((token, n) => {
    const goesOn = tokens[n + 1] && tokens[n + 1].text;
    if (!token.text) {
      if (piece?.kind === "avoid") piece = null;
      else if (piece) piece.text += ",";
    } else if (token.minus) {
      begin("avoid", token);
      piece.text = token.text;
      piece = null;
    } else if (token.word === "not" && goesOn) {
      begin("avoid", token);
    } else if (token.word === "then" && goesOn && base === "text" && pieces.some((one) => one.kind === "text")) {
      base = "then";
      begin("then", tokens[n - 1].word === "and" ? tokens[n - 1] : token);
    } else {
      if (!piece) begin(base, token);
      piece.text += ` ${token.text}`;
      piece.end = token.end;
    }
  });
  return inParts(pieces);
}

function tokensOf(typed) {
  return [...typed.matchAll(TOKEN)]
    .map((found) => ({
      text: (found[2] ?? found[3] ?? "").trim(),
      word: found[1] ? "" : (found[3] ?? "").toLowerCase(), // what is quoted is no operator
      minus: found[1] === "-",
      start: found.index,
      end: found.index + found[0].length,
    }))
    .filter((token) => token.text || typed[token.start] === ",");
}

function inParts(pieces) {
  const said = pieces
    .map((piece, n) => {
      const text = piece.text.trim().replace(/[\s,]+$/, "");
      return { ...piece, text: pieces[n + 1]?.kind === "then" ? text.replace(/,?\s+and$/i, "") : text };
    })
    .filter((piece) => piece.text);
  const of = (kind) => said.filter((piece) => piece.kind === kind).map((piece) => piece.text);
  return { text: of("text").join(" "), avoid: of("avoid"), then: of("then").join(" "), pieces: said };
}

/** What was typed, less one of its pieces. @param {string} typed @param {Piece} piece */
export function without(typed, piece) {
  const [before, after] = [typed.slice(0, piece.start), typed.slice(piece.end)];
  return `${before.trimEnd()} ${after.trimStart()}`.replace(/\s+,/g, ",").replace(/^[\s,]+|[\s,]+$/g, "");
}

/** "beach, night" as a list. @param {string} text @returns {string[]} */
export const list = (text) => [...new Set(text.split(",").map((one) => one.trim()).filter(Boolean))];

/** Whether there is anything to ask. @param {import("./state.js").State} state */
export function asks(state) {
  return Boolean(parse(state.q).text || state.image || state.video || state.like);
}

/** "2024-02-28" to "2024-02-29"; null for what is no date. @param {string} date */
export function dayAfter(date) {
  const day = new Date(`${date}T00:00:00Z`);
  if (Number.isNaN(day.getTime())) return null;
  day.setUTCDate(day.getUTCDate() + 1);
  return day.toISOString().slice(0, 10);
}

/**
 * The body of POST /v1/search. Only what was said is in it.
 * @param {import("./state.js").State} state
 * @returns {Record<string, any>}
 */
export function body(state) {
  const typed = parse(state.q);
  const then = typed.then || state.then;
  const avoid = [...new Set([...typed.avoid, ...list(state.avoid)])];
  const where = {
    folder: state.folder.replace(/^\/+/, "") || null,
    min_seconds: state.least,
    max_seconds: state.most,
    after: state.after || null,
    before: dayAfter(state.before), // the server leaves that day out, a person means it
    tags: list(state.tags),
  };
  const said = Object.entries(where).filter(([, value]) => value !== null && !(Array.isArray(value) && !value.length));
  return {
    ...(typed.text && { text: typed.text }),
    ...(avoid.length && { avoid }),
    ...(state.image && { image: state.image }),
    ...(state.video && { video: state.video }),
    ...(state.like && { like: state.like }),
    ...(then && { then: { text: then, within: state.within } }),
    ...(state.spoken !== "with" && { spoken: state.spoken }),
    ...(said.length && { where: Object.fromEntries(said) }),
    ...(state.group && { group: "video" }),
    ...(state.sort !== "relevance" && { sort: state.sort }),
    ...(state.sure && { min_confidence: 0.5 }),
  };
}

/** The question in words, for titles and for what a screen reader is told. @param {import("./state.js").State} state */
export function inWords(state) {
  const typed = parse(state.q);
  const [then, avoid] = [typed.then || state.then, [...typed.avoid, ...list(state.avoid)]];
  const parts = [
    typed.text && `“${typed.text}”`,
    state.image && "the image",
    state.video && "the clip",
    state.like && "a chosen moment",
  ].filter(Boolean);
  const rest = [then && `, then “${then}”`, avoid.length && `, without ${avoid.map((one) => `“${one}”`).join(", ")}`];
  return parts.join(" with ") + rest.filter(Boolean).join("");
}
