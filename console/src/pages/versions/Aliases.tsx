import { useState } from "preact/hooks";
import { currentSession, may } from "../../api/session";
import { Badge } from "../../components/Badge";
import { Button } from "../../components/Button";
import { Folded } from "../../components/Folded";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { AliasDialog, type Doing } from "./AliasDialog";
import { type Alias, useLiveRegistry } from "./live";
import { VersionLink } from "./names";
import { mayMove } from "./rights";
import { type Progress, progressOf, summaryOf } from "./rollout";

/** Where the aliases point, who serves that, and what can be done to them. */
export function Aliases({ aliases }: { aliases: readonly Alias[] }) {
  const { status } = useLiveRegistry();
  const [doing, setDoing] = useState<Doing>();
  const processes = status.data?.processes;
  const key = currentSession()?.key;
  const columns: Column<Alias>[] = [
    { name: "Alias", cell: ({ name }) => <Badge tone="accent">{name}</Badge> },
    { name: "Points to", cell: ({ version }) => <VersionLink id={version} /> },
    { name: "Since", cell: ({ updated_at }) => <Time at={updated_at} /> },
    {
      name: "Served by",
      cell: (alias) => (processes ? <Served progress={progressOf(processes, alias)} /> : "…"),
    },
    ...(key ? [{ name: "Owner", cell: ({ owner }: Alias) => owner || <span class="muted">–</span> }] : []),
    { name: "Lock", cell: (alias) => <Lock alias={alias} /> },
    {
      name: "Actions",
      cell: (alias) => (
        <span class="row nowrap">
          {mayMove(key, alias) && <RollBack alias={alias} onAsk={setDoing} />}
          {mayMove(key, alias) && !alias.lock && alias.name !== "default" && (
            <Button
              look="plain"
              aria-label={`Remove ${alias.name}`}
              onClick={() => setDoing({ what: "remove", alias })}
            >
              Remove…
            </Button>
          )}
          {may("admin") && (
            <Button
              look="plain"
              aria-label={`${alias.lock ? "Unlock" : "Lock"} ${alias.name}`}
              onClick={() => setDoing({ what: alias.lock ? "unlock" : "lock", alias })}
            >
              {alias.lock ? "Unlock…" : "Lock…"}
            </Button>
          )}
        </span>
      ),
    },
  ];
  if (!aliases.length) return null;
  return (
    <section class="stack close" aria-labelledby="aliases">
      <h2 id="aliases">Aliases</h2>
      <Table
        caption="Aliases and where they point"
        columns={columns}
        rows={aliases}
        keyOf={(alias) => alias.name}
      />
      <AliasDialog doing={doing} onClose={() => setDoing(undefined)} />
    </section>
  );
}

function RollBack({ alias, onAsk }: { alias: Alias; onAsk: (doing: Doing) => void }) {
  if (!alias.previous) return <span class="muted small">Nothing to go back to</span>;
  return (
    <>
      <Button
        look="plain"
        aria-label={`Roll back ${alias.name}`}
        disabled={alias.lock !== null}
        onClick={() => onAsk({ what: "rollback", alias })}
      >
        Roll back…
      </Button>
      {alias.lock && <span class="muted small">not while it is locked</span>}
    </>
  );
}

function Served({ progress }: { progress: readonly Progress[] }) {
  const failed = progress.filter(({ state }) => state === "failed").length;
  const isBehind = progress.some(({ state }) => state === "behind");
  return (
    <span class="row nowrap">
      {summaryOf(progress)}
      {failed > 0 && <Badge tone="bad">{failed} failed</Badge>}
      {isBehind && <Badge tone="warn">loading</Badge>}
    </span>
  );
}

function Lock({ alias }: { alias: Alias }) {
  if (!alias.lock) return <span class="muted">–</span>;
  return (
    <span class="version-lock">
      <Badge tone="warn">locked</Badge> by {alias.lock.who} <Time at={alias.lock.at} />:{" "}
      <Folded text={alias.lock.why} />
    </span>
  );
}
