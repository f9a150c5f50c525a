// The conversations of the conformance list: what takes more than one packet to be seen.

import assert from 'node:assert/strict';
import type { IConnectPacket } from 'mqtt-packet';
import { createWebSocketStream, WebSocket } from 'ws';
import { Wire, type WirePacket } from '../support/mqtt-wire.ts';
import { arrived, type Bench, endOf } from './broker.ts';
import type { Case } from './cases.ts';

export const scenarios: Case[] = [];

function scenario(
  name: string,
  of4: readonly string[],
  of5: readonly string[],
  run: (bench: Bench) => Promise<void>,
): void {
  if (of4.length > 0) scenarios.push({ name, level: 4, clauses: of4, run });
  if (of5.length > 0) scenarios.push({ name, level: 5, clauses: of5, run });
}

async function publish(wire: Wire, topic: string, payload: string, more: object = {}): Promise<void> {
  wire.publish(topic, payload, { ...more });
  await wire.ping();
}

async function publish1(wire: Wire, topic: string, payload: string, more: object = {}): Promise<void> {
  wire.publish(topic, payload, { qos: 1, messageId: 11, ...more });
  await wire.next('puback');
}

function text(packet: WirePacket | undefined): string {
  return packet?.payload?.toString() ?? '';
}

function texts(packets: readonly WirePacket[]): string[] {
  return packets.map(text);
}

async function subscribe(wire: Wire, topic: string, qos = 0, more: object = {}): Promise<WirePacket> {
  const { properties, ...options } = more as { properties?: object };
  wire.send({
    cmd: 'subscribe',
    messageId: 7,
    subscriptions: [{ topic, qos, nl: false, rap: false, rh: 0, ...options }],
    ...(properties === undefined ? {} : { properties }),
  });
  return await wire.next('suback');
}

function will(topic: string, more: object = {}): NonNullable<IConnectPacket['will']> {
  return { topic, payload: Buffer.from('gone'), qos: 0, retain: false, ...more };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

scenario(
  'a good CONNECT is answered with CONNACK 0, first and alone',
  ['3.1.4-4', '3.2.0-1', '3.2.2-3', '7.0.0-2', '7.1.1-1'],
  ['3.1.4-5', '3.2.0-1', '3.2.0-2', '3.2.2-1', '3.2.2-8', '4.2-1', '3.1.2-6', '4.12.0-6', '3.1.2-28'],
  async (bench) => {
    const wire = await bench.open();
    const connack = await wire.login(bench.account);
    assert.equal(connack.reasonCode ?? connack.returnCode, 0);
    assert.equal(connack.sessionPresent, false);
    assert.equal(connack.properties?.authenticationMethod, undefined);
    assert.equal(connack.properties?.responseInformation, undefined);
    await wire.ping();
    assert.deepEqual(wire.packets, []);
  },
);

scenario('PINGREQ is answered with PINGRESP', ['3.12.4-1'], ['3.12.4-1'], async (bench) => {
  await (await bench.client('a')).ping();
});

for (const version of [0, 6, 127]) {
  scenario(`protocol level ${version} is refused`, ['3.1.2-2'], ['3.1.2-2', '3.2.2-7'], async (bench) => {
    // A level nobody knows is answered in the form of either version.
    const wire = await bench.open(4);
    const chunks: Buffer[] = [];
    wire.stream.on('data', (bytes: Buffer) => chunks.push(bytes));
    const own = bench.level === 5 ? [0] : [];
    wire.raw([0x10, 13 + own.length, 0, 4, ...Buffer.from('MQTT'), version, 2, 0, 60, ...own, 0, 1, 0x78]);
    await wire.ended();
    const answer = Buffer.concat(chunks);
    if (bench.level === 4) assert.deepEqual([...answer], [0x20, 2, 0, 1]);
    else if (answer.length > 0) assert.ok([1, 0x84].includes(answer[3] ?? 0), answer.toString('hex'));
  });
}

scenario(
  'an empty client id without clean session is rejected with 0x02',
  ['3.1.3-8', '3.2.2-5', '3.2.2-4', '3.1.3-9'],
  [],
  async (bench) => {
    const wire = await bench.open();
    const user = [0, bench.account.length, ...Buffer.from(bench.account)];
    const password = Buffer.from(`key-${bench.account}`);
    const body = [
      0,
      4,
      ...Buffer.from('MQTT'),
      4,
      0xc0,
      0,
      60,
      0,
      0,
      ...user,
      0,
      password.length,
      ...password,
    ];
    wire.raw([0x10, body.length, ...body]);
    assert.equal(await endOf(wire), 2);
  },
);

scenario(
  'empty client ids get one each, and version 5 is told',
  ['3.1.3-6', '3.2.2-1'],
  ['3.1.3-6', '3.1.3-7', '3.2.2-16'],
  async (bench) => {
    const ids = [];
    for (let index = 0; index < 2; index += 1) {
      const wire = await bench.open();
      const connack = await wire.login(bench.account, { clientId: '' });
      assert.equal(connack.reasonCode ?? connack.returnCode, 0);
      ids.push(connack.properties?.assignedClientIdentifier);
      await wire.ping();
    }
    if (bench.level === 4) return;
    assert.equal(typeof ids[0], 'string');
    assert.notEqual(ids[0], ids[1]);
  },
);

scenario('client ids of 23 letters and digits are taken', ['3.1.3-5'], ['3.1.3-5'], async (bench) => {
  for (const alphabet of ['abcdefghijklmnopqrstuvw', 'xyzABCDEFGHIJKLMNOPQRST', 'UVWXYZ0123456789', 'a']) {
    const clientId = `${bench.account}${alphabet}`.slice(0, 23);
    await bench.client('a', { clientId });
  }
});

scenario(
  'a wrong password is refused and what follows it is not processed',
  ['3.1.4-5', '3.2.2-4', '3.2.2-5'],
  ['3.1.4-2', '3.1.4-6', '3.2.2-6', '3.2.2-7', '3.2.2-8'],
  async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter);
    const wire = await bench.open();
    const answer = wire.login(bench.account, { clientId: 'other', password: Buffer.from('guess') });
    wire.publish(bench.topic('x'), 'smuggled');
    const connack = await answer;
    assert.equal(connack.sessionPresent, false);
    const code = connack.reasonCode ?? connack.returnCode ?? 0;
    assert.ok(bench.level === 5 ? [0x86, 0x87].includes(code) : [4, 5].includes(code), `code ${code}`);
    await wire.ended();
    assert.deepEqual(await arrived(reader), []);
  },
);

