import { useEffect, useState } from "preact/hooks";
import { api, ask } from "../../api/client";
import { parse } from "../../api/prometheus";
import { may } from "../../api/session";
import { useLoaded } from "../../api/use";
import { Badge } from "../../components/Badge";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { Figures } from "./Figures";
import { EVERY_S, extended, NOTHING } from "./history";
import { Processes } from "./Processes";
import { Routes } from "./Routes";
import { Workers } from "./Workers";
import "./service.css";

/** How often what changes seldom is read: the heartbeats of workers are as far apart. */
const SELDOM_S = 10;

export function ServicePage() {
  const [history, setHistory] = useState(NOTHING);
  const metrics = useLoaded(readMetrics, [], EVERY_S);
  const ready = useLoaded(() => ask(api.GET("/ready")), [], SELDOM_S);
  const { data } = metrics;
  useEffect(() => {
    if (data) setHistory((before) => extended(before, data));
  }, [data]);
  return (
    <div class="page service">
      <div class="row apart">
        <h1>Service</h1>
        <Readiness ready={ready.data !== undefined} error={ready.error?.message ?? metrics.error?.message} />
      </div>
      <ErrorNote error={metrics.error} />
      {data ? (
        <>
          <Figures history={history} reading={data.reading} />
          <Routes history={history} reading={data.reading} />
        </>
      ) : (
        !metrics.error && <Skeleton lines={8} />
      )}
      <Processes allowed={may("infer")} everyS={SELDOM_S} />
      <Workers allowed={may("train")} everyS={SELDOM_S} reading={data?.reading} />
    </div>
  );
}

function Readiness({ ready, error }: { ready: boolean; error: string | undefined }) {
  return (
    <p role="status">
      {error ? (
        <Badge tone="bad">not ready</Badge>
      ) : ready ? (
        <Badge tone="good">ready</Badge>
      ) : (
        <Badge>checking …</Badge>
      )}
    </p>
  );
}

async function readMetrics() {
  const text = await ask(api.GET("/metrics", { parseAs: "text" }));
  return { at: performance.now() / 1000, reading: parse(String(text)) };
}
