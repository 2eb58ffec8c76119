/** The pages in the order of the navigation. Each has its folder. */

import type { FunctionComponent } from "preact";
import type { Scope } from "../api/session";
import { DataPage } from "./data";
import { JobsPage } from "./jobs";
import { NewJobPage } from "./new";
import { ResultsPage } from "./results";
import { ServicePage } from "./service";
import { TryPage } from "./try";
import { VersionsPage } from "./versions";

export interface PageProps {
  /** What follows the page's name in the address: `["job_1"]` of `#/jobs/job_1`. */
  rest: string[];
  query: URLSearchParams;
}

interface Entry {
  path: string;
  title: string;
  /** Without it, a key does not allow the page. */
  scope?: Scope;
  Page: FunctionComponent<PageProps>;
}

export const PAGES: readonly Entry[] = [
  { path: "try", title: "Try", scope: "infer", Page: TryPage },
  { path: "jobs", title: "Jobs", scope: "train", Page: JobsPage },
  { path: "new", title: "New job", scope: "train", Page: NewJobPage },
  { path: "data", title: "Data", scope: "train", Page: DataPage },
  { path: "results", title: "Results", scope: "train", Page: ResultsPage },
  { path: "versions", title: "Versions", scope: "infer", Page: VersionsPage },
  { path: "service", title: "Service", Page: ServicePage },
];