scenario(
  'the same client id again ends the older connection',
  ['3.1.4-2'],
  ['3.1.4-3', '3.14.2-1', '3.14.4-1', '3.14.4-2', '3.14.2-2', '4.13.2-1'],
  async (bench) => {
    const first = await bench.client('a');
    const second = await bench.client('a');
    await first.ended();
    await second.ping();
    if (bench.level === 5) {
      const said = first.packets.at(-1);
      assert.equal(said?.cmd, 'disconnect');
      assert.equal(said?.reasonCode, 0x8e);
      assert.equal(said?.properties?.sessionExpiryInterval, undefined);
    }
  },
);

scenario(
  'a session is resumed with its subscriptions and what came meanwhile',
  ['3.1.2-4', '3.1.2-5', '3.2.2-2', '3.2.2-3', '3.1.3-2', '4.1.0-1', '4.5.0-1', '4.1.0-2'],
  ['3.1.2-5', '3.1.2-6', '3.2.2-3', '3.1.2-23', '3.1.3-2', '4.1.0-1', '4.5.0-1'],
  async (bench) => {
    const first = await bench.session('a');
    await subscribe(first, bench.filter, 2);
    await bench.leave(first);
    const sender = await bench.client('b');
    await publish1(sender, bench.topic('x'), 'one');
    await publish1(sender, bench.topic('x'), 'two');
    const again = await bench.open();
    const lasting = bench.level === 5 ? { properties: { sessionExpiryInterval: 60 } } : {};
    const connack = await again.login(bench.account, {
      clientId: `${bench.account}-a`,
      clean: false,
      ...lasting,
    });
    assert.equal(connack.sessionPresent, true);
    assert.deepEqual([text(await again.next('publish')), text(await again.next('publish'))], ['one', 'two']);
    const other = await bench.open();
    const strange = await other.login(bench.account, { clientId: `${bench.account}-c`, clean: false });
    assert.equal(strange.sessionPresent, false);
  },
);

scenario('a session without subscriptions is present as well', ['3.2.2-2'], ['3.2.2-3'], async (bench) => {
  await bench.leave(await bench.session('a'));
  const again = await bench.open();
  const connack = await again.login(bench.account, { clientId: `${bench.account}-a`, clean: false });
  assert.equal(connack.sessionPresent, true);
});

scenario(
  'a clean start discards the session; retained messages stay',
  ['3.1.2-6', '3.1.2-7', '3.2.2-1', '3.1.4-3'],
  ['3.1.2-4', '3.2.2-2', '3.1.4-4'],
  async (bench) => {
    const first = await bench.session('a');
    await subscribe(first, bench.filter, 1);
    await publish1(first, bench.topic('kept'), 'kept', { retain: true });
    await bench.leave(first);
    const fresh = await bench.open();
    const connack = await fresh.login(bench.account, { clientId: `${bench.account}-a`, clean: true });
    assert.equal(connack.sessionPresent, false);
    const sender = await bench.client('b');
    await publish1(sender, bench.topic('x'), 'one');
    assert.deepEqual(await arrived(fresh), []);
    await bench.leave(fresh);
    const third = await bench.open();
    const last = await third.login(bench.account, { clientId: `${bench.account}-a`, clean: false });
    assert.equal(last.sessionPresent, false);
    await subscribe(third, bench.topic('kept'));
    assert.equal(text(await third.next('publish')), 'kept');
  },
);

scenario('a session ends when its expiry has passed', [], ['4.1.0-2'], async (bench) => {
  const first = await bench.session('a', { properties: { sessionExpiryInterval: 1 } });
  await subscribe(first, bench.filter, 1);
  await bench.leave(first);
  await pause(3200);
  const again = await bench.open();
  const connack = await again.login(bench.account, { clientId: `${bench.account}-a`, clean: false });
  assert.equal(connack.sessionPresent, false);
});

scenario(
  'a silent client is cut off after one and a half keep-alive times, and its will is sent',
  ['3.1.2-24', '3.1.2-8', '4.8.0-1'],
  ['3.1.2-22', '3.2.2-22', '3.1.2-8'],
  async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter);
    const silent = await bench.client('a', { keepalive: 1, will: will(bench.topic('w')) });
    const since = performance.now();
    await silent.ended();
    const after = performance.now() - since;
    assert.ok(after >= 1000 && after < 7500, `after ${after} ms`);
    assert.equal(text(await reader.next('publish')), 'gone');
  },
);

for (const retain of [false, true]) {
  for (const qos of [0, 1, 2] as const) {
    const clause4 = retain ? '3.1.2-17' : '3.1.2-16';
    const clause5 = retain ? '3.1.2-15' : '3.1.2-14';
    scenario(
      `a will with QoS ${qos} is published${retain ? ' and retained' : ', not retained'}`,
      ['3.1.2-8', '3.1.2-9', '3.1.2-10', clause4],
      ['3.1.2-7', '3.1.2-8', '3.1.2-9', '3.1.2-10', clause5],
      async (bench) => {
        const reader = await bench.client('reader');
        await subscribe(reader, bench.filter, qos);
        const dying = await bench.client('a', { will: will(bench.topic('w'), { qos, retain }) });
        dying.destroy();
        const got = await reader.next('publish');
        assert.deepEqual([text(got), got.qos, got.retain], ['gone', qos, false]);
        const late = await bench.client('late');
        await subscribe(late, bench.topic('w'));
        assert.deepEqual(texts(await arrived(late)), retain ? ['gone'] : []);
        // Published once.
        const again = await bench.client('a');
        again.destroy();
        assert.deepEqual(texts(await arrived(reader)), []);
      },
    );
  }
}

scenario(
  'DISCONNECT discards the will; without one nothing is said',
  ['3.14.4-3', '3.1.2-10', '3.1.2-12'],
  ['3.14.4-3', '3.1.2-10'],
  async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter);
    await bench.leave(await bench.client('a', { will: will(bench.topic('w')) }));
    (await bench.client('b')).destroy();
    await pause(100);
    assert.deepEqual(await arrived(reader), []);
  },
);

