/** A share from 0 to 1 as a bar. The number stands beside it, so that the bar says nothing to screen readers. */
export function Bar({ share, series = 1 }: { share: number; series?: 1 | 2 | 3 | 4 | 5 }) {
  return (
    <svg class="bar" aria-hidden="true">
      <rect class="bar-ground" width="100%" height="100%" rx="2" />
      <rect class={`bar-value series-${series}`} width={`${share * 100}%`} height="100%" rx="2" />
    </svg>
  );
}
