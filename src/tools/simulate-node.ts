// `iotflow simulate node`: one virtual node against any broker, with its ledger at the end.

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { GatewayError } from '../platform/errors.ts';
import { MqttLink } from '../simulator/mqtt-link.ts';
import { SimulatedNode } from '../simulator/node.ts';
import { seededRandom } from '../simulator/random.ts';
import { type NodeKind, nodeKinds } from '../simulator/readings.ts';
import { answer, type Call, type Command, jsonOption } from './command.ts';
import {
  latencyText,
  number,
  percentiles,
  reconnectWait,
  share,
  stopRequested,
  urlOf,
} from './simulation.ts';

const progressMs = 2000;
/** What is still unacknowledged when the node stops gets this long. */
const drainMs = 5000;

function required(call: Call, option: string): string {
  const value = call.text(option);
  if (value === undefined || value === '') {
    throw new GatewayError('ARGUMENT_INVALID', `--${option} is required; see iotflow simulate node --help`);
  }
  return value;
}

function kindOf(call: Call): NodeKind {
  const text = call.text('kind') ?? 'climate';
  const kind = nodeKinds.find((known) => known === text);
  if (kind === undefined) {
    throw new GatewayError('ARGUMENT_INVALID', `--kind: expected ${nodeKinds.join(', ')}, got "${text}"`);
  }
  return kind;
}

export const simulateNodeCommand: Command = {
  name: 'simulate node',
  summary: 'Be a sensor node, against any MQTT broker',
  options: {
    url: { type: 'string', value: 'URL', help: 'Broker; default mqtt://127.0.0.1:1883' },
    id: { type: 'string', value: 'ID', help: 'Device id, also the MQTT user name' },
    key: {
      type: 'string',
      value: 'KEY',
      help: 'API key; else $IOTFLOW_API_KEY, which no process list shows',
    },
    kind: { type: 'string', value: 'KIND', help: `${nodeKinds.join(', ')}; default climate` },
    interval: { type: 'string', value: 'MS', help: 'Milliseconds between readings; default 1000' },
    duration: { type: 'string', value: 'SECONDS', help: 'How long; default until Ctrl-C' },
    loss: { type: 'string', value: 'SHARE', help: 'Readings lost on the air: 5%' },
    wet: { type: 'boolean', help: 'The leak probe lies in water' },
    root: { type: 'string', value: 'TOPIC', help: 'First topic level; default iotflow' },
    ca: { type: 'string', value: 'FILE', help: 'CA certificate to trust, for mqtts://' },
    seed: { type: 'string', value: 'NUMBER', help: 'The same seed makes the same readings' },
    json: jsonOption,
  },
  details: 'Exit code 1 when a reading was never acknowledged.',
  run: async (call) => {
    const apiKey = call.text('key') ?? call.env.IOTFLOW_API_KEY;
    if (apiKey === undefined) {
      throw new GatewayError('ARGUMENT_INVALID', 'expected --key KEY or $IOTFLOW_API_KEY');
    }
    const caFile = call.text('ca');
    const intervalMs = number(call, 'interval', 1000, 1, 86_400_000);
    const durationS = number(call, 'duration', Number.POSITIVE_INFINITY, 0, 31_536_000);
    const url = urlOf(call, 'url') ?? 'mqtt://127.0.0.1:1883';
    const deviceId = required(call, 'id');
    const topicRoot = call.text('root') ?? 'iotflow';
    const ca = caFile === undefined ? {} : { ca: readFileSync(caFile) };
    const node = SimulatedNode.start({
      kind: kindOf(call),
      intervalMs,
      lossShare: share(call, 'loss'),
      random: seededRandom(number(call, 'seed', Date.now() % 2 ** 32, 0, 2 ** 32)),
      openLink: (onCommand) =>
        MqttLink.open({
          url,
          topicRoot,
          deviceId,
          login: { username: deviceId, password: apiKey },
          reconnectWaitMs: reconnectWait(Math.random),
          onCommand,
          ...ca,
        }),
    });
    node.setWet(call.flag('wet'));

    const { signal } = stopRequested();
    const endMs = performance.now() + durationS * 1000;
    while (!signal.aborted && performance.now() < endMs) {
      const leftMs = Math.min(progressMs, endMs - performance.now());
      await sleep(leftMs, undefined, { signal }).catch(() => undefined);
      const { sent, acknowledged, connected, lastError } = node.figures();
      const trouble = connected ? '' : `  not connected${lastError === undefined ? '' : `: ${lastError}`}`;
      if (!call.flag('json')) call.stderr.write(`sent ${sent}  acknowledged ${acknowledged}${trouble}\n`);
    }
    await node.stop(drainMs);

    const { sent, acknowledged, lost, overflowed, lastError } = node.figures();
    const { p50Ms, p99Ms } = percentiles(node.ackLatenciesMs());
    answer(
      call,
      { sent, acknowledged, lost, overflowed, p50_ms: p50Ms, p99_ms: p99Ms, last_error: lastError },
      `sent ${sent}, acknowledged ${acknowledged}, lost on the air ${lost}, acknowledgement p50 ${latencyText(p50Ms)}, p99 ${latencyText(p99Ms)}`,
    );
    return sent === acknowledged && overflowed === 0 ? 0 : 1;
  },
};