scenario('DISCONNECT 0x04 asks for the will', [], ['3.1.2-8'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const leaving = await bench.client('a', { will: will(bench.topic('w')) });
  leaving.raw([0xe0, 1, 4]);
  assert.equal(text(await reader.next('publish')), 'gone');
});

scenario('a will waits for its delay', [], ['3.1.2-8'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const properties = { willDelayInterval: 1 };
  const dying = await bench.session('a', { will: will(bench.topic('w'), { properties }) });
  dying.destroy();
  await pause(400);
  assert.deepEqual(await arrived(reader), []);
  assert.equal(text(await reader.next('publish', 6000)), 'gone');
});

scenario('a will does not wait beyond the end of its session', [], ['3.1.2-8'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const properties = { willDelayInterval: 60 };
  const dying = await bench.client('a', { will: will(bench.topic('w'), { properties }) });
  dying.destroy();
  assert.equal(text(await reader.next('publish', 6000)), 'gone');
});

scenario('who is back within the will delay has no will sent', [], ['3.1.3-9', '3.1.2-8'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const properties = { willDelayInterval: 1 };
  const dying = await bench.session('a', { will: will(bench.topic('w'), { properties }) });
  dying.destroy();
  await pause(200);
  await bench.session('a');
  await pause(2200);
  assert.deepEqual(await arrived(reader), []);
});

scenario('the user properties of a will keep their order', [], ['3.1.3-10'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const userProperties = { b: '1', a: ['2', '3'] };
  const dying = await bench.client('a', { will: will(bench.topic('w'), { properties: { userProperties } }) });
  dying.destroy();
  const got = await reader.next('publish');
  assert.equal(JSON.stringify(got.properties?.userProperties), JSON.stringify(userProperties));
});

scenario(
  'QoS 0, 1 and 2 are answered as they ask, with their packet ids',
  ['3.3.4-1', '2.3.1-6', '4.3.2-2', '4.3.3-2', '2.3.1-5'],
  ['3.3.4-1', '2.2.1-5', '2.2.1-2', '4.3.2-4', '4.3.3-8', '4.3.3-11', '3.4.2-1', '3.5.2-1', '3.7.2-1'],
  async (bench) => {
    const wire = await bench.client('a');
    await publish(wire, bench.topic('x'), '0');
    assert.deepEqual(wire.packets, []);
    wire.publish(bench.topic('x'), '1', { qos: 1, messageId: 513 });
    const puback = await wire.next('puback');
    assert.equal(puback.messageId, 513);
    wire.publish(bench.topic('x'), '2', { qos: 2, messageId: 770 });
    const pubrec = await wire.next('pubrec');
    assert.equal(pubrec.messageId, 770);
    wire.send({ cmd: 'pubrel', messageId: 770 });
    const pubcomp = await wire.next('pubcomp');
    assert.equal(pubcomp.messageId, 770);
    for (const { reasonCode } of [puback, pubrec, pubcomp]) {
      assert.ok([undefined, 0, 0x10].includes(reasonCode));
    }
  },
);

scenario(
  'QoS 2 sent twice is delivered once; after PUBCOMP the packet id is new',
  ['4.3.3-2'],
  ['4.3.3-10', '4.3.3-12'],
  async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter);
    const wire = await bench.client('a');
    for (const dup of [false, true]) {
      wire.publish(bench.topic('x'), 'once', { qos: 2, messageId: 5, dup });
      await wire.next('pubrec');
    }
    wire.send({ cmd: 'pubrel', messageId: 5 });
    await wire.next('pubcomp');
    wire.publish(bench.topic('x'), 'new', { qos: 2, messageId: 5 });
    await wire.next('pubrec');
    wire.send({ cmd: 'pubrel', messageId: 5 });
    await wire.next('pubcomp');
    assert.deepEqual(texts(await arrived(reader)), ['once', 'new']);
  },
);

scenario('QoS 2 is not delivered twice after a reconnect', ['4.3.3-2'], ['4.3.3-10'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const wire = await bench.session('a');
  wire.publish(bench.topic('x'), 'once', { qos: 2, messageId: 5 });
  await wire.next('pubrec');
  wire.destroy();
  const again = await bench.session('a');
  again.publish(bench.topic('x'), 'once', { qos: 2, messageId: 5, dup: true });
  await again.next('pubrec');
  again.send({ cmd: 'pubrel', messageId: 5 });
  await again.next('pubcomp');
  assert.deepEqual(texts(await arrived(reader)), ['once']);
});

scenario(
  'PUBREL for an unknown packet id is answered',
  ['4.3.3-2'],
  ['4.3.3-11', '3.7.2-1'],
  async (bench) => {
    const wire = await bench.client('a');
    wire.send({ cmd: 'pubrel', messageId: 99 });
    const pubcomp = await wire.next('pubcomp');
    assert.equal(pubcomp.messageId, 99);
    assert.ok([undefined, 0, 0x92].includes(pubcomp.reasonCode));
  },
);

scenario('a packet id is new after its PUBACK', ['4.3.2-2'], ['4.3.2-5'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const wire = await bench.client('a');
  for (const payload of ['one', 'two']) await publish1(wire, bench.topic('x'), payload, { messageId: 3 });
  assert.deepEqual(texts(await arrived(reader)), ['one', 'two']);
});

scenario('a PUBACK is followed by a new message even with DUP', ['4.3.2-2'], ['4.3.2-5'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const wire = await bench.client('a');
  await publish1(wire, bench.topic('x'), 'one', { messageId: 3 });
  await publish1(wire, bench.topic('x'), 'two', { messageId: 3, dup: true });
  assert.deepEqual(texts(await arrived(reader)), ['one', 'two']);
});

