import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { Tabs } from "../../components/Tabs";
import { address } from "../../router";
import type { PageProps } from "..";
import { Aliases } from "./Aliases";
import { Audit } from "./Audit";
import { Lineage } from "./Lineage";
import { type Live, LiveContext, type Registry, useLive } from "./live";
import { Processes } from "./Processes";
import { VersionPage } from "./VersionPage";
import "./versions.css";

type Tab = "lineage" | "processes" | "audit";

const TABS: { name: Tab; title: string }[] = [
  { name: "lineage", title: "Lineage" },
  { name: "processes", title: "Processes" },
  { name: "audit", title: "Audit trail" },
];

export function VersionsPage({ rest: [id], query }: PageProps) {
  const live = useLive();
  return (
    <LiveContext.Provider value={live}>
      <div class="page versions">
        {id ? <VersionPage key={id} id={id} /> : <Overview live={live} query={query} />}
      </div>
    </LiveContext.Provider>
  );
}

function Overview({ live, query }: { live: Live; query: URLSearchParams }) {
  const asked = query.get("tab");
  const tab = TABS.find(({ name }) => name === asked)?.name ?? "lineage";
  const { models, isLost } = live;
  return (
    <>
      <div class="row apart">
        <h1>Versions</h1>
        <p class="muted small" role="status">
          {isLost && "Live updates are interrupted. They go on as soon as the service answers."}
        </p>
      </div>
      <ErrorNote error={models.error} onRetry={models.reload} />
      {!models.data ? (
        !models.error && <Skeleton lines={10} />
      ) : models.data.registry !== "read" ? (
        <NoRegistry registry={models.data.registry} />
      ) : (
        <Tabs
          label="Views of the versions"
          tabs={TABS}
          current={tab}
          onChange={(next) => {
            location.hash = address(["versions"], { tab: next === "lineage" ? undefined : next });
          }}
        >
          {tab === "lineage" && (
            <div class="stack loose">
              <Aliases aliases={models.data.aliases} />
              <Lineage registry={models.data} />
            </div>
          )}
          {tab === "processes" && <Processes />}
          {tab === "audit" && <Audit aliases={models.data.aliases} chosen={query.get("alias") ?? ""} />}
        </Tabs>
      )}
    </>
  );
}

function NoRegistry({ registry }: { registry: Registry["registry"] }) {
  return registry === "away" ? (
    <EmptyState title="The database cannot be read at the moment.">
      The service goes on serving what it serves. This page shows the versions as soon as it can read them.
    </EmptyState>
  ) : (
    <EmptyState title="This service keeps no versions.">
      Start it with <code>sds-clip up</code>, or name a database in <code>SDS_CLIP_DATABASE_URL</code>.
    </EmptyState>
  );
}
