import { useState } from "preact/hooks";
import { announce } from "../../components/Announcer";
import { TextField } from "../../components/TextField";
import { proposals, swappedWords } from "./swaps";
import { split } from "./words";

const PROPOSED = 4;

interface Props {
  caption: string;
  onCaption: (caption: string) => void;
  /** Rivals that were made by hand. */
  own: readonly string[];
  /** Offers that do not take part. */
  left: readonly string[];
  onRivals: (own: readonly string[], left: readonly string[]) => void;
}

function offers(caption: string, own: readonly string[]): string[] {
  return [...new Set([...proposals(caption, PROPOSED), ...own])];
}

/** The rivals of a caption that take part. */
export function rivalsOf(caption: string, own: readonly string[], left: readonly string[]): string[] {
  return offers(caption, own).filter((rival) => !left.includes(rival));
}

/** Does the model tell a caption from the same words in another order? */
export function SwapGame({ caption, onCaption, own, left, onRivals }: Props) {
  const [chosen, setChosen] = useState<number>();
  const { words } = split(caption);
  const offered = offers(caption, own);
  const rivals = rivalsOf(caption, own, left);

  const click = (place: number) => {
    if (chosen === undefined || chosen === place) {
      setChosen(chosen === place ? undefined : place);
      return;
    }
    const rival = swappedWords(caption, chosen, place);
    if (rival === caption) announce("These two words are the same, so that the swap makes no rival.");
    else if (rivals.includes(rival)) announce("This rival is in the list already.");
    if (rival !== caption)
      onRivals(
        [...new Set([...own, rival])],
        left.filter((each) => each !== rival),
      );
    setChosen(undefined);
  };

  return (
    <div class="stack">
      <TextField
        label="Caption"
        help="What the picture shows, such as: a red circle left of a blue square"
        value={caption}
        onChange={(text) => {
          setChosen(undefined);
          onRivals([], []);
          onCaption(text);
        }}
      />
      {words.length > 1 && (
        <fieldset class="stack close">
          <legend class="legend">Swap two words: choose one, then the other</legend>
          <div class="words">
            {words.map((word, place) => (
              <button
                // biome-ignore lint/suspicious/noArrayIndexKey: a word is its place in the caption
                key={place}
                type="button"
                class="word"
                aria-pressed={chosen === place}
                onClick={() => click(place)}
              >
                {word}
              </button>
            ))}
          </div>
        </fieldset>
      )}
      {offered.length > 0 && (
        <fieldset class="stack close">
          <legend class="legend">Rivals: the same words in another order</legend>
          {offered.map((rival) => (
            <label key={rival} class="check">
              <input
                type="checkbox"
                checked={rivals.includes(rival)}
                onChange={({ currentTarget: { checked } }) =>
                  onRivals(own, checked ? left.filter((each) => each !== rival) : [...left, rival])
                }
              />
              {rival}
            </label>
          ))}
        </fieldset>
      )}
      {caption.trim() && offered.length === 0 && (
        <p class="muted small">There is no swap to suggest. Choose two words above to swap them.</p>
      )}
    </div>
  );
}
