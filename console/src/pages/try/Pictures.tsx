import { useEffect, useRef, useState } from "preact/hooks";
import { Button } from "../../components/Button";
import { Picture } from "../../components/Picture";
import { useDrop } from "../../components/use-drop";

export interface Shown {
  file: File;
  /** The address under which the browser shows the file, also in results after it was taken out. */
  url: string;
  /** Whether it was pasted or drawn, so that there may be no such file on the reader's disk. */
  unsaved?: boolean;
}

interface Props {
  pictures: readonly Shown[];
  onChange: (pictures: Shown[]) => void;
}

/** Pictures that are dropped, pasted or picked, with their thumbnails. */
export function Pictures({ pictures, onChange }: Props) {
  const box = useRef<HTMLElement>(null);
  const input = useRef<HTMLInputElement>(null);
  const removed = useRef<number | undefined>(undefined);
  const [left, setLeft] = useState<readonly string[]>([]);
  const add = (files: Iterable<File>, unsaved = false) => {
    const given = [...files];
    if (!given.length) return;
    setLeft(given.filter((file) => !isPicture(file)).map(({ name }) => name));
    onChange([...pictures, ...shown(given.filter(isPicture), unsaved)]);
  };
  const drop = useDrop((files) => add(files ?? []));
  usePasted((files) => add(files, true));
  useEffect(() => {
    if (removed.current === undefined) return;
    // The next picture's button, or the last one's, or else the one that picks pictures, which is the first.
    const buttons = box.current?.querySelectorAll("button");
    buttons?.[Math.min(removed.current + 1, pictures.length)]?.focus();
    removed.current = undefined;
  }, [pictures]);
  return (
    <section ref={box} aria-label="Pictures" class="drop" {...drop}>
      <p class="row">
        <Button onClick={() => input.current?.click()}>Pick pictures</Button>
        <span class="muted">or drop or paste them here.</span>
      </p>
      <input
        ref={input}
        type="file"
        accept="image/*"
        multiple
        hidden
        aria-label="Picture files"
        onChange={({ currentTarget }) => {
          add(currentTarget.files ?? []);
          currentTarget.value = ""; // the same file can be picked again
        }}
      />
      {left.length > 0 && (
        <p class="field-error" role="alert">
          {left.length === 1 ? `${left[0]} is not a picture` : `${left.join(", ")} are not pictures`}, and
          cannot be used here.
        </p>
      )}
      {pictures.length > 0 && (
        <ul class="thumbs">
          {pictures.map((picture, place) => (
            <li key={picture.url}>
              <Picture src={picture.url} alt={picture.file.name} box={96} />
              <button
                type="button"
                class="thumb-remove"
                aria-label={`Remove ${picture.file.name}`}
                onClick={() => {
                  removed.current = place;
                  onChange(pictures.filter((each) => each !== picture));
                }}
              >
                ×
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

const isPicture = ({ type }: File) => type.startsWith("image/");

/** Pictures as the page shows them. */
export function shown(files: readonly File[], unsaved: boolean): Shown[] {
  return files.map((file) => ({ file, url: URL.createObjectURL(file), unsaved }));
}

function usePasted(add: (files: Iterable<File>) => void) {
  useEffect(() => {
    const paste = (event: ClipboardEvent) => add(event.clipboardData?.files ?? []);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, [add]);
}
