// What a failed write says about the disk, in the three words a person can act on. LevelDB passes the system's error
// on as text alone, so the texts count as well as the codes.

import { errorCode } from './errors.ts';

/** `full`: no space, no inodes or no quota. `failing`: anything that is not one of the others. */
export type DiskTrouble = 'full' | 'read-only' | 'failing';

// Node has no name for EDQUOT, which is 122 on Linux.
const fullTexts = /ENOSPC|EDQUOT|system error -122|No space left|quota exceeded/i;
const readOnlyTexts = /EROFS|Read-only file system/i;

/** Codes and texts of an error and its causes, innermost last. */
export function traceOf(error: unknown): string {
  const parts: string[] = [];
  for (let at = error; at instanceof Error && parts.length < 5; at = at.cause) {
    parts.push(`${errorCode(at) ?? at.name} ${at.message}`);
  }
  return parts.join(' < ');
}

export function diskTroubleOf(error: unknown): DiskTrouble {
  const trace = traceOf(error);
  if (fullTexts.test(trace)) return 'full';
  return readOnlyTexts.test(trace) ? 'read-only' : 'failing';
}

/** Whether the disk, and not what lies on it or who asks, is to blame. */
export function isDiskTrouble(error: unknown): boolean {
  return diskTroubleOf(error) !== 'failing' || /\bEIO\b|Input\/output error/.test(traceOf(error));
}
