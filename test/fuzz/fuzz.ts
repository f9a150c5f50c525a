// What no client should send, by the million, to a whole gateway: `npm run fuzz -- --inputs 1000000 --seed 1`. A good
// third goes over sockets, HTTP and MQTT; the rest, which is quicker, without one through the packet guard into the
// broker's parser. Besides, connections that dribble are held open. Two nodes and a reader are served all along; at the end the
// gateway is killed, started again, and must have everything it acknowledged. The same seed sends the same inputs.
// Ends with 1 when anything is not as it should be.

import { connect } from 'node:net';
import { parseArgs } from 'node:util';
import { House } from './house.ts';
import { httpConnection, targetsOf } from './http.ts';
import { mqttSession, throughGuard } from './mqtt.ts';
import { type Dice, diceOf } from './odd-json.ts';

const steps = 20;
const sideBySide = 12;
const dribblers = 20;
/** Of anonymous memory, from the second quarter to the last. A short run ends before the heap has found its size. */
const growthMaxMb = 32;
const judgedInputs = 300_000;
const faultsShown = 20;

const { values } = parseArgs({
  options: { inputs: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' } },
});
const inputs = Number(values.inputs);
const seed = Number(values.seed);

const faults: string[] = [];

/** At once: a long run must not end before it says what it found. */
function note(...found: readonly string[]): void {
  for (const fault of found.slice(0, Math.max(0, faultsShown - faults.length))) console.log(fault);
  faults.push(...found);
}

/** Each connection has dice of its own, so that what it sends does not depend on who is quicker. */
async function sideBySideUntil(isEnough: () => boolean, once: (dice: Dice) => Promise<void>, first: number) {
  let next = first;
  const work = async () => {
    while (!isEnough()) {
      next += 1;
      await once(diceOf(Math.imul(seed, 0x9e3779b1) + next));
    }
  };
  await Promise.all(Array.from({ length: sideBySide }, work));
}

/** Loopback has 16 million addresses: limits for each address must hold, and what they keep must stay bounded. */
const someAddress = (dice: Dice) => `127.${1 + dice.below(250)}.${dice.below(256)}.${1 + dice.below(250)}`;

let isDribbling = true;

/** A byte now and then, until the other end has had enough. */
async function dribble(port: number, bytes: string): Promise<number> {
  const beganMs = performance.now();
  const socket = connect({ port, host: '127.0.0.1', localAddress: '127.251.0.1' });
  socket.on('error', () => {});
  socket.resume();
  let isOpen = true;
  socket.once('close', () => {
    isOpen = false;
  });
  for (let at = 0; isOpen && isDribbling; at += 1) {
    socket.write(bytes[at % bytes.length] ?? '');
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  socket.destroy();
  return performance.now() - beganMs;
}

const house = await House.start(note);
const [devices, administrators, targets] = await Promise.all([
  house.addDevices(100),
  house.addAdministrators(10),
  house.openApi().then(targetsOf),
]);
await house.watch();
console.log(`seed ${seed}; ${targets.length} routes and examples of the gateway's own description`);

let dribbled = 0;
let longestDribbleMs = 0;
const slow = Array.from({ length: dribblers }, async (_, index) => {
  const text =
    ['GET /', 'GET /health HTTP/1.1\r\nhost: localhost\r\nx: ', '\x10', '\x16\x03'][index % 4] ?? '';
  while (isDribbling) {
    const tookMs = await dribble(index % 2 === 0 ? house.ports.http : house.ports.mqtt, text);
    if (isDribbling) {
      dribbled += 1;
      longestDribbleMs = Math.max(longestDribbleMs, tookMs);
    }
  }
});

const statuses = new Map<number, number>();
/** Of all inputs; the rest of them goes without a socket. */
const shares = { http: 0.3, mqtt: 0.1 };
const goals = {
  http: Math.ceil((inputs * shares.http) / steps),
  mqtt: Math.ceil((inputs * shares.mqtt) / steps),
  guard: Math.ceil((inputs * (1 - shares.http - shares.mqtt)) / steps),
};
let http = 0;
let mqtt = 0;
let guard = 0;
const anonymousMb: number[] = [];
const startedMs = performance.now();
for (let step = 1; step <= steps; step += 1) {
  house.outage(step % 2 === 0 && step < steps);
  const place = step * 0x100_0000;
  const [httpGoal, mqttGoal] = [http + goals.http, mqtt + goals.mqtt];
  await sideBySideUntil(
    () => http >= httpGoal,
    async (dice) => {
      const account = dice.oneIn(4) ? dice.of(administrators) : dice.of(devices);
      const to = { port: house.ports.http, address: someAddress(dice), targets };
      const outcome = await httpConnection(to, account, dice);
      http += outcome.sent;
      note(...outcome.faults);
      for (const status of outcome.statuses) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    },
    place,
  );
  await sideBySideUntil(
    () => mqtt >= mqttGoal,
    async (dice) => {
      mqtt += 1;
      await mqttSession(house.ports.mqtt, dice.of(devices), someAddress(dice), dice);
    },
    place + 0x40_0000,
  );
  const dice = diceOf(Math.imul(seed, 0x9e3779b1) + place + 0x80_0000);
  for (let index = 0; index < goals.guard; index += 1) {
    guard += 1;
    try {
      throughGuard(dice);
    } catch (error) {
      note(String(error));
    }
    if (index % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const { anonymousMb: nowMb, totalMb } = house.memory;
  anonymousMb.push(nowMb);
  console.log(
    `${step}/${steps} ${((performance.now() - startedMs) / 1000).toFixed(0)} s: ${http} HTTP, ${mqtt} MQTT, ` +
      `${guard} guard; memory ${nowMb.toFixed(0)} MB anonymous, ${totalMb.toFixed(0)} MB resident; ` +
      `${house.acknowledged} acknowledged, slowest ${house.slowestMs.toFixed(0)} ms; ` +
      `${faults.length} faults`,
  );
  if (faults.length > 1000) break;
}
isDribbling = false;
await Promise.all(slow);
const missing = await house.settle();
await house.close();

const median = (list: readonly number[]) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0;
const [beforeMb, afterMb] = [
  median(anonymousMb.slice(steps / 4, steps / 2)),
  median(anonymousMb.slice(-steps / 4)),
];
if (inputs >= judgedInputs && afterMb - beforeMb > growthMaxMb)
  note(`memory grew from ${beforeMb} to ${afterMb} MB`);
if (missing > 0) note(`${missing} acknowledged points are missing`);
if (house.read === 0) note('the reader got nothing');
if (house.refusedWrites > 0) note(`the database refused ${house.refusedWrites} writes`);

const byStatus = [...statuses].toSorted(([a], [b]) => a - b).map(([status, count]) => `${status}: ${count}`);
console.log(
  `${http} inputs over HTTP (answers ${byStatus.join(', ')}), ${mqtt} sessions of MQTT, ${guard} through guard and ` +
    `parser; ${dribbled} dribbling connections ended, after ${(longestDribbleMs / 1000).toFixed(1)} s at most; memory ` +
    `${beforeMb.toFixed(1)} → ${afterMb.toFixed(1)} MB; ${house.acknowledged} points of witnesses acknowledged, ` +
    `${missing} missing, ${house.read} read, slowest answer ${house.slowestMs.toFixed(0)} ms; ${faults.length} faults`,
);
process.exit(faults.length === 0 ? 0 : 1);
