// One life of a gateway on a disk that loses its power again and again, while the gateway goes on: every cut is a
// folder of its own, with what must be found in it beside it. The life leads through everything the journal does;
// each kind of moment has its cuts.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../src/simulator/random.ts';
import { Clients, type Past } from './clients.ts';
import {
  type GatewayProcess,
  type GatewaySettings,
  gatewayReady,
  givenUp,
  runTool,
  spawnGateway,
} from './gateway.ts';
import { type Expectation, nowNs, type Owed } from './ledger.ts';
import {
  type Cut,
  type CutOptions,
  type Moment,
  mountPowerDisk,
  type Names,
  type PowerDisk,
  type Sectors,
} from './power-disk.ts';
import { isRestored, restoreMoments, restoreOn } from './restore.ts';
import { Uplink } from './uplink.ts';

export const kinds = [
  'first start',
  'restart',
  'random',
  'commit',
  'cursor move',
  'segment switch',
  'recycle',
  'spill',
  'checkpoint',
  'table',
  'compaction',
  'retention',
  'delivery',
  'clean stop',
  'stopped',
  'restore',
  'exchange',
  'restored',
  'new segment',
] as const;
export type Kind = (typeof kinds)[number];

/** `restore`: what a restore needs and then the restore alone; `growth`: a ring that gets more segments alone. */
export type Part = 'all' | 'restore' | 'growth';

export interface LifeOptions {
  /** Of the file system. */
  readonly program: string;
  readonly mainJs: string;
  readonly folder: string;
  readonly part: Part;
  readonly random: Random;
  readonly names: Names;
  readonly sectors: () => Sectors;
  /** What the disk holds at first, and what is owed of it. */
  readonly past?: { readonly image: string; readonly ledger: Past };
  /** Takes a cut; resolves when there is room for another. */
  readonly onCut: (cut: TakenCut) => Promise<void>;
  /** Whether enough was seen. */
  readonly isEnough: () => boolean;
  readonly progress: (text: string) => void;
}

export interface TakenCut {
  readonly kind: Kind;
  /** Holds `image` and `expect.json`. */
  readonly folder: string;
  /** For a life that goes on from here. */
  readonly past: Omit<Past, 'telemetry'>;
  readonly sent: ReadonlyMap<string, number>;
}

const momentMs = 15_000;
const leastSegments = 4;
/** So many messages make a difference between old data and new. */
const differenceMessages = 100;

/** Answers how many messages were acknowledged. */
export async function live(options: LifeOptions): Promise<number> {
  mkdirSync(options.folder);
  const disk = await mountPowerDisk({
    program: options.program,
    folder: join(options.folder, 'd'),
    names: options.names,
    ...(options.past === undefined ? {} : { from: options.past.image }),
  });
  const life = new Life(options, disk);
  try {
    return await life.run();
  } finally {
    await life.end();
    await disk.unmount();
  }
}

class Life {
  readonly #options: LifeOptions;
  readonly #disk: PowerDisk;
  readonly #dataDir: string;
  #gateway: GatewayProcess | undefined;
  readonly #clients: Clients;
  #gaveUpBefore = 0;
  #uplink: Uplink | undefined;
  #authority: string | undefined;
  #cuts = 0;
  #backup: { readonly file: string; readonly owed: Owed; readonly dropped: number } | undefined;
  readonly #ringSegments: number;
  #influxUrl = '';

  constructor(options: LifeOptions, disk: PowerDisk) {
    this.#options = options;
    this.#disk = disk;
    this.#dataDir = join(disk.folder, 'data');
    this.#clients = new Clients(options.past?.ledger);
    // The ring grows with each life on a disk.
    this.#ringSegments = leastSegments + (options.past?.ledger.life ?? 0);
  }

