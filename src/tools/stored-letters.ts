// Dead letters and field types beside a stopped gateway: the journal and ingest are opened on what it left, with its
// configuration and without anything that listens or sends.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { influxTarget, journalOptions } from '../config/stage-options.ts';
import { LearntTypes } from '../forwarder/server-types.ts';
import { Ingest } from '../ingest/ingest.ts';
import { operations as fieldTypeOperations } from '../ingest/operations.ts';
import { Journal } from '../journal/journal.ts';
import { letterOperations } from '../journal/letter-operations.ts';
import { systemClock } from '../platform/clock.ts';
import { systemDisk } from '../platform/disk.ts';
import { GatewayError } from '../platform/errors.ts';
import { createLog } from '../platform/log.ts';
import { Registry } from '../registry/registry.ts';
import type { OpenStored } from './operator.ts';

/** @throws GatewayError `NO_JOURNAL` when no gateway ever ran with this data */
export const storedLetters: OpenStored = async ({ config, state }) => {
  const directory = join(config.dataDir, 'journal');
  if (!existsSync(directory)) {
    throw new GatewayError('NO_JOURNAL', `no gateway ever ran with the data in ${config.dataDir}`);
  }
  const clock = systemClock();
  const log = createLog('silent');
  const journal = await Journal.open({
    directory,
    store: state.room('hot'),
    disk: systemDisk(),
    clock,
    log,
    options: journalOptions(config),
  });
  try {
    const registry = await Registry.open({
      store: state.room('registry'),
      clock,
      randomBytes,
      devicesMax: config.registry.devicesMax,
    });
    const ingest = await Ingest.open({
      appender: journal,
      deadLetters: journal,
      hotState: journal,
      serverTypes: await LearntTypes.open(journal, influxTarget(config)),
      describe: (deviceId) => registry.get(deviceId),
      gatewayId: config.gatewayId,
      observe: () => undefined,
      // Letters bring their own times.
      time: {
        isKnown: true,
        boot: 0,
        wallMs: () => clock.wallMs(),
        bootNs: () => 0n,
        dateOf: () => undefined,
      },
      log,
    });
    const operations = new Map([
      ...letterOperations({ journal, replay: (letter) => ingest.replay(letter) }),
      ...fieldTypeOperations(ingest),
    ]);
    return { operations, close: () => journal.close() };
  } catch (error) {
    await journal.close();
    throw error;
  }
};