for (const qos of [1, 2] as const) {
  scenario(
    `QoS ${qos} unacknowledged is sent again after a reconnect, with DUP and its packet id, and not before`,
    ['4.4.0-1', '3.3.1-1', '2.3.1-3', '2.3.1-4', qos === 1 ? '4.3.2-1' : '4.3.3-1'],
    [
      '4.4.0-1',
      '3.3.1-1',
      '2.2.1-4',
      ...(qos === 1 ? ['4.3.2-1', '4.3.2-2', '4.3.2-3'] : ['4.3.3-1', '4.3.3-2', '4.3.3-3']),
    ],
    async (bench) => {
      const reader = await bench.session('a');
      await subscribe(reader, bench.filter, qos);
      const sender = await bench.client('b');
      sender.publish(bench.topic('x'), 'held', { qos, messageId: 1 });
      await sender.next(qos === 1 ? 'puback' : 'pubrec');
      if (qos === 2) {
        sender.send({ cmd: 'pubrel', messageId: 1 });
        await sender.next('pubcomp');
      }
      const first = await reader.next('publish');
      assert.equal(first.dup, false);
      assert.equal(first.qos, qos);
      assert.ok((first.messageId ?? 0) > 0);
      assert.deepEqual(await arrived(reader), []);
      reader.destroy();
      const again = await bench.session('a');
      const second = await again.next('publish');
      assert.deepEqual([text(second), second.dup, second.messageId], ['held', true, first.messageId]);
    },
  );
}

scenario(
  'the server’s QoS 2: PUBREL after PUBREC, again after a reconnect, and never PUBLISH again',
  ['4.3.3-1', '4.4.0-1', '2.3.1-6'],
  ['4.3.3-4', '4.3.3-5', '4.3.3-6', '4.4.0-1', '3.6.2-1', '2.2.1-5'],
  async (bench) => {
    const reader = await bench.session('a');
    await subscribe(reader, bench.filter, 2);
    const sender = await bench.client('b');
    sender.publish(bench.topic('x'), 'held', { qos: 2, messageId: 1 });
    await sender.next('pubrec');
    sender.send({ cmd: 'pubrel', messageId: 1 });
    const { messageId } = await reader.next('publish');
    reader.send({ cmd: 'pubrec', messageId });
    const pubrel = await reader.next('pubrel');
    assert.equal(pubrel.messageId, messageId);
    assert.ok([undefined, 0].includes(pubrel.reasonCode));
    reader.destroy();
    const again = await bench.session('a');
    assert.equal((await again.next('pubrel')).messageId, messageId);
    again.send({ cmd: 'pubcomp', messageId });
    assert.deepEqual(await arrived(again), []);
    again.destroy();
    const third = await bench.session('a');
    assert.deepEqual([...(await arrived(third)), ...(await arrived(third, 'pubrel'))], []);
  },
);

for (const [cmd, reasonCode] of [
  ['puback', 0x80],
  ['pubrec', 0x97],
] as const) {
  scenario(
    `a message refused with ${cmd} 0x${reasonCode.toString(16)} is not sent again`,
    [],
    ['4.4.0-2'],
    async (bench) => {
      const reader = await bench.session('a');
      await subscribe(reader, bench.filter, cmd === 'puback' ? 1 : 2);
      const sender = await bench.client('b');
      sender.publish(bench.topic('x'), 'held', { qos: 2, messageId: 1 });
      await sender.next('pubrec');
      sender.send({ cmd: 'pubrel', messageId: 1 });
      const { messageId } = await reader.next('publish');
      reader.send({ cmd, messageId, reasonCode });
      assert.deepEqual(await arrived(reader, 'pubrel'), []);
      reader.destroy();
      const again = await bench.session('a');
      assert.deepEqual([...(await arrived(again)), ...(await arrived(again, 'pubrel'))], []);
    },
  );
}

scenario('DUP of the publisher is not passed on', ['3.3.1-3'], ['3.3.1-3'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter, 1);
  await publish1(await bench.client('a'), bench.topic('x'), 'x', { dup: true });
  assert.equal((await reader.next('publish')).dup, false);
});

scenario(
  'retained messages: kept with their QoS, replaced, marked for new subscriptions alone',
  ['3.3.1-5', '3.3.1-6', '3.3.1-7', '3.3.1-8', '3.3.1-9', '3.3.1-12'],
  ['3.3.1-5', '3.3.1-8', '3.3.1-9', '3.3.1-12'],
  async (bench) => {
    const watcher = await bench.client('watcher');
    await subscribe(watcher, bench.filter, 1);
    const sender = await bench.client('a');
    const topic = bench.topic('x');
    await publish1(sender, topic, 'one', { retain: true });
    assert.equal((await watcher.next('publish')).retain, false);
    await publish1(sender, topic, 'passing');
    const late = await bench.client('late');
    await subscribe(late, bench.filter, 2);
    const got = await late.next('publish');
    assert.deepEqual([text(got), got.qos, got.retain], ['one', 1, true]);
    await publish(sender, topic, 'zero', { retain: true });
    const later = await bench.client('later');
    await subscribe(later, topic, 2);
    const second = await later.next('publish');
    assert.deepEqual([text(second), second.qos, second.retain], ['zero', 0, true]);
  },
);

scenario(
  'an empty retained message removes the retained one and is delivered',
  ['3.3.1-10', '3.3.1-11'],
  ['3.3.1-6', '3.3.1-7'],
  async (bench) => {
    const sender = await bench.client('a');
    await publish1(sender, bench.topic('x'), 'one', { retain: true });
    const watcher = await bench.client('watcher');
    await subscribe(watcher, bench.filter);
    await watcher.next('publish');
    await publish1(sender, bench.topic('x'), '', { retain: true });
    assert.equal(text(await watcher.next('publish')), '');
    const late = await bench.client('late');
    await subscribe(late, bench.filter);
    assert.deepEqual(await arrived(late), []);
  },
);

for (const [rh, clause, expected] of [
  [0, '3.3.1-9', [1, 1]],
  [1, '3.3.1-10', [1, 0]],
  [2, '3.3.1-11', [0, 0]],
] as const) {
  scenario(`retain handling ${rh}`, [], [clause, '3.8.4-4'], async (bench) => {
    const wire = await bench.client('a');
    await publish1(wire, bench.topic('x'), 'one', { retain: true });
    for (const count of expected) {
      await subscribe(wire, bench.filter, 1, { rh });
      const got = await arrived(wire);
      assert.equal(got.length, count);
      for (const { messageId } of got) if (messageId) wire.send({ cmd: 'puback', messageId });
      wire.packets.length = 0;
    }
  });
}

