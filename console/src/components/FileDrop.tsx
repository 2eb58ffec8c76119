import { useRef } from "preact/hooks";
import { bytes } from "../format";
import { Button } from "./Button";
import type { Control } from "./Field";
import { useDrop } from "./use-drop";

interface Props {
  control: Control;
  /** The words on the button. */
  verb: string;
  /** Endings of files' names that are offered, as `.tar,.zip`. */
  accept: string;
  multiple?: boolean;
  files: readonly File[];
  onChange: (files: File[]) => void;
}

/** Files that are dropped or picked. Those that were chosen before are replaced. */
export function FileDrop({ control, verb, accept, multiple = false, files, onChange }: Props) {
  const input = useRef<HTMLInputElement>(null);
  const take = (given: FileList | null | undefined) => {
    if (given?.length) onChange(multiple ? [...given] : [...given].slice(0, 1));
  };
  const drop = useDrop(take);
  return (
    <section aria-label={verb} class="drop" {...drop}>
      <p class="row">
        <Button onClick={() => input.current?.click()}>{verb}</Button>
        <span class="muted">{files.length ? <Chosen files={files} /> : "or drop it here."}</span>
      </p>
      <input
        {...control}
        ref={input}
        class="visually-hidden"
        type="file"
        accept={accept}
        multiple={multiple}
        tabIndex={-1}
        onChange={({ currentTarget }) => {
          take(currentTarget.files);
          currentTarget.value = ""; // the same file can be picked again after it was changed
        }}
      />
    </section>
  );
}

function Chosen({ files }: { files: readonly File[] }) {
  const [first] = files;
  const total = files.reduce((sum, { size }) => sum + size, 0);
  return (
    <>
      {files.length === 1 ? first?.name : `${files.length} files`} · {bytes(total)}
    </>
  );
}
