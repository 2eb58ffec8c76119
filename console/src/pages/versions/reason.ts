/** Why something is done to an alias. The service counts its characters like this. */

export const REASON_CHARS = 1000;

export const lengthOf = (reason: string) => [...reason].length;
export const isTooLong = (reason: string) => lengthOf(reason) > REASON_CHARS;
export const isReason = (reason: string) => reason.trim() !== "" && !isTooLong(reason);
