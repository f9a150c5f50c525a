// `iotflow simulate fleet`: a home, an office or a factory of virtual devices over MQTT and HTTP, with their ledger
// at the end. Promises: whatever was sent is in the summary as acknowledged, refused or still open, and the exit code
// says whether it balances.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { GatewayError } from '../platform/errors.ts';
import { Fleet, type FleetFigures, type Member, type Transport, transports } from '../simulator/fleet.ts';
import { HttpLink } from '../simulator/http-link.ts';
import type { Link } from '../simulator/link.ts';
import { MqttLink } from '../simulator/mqtt-link.ts';
import { type NodeFigures, SimulatedNode, type SimulatedNodeOptions } from '../simulator/node.ts';
import { type FleetDevice, fleetDevices, numbered, type Preset, presets } from '../simulator/presets.ts';
import { seededRandom } from '../simulator/random.ts';
import { answer, type Call, type Command, configOption, jsonOption } from './command.ts';
import { type Access, enrolledAccess, localAccess, statedAccess } from './fleet-access.ts';
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

/** Every second one speaks HTTP in a mixed fleet. */
function transportsOf(call: Call): readonly Transport[] {
  const text = call.text('transport') ?? 'mqtt';
  if (text === 'mixed') return transports;
  const transport = transports.find((known) => known === text);
  if (transport !== undefined) return [transport];
  const expected = `${transports.join(', ')} or mixed`;
  throw new GatewayError('ARGUMENT_INVALID', `--transport: expected ${expected}, got "${text}"`);
}

type OpenLink = SimulatedNodeOptions['openLink'];

function caOf(call: Call): { readonly ca?: Buffer } {
  const file = call.text('ca');
  return file === undefined ? {} : { ca: readFileSync(file) };
}

function mqttLink(call: Call, access: Access, { deviceId }: FleetDevice): OpenLink {
  const options = {
    url: access.mqttUrl,
    topicRoot: call.text('root') ?? 'iotflow',
    deviceId,
    login: access.logins.get(deviceId),
    protocolVersion: call.flag('mqtt5') ? (5 as const) : (4 as const),
    reconnectWaitMs: reconnectWait(Math.random),
    ...caOf(call),
  };
  return (onCommand): Link => MqttLink.open({ ...options, onCommand });
}

function httpLink(call: Call, access: Access, { deviceId }: FleetDevice): OpenLink {
  const apiKey = access.logins.get(deviceId)?.password;
  const url = access.httpUrl;
  if (url === undefined || apiKey === undefined) {
    throw new GatewayError(
      'ARGUMENT_INVALID',
      '--transport: HTTP needs the gateway of this machine with http.enabled, or --http-url and --keys',
    );
  }
  const options = { url, deviceId, apiKey, reconnectWaitMs: reconnectWait(Math.random), ...caOf(call) };
  return (onCommand): Link => HttpLink.open({ ...options, onCommand });
}

