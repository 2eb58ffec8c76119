import { useCallback, useEffect, useState } from "preact/hooks";
import { api, ask, type Schemas } from "../../api/client";
import { useAction } from "../../api/use";

export type Sample = Schemas["SampleInfo"];

const PAGE = 24;

/** The first samples of a data set, and more of them when they are asked for. */
export function useSamples(id: string) {
  const [samples, setSamples] = useState<Sample[]>();
  const [hasMore, setHasMore] = useState(false);
  const load = useAction(
    useCallback(
      async (after: number) => {
        const page = await ask(
          api.GET("/datasets/{dataset_id}/samples", {
            params: { path: { dataset_id: id }, query: { after, limit: PAGE } },
          }),
        );
        setSamples((before = []) => [...before.filter(({ index }) => index <= after), ...page.data]);
        setHasMore(page.has_more);
      },
      [id],
    ),
  );
  // biome-ignore lint/correctness/useExhaustiveDependencies: the first page is loaded once for each data set
  useEffect(() => void load.run(-1), [id]);
  const more = () => load.run(samples?.at(-1)?.index ?? -1);
  return { samples, hasMore, more, running: load.running, error: load.error };
}
