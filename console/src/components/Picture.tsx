import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

/** Pictures of up to this many pixels are shown by whole multiples of their own pixels. */
const TINY = 96;

interface Props {
  src: string;
  alt: string;
  /** The side of the square box, in CSS pixels, into which the picture is fitted. */
  box: number;
  /** What stands in the box if there is no picture to show. */
  broken?: ComponentChildren;
}

/**
 * A picture in a box of fixed size.
 *
 * A tiny one is not smoothed, and each of its pixels becomes a square of the same size.
 */
export function Picture({ src, alt, box, broken: note = "The browser cannot show this file." }: Props) {
  const [size, setSize] = useState<{ width: number; height: number }>();
  const [broken, setBroken] = useState(false);
  const longer = size && Math.max(size.width, size.height);
  const tiny = longer !== undefined && longer <= TINY;
  const factor = tiny ? Math.max(1, Math.floor(box / longer)) : longer && Math.min(1, box / longer);
  return (
    <span class="picture" style={{ width: `${box}px`, height: `${box}px` }}>
      {broken ? (
        <span class="muted small">{note}</span>
      ) : (
        <img
          src={src}
          alt={alt}
          class={tiny ? "pixelated" : undefined}
          width={size && factor ? Math.round(size.width * factor) : box}
          height={size && factor ? Math.round(size.height * factor) : box}
          onLoad={({ currentTarget: { naturalWidth: width, naturalHeight: height } }) =>
            setSize({ width, height })
          }
          onError={() => setBroken(true)}
        />
      )}
    </span>
  );
}