for (const rap of [false, true]) {
  scenario(`retain as published: ${rap}`, [], [rap ? '3.3.1-13' : '3.3.1-12'], async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter, 1, { rap });
    const sender = await bench.client('a');
    for (const retain of [true, false]) {
      await publish1(sender, bench.topic('x'), 'x', { retain });
      assert.equal((await reader.next('publish')).retain, rap && retain);
    }
  });
}

scenario('no local keeps a message from its publisher', [], ['3.8.3-3'], async (bench) => {
  const wire = await bench.client('a');
  const other = await bench.client('b');
  for (const each of [wire, other]) await subscribe(each, bench.filter, 1, { nl: true });
  await publish1(wire, bench.topic('x'), 'mine');
  assert.equal(text(await other.next('publish')), 'mine');
  assert.deepEqual(await arrived(wire), []);
});

scenario(
  'the lower QoS of publisher and subscription is delivered',
  ['3.8.4-6', '4.3.1-1', '3.3.2-3', '3.3.1-2'],
  ['3.8.4-8', '4.3.1-1', '3.3.2-3', '3.3.1-2'],
  async (bench) => {
    for (const granted of [0, 1, 2] as const) {
      const reader = await bench.client(`reader${granted}`);
      await subscribe(reader, bench.filter, granted);
      const sender = await bench.client('a');
      await publish(sender, bench.topic('x'), '0');
      await publish1(sender, bench.topic('x'), '1');
      sender.publish(bench.topic('x'), '2', { qos: 2, messageId: 9 });
      await sender.next('pubrec');
      sender.send({ cmd: 'pubrel', messageId: 9 });
      await sender.next('pubcomp');
      for (const sent of [0, 1, 2]) {
        const got = await reader.next('publish');
        assert.deepEqual([text(got), got.qos, got.dup], [`${sent}`, Math.min(sent, granted), false]);
        assert.equal(got.topic, bench.topic('x'));
      }
      reader.destroy();
    }
  },
);

scenario('overlapping filters: the highest QoS is delivered', ['3.3.5-1'], ['3.3.4-2'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter, 0);
  await subscribe(reader, bench.topic('+'), 2);
  await subscribe(reader, bench.topic('x'), 1);
  const sender = await bench.client('a');
  sender.publish(bench.topic('x'), '2', { qos: 2, messageId: 9 });
  await sender.next('pubrec');
  sender.send({ cmd: 'pubrel', messageId: 9 });
  await sender.next('pubcomp');
  const got = await arrived(reader);
  assert.equal(Math.max(...got.map(({ qos }) => qos ?? 0)), 2);
});

scenario(
  'a topic nobody may publish to is not delivered, and said to be so or acknowledged',
  ['3.3.5-2'],
  ['3.4.2-1', '3.5.2-1', '4.3.3-9'],
  async (bench) => {
    const wire = await bench.client('a');
    const topic = 'iotflow/devices/someone-else/telemetry/x';
    if (bench.level === 4) {
      wire.publish(topic, 'x', { qos: 1, messageId: 4 });
      await Promise.race([wire.next('puback').catch(() => {}), wire.ended()]);
      return;
    }
    wire.publish(topic, 'x', { qos: 1, messageId: 4 });
    assert.ok([0, 0x10, 0x87].includes((await wire.next('puback')).reasonCode ?? 0));
    for (let index = 0; index < 2; index += 1) {
      wire.publish(topic, 'x', { qos: 2, messageId: 5 });
      const { reasonCode = 0 } = await wire.next('pubrec');
      assert.ok([0, 0x10, 0x87].includes(reasonCode));
    }
  },
);

scenario(
  'SUBACK: packet id, one code for each filter, in their order',
  ['3.8.4-1', '3.8.4-2', '3.8.4-4', '3.8.4-5', '3.9.3-1', '3.9.3-2', '2.3.1-7'],
  ['3.8.4-1', '3.8.4-2', '3.8.4-5', '3.8.4-6', '3.8.4-7', '3.9.3-1', '3.9.3-2', '2.2.1-6'],
  async (bench) => {
    const wire = await bench.client('a');
    const subscriptions = [1, 0, 2].map((qos) => ({
      topic: bench.topic(`q${qos}`),
      qos,
      nl: false,
      rap: false,
      rh: 0,
    }));
    wire.send({ cmd: 'subscribe', messageId: 4660, subscriptions });
    const suback = await wire.next('suback');
    assert.equal(suback.messageId, 4660);
    assert.deepEqual(suback.granted, [1, 0, 2]);
    for (const qos of [0, 1, 2]) await publish1(wire, bench.topic(`q${qos}`), `${qos}`);
    assert.deepEqual(texts(await arrived(wire)), ['0', '1', '2']);
  },
);

scenario(
  'one filter twice in a SUBSCRIBE gets two codes',
  ['3.8.4-5', '3.8.4-4'],
  ['3.8.4-6', '3.8.4-5'],
  async (bench) => {
    const wire = await bench.client('a');
    const subscriptions = [0, 1].map((qos) => ({ topic: bench.filter, qos, nl: false, rap: false, rh: 0 }));
    wire.send({ cmd: 'subscribe', messageId: 5, subscriptions });
    assert.deepEqual((await wire.next('suback')).granted, [0, 1]);
  },
);

scenario(
  'the same filter again replaces the subscription and brings the retained messages',
  ['3.8.4-3'],
  ['3.8.4-3', '3.8.4-4'],
  async (bench) => {
    const wire = await bench.client('a');
    await publish1(wire, bench.topic('x'), 'kept', { retain: true });
    await subscribe(wire, bench.filter, 0);
    assert.equal((await wire.next('publish')).qos, 0);
    await subscribe(wire, bench.filter, 1);
    assert.equal((await wire.next('publish')).qos, 1);
    await publish1(wire, bench.topic('y'), 'once');
    const got = await arrived(wire);
    assert.deepEqual(
      got.map((each) => [text(each), each.qos]),
      [['once', 1]],
    );
  },
);

