// `iotflow doctor`: is everything there that the gateway needs? One line for each thing: how it is, why not, and
// what to do. Works beside a running gateway and without one; shows no secret.

import { formatFault } from '../config/fault.ts';
import type { Config } from '../config/schema.ts';
import { systemClock } from '../platform/clock.ts';
import { clockProbe } from '../platform/clock-trust.ts';
import { type Call, type Command, configOption, jsonOption } from './command.ts';
import { configFile, readConfig } from './configuration.ts';
import { type Check, type CheckedFinding, fail, findingLine, ok, runChecks, warn } from './doctor/check.ts';
import { bridgeCheck, flumeCheck, influxCheck, voiceMonkeyCheck } from './doctor/cloud.ts';
import { buzzerCheck, clockCheck, machineCheck, nodeCheck } from './doctor/machine.ts';
import { dnsCheck, influxCertificateCheck, ownCertificateCheck } from './doctor/network.ts';
import { portsCheck } from './doctor/ports.ts';
import { askGateway, deadLettersCheck, gatewayCheck, runs, wearCheck } from './doctor/running-gateway.ts';
import { dataDirCheck, fileSystemCheck, flushCheck, spaceCheck, storesCheck } from './doctor/storage.ts';

const checkTimeoutMs = 5_000;
const procDirectory = '/proc';
const sysDirectory = '/sys';

export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'Check everything the gateway needs and say what to do',
  options: {
    sound: { type: 'boolean', help: 'Let the buzzer beep, too' },
    config: configOption,
    json: jsonOption,
  },
  details:
    'Works beside a running gateway and without one. Asks InfluxDB with a write of nothing and Flume with a login,\n' +
    'which counts as one of its requests. Exit code 0 when nothing failed, 1 otherwise.',
  run: async (call) => {
    const findings = await examine(call);
    const isFine = findings.every(({ status }) => status !== 'fail');
    if (call.flag('json')) {
      const checks = findings.map(({ check, status, message, todo }) => ({
        check,
        status,
        message,
        do: todo,
      }));
      call.stdout.write(`${JSON.stringify({ ok: isFine, checks })}\n`);
    } else {
      for (const finding of findings) call.stdout.write(`${findingLine(finding)}\n`);
    }
    return isFine ? 0 : 1;
  },
};

async function examine(call: Call): Promise<CheckedFinding[]> {
  const file = configFile(call);
  const loaded = readConfig(call, file);
  const name = file ?? 'no file';
  const node = nodeCheck(process.versions.node);
  if ('faults' in loaded) {
    const todo = 'mend it; iotflow check-config checks it alone. The rest is checked when it is good';
    const faults = loaded.faults.map((fault) => fail(formatFault(fault, name), todo));
    return await runChecks([node, { name: 'configuration', run: async () => faults }], checkTimeoutMs);
  }
  const good = ok(file === undefined ? 'no file: defaults' : file);
  const odd = loaded.warnings.map((warning) => warn(warning, 'see config.example.yaml'));
  const configuration: Check = { name: 'configuration', run: async () => [good, ...odd] };
  return await runChecks([node, configuration, ...(await checksOf(loaded.config, call))], checkTimeoutMs);
}

async function checksOf(config: Config, call: Call): Promise<Check[]> {
  const asked = await askGateway(config, checkTimeoutMs);
  const gateway = runs(asked);
  const { wallMs, monotonicMs } = systemClock();
  const { synchronizedPath } = config.time;
  return [
    gatewayCheck(asked),
    dataDirCheck(config),
    fileSystemCheck(config, procDirectory),
    spaceCheck(config),
    flushCheck(config),
    storesCheck(config, asked),
    wearCheck(asked),
    deadLettersCheck(asked),
    portsCheck(config, gateway, procDirectory),
    clockCheck(config, { wallMs, ask: clockProbe({ synchronizedPath, wallMs, monotonicMs }), sysDirectory }),
    dnsCheck(config),
    ownCertificateCheck(config, wallMs()),
    influxCertificateCheck(config, wallMs()),
    influxCheck(config, wallMs),
    bridgeCheck(config),
    flumeCheck(config),
    voiceMonkeyCheck(config),
    buzzerCheck(config, gateway, call.flag('sound')),
    machineCheck(config, procDirectory, sysDirectory),
  ];
}
