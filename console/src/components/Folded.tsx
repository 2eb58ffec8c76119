import { useState } from "preact/hooks";
import { Button } from "./Button";

const SHOWN = 200;

/** A text that somebody wrote. Of a long one, only the beginning is seen until it is asked for. */
export function Folded({ text }: { text: string }) {
  const [isOpen, setOpen] = useState(false);
  const letters = [...text];
  if (letters.length <= SHOWN) return <>{text}</>;
  return (
    <>
      {isOpen ? text : `${letters.slice(0, SHOWN).join("")}…`}{" "}
      <Button look="plain" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        {isOpen ? "Show less" : "Show all"}
      </Button>
    </>
  );
}