scenario(
  'UNSUBSCRIBE: answered with its packet id, byte by byte, nothing new after it',
  ['3.10.4-1', '3.10.4-2', '3.10.4-4', '3.10.4-5', '3.10.4-6', '2.3.1-7'],
  ['3.10.4-1', '3.10.4-2', '3.10.4-4', '3.10.4-5', '3.10.4-6', '2.2.1-6', '3.11.3-1', '3.11.3-2'],
  async (bench) => {
    const wire = await bench.client('a');
    await subscribe(wire, bench.topic('x'), 1);
    await subscribe(wire, bench.topic('y'), 1);
    // Matches the topic but is not the filter.
    wire.send({ cmd: 'unsubscribe', messageId: 8, unsubscriptions: [bench.topic('+'), bench.topic('X')] });
    assert.equal((await wire.next('unsuback')).messageId, 8);
    await publish1(wire, bench.topic('x'), 'still');
    assert.deepEqual(texts(await arrived(wire)), ['still']);
    wire.packets.length = 0;
    wire.send({
      cmd: 'unsubscribe',
      messageId: 9,
      unsubscriptions: [bench.topic('nothing'), bench.topic('x')],
    });
    const unsuback = await wire.next('unsuback');
    assert.equal(unsuback.messageId, 9);
    if (bench.level === 5) assert.deepEqual(unsuback.granted, [0x11, 0]);
    await publish1(wire, bench.topic('x'), 'gone');
    await publish1(wire, bench.topic('y'), 'there');
    assert.deepEqual(texts(await arrived(wire)), ['there']);
    assert.equal(wire.count('unsuback'), 0);
  },
);

scenario('a delivery begun before UNSUBSCRIBE is completed', ['3.10.4-3'], ['3.10.4-3'], async (bench) => {
  const reader = await bench.session('a');
  await subscribe(reader, bench.filter, 2);
  const sender = await bench.client('b');
  sender.publish(bench.topic('x'), 'held', { qos: 2, messageId: 1 });
  await sender.next('pubrec');
  sender.send({ cmd: 'pubrel', messageId: 1 });
  const { messageId } = await reader.next('publish');
  reader.send({ cmd: 'unsubscribe', messageId: 6, unsubscriptions: [bench.filter] });
  await reader.next('unsuback');
  reader.send({ cmd: 'pubrec', messageId });
  assert.equal((await reader.next('pubrel')).messageId, messageId);
});

scenario(
  'a subscriber gets the messages of a client in their order',
  ['4.6.0-5', '4.6.0-6'],
  ['4.6.0-5', '4.6.0-6'],
  async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter, 1);
    const sender = await bench.client('a');
    for (let index = 1; index <= 50; index += 1) {
      sender.publish(bench.topic('x'), `${index}`, { qos: 1, messageId: index });
    }
    const ids = new Set<number>();
    for (let index = 1; index <= 50; index += 1) {
      const got = await reader.next('publish');
      assert.equal(text(got), `${index}`);
      ids.add(got.messageId ?? 0);
      if (index === 20) for (const messageId of ids) reader.send({ cmd: 'puback', messageId });
      if (index > 20) reader.send({ cmd: 'puback', messageId: got.messageId });
    }
  },
);

scenario(
  'topics are compared as they are: case, spaces, U+FEFF, empty levels, composed characters',
  ['4.7.3-4', '1.5.3-3', '3.3.2-3'],
  ['4.7.3-4', '1.5.4-3', '3.3.2-3'],
  async (bench) => {
    const wire = await bench.client('a');
    const names = ['x', 'X', 'x ', '\ufeffx', 'x/', 'é', 'e\u0301'];
    for (const name of names) await subscribe(wire, bench.topic(name));
    for (const name of names) {
      await publish1(wire, bench.topic(name), name);
      const got = await arrived(wire);
      assert.deepEqual(
        got.map(({ topic }) => topic),
        [bench.topic(name)],
      );
      assert.equal(text(got[0]), name);
      wire.packets.length = 0;
    }
  },
);

scenario(
  '# matches the level above, + exactly one level',
  ['4.7.1-2', '4.7.1-3'],
  ['4.7.1-1', '4.7.1-2'],
  async (bench) => {
    const wire = await bench.client('a');
    await subscribe(wire, bench.topic('p/#'));
    await subscribe(wire, bench.topic('q/+'));
    for (const name of ['p', 'p/x', 'p/x/y', 'q', 'q/x', 'q/', 'q/x/y', 'pp'])
      await publish1(wire, bench.topic(name), name);
    assert.deepEqual(texts(await arrived(wire)), ['p', 'p/x', 'p/x/y', 'q/x', 'q/']);
  },
);

scenario('a wildcard at the front does not match $ topics', ['4.7.2-1'], ['4.7.2-1'], async (bench) => {
  const reader = await bench.client('reader');
  for (const topic of ['#', '+/x']) {
    reader.send({
      cmd: 'subscribe',
      messageId: 7,
      subscriptions: [{ topic, qos: 0, nl: false, rap: false, rh: 0 }],
    });
    await reader.next('suback');
  }
  const sender = await bench.client('a');
  sender.publish('$conformance/x', 'x', { qos: 1, messageId: 1 });
  await Promise.race([sender.next('puback').catch(() => {}), sender.ended()]);
  assert.deepEqual(await arrived(reader), []);
});

scenario(
  'what an MQTT 5 message says of itself is passed on',
  [],
  ['3.3.2-4', '3.3.2-15', '3.3.2-16', '3.3.2-17', '3.3.2-18', '3.3.2-20'],
  async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter, 1);
    const properties = {
      payloadFormatIndicator: true,
      responseTopic: bench.topic('answer'),
      correlationData: Buffer.from([1, 0, 255]),
      userProperties: { z: '1', a: ['2', '1'] },
      contentType: 'text/plain',
    };
    await publish1(await bench.client('a'), bench.topic('x'), 'x', { properties });
    const got = await reader.next('publish');
    for (const [name, value] of Object.entries(properties)) {
      assert.equal(JSON.stringify(got.properties?.[name]), JSON.stringify(value), name);
    }
  },
);

scenario(
  'a queued message expires, or says how long it still has',
  [],
  ['3.3.2-5', '3.3.2-6'],
  async (bench) => {
    const reader = await bench.session('a');
    await subscribe(reader, bench.filter, 1);
    await bench.leave(reader);
    const sender = await bench.client('b');
    await publish1(sender, bench.topic('x'), 'short', { properties: { messageExpiryInterval: 1 } });
    await publish1(sender, bench.topic('x'), 'long', { properties: { messageExpiryInterval: 100 } });
    await pause(2100);
    const again = await bench.session('a');
    const got = await again.next('publish');
    assert.equal(text(got), 'long');
    const left = Number(got.properties?.messageExpiryInterval);
    assert.ok(left >= 90 && left <= 98, `${left} s left`);
  },
);

