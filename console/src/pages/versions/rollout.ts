/** How far the serving processes are with an alias. */

import type { Schemas } from "../../api/client";

type Alias = Schemas["AliasInfo"];
type Process = Schemas["ProcessStatus"];

export interface Progress {
  process: string;
  state: Schemas["RolloutState"];
  error: string | null;
}

/** Each process that follows aliases, by its own report, as an answer with `wait_s` has it. */
export function progressOf(processes: readonly Process[], alias: Alias): Progress[] {
  return processes
    .filter(({ aliases }) => aliases.state !== "none")
    .map((status) => {
      const process = nameOf(status);
      const found = status.models.find(({ name }) => name === alias.name);
      const generation = found?.generation ?? -1;
      const isServed =
        generation > alias.generation ||
        (generation === alias.generation && found?.version === alias.version);
      if (isServed) return { process, state: "serving", error: null };
      const failure = found?.last_failed_load;
      if (failure && failure.generation >= alias.generation) {
        return { process, state: "failed", error: failure.reason };
      }
      return { process, state: "behind", error: status.aliases.error ?? null };
    });
}

export function nameOf({ host, pid }: { host: string; pid: number }): string {
  return `${host}, process ${pid}`;
}

/** "all 2 processes", "1 of 2 processes" */
export function summaryOf(progress: readonly Progress[]): string {
  const serving = progress.filter(({ state }) => state === "serving").length;
  if (progress.length === 0) return "no process";
  const noun = progress.length === 1 ? "process" : "processes";
  if (serving === progress.length) return serving === 1 ? "the one process" : `all ${serving} processes`;
  return `${serving} of ${progress.length} ${noun}`;
}

export function isServedByAll(progress: readonly Progress[]): boolean {
  return progress.every(({ state }) => state === "serving");
}
