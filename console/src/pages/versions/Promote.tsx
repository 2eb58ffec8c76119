import { useEffect, useState } from "preact/hooks";
import { api, ask, type Schemas } from "../../api/client";
import { currentSession, may } from "../../api/session";
import { useAction, useLoaded } from "../../api/use";
import { announce } from "../../components/Announcer";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { Form } from "../../components/Form";
import { SelectField } from "../../components/SelectField";
import { Skeleton } from "../../components/Skeleton";
import { TextField } from "../../components/TextField";
import { shortId } from "../../format";
import { AliasDialog } from "./AliasDialog";
import { type Alias, useEachTurn, useLiveRegistry, type Version } from "./live";
import { Moved } from "./Moved";
import { ReasonField, WaitField, waitOf } from "./ReasonField";
import { isReason } from "./reason";
import { mayMove } from "./rights";
import { Verdict } from "./Verdict";
import { mayGo } from "./verdict";

type Plan = Schemas["PromotionPlan"];

/** An alias's name cannot be this. */
const NEW = " new";
const PAUSE_MS = 300;

interface Props {
  version: Version;
  aliases: readonly Alias[];
  onClose: () => void;
}

/** Points an alias to a version, with what a dry run says in view. */
export function Promote({ version, aliases, onClose }: Props) {
  const [moved, setMoved] = useState<Schemas["MovedAlias"]>();
  return (
    <section class="card stack" aria-labelledby="promote">
      <h2 id="promote">Promote {shortId(version.id)}</h2>
      {moved ? (
        <Moved moved={moved} onClose={onClose} />
      ) : (
        <Question version={version} aliases={aliases} onMoved={setMoved} onClose={onClose} />
      )}
    </section>
  );
}

function Question({
  version,
  aliases,
  onMoved,
  onClose,
}: Props & { onMoved: (moved: Schemas["MovedAlias"]) => void }) {
  const live = useLiveRegistry();
  const movable = aliases.filter((alias) => mayMove(currentSession()?.key, alias));
  const [chosen, choose] = useState(
    movable.find(({ name }) => name === "default")?.name ?? movable[0]?.name ?? NEW,
  );
  const [typed, setTyped] = useState(movable.length ? "" : "default");
  const [reason, setReason] = useState("");
  const [isForced, setForced] = useState(false);
  const [isWaiting, setWaiting] = useState(false);
  const [isUnlocking, setUnlocking] = useState(false);
  const name = chosen === NEW ? typed.trim() : chosen;
  const trial = useTrial(version.id, name, aliases);
  const plan = trial.data ?? undefined;
  const locked = aliases.find((alias) => alias.name === name && alias.lock);

  const promote = useAction(async (tried: Plan) => {
    const body = {
      alias: tried.name,
      reason,
      owner: null,
      force: isForced,
      expected_generation: tried.from_generation, // or else the evidence in view is that of another comparison
      wait_s: waitOf(isWaiting),
      dry_run: false,
    };
    const path = { version: version.id };
    const answer = await ask(api.POST("/models/{version}/promote", { params: { path }, body }));
    if (answer.object === "alias") onMoved(answer);
    announce(`${tried.name} points to ${shortId(version.id)}.`);
    live.models.reload();
  });
  const offered = [
    ...movable.map((alias) => [alias.name, alias.lock ? `${alias.name} (locked)` : alias.name] as const),
    ...(may("admin") ? [[NEW, "A new alias…"] as const] : []),
  ];
  const isReady = plan?.name === name && mayGo(plan, isForced) && isReason(reason);
  const wrongName = [trial.error, promote.error].find((error) => error?.param === "alias")?.message;

  return (
    <div class="version-promote">
      <Form
        class="stack"
        onSubmit={() => {
          if (plan && isReady) void promote.run(plan);
        }}
      >
        <SelectField
          label="Alias"
          error={chosen === NEW ? undefined : wrongName}
          value={chosen}
          options={offered}
          onChange={choose}
        />
        {chosen === NEW && (
          <TextField
            label="Name of the new alias"
            help="Letters, digits, dots, dashes and underscores."
            error={name ? wrongName : undefined}
            value={typed}
            onChange={setTyped}
          />
        )}
        <ReasonField value={reason} onChange={setReason} error={promote.error} />
        <WaitField value={isWaiting} onChange={setWaiting} />
        {plan?.error?.code === "not_better" && (
          <label class="version-check">
            <input
              type="checkbox"
              checked={isForced}
              onChange={({ currentTarget }) => setForced(currentTarget.checked)}
            />
            <span>Promote it although its job found it no better</span>
          </label>
        )}
        <ErrorNote
          error={["reason", "alias"].includes(promote.error?.param ?? "") ? undefined : promote.error}
        />
        <div class="row">
          <Button type="submit" look="primary" busy={promote.running} disabled={!isReady}>
            Promote to {name || "an alias"}
          </Button>
          <Button onClick={onClose}>Cancel</Button>
        </div>
      </Form>
      <div aria-live="polite">
        {!name ? (
          <p class="muted">Name the alias to see what would happen.</p>
        ) : plan ? (
          <Verdict plan={plan} onUnlock={locked && may("admin") ? () => setUnlocking(true) : undefined} />
        ) : trial.error ? (
          trial.error.param !== "alias" && <ErrorNote error={trial.error} onRetry={trial.reload} />
        ) : (
          <Skeleton lines={5} />
        )}
      </div>
      <AliasDialog
        doing={isUnlocking && locked ? { what: "unlock", alias: locked } : undefined}
        onClose={() => setUnlocking(false)}
      />
    </div>
  );
}

/** A dry run, made again when the alias is moved, locked or unlocked, or an evaluation may have ended, meanwhile. */
function useTrial(version: string, name: string, aliases: readonly Alias[]) {
  const [settled, settle] = useState(name);
  useEffect(() => {
    const timer = setTimeout(() => settle(name), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [name]);
  const alias = aliases.find((each) => each.name === settled);
  const run = async () => {
    if (!settled) return null;
    // Nothing is moved, so that nobody reads this reason; but a request has one.
    const body = {
      alias: settled,
      reason: "dry run",
      owner: null,
      force: false,
      expected_generation: null,
      wait_s: 0,
      dry_run: true,
    };
    const answer = await ask(api.POST("/models/{version}/promote", { params: { path: { version } }, body }));
    return answer.object === "dry_run" ? answer : null;
  };
  const trial = useLoaded(run, [version, settled, alias?.generation, alias?.lock?.at]);
  useEachTurn(trial.reload);
  return trial;
}
