import type { ComponentChildren } from "preact";
import { type Reading, sum } from "../../api/prometheus";
import { Fact } from "../../components/Fact";
import { Spark } from "../../components/Spark";
import { bytes, count, percent } from "../../format";
import { type History, latencyOf, type Point, requestsOf } from "./history";
import { decimal, milliseconds } from "./units";

type Series = { name: string; of: (point: Point) => number | undefined };

/** The service at a glance: what it does now, since the page was opened, and since the process started. */
export function Figures({ history: { points }, reading }: { history: History; reading: Reading }) {
  const now = points.at(-1);
  const last = lastOf(points);
  const hits = sum(reading, "sds_clip_text_cache_total", ({ result }) => result === "hit");
  const looked = sum(reading, "sds_clip_text_cache_total");
  const swaps = (result: string) =>
    sum(reading, "sds_clip_swaps_total", (labels) => labels.result === result);
  const gpu = (state: string) =>
    sum(reading, "sds_clip_device_memory_bytes", (labels) => labels.state === state);
  const total = gpu("total");
  const { p50, p95 } = latencyOf(reading);
  return (
    <section class="service-tiles" aria-label="Figures">
      <Tile
        title="Requests"
        value={`${decimal(now?.perS)} /s`}
        points={points}
        series={[{ name: "Requests", of: ({ perS }) => perS }]}
        write={(value) => `${decimal(value)} /s`}
      >
        All requests except health checks, the files of the console, and those of this page.
      </Tile>
      <Tile
        title="Latency"
        value={milliseconds(last(({ p50 }) => p50))}
        points={points}
        series={[
          { name: "p50", of: ({ p50 }) => p50 },
          { name: "p95", of: ({ p95 }) => p95 },
          { name: "p99", of: ({ p99 }) => p99 },
        ]}
        write={milliseconds}
      >
        Of the routes that compute, such as match, estimated from a histogram.
      </Tile>
      <Tile
        title="Items per batch"
        value={`${decimal(last(({ images }) => images))} images`}
        points={points}
        series={[
          { name: "images", of: ({ images }) => images },
          { name: "texts", of: ({ texts }) => texts },
        ]}
        write={decimal}
      >
        How many images or texts of waiting requests are computed at once, as a mean.
      </Tile>
      <Tile
        title="Queue"
        value={count(now?.queued)}
        points={points}
        series={[
          { name: "waiting", of: ({ queued }) => queued },
          { name: "admitted", of: ({ admitted }) => admitted },
        ]}
        write={count}
      >
        Items that wait for a batch, and all items in progress.
      </Tile>
      <Tile
        title="Memory"
        value={bytes(now?.memory)}
        points={points}
        series={[
          { name: "process", of: ({ memory }) => memory },
          { name: "decoding", of: ({ decoding }) => decoding },
        ]}
        write={bytes}
      >
        {total === undefined
          ? "Of the process, and what is reserved for images being decoded."
          : `GPU: ${bytes(total - (gpu("free") ?? 0))} of ${bytes(total)} in use.`}
      </Tile>
      <div class="card stack close">
        <h2>Since the process started</h2>
        <dl class="facts service-facts">
          <Fact name="Requests">{count(requestsOf(reading))}</Fact>
          <Fact name="Latency, p50 and p95">
            {milliseconds(p50)} · {milliseconds(p95)}
          </Fact>
          <Fact name="Refused for load (429)">{count(sum(reading, "sds_clip_throttled_total") ?? 0)}</Fact>
          <Fact name="Swaps">{count(swaps("swapped"))}</Fact>
          <Fact name="Failed loads">{count(swaps("failed"))}</Fact>
          <Fact name="Texts from the cache">{percent(looked ? (hits ?? 0) / looked : undefined)}</Fact>
          <Fact name="Disk free">{bytes(sum(reading, "sds_clip_disk_free_bytes"))}</Fact>
        </dl>
      </div>
    </section>
  );
}

interface TileProps {
  title: string;
  value: string;
  points: readonly Point[];
  series: readonly Series[];
  write: (value: number) => string;
  children: ComponentChildren;
}

function Tile({ title, value, points, series, write, children }: TileProps) {
  const lines = series.map(({ name, of }, place) => ({
    name,
    series: (place + 1) as 1 | 2 | 3,
    values: points.map(of),
  }));
  const last = lastOf(points);
  return (
    <div class="card stack close">
      <div class="row apart">
        <h2>{title}</h2>
        <span class="service-value">{value}</span>
      </div>
      <Spark
        label={`${title} since this page was opened`}
        times={points.map(({ at }) => at)}
        lines={lines}
        write={write}
      />
      <ul class="row small service-legend">
        {lines.length > 1 &&
          series.map(({ name, of }, place) => {
            const newest = last(of);
            return (
              <li key={name}>
                <svg class={`service-mark series-${place + 1}`} aria-hidden="true">
                  <rect width="100%" height="100%" rx="2" />
                </svg>
                {name} {newest === undefined ? "–" : write(newest)}
              </li>
            );
          })}
      </ul>
      <p class="muted small">{children}</p>
    </div>
  );
}

/** The newest value that there is: a quiet service has no latency at every reading. */
function lastOf(points: readonly Point[]) {
  return (of: Series["of"]) => points.map(of).findLast((value) => value !== undefined);
}