  async run(): Promise<number> {
    const { progress } = this.#options;
    const uplink = await this.#startUplink();
    await this.#start(uplink.url);
    const gateway = this.#gateway as GatewayProcess;
    progress('the clients come');
    const clients = this.#clients;
    await clients.join(gateway);
    this.#authority = readFileSync(join(this.#dataDir, 'tls', 'ca.crt'), 'utf8');

    if (this.#ringSegments > leastSegments) await this.#newSegment();
    if (this.#options.part === 'all') await this.#everything(uplink);
    if (this.#options.part === 'restore') {
      uplink.outage(true);
      await clients.leak();
      await this.#moreAcknowledged();
      await this.#backUp();
      await clients.addDevice();
    }
    if (this.#options.part === 'growth' && this.#options.past !== undefined) return clients.acknowledged();
    // Something is owed of what comes after the backup as well.
    uplink.outage(true);
    await this.#moreAcknowledged();

    progress('a clean stop');
    this.#gaveUpBefore = await this.#dropped();
    const stopping = [this.#arm('clean stop', 'any', this.#eitherWay(), '*', this.#upTo(10))];
    stopping.push(this.#arm('clean stop', 'any', this.#eitherWay(), '*', 10 + this.#upTo(30)));
    await gateway.child.stop(30_000);
    await clients.stop();
    for (const { disarm, taken } of stopping) {
      await disarm();
      await taken;
    }
    await this.#cut('stopped');
    if (this.#options.part !== 'growth') await this.#restore();
    return clients.acknowledged();
  }

  /** Through all the journal does. */
  async #everything(uplink: Uplink): Promise<void> {
    const { progress } = this.#options;
    const clients = this.#clients;
    progress('online');
    await this.#cut('random');
    await clients.leak();
    clients.spoil();
    await this.#cutAt('commit', 'write', 'after', '*/ring/ring-???');
    await this.#cutAt('commit', 'fsync', 'before', '*/ring/ring-???');
    await clients.addDevice();
    await this.#cutAt('commit', 'fsync', 'after', '*/ring/ring-???');
    await this.#cutAt('cursor move', 'fsync', 'before', '*/ring/ring-???', 1, this.#accepted(uplink));
    await this.#cutAt('cursor move', 'write', 'before', '*/ring/ring-???', 1, this.#accepted(uplink));
    await this.#cut('random');

    progress('online, the ring turns');
    clients.bulk(true);
    await this.#cutAt('segment switch', 'first-fsync', 'after', '*/ring/ring-???');
    await this.#cutAt('segment switch', 'first-fsync', 'after', '*/ring/ring-003');
    await this.#cut('random');

    progress('the uplink is gone, the ring turns on');
    uplink.outage(true);
    await this.#cutAt('segment switch', 'first', 'after', '*/ring/ring-???');
    await this.#cutAt('segment switch', 'first-fsync', 'before', '*/ring/ring-???');
    await clients.leak();
    await this.#cutAt('spill', 'write', 'after', '*/blocks/*.log');
    await this.#cutAt('spill', 'fsync', 'before', '*/blocks/*.log');
    await this.#cutAt('spill', 'fsync', 'after', '*/blocks/*.log');
    await this.#cutAt('recycle', 'again', 'after', '*/ring/ring-???');
    await this.#cutAt('recycle', 'again-fsync', 'before', '*/ring/ring-???');
    await this.#cutAt('recycle', 'again-fsync', 'after', '*/ring/ring-???');
    await this.#backUp();
    await this.#cutAt('checkpoint', 'fsync', this.#eitherWay(), '*/state/*.log');
    await this.#cutAt('table', 'any', this.#eitherWay(), '*/blocks/*.ldb', this.#upTo(4));
    await this.#cutAt('table', 'any', this.#eitherWay(), '*/MANIFEST-*', this.#upTo(2));
    await this.#cutAt('compaction', 'unlink', this.#eitherWay(), '*.ldb');
    await this.#cut('random');
    await clients.addDevice();
    clients.spoil();
    for (let waited = 0; (await this.#dropped()) === 0 && waited < momentMs; waited += 50) await sleep(50);
    // Offline, what is small and goes to the blocks is what deletes them.
    await this.#cutAt(
      'retention',
      'write',
      this.#eitherWay(),
      '*/blocks/*.log',
      this.#upTo(6),
      this.#gaveUp(),
    );
    await this.#cut('retention');

    progress('the uplink is back');
    clients.bulk(false);
    uplink.outage(false);
    await this.#cutAt('delivery', 'write', this.#eitherWay(), '*/blocks/*.log', this.#upTo(3));
    await this.#cutAt('compaction', 'unlink', this.#eitherWay(), '*.ldb', 1);
    await this.#cut('random');
  }

  async end(): Promise<void> {
    await this.#clients.stop();
    this.#gateway?.child.process.kill('SIGKILL');
    await this.#gateway?.child.ended;
    await this.#uplink?.close();
  }

  async #startUplink(): Promise<Uplink> {
    // What the database has before a cut cannot be lost by it.
    const uplink = await Uplink.start(({ deviceId, n }) => this.#clients.telemetry.get(deviceId)?.store(n));
    this.#uplink = uplink;
    return uplink;
  }

  async #moreAcknowledged(): Promise<void> {
    const most = this.#clients.acknowledged() + differenceMessages;
    for (let waited = 0; this.#clients.acknowledged() < most && waited < momentMs; waited += 20)
      await sleep(20);
  }

  /** Before anything else syncs a folder: what was acknowledged lies in the segment that is new. */
  async #newSegment(): Promise<void> {
    const segment = `*/ring/ring-00${this.#ringSegments - 1}`;
    this.#options.progress('the ring has got a segment more');
    this.#uplink?.outage(true);
    this.#clients.bulk(true);
    await this.#cutAt('new segment', 'first-fsync', 'after', segment);
    await this.#cutAt('new segment', 'fsync', 'after', segment, 5 + this.#upTo(10));
    await this.#cutAt('new segment', 'fsync', 'after', segment, this.#upTo(10));
    this.#clients.bulk(false);
    this.#uplink?.outage(false);
  }

  /** With the uplink out, so that nothing leaves meanwhile; what is sent meanwhile may be in it. */
  async #backUp(): Promise<void> {
    const { progress, mainJs, folder } = this.#options;
    progress('a backup');
    const file = join(folder, 'house.backup');
    const before = this.#clients.owedAt(nowNs());
    await runTool(mainJs, this.#settings(), 'backup', file);
    const after = this.#clients.owedAt(nowNs());
    const owed: Owed = {
      ...before,
      telemetry: after.telemetry.map(({ deviceId, sent }) => {
        const known = before.telemetry.find((stream) => stream.deviceId === deviceId);
        return { deviceId, sent, owed: known?.owed ?? [] };
      }),
      retained: after.retained.map(({ topic, most }) => {
        return { topic, least: before.retained.find((level) => level.topic === topic)?.least ?? 0, most };
      }),
      commands: { ...before.commands, sent: after.commands.sent },
      letters: { least: before.letters.least, most: after.letters.most },
    };
    this.#backup = { file, owed, dropped: await this.#dropped() };
  }

  /** On a disk of its own that begins with what the stopped gateway left. */
  async #restore(): Promise<void> {
    const { progress, mainJs, program, folder, names, isEnough } = this.#options;
    const backup = this.#backup;
    if (backup === undefined || isEnough()) return;
    progress('a restore');
    const image = join(folder, 'old');
    const { ns } = await this.#disk.cut({ seed: 1, sectors: 'ordered', to: image });
    const old = { owed: this.#clients.owedAt(ns), dropped: this.#gaveUpBefore };
    rmSync(join(image, 'data', 'run'), { recursive: true, force: true });
    const disk = await mountPowerDisk({ program, folder: join(folder, 'r'), names, from: image });
    const take = async (kind: Kind, cut: Cut, options: CutOptions): Promise<void> => {
      const isNew = kind === 'restored' || isRestored(options.to);
      await this.#hand(kind, cut, options, isNew ? backup : old);
    };
    try {
      const arms = restoreMoments.map(({ kind, event, glob, most }) => {
        return this.#armOn(
          disk,
          kind,
          { event, when: this.#eitherWay(), count: this.#upTo(most), glob },
          take,
        );
      });
      await restoreOn(disk, mainJs, backup.file);
      for (let again = 0; again < 3; again += 1) {
        const last = this.#newCut();
        await take('restored', await disk.cut(last), last);
      }
      for (const { disarm, taken } of arms) {
        await disarm();
        await taken;
      }
    } finally {
      await disk.unmount();
      rmSync(image, { recursive: true, force: true });
    }
  }

  /** Cuts of a start are armed before it: nothing is owed of the first one yet, but the store must open. */
  async #start(influxUrl: string): Promise<void> {
    const { past, progress } = this.#options;
    const isFirst = past === undefined;
    progress(isFirst ? 'the first start' : 'a restart');
    const kind = isFirst ? 'first start' : 'restart';
    const arms = [3, 12, 40, isFirst ? 150 : 40].map((upTo) => {
      return this.#arm(kind, 'any', this.#eitherWay(), '*', this.#upTo(upTo));
    });
    this.#influxUrl = influxUrl;
    const settings = this.#settings();
    const child = spawnGateway(this.#options.mainJs, settings);
    this.#gateway = { port: 0, child } as GatewayProcess;
    this.#gateway = await gatewayReady(child, settings);
    for (const { disarm, taken } of arms) {
      await disarm();
      await taken;
    }
  }

  #settings(): GatewaySettings {
    return { dataDir: this.#dataDir, influxUrl: this.#influxUrl, ringSegments: this.#ringSegments };
  }

  #upTo(most: number): number {
    return 1 + Math.floor(this.#options.random() * most);
  }

  #eitherWay(): Moment['when'] {
    return this.#options.random() < 0.5 ? 'before' : 'after';
  }

  /** Waits until the database has taken more. */
  #accepted(uplink: Uplink): () => Promise<void> {
    return async () => {
      const before = uplink.readings;
      for (let waited = 0; uplink.readings === before && waited < momentMs; waited += 5) await sleep(5);
    };
  }

  async #dropped(): Promise<number> {
    return givenUp(await (this.#gateway as GatewayProcess).figures());
  }

  #gaveUp(): () => Promise<void> {
    return async () => {
      const before = await this.#dropped();
      for (let waited = 0; (await this.#dropped()) === before && waited < momentMs; waited += 50)
        await sleep(50);
    };
  }

  #newCut(): CutOptions {
    this.#cuts += 1;
    const folder = join(this.#options.folder, `cut-${this.#cuts}`);
    mkdirSync(folder);
    return {
      seed: Math.floor(this.#options.random() * 2 ** 32),
      sectors: this.#options.sectors(),
      to: join(folder, 'image'),
    };
  }

  async #cut(kind: Kind): Promise<void> {
    if (this.#options.isEnough()) return;
    if (kind === 'random') await sleep(this.#options.random() * 300);
    const options = this.#newCut();
    await this.#take(kind, await this.#disk.cut(options), options);
  }

  #arm(kind: Kind, event: Moment['event'], when: Moment['when'], glob: string, count: number) {
    return this.#armOn(this.#disk, kind, { event, when, glob, count }, (...taken) => this.#take(...taken));
  }

  #armOn(
    disk: PowerDisk,
    kind: Kind,
    moment: Moment,
    take: (kind: Kind, cut: Cut, options: CutOptions) => Promise<void>,
  ) {
    const options = this.#newCut();
    const { cut, disarm } = disk.cutAt(moment, options);
    const taken = cut.then(async (found) => {
      if (found !== undefined) await take(kind, found, options);
    });
    return { arm: cut, taken, disarm };
  }

  async #cutAt(
    kind: Kind,
    event: Moment['event'],
    when: Moment['when'],
    glob: string,
    count = 1,
    before: () => Promise<void> = async () => undefined,
  ): Promise<void> {
    if (this.#options.isEnough()) return;
    await before();
    const { arm, taken, disarm } = this.#arm(kind, event, when, glob, count);
    const late = sleep(momentMs, 'late', { ref: false });
    if ((await Promise.race([arm, late])) === 'late') {
      this.#options.progress(`no ${event} of ${glob} within ${momentMs} ms`);
      await disarm();
    }
    await taken;
  }

  async #take(kind: Kind, cut: Cut, options: CutOptions): Promise<void> {
    const owed = this.#clients.owedAt(cut.ns);
    // Counted after the cut: not less than what had been given up by then.
    if (kind !== 'first start' && kind !== 'restart' && kind !== 'stopped') {
      await sleep(20);
      this.#gaveUpBefore = await this.#dropped().catch(() => this.#gaveUpBefore);
    }
    await this.#hand(kind, cut, options, { owed, dropped: this.#gaveUpBefore });
  }

  /** To be checked, with what must be found. */
  async #hand(
    kind: Kind,
    cut: Cut,
    options: CutOptions,
    { owed, dropped }: { readonly owed: Owed; readonly dropped: number },
  ): Promise<void> {
    const clients = this.#clients;
    const folder = join(options.to, '..');
    const expectation: Expectation = {
      kind,
      seed: options.seed,
      names: this.#options.names,
      sectors: options.sectors,
      event: cut.event,
      path: cut.path,
      ringSegments: this.#ringSegments,
      ...owed,
      authority: this.#authority,
      dropped,
    };
    writeFileSync(join(folder, 'expect.json'), JSON.stringify(expectation));
    clients.pause(true);
    await this.#options.onCut({
      kind,
      folder,
      past: {
        startMs: owed.startMs,
        life: (this.#options.past?.ledger.life ?? 0) + 1,
        accounts: owed.accounts,
        levels: new Map(owed.retained.map(({ topic, least, most }) => [topic, { least, most }])),
        letters: owed.letters,
        wet: owed.wet,
      },
      sent: new Map(owed.telemetry.map(({ deviceId, sent }) => [deviceId, sent])),
    });
    clients.pause(false);
  }
}
