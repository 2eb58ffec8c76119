/** Split a caption into words, and find its phrases by the function words between them. After models/data/phrases.py. */

export interface Caption {
  words: string[];
  /** What stands before, between and after the words: one more than words. */
  gaps: string[];
}

export interface Phrase {
  start: number;
  stop: number;
  /** One earlier than `start` if a determiner precedes it. */
  determined: number;
}

const set = (text: string) => new Set(text.split(" "));

const DETERMINERS = set(
  "a an the this that these those some any each every another both his her its their my your our " +
    "one two three four five six seven eight nine ten several many few",
);
const OTHERS = set(
  "is are was were be been being am has have had does do did can could will would may might must " +
    "of in on at by for from with without within into onto to up down off out over under above below beneath " +
    "underneath behind before after beside between among across through against along around about as than " +
    "inside outside near next toward towards past during while when where which who whose what there here it " +
    "them him he she they we i you not no and or but nor so if very too also only just left right top bottom " +
    "side front back higher lower atop upon alongside together adjacent other own photo picture image " +
    "photograph view",
);

export function split(caption: string): Caption {
  const word = /[\p{L}\p{N}_]+(?:['’-][\p{L}\p{N}_]+)*/gu;
  return { words: caption.match(word) ?? [], gaps: caption.split(word) };
}

export function join({ words, gaps }: Caption): string {
  return gaps.map((gap, place) => gap + (words[place] ?? "")).join("");
}

/** Runs of words that are no function words, such as `large red ball`. A verb before a determiner ends a run. */
export function phrases(caption: Caption): Phrase[] {
  const found: Phrase[] = [];
  const lower = caption.words.map((word) => word.toLowerCase());
  const at = (place: number) => lower[place] ?? "";
  const isContent = (place: number) =>
    at(place) !== "" && !DETERMINERS.has(at(place)) && !OTHERS.has(at(place));
  const isJoined = (place: number) => place > 0 && at(place) !== "" && !caption.gaps[place]?.trim();
  let place = 0;
  while (place < lower.length) {
    const start = place;
    while (isContent(place) && (place === start || isJoined(place))) place += 1;
    const isVerb = place - start > 1 && isJoined(place) && DETERMINERS.has(at(place));
    const stop = isVerb ? place - 1 : place;
    if (stop > start) {
      const determined = isJoined(start) && DETERMINERS.has(at(start - 1)) ? start - 1 : start;
      found.push({ start, stop, determined });
    }
    if (place === start) place += 1;
  }
  return found;
}
