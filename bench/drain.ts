// How fast a backlog reaches the database: points through the gateway's forwarder into VictoriaMetrics, against the
// same number of ready-made gzip bodies posted by a bare HTTP client, which is all the sink can take. Both count what
// the sink has answered 204 to; at the end the sink's own count must agree.

import { Agent, request } from 'node:http';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { freePort } from '../test/support/free-port.ts';
import { emptyBacklog, fieldsPerLine, fillBacklog } from './backlog.ts';
import { temporaryFolder, waitFor } from './children.ts';
import { type Goal, median, progress, ratio, type Section, sectionText, thousands } from './figures.ts';
import { type Gateway, gatewayMissing, startGateway } from './peers/iotflow.ts';
import { type Sink, startVictoriaMetrics, victoriaMetricsMissing } from './peers/victoria-metrics.ts';

const points = Number(process.env.BENCH_DRAIN_POINTS ?? 3_000_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 3);
const linesPerBody = 5_000;
/** As many requests at a time as the forwarder has for a backlog. */
const connections = 2;
const pollMs = 50;

export async function measureDrain(): Promise<Section> {
  const missing = gatewayMissing() ?? victoriaMetricsMissing();
  if (missing !== undefined) return report([], [], [`skipped: drain (needs ${missing})`]);
  const ours: number[] = [];
  const bare: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    bare.push(await postBare());
    ours.push(await drainGateway());
    progress(`drain: ours ${thousands(ours.at(-1) ?? 0)}, bare ${thousands(bare.at(-1) ?? 0)} points/s`);
  }
  return report(ours, bare, []);
}

async function drainGateway(): Promise<number> {
  const port = await freePort();
  const gateway = await startGateway(temporaryFolder('drain'), { influxUrl: `http://127.0.0.1:${port}` });
  let sink: Sink | undefined;
  try {
    const backlog = emptyBacklog();
    await fillBacklog(gateway.port, await gateway.publishers(10), backlog, points);
    // What it does of its own accord after filling shall not count against it.
    await sleep(3_000);
    sink = await startVictoriaMetrics(temporaryFolder('sink'), port);
    const rate = await timeDelivery(() => acceptedPoints(gateway), backlog.points);
    await agree(sink, backlog.points);
    return rate;
  } finally {
    await gateway.stop();
    await sink?.stop();
  }
}

async function acceptedPoints(gateway: Gateway): Promise<number> {
  const status = (await gateway.operate('gateway.status')) as {
    figures: { forwarder: { accepted_points: number } };
  };
  return status.figures.forwarder.accepted_points;
}

/** Points a second between the first and the last tenth: neither the wait for a retry nor a tail counts. */
async function timeDelivery(delivered: () => number | Promise<number>, total: number): Promise<number> {
  const deadline = performance.now() + 300_000;
  let first: { readonly atMs: number; readonly points: number } | undefined;
  while (performance.now() < deadline) {
    const now = await delivered();
    const atMs = performance.now();
    if (first === undefined && now >= total * 0.1) first = { atMs, points: now };
    if (first !== undefined && now >= total * 0.9) return ((now - first.points) / (atMs - first.atMs)) * 1000;
    await sleep(pollMs);
  }
  throw new Error(`not delivered within 300 s: ${await delivered()} of ${total} points`);
}

async function agree(sink: Sink, total: number): Promise<void> {
  await waitFor(`the sink to count ${total} points`, async () =>
    (await sink.valuesInserted()) >= total * fieldsPerLine ? true : undefined,
  );
}

/** The same points a journal would hold, as bodies of one batch each. */
function bodies(): Buffer[] {
  const made: Buffer[] = [];
  const beginMs = Date.now() - 30 * 86_400_000;
  for (let first = 0; first < points; first += linesPerBody) {
    let text = '';
    for (let line = first; line < first + linesPerBody; line += 1) {
      const wander = Math.sin(line / 40);
      const device = `bench-${line % 10}`;
      text +=
        `water_flow,device_id=${device},device_name=${device},gateway=bench flow_rate=${(8 + 4 * wander).toFixed(3)},` +
        `pressure=${(3.1 + 0.2 * wander).toFixed(3)} ${beginMs + line * 100}000000\n`;
    }
    made.push(gzipSync(text, { level: 1 }));
  }
  return made;
}

async function postBare(): Promise<number> {
  const sink = await startVictoriaMetrics(temporaryFolder('sink'));
  const ready = bodies();
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  let delivered = 0;
  const postAll = async (): Promise<void> => {
    for (let body = ready.shift(); body !== undefined; body = ready.shift()) {
      await post(agent, sink.url, body);
      delivered += linesPerBody;
    }
  };
  try {
    const posting = Promise.all(Array.from({ length: connections }, postAll));
    const [rate] = await Promise.all([timeDelivery(() => delivered, points), posting]);
    await agree(sink, points);
    return rate;
  } finally {
    agent.destroy();
    await sink.stop();
  }
}

function post(agent: Agent, url: string, body: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const asked = request(
      `${url}/api/v2/write?org=bench&bucket=bench&precision=ns`,
      { agent, method: 'POST', headers: { 'content-encoding': 'gzip', 'content-length': body.length } },
      (answer) => {
        answer.resume();
        answer.on('end', () => {
          if (answer.statusCode === 204) resolve();
          else reject(new Error(`the sink answered ${answer.statusCode}`));
        });
      },
    );
    asked.on('error', reject);
    asked.end(body);
  });
}

function report(ours: readonly number[], bare: readonly number[], remarks: readonly string[]): Section {
  const measured = median(ours) / median(bare);
  const goals: Goal[] = Number.isFinite(measured)
    ? [{ name: 'drain / bare HTTP client', measured: ratio(measured), wanted: '≥ 0.9', met: measured >= 0.9 }]
    : [];
  return {
    title: 'Draining a backlog into VictoriaMetrics',
    header: ['who', 'points/s (median)', 'rounds', '× bare client'],
    rows: [
      [
        'bare HTTP client, ready-made gzip bodies',
        thousands(median(bare)),
        bare.map(thousands).join(' '),
        '1.00',
      ],
      ['IoTFlow Edge', thousands(median(ours)), ours.map(thousands).join(' '), ratio(measured)],
    ],
    goals,
    remarks: [
      `${thousands(points)} points, bodies of ${thousands(linesPerBody)} lines on one connection; rate between the ` +
        'first and the last tenth, counted by the sink',
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureDrain()));
