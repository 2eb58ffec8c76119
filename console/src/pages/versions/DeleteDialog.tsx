import { useState } from "preact/hooks";
import { api, ask } from "../../api/client";
import { useAction } from "../../api/use";
import { announce } from "../../components/Announcer";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { ErrorNote } from "../../components/ErrorNote";
import { Form } from "../../components/Form";
import { TextField } from "../../components/TextField";
import { bytes, shortId } from "../../format";
import { address } from "../../router";
import { useLiveRegistry, type Version } from "./live";

interface Props {
  version: Version;
  open: boolean;
  onClose: () => void;
}

/** Deletes a version for who types its id. */
export function DeleteDialog({ version, open, onClose }: Props) {
  return (
    <Dialog title={`Delete ${shortId(version.id)}`} open={open} onClose={onClose}>
      <Question version={version} onClose={onClose} />
    </Dialog>
  );
}

function Question({ version, onClose }: Omit<Props, "open">) {
  const { models } = useLiveRegistry();
  const [typed, setTyped] = useState("");
  const short = shortId(version.id);
  const remove = useAction(async () => {
    await ask(api.DELETE("/models/{version}", { params: { path: { version: version.id } } }));
    announce(`${short} is deleted.`);
    models.reload();
    location.hash = address(["versions"]);
  });
  return (
    <Form class="stack" onSubmit={remove.run}>
      <p>
        Its files, {bytes(version.size_bytes)}, are removed for good. Rollbacks skip it, and the audit trail
        keeps its entries.
      </p>
      <TextField
        label={`Type ${short} to delete it`}
        autocomplete="off"
        spellcheck={false}
        value={typed}
        onChange={setTyped}
      />
      <ErrorNote error={remove.error} />
      <div class="row">
        <Button
          type="submit"
          look="danger"
          busy={remove.running}
          disabled={![short, version.id].includes(typed.trim())}
        >
          Delete it
        </Button>
        <Button onClick={onClose}>Keep it</Button>
      </div>
    </Form>
  );
}
