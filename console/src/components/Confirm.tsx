import type { ComponentChildren } from "preact";
import type { Action } from "../api/use";
import { Button } from "./Button";
import { Dialog } from "./Dialog";
import { ErrorNote } from "./ErrorNote";

interface Props {
  title: string;
  open: boolean;
  onClose: () => void;
  /** The word on the button that does it. */
  verb: string;
  action: Action<[]>;
  /** What happens, and what stays. */
  children: ComponentChildren;
}

/** Asks before something is destroyed. It stays open if that fails, and says why. */
export function Confirm({ title, open, onClose, verb, action, children }: Props) {
  return (
    <Dialog title={title} open={open} onClose={onClose}>
      {children}
      <ErrorNote error={action.error} />
      <div class="row">
        <Button look="danger" busy={action.running} onClick={() => void action.run()}>
          {verb}
        </Button>
        <Button onClick={onClose}>Keep it</Button>
      </div>
    </Dialog>
  );
}
