import { Fragment } from "preact";

/** A text from the API's description, in which names stand between backticks. */
export function Described({ text }: { text: string }) {
  return (
    <>
      {text.split("`").map((part, place) =>
        // biome-ignore lint/suspicious/noArrayIndexKey: the parts have no other name, and do not move
        place % 2 ? <code key={place}>{part}</code> : <Fragment key={place}>{part}</Fragment>,
      )}
    </>
  );
}
