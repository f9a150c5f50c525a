// The forwarder on the real journal: ring, blocks, dead letters.

import { expect, onTestFinished, test } from 'vitest';
import { Forwarder } from '../../src/forwarder/forwarder.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { openJournal } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

test('an outage longer than the ring holds: every point arrives, poison becomes dead letters, nothing waits', async () => {
  const influx = await FakeInflux.start({ token: 'secret' });
  onTestFinished(() => influx.close());
  const { journal, close } = await openJournal(tempFolder());
  onTestFinished(close);
  const forwarder = Forwarder.start({
    spool: journal,
    target: { url: influx.url, token: 'secret', org: 'home', bucket: 'water' },
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    options: { flushIntervalMs: 10, retryMinMs: 20, retryMaxMs: 100, batchPoints: 300 },
  });
  onTestFinished(() => forwarder.close({ deadlineMs: 1000 }));
  const isWaiting = (): boolean => {
    const { urgent, fresh, backlog } = journal.pending();
    return urgent + fresh + backlog > 0;
  };

  let number = 0;
  const expected = new Set<string>();
  const bad: string[] = [];
  const append = async (count: number): Promise<void> => {
    for (let index = 0; index < count; index += 1) {
      number += 1;
      const isBad = number % 500 === 499;
      const line = `flow,device_id=node-1 value=${isBad ? '"x"' : number} ${1_700_000_000_000_000_000n + BigInt(number)}`;
      if (isBad) bad.push(line);
      else expected.add(`flow,device_id=node-1 ${1_700_000_000_000_000_000n + BigInt(number)}`);
      const appended = journal.append({ class: 'telemetry', lines: `${line}\n`, points: 1 });
      if (index % 20 === 19) await appended;
    }
  };
  await append(100);
  await until(() => !isWaiting());
  influx.outage(true);
  await append(6000);
  await until(() => forwarder.stats().state === 'retrying');
  await journal.append({ class: 'alarm', lines: 'alarm,device_id=node-1 wet=true 5\n', points: 1 });
  expected.add('alarm,device_id=node-1 5');
  influx.outage(false);
  await append(500);
  await until(() => !isWaiting());
  await forwarder.close({ deadlineMs: 10_000 });
  expect(new Set([...influx.points()].map((point) => `${point.series} ${point.timeNs}`))).toEqual(expected);
  expect(bad.length).toBe(13);
  expect(forwarder.stats().buriedPoints).toBe(13);
});
