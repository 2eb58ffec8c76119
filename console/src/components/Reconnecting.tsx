/** Says that what is shown may be old, while a stream is connected again. It takes its place before. */
export function Reconnecting({ lost }: { lost: boolean }) {
  return (
    <p class="reconnecting small" role="status">
      {lost && "Reconnecting: what you see may be old."}
    </p>
  );
}
