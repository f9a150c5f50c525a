// The clients of one life: nodes that publish at QoS 1 and 2, retained levels, notes for a subscriber that is away,
// readings nobody can decode, leaks, new devices, a valve that is given commands. Every one keeps a ledger of what it was told is kept.

import { connect, type MqttClient } from 'mqtt';
import type { GatewayProcess } from './gateway.ts';
import { nowNs, type Owed, type Run, runsOf, Stream } from './ledger.ts';

export const root = 'iotflow/devices';
/** Reads levels and notes; its session outlives cuts. */
export const awayId = 'away';

interface Node {
  readonly deviceId: string;
  readonly apiKey: string;
  readonly client: MqttClient;
}

interface Range {
  readonly least: number;
  readonly most: number;
}

/** What goes on from a cut: accounts, and what is known to be there. */
export interface Past {
  readonly startMs: number;
  readonly life: number;
  readonly accounts: readonly { readonly deviceId: string; readonly apiKey: string }[];
  readonly telemetry: ReadonlyMap<string, { readonly sent: number; readonly found: readonly Run[] }>;
  readonly levels: ReadonlyMap<string, Range>;
  readonly letters: Range;
  readonly wet: readonly string[];
}

export const smallNodes = ['small-0', 'small-1', 'small-2', 'exact-0'];
const bulkNodes = ['bulk-0', 'bulk-1'];
const leakNodes = ['leak-0', 'leak-1', 'leak-2', 'leak-3', 'leak-4', 'leak-5'];

/** Eight times a thousand letters no compressor can do much about. */
function ballast(): string {
  let text = '';
  for (let field = 0; field < 8; field += 1) {
    let letters = '';
    while (letters.length < 1000) letters += Math.random().toString(36).slice(2);
    text += `,"p${field}":"${letters.slice(0, 1000)}"`;
  }
  return text;
}

export class Clients {
  readonly accounts: { deviceId: string; apiKey: string; ns: number }[] = [];
  readonly telemetry = new Map<string, Stream>();
  readonly #levels = new Map<string, Stream>();
  #notes = new Stream();
  readonly #letters = new Stream();
  readonly #commands = new Stream();
  /** When the valve's answer to a command was acknowledged. */
  readonly #done = new Map<number, number>();
  readonly #wet = new Map<string, number>();
  readonly #past: Past | undefined;
  readonly #nodes: Node[] = [];
  #gateway: GatewayProcess | undefined;
  readonly startMs: number;
  readonly #boot: number;
  #subscribedNs = Number.POSITIVE_INFINITY;
  #isStopped = false;
  #isPaused = false;
  #isBulky = false;
  #added = 0;

  constructor(past?: Past) {
    this.#past = past;
    this.startMs = past?.startMs ?? Date.now() - 3_600_000;
    this.#boot = (past?.life ?? 0) + 1;
    for (const { deviceId, apiKey } of past?.accounts ?? []) this.accounts.push({ deviceId, apiKey, ns: 1 });
    for (const [deviceId, { sent, found }] of past?.telemetry ?? []) {
      this.telemetry.set(deviceId, Stream.resume(sent, found));
    }
    for (const [topic] of past?.levels ?? []) this.#levels.set(topic, new Stream());
    for (const id of past?.wet ?? []) this.#wet.set(id, 1);
  }

  async join(gateway: GatewayProcess): Promise<void> {
    this.#gateway = gateway;
    await this.#leaveSubscriber();
    for (const id of smallNodes) this.#publishSmall(await this.#node(id));
    for (const id of bulkNodes) this.#publishBulk(await this.#node(id));
    await this.#command(await this.#node(this.#valve));
  }

  /** Fills segments fast, or not. */
  bulk(isBulky: boolean): void {
    this.#isBulky = isBulky;
  }

  pause(isPaused: boolean): void {
    this.#isPaused = isPaused;
  }

  async addDevice(): Promise<void> {
    this.#added += 1;
    await this.#account(`added-${this.#boot}-${this.#added}`);
  }