scenario('a retained message expires', [], ['3.3.2-5'], async (bench) => {
  const wire = await bench.client('a');
  await publish1(wire, bench.topic('x'), 'short', { retain: true, properties: { messageExpiryInterval: 1 } });
  await pause(2100);
  await subscribe(wire, bench.filter, 1);
  assert.deepEqual(await arrived(wire), []);
});

scenario('QoS 2 once sent goes on although it expired', [], ['4.3.3-7', '4.3.3-13'], async (bench) => {
  const reader = await bench.session('a');
  await subscribe(reader, bench.filter, 2);
  const sender = await bench.client('b');
  sender.publish(bench.topic('x'), 'held', {
    qos: 2,
    messageId: 1,
    properties: { messageExpiryInterval: 1 },
  });
  await sender.next('pubrec');
  sender.send({ cmd: 'pubrel', messageId: 1 });
  await sender.next('pubcomp');
  const { messageId } = await reader.next('publish');
  await pause(1500);
  reader.send({ cmd: 'pubrec', messageId });
  assert.equal((await reader.next('pubrel')).messageId, messageId);
});

scenario('topic aliases up to the maximum are taken', [], ['3.3.2-12'], async (bench) => {
  const reader = await bench.client('reader');
  await subscribe(reader, bench.filter);
  const wire = await bench.open();
  const connack = await wire.login(bench.account, { clientId: `${bench.account}-b` });
  const topicAlias = Number(connack.properties?.topicAliasMaximum ?? 0);
  if (topicAlias === 0) throw new Error('no topic aliases are taken');
  wire.publish(bench.topic('x'), 'one', { properties: { topicAlias } });
  wire.publish('', 'two', { properties: { topicAlias } });
  assert.deepEqual([text(await reader.next('publish')), text(await reader.next('publish'))], ['one', 'two']);
});

scenario('a topic alias beyond the maximum is an error', [], ['4.13.1-1'], async (bench) => {
  const wire = await bench.client('a');
  wire.publish(bench.topic('x'), 'one', { properties: { topicAlias: 65_535 } });
  assert.ok([undefined, 0x94, 0x82].includes(await endOf(wire)));
});

for (const maximum of [undefined, 0, 2]) {
  scenario(
    `a client with a topic alias maximum of ${maximum ?? 'none'} gets no other`,
    [],
    maximum === undefined || maximum === 0 ? ['3.1.2-27'] : ['3.1.2-26', '3.3.2-11'],
    async (bench) => {
      const reader = await bench.client(
        'reader',
        maximum === undefined ? {} : { properties: { topicAliasMaximum: maximum } },
      );
      await subscribe(reader, bench.filter);
      const sender = await bench.client('a');
      for (const name of ['x', 'y', 'z', 'x', 'y', 'z']) await publish1(sender, bench.topic(name), name);
      const got = await arrived(reader);
      assert.equal(got.length, 6);
      for (const { properties } of got) assert.ok(Number(properties?.topicAlias ?? 0) <= (maximum ?? 0));
    },
  );
}

scenario(
  'a message beyond the client’s maximum packet size is left out, and the next one is sent',
  [],
  ['3.1.2-24', '3.1.2-25'],
  async (bench) => {
    const reader = await bench.client('reader', { properties: { maximumPacketSize: 200 } });
    await subscribe(reader, bench.filter, 1);
    const sender = await bench.client('a');
    await publish1(sender, bench.topic('x'), 'x'.repeat(300));
    await publish1(sender, bench.topic('x'), 'small');
    assert.deepEqual(texts(await arrived(reader)), ['small']);
  },
);

scenario(
  'no more than the client’s receive maximum is in flight; PINGREQ and QoS 0 go on',
  [],
  ['3.3.4-9', '3.3.4-10', '4.9.0-1', '4.9.0-2', '4.9.0-3'],
  async (bench) => {
    const reader = await bench.client('reader', { properties: { receiveMaximum: 2 } });
    await subscribe(reader, bench.filter, 1);
    const sender = await bench.client('a');
    for (const payload of ['1', '2', '3', '4']) await publish1(sender, bench.topic('x'), payload);
    const first = await arrived(reader);
    assert.deepEqual(texts(first), ['1', '2']);
    await publish(sender, bench.topic('y'), 'zero');
    assert.ok(texts(await arrived(reader)).includes('zero'));
    for (const { messageId } of first) reader.send({ cmd: 'puback', messageId });
    assert.deepEqual(texts(await arrived(reader)), ['1', '2', 'zero', '3', '4']);
  },
);

scenario('the subscription identifier comes with the message', [], ['3.3.4-3'], async (bench) => {
  const wire = await bench.client('a');
  await subscribe(wire, bench.filter, 1, { properties: { subscriptionIdentifier: 268_435_455 } });
  await publish1(wire, bench.topic('x'), 'x');
  assert.deepEqual([(await wire.next('publish')).properties?.subscriptionIdentifier].flat(), [268_435_455]);
});

scenario(
  'overlapping subscriptions: every identifier is told, in one copy or in several',
  [],
  ['3.3.4-3', '3.3.4-4', '3.3.4-5'],
  async (bench) => {
    const wire = await bench.client('a');
    await subscribe(wire, bench.filter, 1, { properties: { subscriptionIdentifier: 2 } });
    await subscribe(wire, bench.topic('+'), 1, { properties: { subscriptionIdentifier: 3 } });
    await publish1(wire, bench.topic('x'), 'x');
    const ids = (await arrived(wire)).flatMap(({ properties }) => properties?.subscriptionIdentifier);
    assert.deepEqual(ids.sort(), [2, 3]);
  },
);

scenario(
  'who wants no problem information gets none on acknowledgements',
  [],
  ['3.1.2-29'],
  async (bench) => {
    const wire = await bench.client('a', { properties: { requestProblemInformation: false } });
    wire.publish('iotflow/devices/someone-else/telemetry/x', 'x', { qos: 1, messageId: 4 });
    const puback = await wire.next('puback');
    const suback = await subscribe(wire, '$SYS/#');
    for (const { properties } of [puback, suback]) {
      assert.equal(properties?.reasonString, undefined);
      assert.equal(properties?.userProperties, undefined);
    }
  },
);

