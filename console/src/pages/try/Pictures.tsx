import { useEffect, useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { Picture } from "../../components/Picture";
import { useDrop } from "../../components/use-drop";

export interface Shown {
  file: File;
  /** The address under which the browser shows the file, also in results after it was taken out. */
  url: string;
}

interface Props {
  pictures: readonly Shown[];
  onChange: (pictures: Shown[]) => void;
}

/** Pictures that are dropped, pasted or picked, with their thumbnails. */
export function Pictures({ pictures, onChange }: Props) {
  const input = useRef<HTMLInputElement>(null);
  const add = (files: Iterable<File>) => onChange([...pictures, ...shown(files)]);
  const drop = useDrop((files) => add(files ?? []));
  usePasted(add);
  return (
    <section aria-label="Pictures" class="drop" {...drop}>
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
      {pictures.length > 0 && (
        <ul class="thumbs">
          {pictures.map((picture) => (
            <li key={picture.url}>
              <Picture src={picture.url} alt={picture.file.name} box={96} />
              <button
                type="button"
                class="thumb-remove"
                aria-label={`Remove ${picture.file.name}`}
                onClick={() => onChange(pictures.filter((each) => each !== picture))}
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

/** Files as the page shows them. What says that it is no picture is left out. */
export function shown(files: Iterable<File>): Shown[] {
  return [...files]
    .filter((file) => file.type.startsWith("image/"))
    .map((file) => ({ file, url: URL.createObjectURL(file) }));
}

function usePasted(add: (files: Iterable<File>) => void) {
  useEffect(() => {
    const paste = (event: ClipboardEvent) => add(event.clipboardData?.files ?? []);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, [add]);
}
