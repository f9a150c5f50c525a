// Appends to a journal until it is killed, and prints every id whose append resolved. Plain JavaScript that
// imports the built code: Node 20 runs no TypeScript. argv: folder of the built code, journal folder, first id.

import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [built, folder, firstId] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(join(built, path)).href);
const { Journal } = await load('journal/journal.js');
const { LevelStore } = await load('platform/level-store.js');
const { systemDisk } = await load('platform/disk.js');
const { systemClock } = await load('platform/clock.js');
const { createLog } = await load('platform/log.js');

const log = createLog('silent');
const store = await LevelStore.open(join(folder, 'state'), { log });
const journal = await Journal.open({
  directory: join(folder, 'journal'),
  store: store.room('journal'),
  disk: systemDisk(),
  clock: systemClock(),
  log,
  options: { segmentBytes: 256 * 1024, ringSegments: 4, freeSegmentsMin: 2, blockPoints: 500 },
});
let next = Number(firstId);
writeSync(1, `open ${next}\n`);

/** Synchronously, so that a kill cannot take back what was said; the pipe may be full for a moment. */
function tell(id) {
  for (;;) {
    try {
      writeSync(1, `${id}\n`);
      return;
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

async function client() {
  for (;;) {
    const id = next;
    next += 1;
    try {
      await journal.append({
        class: id % 50 === 0 ? 'event' : 'telemetry',
        lines: `m,device_id=d v=${id},pad="${'x'.repeat(id % 400)}" 1700000000000000000\n`,
        points: 1,
        state: [{ key: `seen/${id % 10}`, value: Buffer.from(String(id)) }],
      });
      tell(id);
    } catch (error) {
      if (error.code !== 'JOURNAL_FULL') throw error;
    }
  }
}
await Promise.all(Array.from({ length: 20 }, client));
