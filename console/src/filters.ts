/** The filters of a page. They stand in its address, so that what one sees can be kept and sent to others. */

import { address } from "./router";

/** For each filter the words that it may be, or `text` for any. */
type Choices = Readonly<Record<string, readonly string[] | "text">>;

export type FiltersOf<C extends Choices> = {
  [Name in keyof C]?: C[Name] extends readonly (infer Word extends string)[] ? Word : string;
};

/** What a query says. Unknown words and empty texts are left out. */
export function filtersIn<C extends Choices>(query: URLSearchParams, choices: C): FiltersOf<C> {
  const given = Object.entries(choices).flatMap(([name, words]) => {
    const value = query.get(name);
    return value && (words === "text" || words.includes(value)) ? [[name, value]] : [];
  });
  return Object.fromEntries(given) as FiltersOf<C>;
}

/** The filters of a list, of which `after` is the last row of the page before. */
export function listFilters<C extends Choices>(page: string, choices: C) {
  type Filters = FiltersOf<C>;
  type Changes = { [Name in keyof Filters]: Filters[Name] | "" };
  const readFilters = (query: URLSearchParams): Filters => filtersIn(query, choices);
  return {
    readFilters,
    addressOf: (filters: Filters): string => address([page], filters),
    /** With other filters the list begins anew. Empty ones are taken out. */
    refined: (filters: Filters, changes: Changes): Filters =>
      readFilters(new URLSearchParams({ ...filters, ...changes, after: "" } as Record<string, string>)),
  };
}
