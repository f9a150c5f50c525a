#!/usr/bin/env node
// argv → config → gateway; signals, exit codes, systemd. No logic.

// Before anything uses the thread pool: a stalled fsync holds one thread, LevelDB others, and name lookups of the
// forwarder must still find one. Four, the default, are too few.
process.env.UV_THREADPOOL_SIZE ??= '8';

// What is written is the owner's alone, also by LevelDB, which asks nobody.
process.umask(0o077);

import { readFileSync } from 'node:fs';
import type { LoadedConfig } from './config/load.ts';
import { Gateway } from './gateway.ts';
import { systemClock } from './platform/clock.ts';
import { createLog } from './platform/log.ts';
import { SdNotify } from './platform/sd-notify.ts';
import { runCli } from './tools/cli.ts';
import { demoCommand } from './tools/demo.ts';
import { runCommand } from './tools/run.ts';
import { simulateFleetCommand } from './tools/simulate-fleet.ts';
import { simulateNodeCommand } from './tools/simulate-node.ts';
import { standardOutput } from './tools/standard-output.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

/** Resolves at SIGTERM or SIGINT; a second signal ends the process at once. */
function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.once(signal, () => {
        process.once(signal, () => process.exit(1));
        resolve(signal);
      });
    }
  });
}

async function startGateway({ config, warnings }: LoadedConfig): Promise<number> {
  // Nobody may be reading what Node itself has to say.
  process.stderr.on('error', () => undefined);
  const log = createLog(config.log.level);
  for (const warning of warnings) log.warn({ event: 'config_warning' }, warning);
  const stop = stopSignal();
  const gateway = await Gateway.open({ config, clock: systemClock(), random: Math.random, log, version });
  const { shown } = gateway.figures().tls;
  const ready = { ports: gateway.ports, gatewayId: config.gatewayId, version };
  // What a person compares before trusting it.
  const fingerprint = (shown.authority ?? shown).fingerprint_sha256;
  log.info({ event: 'gateway_ready', ...ready, fingerprint }, 'Ready');
  if (gateway.figures().people.users.admins === 0) {
    log.info({ event: 'unclaimed' }, 'No administrator yet: iotflow users claim-code, or iotflow users add');
  }
  const systemd = SdNotify.open({
    environment: process.env,
    isHealthy: () => gateway.health().ok,
    log,
  });
  systemd.ready(
    `MQTT on port ${gateway.ports.mqtt}, TLS on ${gateway.ports.mqtts}; HTTPS on ${gateway.ports.https}`,
  );
  const signal = await stop;
  log.info({ event: 'gateway_stopping', signal }, 'Stopping');
  await Promise.all([systemd.stopping(), gateway.close()]);
  return 0;
}

const exitCode = await runCli(process.argv.slice(2), {
  env: process.env,
  stdout: standardOutput(),
  stderr: process.stderr,
  version,
  commands: [runCommand(startGateway), demoCommand(version), simulateNodeCommand, simulateFleetCommand],
});
// 1 already where the answer could not be written.
process.exitCode ??= exitCode;

// What hangs for good (the system's name lookup cannot be called off) must not keep a command that has ended.
setTimeout(() => process.exit(), 1_000).unref();
