import { useState } from "preact/hooks";

/** What a box needs onto which files are dropped. It has `data-over` while they are held over it. */
export function useDrop(take: (files: FileList | undefined) => void) {
  const [over, setOver] = useState(false);
  return {
    "data-over": over,
    onDragOver: (event: DragEvent) => {
      event.preventDefault();
      setOver(true);
    },
    onDragLeave: () => setOver(false),
    onDrop: (event: DragEvent) => {
      event.preventDefault();
      setOver(false);
      take(event.dataTransfer?.files);
    },
  };
}
