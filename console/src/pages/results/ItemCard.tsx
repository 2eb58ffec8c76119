import { serviceUrl } from "../../api/client";
import { Badge } from "../../components/Badge";
import { Picture } from "../../components/Picture";
import { differing, type Item, outcomesOf, type Word } from "./items";
import { Scores } from "./Scores";
import { margin, titleOf } from "./words";

/** The side of a picture's box. The demo world's pictures are drawn twice as large as they are. */
const BOX = 128;
const GONE = "This picture was removed, or cannot be read.";
const WITHOUT_PICTURES = "sugarcrepe-pp-text";

interface Props {
  item: Item;
  /** Whether the scores of the other evaluation are shown beside those of this one. */
  compared: boolean;
  /** The place in the list, from 1, and the length of the list, or -1 if it is not known. */
  place: number;
  total: number;
  isCurrent: boolean;
  onFocus: () => void;
}

export function ItemCard({ item, compared, place, total, isCurrent, onFocus }: Props) {
  const before = compared ? item.other?.scores : undefined;
  return (
    <article
      class="card results-item"
      aria-label={`Item ${item.id}`}
      aria-posinset={place}
      aria-setsize={total}
      tabIndex={isCurrent ? 0 : -1}
      onFocus={onFocus}
    >
      <header class="row">
        <h3>Item {item.id}</h3>
        {item.tags.map((tag) => (
          <Badge key={tag}>{tag}</Badge>
        ))}
      </header>
      {item.scores ? <Pairs item={item} /> : <Choices item={item} />}
      {item.scores && (
        <div class="results-grids">
          {before && <Scores title="Before" scores={before} />}
          <Scores title={before ? "After" : "Scores"} scores={item.scores} />
        </div>
      )}
      <Outcomes item={item} compared={compared} />
    </article>
  );
}

/** Two pictures, each above the caption that belongs to it. */
function Pairs({ item }: { item: Item }) {
  const captions = differing(item.captions);
  return (
    <div class="results-pairs">
      {captions.map((words, n) => {
        const letter = letterOf(n);
        const path = item.images[n];
        return (
          // biome-ignore lint/suspicious/noArrayIndexKey: a caption is known by its place
          <figure key={n} class="results-pair">
            <p class="small muted">Picture {letter}</p>
            {path ? (
              <Picture src={sourceOf(path)} alt={`Picture ${letter}`} box={BOX} broken={GONE} />
            ) : (
              <p class="picture results-gone muted small">{GONE}</p>
            )}
            <figcaption>
              <span class="small muted">Caption {n + 1}</span>
              <br />
              <Caption words={words} />
            </figcaption>
          </figure>
        );
      })}
    </div>
  );
}

/** What other benchmarks have: any number of pictures and captions. */
function Choices({ item }: { item: Item }) {
  return (
    <div class="results-choices">
      {item.images.length > 0 ? (
        <div class="row">
          {item.images.map((path, n) => (
            <Picture key={path} src={sourceOf(path)} alt={`Picture ${letterOf(n)}`} box={BOX} broken={GONE} />
          ))}
        </div>
      ) : (
        item.benchmark !== WITHOUT_PICTURES && <p class="picture results-gone muted small">{GONE}</p>
      )}
      <ol class="results-captions">
        {differing(item.captions).map((words, n) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a caption is known by its place
          <li key={n}>
            <Caption words={words} />
          </li>
        ))}
      </ol>
    </div>
  );
}

function Caption({ words }: { words: readonly Word[] }) {
  return (
    <>
      {words.map(({ word, differs }, place) =>
        // biome-ignore lint/suspicious/noArrayIndexKey: a word is known by its place
        differs ? <u key={place}>{word}</u> : word,
      )}
    </>
  );
}

/** Whether the item is right, by outcome, and by how much. */
function Outcomes({ item, compared }: { item: Item; compared: boolean }) {
  return (
    <table class="results-outcomes">
      <caption class="visually-hidden">Outcomes and their margins</caption>
      <thead>
        <tr>
          <th scope="col">Outcome</th>
          {compared && (
            <th scope="col" class="number">
              Before
            </th>
          )}
          <th scope="col" class="number">
            {compared ? "After" : "Margin"}
          </th>
        </tr>
      </thead>
      <tbody>
        {outcomesOf(item).map(({ name, before, after, marginBefore, marginAfter }) => (
          <tr key={name} class={compared && before !== after ? "results-changed" : undefined}>
            <th scope="row">{titleOf(name)}</th>
            {compared && (
              <td class="number">
                <Outcome right={before} by={marginBefore} />
              </td>
            )}
            <td class="number">
              <Outcome right={after} by={marginAfter} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Outcome({ right, by }: { right: boolean | undefined; by: number | undefined }) {
  if (right === undefined) return <>–</>;
  return (
    <>
      {by !== undefined && margin(by)}{" "}
      <span
        class={right ? "results-right" : "results-wrong"}
        role="img"
        aria-label={right ? "right" : "wrong"}
      >
        {right ? "✓" : "✗"}
      </span>
    </>
  );
}

/** At twice the size, for screens with two pixels in one. Smaller pictures come as they are. */
function sourceOf(path: string): string {
  return `${serviceUrl()}${path}?max_side=${2 * BOX}`;
}

function letterOf(place: number): string {
  return String.fromCharCode(65 + place);
}
