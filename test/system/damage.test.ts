// The whole gateway on data directories with random damage, anywhere below them: it starts, says in its health what was
// lost, and takes readings. IOTFLOW_DAMAGED_GATEWAYS for more, IOTFLOW_DAMAGED_SEED for where to begin.

import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { seededRandom } from '../../src/simulator/random.ts';
import { damage, filesBelow, pick } from '../support/damage.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

const runs = Number(process.env.IOTFLOW_DAMAGED_GATEWAYS ?? 6);
const firstSeed = Number(process.env.IOTFLOW_DAMAGED_SEED ?? 1);
const topic = 'iotflow/devices/probe/telemetry/climate';

test(`a gateway starts on each of ${runs} damaged data directories and takes what a new device sends`, async () => {
  const whole = tempFolder();
  for (const life of [1, 2]) {
    const gateway = await openGateway(whole);
    const client = await connectDevice(gateway, `probe-${life}`);
    for (let count = 0; count < 40; count += 1) {
      await client.publishAsync(topic.replace('probe', `probe-${life}`), `{"temperature":${count}}`, {
        qos: 1,
      });
    }
    await client.endAsync();
    await gateway.close();
  }
  const failures: string[] = [];
  for (let seed = firstSeed; seed < firstSeed + runs; seed += 1) {
    const random = seededRandom(seed);
    const folder = tempFolder();
    cpSync(whole, folder, { recursive: true });
    const data = join(folder, 'data');
    const area = pick(random, ['state', 'history', 'journal', 'tls', 'run', '']);
    const files = filesBelow(data).filter((name) => name.startsWith(area));
    const done = [1, 2, 3].map(() => damage(data, files.length > 0 ? files : filesBelow(data), random));
    try {
      const gateway = await openGateway(folder);
      const { state, journal, history } = gateway.figures();
      const stores = [state, journal.blockStore, ...(history ? [history.store] : [])];
      const isSaid = gateway.health().reasons.some(({ code }) => code === 'STORE_DAMAGED');
      expect(isSaid).toBe(stores.some((one) => one.repairs + one.startedEmpty + one.damagedValues > 0));
      const client = await connectDevice(gateway, `new-${seed}`);
      await client.publishAsync(topic.replace('probe', `new-${seed}`), '{"temperature":1}', { qos: 1 });
      await client.endAsync();
      await gateway.close();
    } catch (error) {
      failures.push(`seed ${seed}: ${JSON.stringify(done)}: ${String(error)}`);
    }
    rmSync(folder, { recursive: true, force: true });
  }
  expect(failures).toEqual([]);
}, 900_000);