scenario(
  'a reason that would make the answer too large for the client is left out',
  [],
  ['3.2.2-19', '3.4.2-2', '3.5.2-2', '3.14.2-3'],
  async (bench) => {
    const properties = { maximumPacketSize: 20 };
    const stranger = await bench.open();
    const answers = [
      await stranger.login(bench.account, { clientId: 'x', password: Buffer.from('wrong'), properties }),
    ];
    const wire = await bench.client('a', { properties });
    wire.publish('iotflow/devices/someone-else/telemetry/x', 'x', { qos: 1, messageId: 4 });
    answers.push(await wire.next('puback'));
    wire.publish('iotflow/devices/someone-else/telemetry/x', 'x', { qos: 2, messageId: 5 });
    answers.push(await wire.next('pubrec'));
    wire.raw([0x36, 0]);
    await wire.ended();
    answers.push(...wire.packets);
    for (const { cmd, properties: said } of answers) assert.equal(said?.reasonString, undefined, cmd);
  },
);

scenario(
  'user properties of different names keep their order among each other',
  [],
  ['3.3.2-18'],
  async (bench) => {
    const reader = await bench.client('reader');
    await subscribe(reader, bench.filter);
    const seen: Buffer[] = [];
    reader.stream.on('data', (bytes: Buffer) => seen.push(bytes));
    const string = (content: string) => Buffer.from(`\0${String.fromCharCode(content.length)}${content}`);
    const pairs = Buffer.concat(
      [
        ['a', '1'],
        ['b', '2'],
        ['a', '3'],
      ].flatMap(([name = '', value = '']) => [Buffer.from([0x26]), string(name), string(value)]),
    );
    const body = Buffer.concat([string(bench.topic('x')), Buffer.from([pairs.length]), pairs]);
    (await bench.client('a')).raw(Buffer.concat([Buffer.from([0x30, body.length]), body]));
    await reader.next('publish');
    assert.ok(Buffer.concat(seen).includes(pairs));
  },
);

function shared(bench: Bench): string {
  return `$share/group/${bench.filter}`;
}

async function sharedMember(bench: Bench, name: string, qos: number): Promise<Wire> {
  const wire = await bench.session(name);
  const [code = 0x80] = (await subscribe(wire, shared(bench), qos)).granted ?? [];
  assert.ok(code <= qos, `SUBACK ${code}`);
  return wire;
}

scenario(
  'a shared subscription gives each message to one member, with the granted QoS',
  [],
  ['4.8.2-1', '4.8.2-2', '4.8.2-3'],
  async (bench) => {
    const members = [await sharedMember(bench, 'm1', 0), await sharedMember(bench, 'm2', 0)];
    const sender = await bench.client('a');
    for (let index = 0; index < 10; index += 1) await publish1(sender, bench.topic('x'), `${index}`);
    const got = (await Promise.all(members.map((wire) => arrived(wire)))).flat();
    assert.equal(got.length, 10);
    assert.ok(got.every(({ qos }) => qos === 0));
  },
);

scenario(
  'shared QoS 2 is completed with the same client, and given to nobody else',
  [],
  ['4.8.2-4', '4.8.2-5'],
  async (bench) => {
    const first = await sharedMember(bench, 'm1', 2);
    const sender = await bench.client('a');
    sender.publish(bench.topic('x'), 'held', { qos: 2, messageId: 1 });
    await sender.next('pubrec');
    sender.send({ cmd: 'pubrel', messageId: 1 });
    const { messageId } = await first.next('publish');
    const second = await sharedMember(bench, 'm2', 2);
    first.destroy();
    await pause(100);
    assert.deepEqual(await arrived(second), []);
    const again = await bench.session('m1');
    assert.equal((await again.next('publish')).messageId, messageId);
    again.destroy();
    await bench.client('m1');
    assert.deepEqual(await arrived(second), []);
  },
);

scenario('a shared message that is refused goes to nobody else', [], ['4.8.2-6'], async (bench) => {
  const first = await sharedMember(bench, 'm1', 1);
  await publish1(await bench.client('a'), bench.topic('x'), 'x');
  const { messageId } = await first.next('publish');
  const second = await sharedMember(bench, 'm2', 1);
  first.send({ cmd: 'puback', messageId, reasonCode: 0x80 });
  assert.deepEqual(await arrived(second), []);
  assert.deepEqual(await arrived(first), []);
});

async function webSocket(bench: Bench): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${bench.broker.wsPort}/mqtt`, ['mqtt']);
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  return socket;
}

scenario(
  'WebSocket: subprotocol mqtt, packets cut anywhere',
  ['6.0.0-2', '6.0.0-4'],
  ['6.0.0-2', '6.0.0-4'],
  async (bench) => {
    const socket = await webSocket(bench);
    assert.equal(socket.protocol, 'mqtt');
    const wire = new Wire(createWebSocketStream(socket), bench.level);
    const { stream } = wire;
    const write = stream.write.bind(stream);
    stream.write = ((bytes: Buffer) => {
      for (const byte of bytes) write(Buffer.from([byte]));
      return true;
    }) as typeof stream.write;
    const connack = await wire.login(bench.account);
    assert.equal(connack.reasonCode ?? connack.returnCode, 0);
    await publish1(wire, bench.topic('x'), 'x');
    wire.destroy();
  },
);

scenario('WebSocket: a text frame ends the connection', ['6.0.0-1'], ['6.0.0-1'], async (bench) => {
  const socket = await webSocket(bench);
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.send('text');
  await closed;
});

scenario(
  'a client id beyond the server’s limit is rejected as such',
  ['3.1.3-9'],
  ['3.1.3-8', '3.14.0-1'],
  async (bench) => {
    const wire = await bench.open();
    const connack = await wire.login(bench.account, { clientId: 'x'.repeat(200) });
    const code = connack.reasonCode ?? connack.returnCode;
    // One that takes it is right as well.
    if (code === 0) return;
    assert.equal(code, bench.level === 4 ? 2 : 0x85);
    assert.equal(connack.sessionPresent, false);
    await wire.ended();
  },
);
