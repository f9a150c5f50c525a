// A disk that stalls and fails on demand, around a real one.

import { setTimeout as sleep } from 'node:timers/promises';
import { type Disk, type DiskFile, systemDisk } from '../../src/platform/disk.ts';

export interface Faults {
  /** Every sync takes this much longer. */
  datasyncDelayMs: number;
  /** Code of the error that writes, syncs, allocations throw; undefined for none. */
  write: string | undefined;
  datasync: string | undefined;
  allocate: string | undefined;
  /** Reads that touch this position of any file throw `EIO`. */
  badPosition: number | undefined;
}

export interface FaultyDisk extends Disk {
  readonly faults: Faults;
  /** Syncs wait from now on until the returned function is called. */
  holdDatasync(): () => void;
  /** Syncs that have begun so far, and bytes written so far. */
  readonly datasyncs: number;
  readonly writtenBytes: number;
}

function failure(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code });
}

export function faultyDisk(real: Disk = systemDisk()): FaultyDisk {
  const faults: Faults = {
    datasyncDelayMs: 0,
    write: undefined,
    datasync: undefined,
    allocate: undefined,
    badPosition: undefined,
  };
  let gate: Promise<void> | undefined;
  let datasyncs = 0;
  let writtenBytes = 0;

  function wrap(file: DiskFile): DiskFile {
    return {
      bytes: file.bytes,
      async write(buffer, position) {
        if (faults.write !== undefined) throw failure(faults.write);
        writtenBytes += buffer.length;
        await file.write(buffer, position);
        // Written and synced are one call; they fail and hang apart all the same.
        datasyncs += 1;
        if (faults.datasyncDelayMs > 0) await sleep(faults.datasyncDelayMs);
        await gate;
        if (faults.datasync !== undefined) throw failure(faults.datasync);
      },
      async read(buffer, position) {
        const bad = faults.badPosition;
        if (bad !== undefined && bad >= position && bad < position + buffer.length) throw failure('EIO');
        return await file.read(buffer, position);
      },
      close: () => file.close(),
    };
  }

  return {
    faults,
    get datasyncs() {
      return datasyncs;
    },
    get writtenBytes() {
      return writtenBytes;
    },
    holdDatasync() {
      let open: () => void = () => undefined;
      gate = new Promise((resolve) => {
        open = resolve;
      });
      return () => {
        gate = undefined;
        open();
      };
    },
    open: async (path) => wrap(await real.open(path)),
    async allocate(path, bytes) {
      if (faults.allocate !== undefined) throw failure(faults.allocate);
      return wrap(await real.allocate(path, bytes));
    },
    writeFile: (path, content) => real.writeFile(path, content),
    list: (directory) => real.list(directory),
    rename: (from, to) => real.rename(from, to),
    remove: (path) => real.remove(path),
  };
}