function startFleet(
  call: Call,
  devices: readonly FleetDevice[],
  access: Access,
  used: readonly Transport[],
): Fleet {
  const intervalMs = number(call, 'interval', 5000, 1, 86_400_000);
  const seed = number(call, 'seed', Date.now() % 2 ** 32, 0, 2 ** 32);
  const lossShare = share(call, 'loss');
  const outageShare = share(call, 'outages');
  const links = devices.map((device, index) => {
    const transport = used[index % used.length] ?? 'mqtt';
    const openLink = (transport === 'http' ? httpLink : mqttLink)(call, access, device);
    return { device, transport, openLink };
  });
  const members = links.map(({ device, transport, openLink }, index): Member => {
    const random = seededRandom(seed + index);
    const node = SimulatedNode.start({
      kind: device.kind,
      intervalMs,
      lossShare,
      random,
      heartbeatIntervalMs,
      startDelayMs: 1 + random() * Math.min(intervalMs, startSpreadMsMax),
      openLink,
    });
    return { device, node, transport };
  });
  const fleet = new Fleet(members);
  if (outageShare > 0) fleet.cutOffByChance(outageShare, seededRandom(seed - 1));
  return fleet;
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

type Counts = Omit<NodeFigures, 'connected' | 'lastError'>;

/** What was sent and what became of it, in the words of the summary. */
function ledger({ sent, acknowledged, refused, lost, reconnects }: Counts) {
  return { sent, acknowledged, refused, unacknowledged: sent - acknowledged - refused, lost, reconnects };
}

function latency(samplesMs: readonly number[]) {
  const { p50Ms, p99Ms } = percentiles(samplesMs);
  return {
    json: { p50_ms: p50Ms, p99_ms: p99Ms },
    text: `acknowledgement p50 ${latencyText(p50Ms)}, p99 ${latencyText(p99Ms)}`,
  };
}

function summary(fleet: Fleet, figures: FleetFigures, ranS: number) {
  const all = latency(fleet.ackLatenciesMs());
  const { sent, acknowledged, refused, lost, overflowed, heartbeats, commands, reconnects } = figures;
  const open = sent - acknowledged - refused;
  const byTransport = transports.flatMap((transport) => {
    const members = fleet.members.filter((member) => member.transport === transport);
    if (members.length === 0) return [];
    return [{ transport, one: fleet.figures(members), times: latency(fleet.ackLatenciesMs(members)) }];
  });
  const lines = byTransport.map(
    ({ transport, one, times }) =>
      `  ${transport}: ${one.devices} devices, sent ${one.sent}, acknowledged ${one.acknowledged}, ${times.text}`,
  );
  return {
    json: {
      devices: figures.devices,
      duration_s: Math.round(ranS),
      ...ledger(figures),
      overflowed,
      heartbeats,
      commands,
      ...all.json,
      last_error: figures.lastError,
      by_transport: Object.fromEntries(
        byTransport.map(({ transport, one, times }) => [
          transport,
          { devices: one.devices, ...ledger(one), ...times.json },
        ]),
      ),
      by_device: fleet.members.map(({ device, node, transport }) => ({
        device_id: device.deviceId,
        transport,
        ...ledger(node.figures()),
      })),
    },
    text: [
      `${figures.devices} devices for ${Math.round(ranS)} s: sent ${sent}, acknowledged ${acknowledged}, refused ${refused}, ` +
        `unacknowledged ${open}, lost on purpose ${lost}`,
      `${all.text}; ${heartbeats} heartbeats, ` +
        `${commands} commands, ${reconnects} reconnects${overflowed === 0 ? '' : `, ${overflowed} dropped by full nodes`}`,
      ...(lines.length > 1 ? lines : []),
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

async function accessOf(call: Call, devices: readonly FleetDevice[]): Promise<Access> {
  if (call.flag('enrol')) return await enrolledAccess(call, devices);
  return statedAccess(call, devices) ?? (await localAccess(call, devices));
}

export const simulateFleetCommand: Command = {
  name: 'simulate fleet',
  summary: 'Be a home, an office or a factory full of devices, over MQTT and HTTP',
  options: {
    preset: {
      type: 'string',
      value: 'NAMES',
      help: 'home (9 devices), office (16), factory (30); several with commas; default home',
    },
    devices: { type: 'string', value: 'NUMBER', help: 'As many of these, numbered; default one of each' },
    transport: { type: 'string', value: 'NAME', help: 'mqtt, http, or mixed; default mqtt' },
    url: {
      type: 'string',
      value: 'URL',
      help: 'Broker, with --keys, --user or --anonymous; default: the gateway of --config on this machine',
    },
    'http-url': { type: 'string', value: 'URL', help: 'HTTP address of the same gateway, with --keys' },
    keys: { type: 'string', value: 'FILE', help: 'JSON of device ids and their API keys: {"ID": "gw_…"}' },
    enrol: {
      type: 'boolean',
      help: 'Register over HTTP as new devices do, and keep the keys in the file of --keys',
    },
    tokens: {
      type: 'string',
      value: 'FILE',
      help: 'Enrolment tokens for that, one a line; else a pairing window',
    },
    user: { type: 'string', value: 'NAME', help: 'One login for all, its password in $IOTFLOW_PASSWORD' },
    anonymous: { type: 'boolean', help: 'A broker that asks for no login' },
    interval: {
      type: 'string',
      value: 'MS',
      help: 'Milliseconds between readings of a device; default 5000',
    },
    duration: { type: 'string', value: 'SECONDS', help: 'How long; default until Ctrl-C' },
    loss: { type: 'string', value: 'SHARE', help: 'Readings lost on the air: 5%' },
    outages: { type: 'string', value: 'SHARE', help: 'Of the time that each device has no network: 5%' },
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
    'socket, under ids that begin with sim-; a second run gives them new keys. With --enrol they register over HTTP:',
    'open a window (iotflow devices pair), or make tokens, or approve them while the fleet waits; a second run finds',
    'their keys in the file. Exit code 1 when a reading was refused or never acknowledged.',
  ].join('\n'),
  run: async (call) => {
    const places = presetsOf(call).flatMap(fleetDevices);
    const devices = numbered(places, number(call, 'devices', places.length, 1, 10_000));
    const used = transportsOf(call);
    const durationS = number(call, 'duration', Number.POSITIVE_INFINITY, 0, 31_536_000);
    const access = await accessOf(call, devices);
    const stop = stopRequested();
    const fleet = startFleet(call, devices, access, used);
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
