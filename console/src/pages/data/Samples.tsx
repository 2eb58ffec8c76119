import { useState } from "preact/hooks";
import { api, ask, type Schemas, serviceUrl } from "../../api/client";
import { usePages } from "../../api/use-pages";
import { Badge } from "../../components/Badge";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Picture } from "../../components/Picture";
import { Skeleton } from "../../components/Skeleton";
import { counted } from "../../format";

type Sample = Schemas["SampleInfo"];

const PAGE = 24;
const BOX = 128;
/** Screens with small pixels show twice as many. */
const MAX_SIDE = 2 * BOX;
const SHOWN_CAPTIONS = 3;
const SHOWN_CHARS = 240;

/** The samples as they are stored, the unusable ones too. */
export function Samples({ id }: { id: string }) {
  const { items, hasMore, more, loading, error } = usePages(
    (last?: Sample) => {
      const query = { limit: PAGE, ...(last && { after: last.index }) };
      const params = { path: { dataset_id: id }, query };
      return ask(api.GET("/datasets/{dataset_id}/samples", { params }));
    },
    [id],
  );
  return (
    <section class="stack" aria-labelledby="samples">
      <h2 id="samples">Samples</h2>
      {items?.length ? (
        <ul class="data-samples">
          {items.map((sample) => (
            <li key={sample.index} class="card data-sample">
              <SampleCard sample={sample} />
            </li>
          ))}
        </ul>
      ) : loading ? (
        <Skeleton lines={8} />
      ) : (
        !error && <EmptyState title="The data set has no samples." />
      )}
      <ErrorNote error={error} onRetry={more} />
      {hasMore && Boolean(items?.length) && (
        <div class="row">
          <Button busy={loading} onClick={more}>
            Show more samples
          </Button>
        </div>
      )}
    </section>
  );
}

function SampleCard({ sample }: { sample: Sample }) {
  const { images, captions, tags } = sample;
  const [all, setAll] = useState(false);
  const shown = all ? captions : captions.slice(0, SHOWN_CAPTIONS);
  return (
    <>
      <div class="data-pictures">
        {images.map((path, number) => (
          <Picture
            key={path}
            src={`${serviceUrl()}${path}?max_side=${MAX_SIDE}`}
            alt={images.length > 1 ? `Picture ${number + 1} of ${sample.id}` : `Picture of ${sample.id}`}
            box={BOX}
            broken={<Broken src={`${serviceUrl()}${path}`} />}
          />
        ))}
        {images.length === 0 && <span class="data-nothing muted small">This sample has no picture.</span>}
      </div>
      <div class="data-text">
        <p class="small muted">{sample.id}</p>
        <Captions captions={shown} />
        {captions.length > shown.length && (
          <Button look="plain" onClick={() => setAll(true)}>
            Show {counted(captions.length - shown.length, "more caption")}
          </Button>
        )}
        {tags.length > 0 && (
          <p class="row">
            {tags.map((tag) => (
              <Badge key={tag}>{tag}</Badge>
            ))}
          </p>
        )}
      </div>
    </>
  );
}

/** A browser does not tell a page why it has no picture, but the service does where it is asked for it alone. */
function Broken({ src }: { src: string }) {
  return (
    <>
      This picture cannot be shown.{" "}
      <a href={src} target="_blank" rel="noreferrer">
        See why
      </a>
    </>
  );
}

function Captions({ captions }: { captions: readonly string[] }) {
  const [only] = captions;
  if (only === undefined) return <p class="muted">No caption.</p>;
  if (captions.length === 1) return <Caption text={only} />;
  return (
    <ol class="data-captions">
      {captions.map((caption, place) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: two captions may have the same words
        <li key={place}>
          <Caption text={caption} />
        </li>
      ))}
    </ol>
  );
}

/** A caption of which the beginning is shown first, if it is long. */
function Caption({ text }: { text: string }) {
  const [whole, setWhole] = useState(text.length <= SHOWN_CHARS);
  if (!text.trim()) return <p class="muted">An empty caption.</p>;
  return (
    <p>
      {whole ? text : `${text.slice(0, SHOWN_CHARS)}… `}
      {!whole && (
        <Button look="plain" onClick={() => setWhole(true)}>
          Show all
        </Button>
      )}
    </p>
  );
}
