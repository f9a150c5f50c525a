// What was answered with 202 is carried out, on the whole gateway: kill -9 at random moments while commands are given
// over HTTP and answered over MQTT, by a node that sleeps now and then and compares ids as docs/commands.md asks.
// IOTFLOW_KILL_ROUNDS=40 is the long form; its latest figures are in docs/reliability.md.

import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { addDevice, startGateway, writeConfig } from '../support/gateway-process.ts';
import { addUserToken } from '../support/people.ts';
import { tempFolder } from '../support/temp.ts';

const rounds = Number(process.env.IOTFLOW_KILL_ROUNDS ?? 3);

interface Shown {
  readonly command_id: string;
  readonly state: string;
  readonly payload: { readonly n: number };
}

test(`after ${rounds} kills every accepted command was carried out once, in order, and is shown as acknowledged`, {
  timeout: 120_000 + rounds * 6_000,
}, async () => {
  const [mqttPort, httpPort] = [await freePort(), await freePort()];
  const configFile = writeConfig(tempFolder(), {
    mqtt: { port: mqttPort },
    http: { port: httpPort },
    commands: { finished_per_device_max: 10_000, finished_max: 10_000, retry_ms: 1_000 },
    host_health: { enabled: false },
  });
  const apiKey = await addDevice(configFile, 'valve');
  const token = await addUserToken(configFile, 'anna', 'admin');
  const base = `http://127.0.0.1:${httpPort}/api/v1/devices/valve/commands`;
  const headers = { 'x-api-key': token, 'content-type': 'application/json' };

  // The node: what it has done it only says once more.
  const done = new Map<string, number>();
  let copies = 0;
  const node = connect(`mqtt://127.0.0.1:${mqttPort}`, {
    username: 'valve',
    password: apiKey,
    reconnectPeriod: 50,
    queueQoSZero: false,
  });
  onTestFinished(() => void node.end(true));
  node.on('error', () => undefined);
  node.on('connect', () => node.subscribe('iotflow/devices/valve/commands/+', { qos: 1 }));
  node.on('message', (topic, payload) => {
    const { id, n } = JSON.parse(payload.toString()) as { id: string; n: number };
    if (done.has(id)) copies += 1;
    else done.set(id, n);
    // Answers are lost now and then.
    const answer = () => node.publish(`${topic}/ack`, JSON.stringify({ id, status: 'ok' }), { qos: 0 });
    setTimeout(answer, Math.random() * 100);
  });

  // The sender asks until it is told that a command is kept, each time with the same key.
  const accepted: string[] = [];
  let isOver = false;
  const give = async (n: number): Promise<void> => {
    const body = JSON.stringify({ kind: 'set', payload: { n }, idempotency_key: `k${n}` });
    for (;;) {
      const reply = await fetch(base, { method: 'POST', headers, body }).catch(() => undefined);
      if (reply?.status === 202) {
        accepted.push(((await reply.json()) as Shown).command_id);
        return;
      }
      // No gateway, or as many wait as may (507), or too many asked at once (429).
      expect([undefined, 429, 503, 507]).toContain(reply?.status);
      await sleep(20);
    }
  };
  const sending = (async () => {
    for (let n = 0; !isOver; n += 1) {
      await give(n);
      await sleep(10);
    }
  })();

  let gateway = await startGateway(configFile);
  for (let round = 0; round < rounds; round += 1) {
    await sleep(200 + Math.random() * 600);
    // Asleep for a part of it.
    if (round % 3 === 2) node.stream.destroy();
    await gateway.kill();
    gateway = await startGateway(configFile);
  }
  isOver = true;
  await sending;

  const list = async () => {
    const reply = await fetch(base, { headers });
    return ((await reply.json()) as { readonly commands: readonly Shown[] }).commands;
  };
  // No more often than the API allows.
  while (!(await list()).every(({ state }) => state === 'acknowledged')) await sleep(200);
  const shown = await list();
  // Asked for again after a kill, a command may be one more than the sender was told of, never another.
  expect(shown.map(({ command_id }) => command_id)).toEqual(accepted);
  expect([...done.keys()]).toEqual(accepted);
  expect([...done.values()]).toEqual(accepted.map((_id, n) => n));
  expect(accepted.length).toBeGreaterThan(rounds);
  expect(await gateway.stop()).toBe(0);
  console.log(`${rounds} kills, ${accepted.length} commands accepted and carried out, ${copies} copies`);
});
