import { useState } from "preact/hooks";
import { api, ask, type Schemas } from "../../api/client";
import { useAction } from "../../api/use";
import { announce } from "../../components/Announcer";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { ErrorNote } from "../../components/ErrorNote";
import { Folded } from "../../components/Folded";
import { Form } from "../../components/Form";
import { shortId } from "../../format";
import { type Alias, useLiveRegistry } from "./live";
import { Moved } from "./Moved";
import { VersionLink } from "./names";
import { ReasonField, WaitField, waitOf } from "./ReasonField";
import { isReason } from "./reason";

export interface Doing {
  what: "lock" | "unlock" | "rollback" | "remove";
  alias: Alias;
}

const TITLES = { lock: "Lock", unlock: "Unlock", rollback: "Roll back", remove: "Remove" };

/** Asks why an alias is locked, unlocked, rolled back or removed, and does it. */
export function AliasDialog({ doing, onClose }: { doing: Doing | undefined; onClose: () => void }) {
  return (
    <Dialog
      title={doing ? `${TITLES[doing.what]} ${doing.alias.name}` : ""}
      open={doing !== undefined}
      onClose={onClose}
    >
      {doing && <Question {...doing} onClose={onClose} />}
    </Dialog>
  );
}

function Question({ what, alias, onClose }: Doing & { onClose: () => void }) {
  const live = useLiveRegistry();
  const [reason, setReason] = useState("");
  const [isWaiting, setWaiting] = useState(false);
  const [moved, setMoved] = useState<Schemas["MovedAlias"]>();
  const act = useAction(async () => {
    const path = { alias: alias.name };
    if (what === "rollback") {
      const body = { reason, expected_generation: alias.generation, wait_s: waitOf(isWaiting) };
      setMoved(await ask(api.POST("/models/{alias}/rollback", { params: { path }, body })));
      announce(`${alias.name} is rolled back.`);
    } else if (what === "remove") {
      const body = { reason, expected_generation: alias.generation };
      await ask(api.POST("/models/{alias}/remove", { params: { path }, body }));
      announce(`${alias.name} is removed.`);
      onClose();
    } else {
      await ask(api.POST(`/models/{alias}/${what}`, { params: { path }, body: { reason } }));
      announce(`${alias.name} is ${what}ed.`);
      onClose();
    }
    live.models.reload();
  });
  if (moved) return <Moved moved={moved} onClose={onClose} />;
  return (
    <Form class="stack" onSubmit={act.run}>
      <Meaning what={what} alias={alias} />
      <ReasonField value={reason} onChange={setReason} error={act.error} />
      {what === "rollback" && <WaitField value={isWaiting} onChange={setWaiting} />}
      <ErrorNote error={act.error?.param === "reason" ? undefined : act.error} />
      <div class="row">
        <Button type="submit" look="primary" busy={act.running} disabled={!isReason(reason)}>
          {what === "rollback" && alias.previous
            ? `Roll back to ${shortId(alias.previous)}`
            : `${TITLES[what]} ${alias.name}`}
        </Button>
        <Button onClick={onClose}>Cancel</Button>
      </div>
    </Form>
  );
}

function Meaning({ what, alias }: Doing) {
  if (what === "lock") {
    return (
      <p>
        Until it is unlocked, no promotion, rollback or job moves it from <VersionLink id={alias.version} />.
      </p>
    );
  }
  if (what === "remove") {
    return (
      <p>
        No serving process answers for this name any more. <VersionLink id={alias.version} /> stays.
      </p>
    );
  }
  if (what === "unlock") {
    return (
      <p>
        {alias.lock?.who} locked it: “<Folded text={alias.lock?.why ?? ""} />
        ”. Promotions, rollbacks and jobs can move it again.
      </p>
    );
  }
  return (
    <p>
      It goes back from <VersionLink id={alias.version} /> to{" "}
      {alias.previous && <VersionLink id={alias.previous} />}, to which it pointed before its last promotion.
    </p>
  );
}
