import type { Schemas } from "../../api/client";
import { type FiltersOf, listFilters } from "../../filters";

type Status = Schemas["DatasetStatus"];
export const STATUSES: readonly Status[] = ["validating", "ready", "rejected", "deleted"];

const CHOICES = { name: "text", format: "text", status: STATUSES, after: "text" } as const;

export type Filters = FiltersOf<typeof CHOICES>;
export const { readFilters, addressOf, refined } = listFilters("data", CHOICES);
