import { Picture } from "../../components/Picture";
import { EXAMPLES, type Example } from "./examples";

interface Props {
  busy: boolean;
  onPick: (example: Example) => void;
}

/** Pictures that are matched, each with its caption and rivals of it, when they are clicked. */
export function Examples({ busy, onPick }: Props) {
  return (
    <section class="stack close" aria-label="Examples">
      <p class="muted small">Or click an example, which is matched at once.</p>
      <ul class="thumbs">
        {EXAMPLES.map((example) => (
          <li key={example.name}>
            <button type="button" class="example" disabled={busy} onClick={() => onPick(example)}>
              <Picture src={example.url} alt={example.caption} box={64} />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
