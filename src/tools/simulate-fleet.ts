// `iotflow simulate fleet`: a home, an office or a factory of virtual devices against any broker, with their ledger
// at the end. Promises: whatever was sent is in the summary as acknowledged, refused or still open, and the exit code
// says whether it balances.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { GatewayError } from '../platform/errors.ts';
import { Fleet, type FleetFigures } from '../simulator/fleet.ts';
import type { Link } from '../simulator/link.ts';
import { MqttLink } from '../simulator/mqtt-link.ts';
import { SimulatedNode, type SimulatedNodeOptions } from '../simulator/node.ts';
import { type FleetDevice, fleetDevices, type Preset, presets } from '../simulator/presets.ts';
import { seededRandom } from '../simulator/random.ts';
import { answer, type Call, type Command, configOption, jsonOption } from './command.ts';
import { type Access, localAccess, statedAccess } from './fleet-access.ts';
import { controlHelp, obeyLine } from './fleet-control.ts';
import { latencyText, number, percentiles, reconnectWait, share, stopRequested } from './simulation.ts';

const progressMs = 2000;
/** What is still unacknowledged when the fleet stops gets this long. */
const drainMs = 5000;
const heartbeatIntervalMs = 30_000;
/** The fleet comes up within this, not in one instant. */
const startSpreadMsMax = 3000;

function presetsOf(call: Call): readonly Preset[] {
  const words = (call.text('preset') ?? 'home').split(',').map((word) => word.trim());
  return [...new Set(words)].map((word) => {
    const preset = presets.find((known) => known === word);
    if (preset === undefined) {
      throw new GatewayError('ARGUMENT_INVALID', `--preset: expected ${presets.join(', ')}, got "${word}"`);
    }
    return preset;
  });
}

function openLink(call: Call, access: Access, device: FleetDevice): SimulatedNodeOptions['openLink'] {
  const topicRoot = call.text('root') ?? 'iotflow';
  const caFile = call.text('ca');
  const ca = caFile === undefined ? {} : { ca: readFileSync(caFile) };
  const login = access.logins.get(device.deviceId);
  return (onCommand): Link =>
    MqttLink.open({
      url: access.url,
      topicRoot,
      deviceId: device.deviceId,
      login,
      protocolVersion: call.flag('mqtt5') ? 5 : 4,
      reconnectWaitMs: reconnectWait(Math.random),
      onCommand,
      ...ca,
    });
}

function startFleet(call: Call, devices: readonly FleetDevice[], access: Access): Fleet {
  const intervalMs = number(call, 'interval', 5000, 1, 86_400_000);
  const seed = number(call, 'seed', Date.now() % 2 ** 32, 0, 2 ** 32);
  const lossShare = share(call, 'loss');
  const members = devices.map((device, index) => {
    const random = seededRandom(seed + index);
    const node = SimulatedNode.start({
      kind: device.kind,
      intervalMs,
      lossShare,
      random,
      heartbeatIntervalMs,
      startDelayMs: 1 + random() * Math.min(intervalMs, startSpreadMsMax),
      openLink: openLink(call, access, device),
    });
    return { device, node };
  });
  return new Fleet(members);
}

function progressLine({ devices, connected, failed, lastError, ...counts }: FleetFigures): string {
  const { sent, acknowledged, refused, lost } = counts;
  const down = failed === 0 ? '' : `, ${failed} failed on purpose`;
  const trouble = connected + failed < devices && lastError !== undefined ? `  ${lastError}` : '';
  return (
    `${connected} of ${devices} connected${down}  sent ${sent}  acknowledged ${acknowledged}  ` +
    `refused ${refused}  lost on purpose ${lost}${trouble}`
  );
}

