// Tests of parts that need a Debian package are skipped by name where it is missing; CI installs them all.

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Whether a command is on the PATH (Debian puts servers into /usr/sbin, which users often lack). */
export function hasCommand(name: string): boolean {
  return commandPath(name) !== undefined;
}

/** Full path of a command, undefined when it is not installed. */
export function commandPath(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  for (const folder of folders) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}