  /** Another probe gets wet, as long as there are dry ones. */
  async leak(): Promise<void> {
    const id = leakNodes.find((leak) => !this.#wet.has(leak));
    if (id === undefined) return;
    const { client } = await this.#node(id);
    this.#wet.set(id, Number.POSITIVE_INFINITY);
    client.publish(`${root}/${id}/telemetry/leak`, '{"wet": true}', { qos: 1 }, (error) => {
      if (!error) this.#wet.set(id, nowNs());
    });
  }

  /** A reading nobody can decode. */
  spoil(): void {
    const node = this.#nodes[0];
    if (node === undefined) return;
    const n = this.#letters.send();
    node.client.publish(
      `${root}/${node.deviceId}/telemetry/load`,
      `{no reading ${this.#boot}/${n}`,
      { qos: 1 },
      (error) => {
        if (!error) this.#letters.acknowledge(n);
      },
    );
  }

  acknowledged(): number {
    let count = 0;
    const { telemetry } = this;
    const others = [this.#notes, this.#letters, this.#commands];
    for (const stream of [...telemetry.values(), ...this.#levels.values(), ...others]) {
      count += stream.acknowledged;
    }
    return count;
  }

  owedAt(ns: number): Owed {
    const away = this.accounts.find(({ deviceId }) => deviceId === awayId);
    const letters = this.#past?.letters ?? { least: 0, most: 0 };
    return {
      startMs: this.startMs,
      telemetry: [...this.telemetry].map(([deviceId, stream]) => ({
        deviceId,
        owed: stream.owedAt(ns),
        sent: stream.sentBefore(ns),
      })),
      retained: [...this.#levels].map(([topic, stream]) => {
        const before = this.#past?.levels.get(topic) ?? { least: 0, most: 0 };
        const newest = stream.newestAt(ns);
        const least = newest === 0 ? before.least : before.most + newest;
        return { topic, least, most: before.most + stream.sentBefore(ns) };
      }),
      queue:
        away === undefined || this.#subscribedNs >= ns
          ? undefined
          : {
              apiKey: away.apiKey,
              owed: this.#notes.owedAt(ns).map(([from, to]) => [this.#note(from), this.#note(to)] as const),
            },
      accounts: this.accounts
        .filter((account) => account.ns < ns)
        .map(({ deviceId, apiKey }) => ({ deviceId, apiKey })),
      commands: {
        deviceId: this.#valve,
        owed: this.#commands.owedAt(ns),
        done: runsOf(
          [...this.#done].flatMap(([n, doneNs]) => (doneNs < ns ? [n] : [])).sort((a, b) => a - b),
        ),
        sent: this.#commands.sentBefore(ns),
      },
      letters: {
        least: letters.least + countOf(this.#letters.owedAt(ns)),
        most: letters.most + this.#letters.sentBefore(ns),
      },
      wet: [...this.#wet].flatMap(([id, keptNs]) => (keptNs < ns ? [id] : [])),
    };
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#nodes.map(({ client }) => client.endAsync(true)));
  }

  get #joined(): GatewayProcess {
    if (this.#gateway === undefined) throw new Error('no gateway yet');
    return this.#gateway;
  }

  async #account(deviceId: string, service = false): Promise<string> {
    const known = this.accounts.find((account) => account.deviceId === deviceId);
    if (known !== undefined) return known.apiKey;
    const answer = (await this.#joined.operate('devices.add', { device_id: deviceId, service })) as {
      api_key: string;
    };
    this.accounts.push({ deviceId, apiKey: answer.api_key, ns: nowNs() });
    return answer.api_key;
  }

  #connect(deviceId: string, apiKey: string, clean: boolean): MqttClient {
    const client = connect(`mqtt://127.0.0.1:${this.#joined.port}`, {
      clientId: deviceId,
      username: deviceId,
      password: apiKey,
      clean,
      reconnectPeriod: 200,
      connectTimeout: 20_000,
    });
    client.on('error', () => undefined);
    return client;
  }

  async #node(deviceId: string): Promise<Node> {
    const apiKey = await this.#account(deviceId);
    const client = this.#connect(deviceId, apiKey, true);
    await new Promise<void>((resolve) => client.once('connect', () => resolve()));
    const node = { deviceId, apiKey, client };
    this.#nodes.push(node);
    return node;
  }

  /** Once for all lives; in later ones its old notes are read away, so that the queue starts empty. */
  async #leaveSubscriber(): Promise<void> {
    const client = this.#connect(awayId, await this.#account(awayId, true), false);
    await new Promise<void>((resolve) => client.once('connect', () => resolve()));
    if (this.#past === undefined) await client.subscribeAsync(`${root}/+/status/note`, { qos: 1 });
    await new Promise((resolve) => setTimeout(resolve, this.#past === undefined ? 0 : 500));
    await client.endAsync();
    this.#notes = new Stream();
    this.#subscribedNs = nowNs();
  }

  #stream(streams: Map<string, Stream>, name: string): Stream {
    let stream = streams.get(name);
    if (stream === undefined) {
      stream = new Stream();
      streams.set(name, stream);
    }
    return stream;
  }

  /** Telemetry through four slots; beside it a retained level and a note now and then. */
  #publishSmall({ deviceId, client }: Node): void {
    const qos = deviceId.startsWith('exact') ? 2 : 1;
    const stream = this.#stream(this.telemetry, deviceId);
    // What QoS 2 promises is promised with PUBREC.
    const numbers = new Map<number, number>();
    client.on('packetsend', (packet) => {
      if (packet.cmd !== 'publish' || packet.qos !== 2 || packet.messageId === undefined) return;
      numbers.set(packet.messageId, Number(/"n":(\d+)/.exec(String(packet.payload))?.[1]));
    });
    client.on('packetreceive', (packet) => {
      if (packet.cmd !== 'pubrec' || packet.messageId === undefined) return;
      const n = numbers.get(packet.messageId);
      if (n !== undefined) stream.acknowledge(n);
    });
    const next = (): void => {
      if (this.#isStopped) return;
      if (this.#isPaused) {
        setTimeout(next, 20);
        return;
      }
      const n = stream.send();
      client.publish(`${root}/${deviceId}/telemetry/load`, this.#reading(n, ''), { qos }, (error) => {
        if (error) return;
        stream.acknowledge(n);
        setTimeout(next, 10);
      });
    };
    for (let slot = 0; slot < 3; slot += 1) next();

    const topic = `${root}/${deviceId}/status/level`;
    const levels = this.#stream(this.#levels, topic);
    const before = this.#past?.levels.get(topic)?.most ?? 0;
    const level = (): void => {
      if (this.#isStopped) return;
      const n = levels.send();
      client.publish(topic, `{"n":${before + n}}`, { qos: 1, retain: true }, (error) => {
        if (error) return;
        levels.acknowledge(n);
        setTimeout(level, 50);
      });
    };
    level();
    if (deviceId !== 'small-0') return;
    const note = (): void => {
      // The queue of a session holds a thousand.
      if (this.#isStopped || this.#notes.sent >= 900) return;
      const n = this.#notes.send();
      client.publish(`${root}/${deviceId}/status/note`, `{"n":${this.#note(n)}}`, { qos: 1 }, (error) => {
        if (error) return;
        this.#notes.acknowledge(n);
        setTimeout(note, 30);
      });
    };
    note();
  }

  /** No two lives have the same note: what one left in the queue must not stand for another's. */
  #note(n: number): number {
    return this.#boot * 10_000 + n;
  }

  #publishBulk({ deviceId, client }: Node): void {
    const stream = this.#stream(this.telemetry, deviceId);
    const next = (): void => {
      if (this.#isStopped) return;
      if (this.#isPaused || !this.#isBulky) {
        setTimeout(next, 20);
        return;
      }
      const n = stream.send();
      client.publish(
        `${root}/${deviceId}/telemetry/load`,
        this.#reading(n, ballast()),
        { qos: 1 },
        (error) => {
          if (error) return;
          stream.acknowledge(n);
          setImmediate(next);
        },
      );
    };
    for (let slot = 0; slot < 6; slot += 1) next();
  }

  /** Every life has its own: what one was told is not in another's ledger. */
  get #valve(): string {
    return `valve-${this.#boot}`;
  }

  /** Given through the control socket, as by HTTP; answered by the valve, but for each tenth. */
  async #command({ deviceId, client }: Node): Promise<void> {
    client.on('message', (topic, payload) => {
      const { id, n } = JSON.parse(payload.toString()) as { id: string; n: number };
      if (n % 10 === 0) return;
      client.publish(`${topic}/ack`, `{"id":"${id}","status":"ok"}`, { qos: 1 }, (error) => {
        if (!error && !this.#done.has(n)) this.#done.set(n, nowNs());
      });
    });
    await client.subscribeAsync(`${root}/${deviceId}/commands/+`, { qos: 1 });
    const next = async (): Promise<void> => {
      if (this.#isStopped) return;
      if (!this.#isPaused) {
        const n = this.#commands.send();
        await this.#joined
          .operate('commands.send', { device_id: deviceId, kind: 'set', payload: { n } })
          .then(() => this.#commands.acknowledge(n))
          .catch(() => undefined);
      }
      setTimeout(() => void next(), 50);
    };
    void next();
  }

  #reading(n: number, more: string): string {
    return `{"n":${n},"value":${n / 7},"timestamp":${this.startMs + n},"boot":${this.#boot},"seq":${n}${more}}`;
  }
}

function countOf(runs: readonly Run[]): number {
  return runs.reduce((count, [from, to]) => count + to - from + 1, 0);
}