function summary(fleet: Fleet, figures: FleetFigures, ranS: number) {
  const { p50Ms, p99Ms } = percentiles(fleet.ackLatenciesMs());
  const { sent, acknowledged, refused, lost, overflowed, heartbeats, commands, reconnects } = figures;
  const open = sent - acknowledged - refused;
  return {
    json: {
      devices: figures.devices,
      duration_s: Math.round(ranS),
      sent,
      acknowledged,
      refused,
      unacknowledged: open,
      lost,
      overflowed,
      heartbeats,
      commands,
      reconnects,
      p50_ms: p50Ms,
      p99_ms: p99Ms,
      last_error: figures.lastError,
      by_device: fleet.members.map(({ device, node }) => {
        const one = node.figures();
        return {
          device_id: device.deviceId,
          sent: one.sent,
          acknowledged: one.acknowledged,
          refused: one.refused,
          lost: one.lost,
          reconnects: one.reconnects,
        };
      }),
    },
    text: [
      `${figures.devices} devices for ${Math.round(ranS)} s: sent ${sent}, acknowledged ${acknowledged}, refused ${refused}, ` +
        `unacknowledged ${open}, lost on purpose ${lost}`,
      `acknowledgement p50 ${latencyText(p50Ms)}, p99 ${latencyText(p99Ms)}; ${heartbeats} heartbeats, ` +
        `${commands} commands, ${reconnects} reconnects${overflowed === 0 ? '' : `, ${overflowed} dropped by full nodes`}`,
    ].join('\n'),
    balances: open === 0 && refused === 0 && overflowed === 0,
  };
}

/** Lines typed while it runs; the end of the input is no reason to stop. */
function takeLines(call: Call, fleet: Fleet, quit: () => void): () => void {
  call.stderr.write(`${controlHelp}\n`);
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    const said = obeyLine(fleet, line);
    if (said === undefined) quit();
    else if (said !== '') call.stderr.write(`${said}\n`);
  });
  return () => lines.close();
}

export const simulateFleetCommand: Command = {
  name: 'simulate fleet',
  summary: 'Be a home, an office or a factory full of devices',
  options: {
    preset: {
      type: 'string',
      value: 'NAMES',
      help: 'home (9 devices), office (16), factory (30); several with commas; default home',
    },
    url: {
      type: 'string',
      value: 'URL',
      help: 'Broker, with --keys, --user or --anonymous; default: the gateway of --config on this machine',
    },
    keys: { type: 'string', value: 'FILE', help: 'JSON of device ids and their API keys: {"ID": "gw_…"}' },
    user: { type: 'string', value: 'NAME', help: 'One login for all, its password in $IOTFLOW_PASSWORD' },
    anonymous: { type: 'boolean', help: 'A broker that asks for no login' },
    interval: {
      type: 'string',
      value: 'MS',
      help: 'Milliseconds between readings of a device; default 5000',
    },
    duration: { type: 'string', value: 'SECONDS', help: 'How long; default until Ctrl-C' },
    loss: { type: 'string', value: 'SHARE', help: 'Readings lost on the air: 5%' },
    interactive: { type: 'boolean', help: 'Take commands while it runs: list, fail NAME, wet NAME …' },
    mqtt5: { type: 'boolean', help: 'Speak MQTT 5, which tells refused messages from taken ones' },
    root: { type: 'string', value: 'TOPIC', help: 'First topic level; default iotflow' },
    ca: { type: 'string', value: 'FILE', help: 'CA certificate to trust, for mqtts://' },
    seed: { type: 'string', value: 'NUMBER', help: 'The same seed makes the same readings' },
    config: configOption,
    json: jsonOption,
  },
  details: [
    'Without --url the devices register themselves with the gateway of --config on this machine, through its control',
    'socket, under ids that begin with sim-; a second run gives them new keys. Exit code 1 when a reading was refused',
    'or never acknowledged.',
  ].join('\n'),
  run: async (call) => {
    const devices = presetsOf(call).flatMap(fleetDevices);
    const durationS = number(call, 'duration', Number.POSITIVE_INFINITY, 0, 31_536_000);
    const access = statedAccess(call, devices) ?? (await localAccess(call, devices));
    const stop = stopRequested();
    const fleet = startFleet(call, devices, access);
    const release = call.flag('interactive') ? takeLines(call, fleet, () => stop.abort()) : undefined;

    const startMs = performance.now();
    const endMs = startMs + durationS * 1000;
    while (!stop.signal.aborted && performance.now() < endMs) {
      const leftMs = Math.min(progressMs, endMs - performance.now());
      await sleep(leftMs, undefined, { signal: stop.signal }).catch(() => undefined);
      if (!call.flag('json')) call.stderr.write(`${progressLine(fleet.figures())}\n`);
    }
    const ranS = (performance.now() - startMs) / 1000;
    release?.();
    await fleet.stop(drainMs);
    const { json, text, balances } = summary(fleet, fleet.figures(), ranS);
    answer(call, json, text);
    return balances ? 0 : 1;
  },
};
