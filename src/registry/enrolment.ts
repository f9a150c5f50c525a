// How a device gets in that nobody added by hand. Promises: only while a pairing window is open, or with a token, does
// its key work at once; otherwise the device waits for an administrator and can do nothing. A window closes by itself,
// after a time that no clock change prolongs and after so many devices. A token works once: it is used up in the same
// write that makes the device, so that no power cut leaves it used without a device, or twice usable. Tokens are
// stored as hashes alone and live for a time the gateway has been running, whatever its clock says.

import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { createApiKey, keyIdOf, matchesKey, type RandomBytes } from './api-key.ts';
import { checkFacts, type DeviceFacts } from './device.ts';
import type { AlsoChanged, IssuedKey, NewDevice, Registry } from './registry.ts';
import { freeDeviceId } from './slug.ts';

const recordPrefix = 'token/';

const defaults = {
  pairingDevicesMax: 10,
  tokensMax: 100,
  pendingMax: 20,
  pendingMs: 24 * 3_600_000,
  /** So many strangers may ask in so much time: each costs the card a write. */
  strangersMax: 10,
  strangersMs: 300_000,
};

/** What the administrator decided for the device that comes with the token. */
export type TokenPreset = Partial<Pick<DeviceFacts, 'name' | 'type' | 'location'>>;

export interface EnrolmentToken extends TokenPreset {
  readonly tokenId: string;
  readonly sha256: string;
  /** 0 where the time was not known. */
  readonly createdMs: number;
  readonly lifeMs: number;
  /** On the running time of the gateway; undefined until one runs. */
  readonly endsRunningMs?: number;
}

export interface EnrolmentOptions {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  /** Milliseconds the gateway has been running, over all its starts. None beside a stopped one. */
  readonly runningMs?: () => number;
  readonly isTimeKnown?: () => boolean;
  readonly tokensMax?: number;
  /** Devices that wait at a time; 0 lets nobody wait. */
  readonly pendingMax?: number;
  readonly log: Log;
}

export interface Pairing {
  readonly isOpen: boolean;
  readonly leftMs: number;
  readonly leftDevices: number;
}

export interface EnrolmentStats {
  readonly isPairing: boolean;
  readonly tokens: number;
  readonly tokensMax: number;
  /** Devices enrolled since the start, by a window or a token. */
  readonly enrolled: number;
  /** Devices that asked to be let in since the start. */
  readonly asked: number;
  readonly refused: number;
  /** Devices that waited too long. */
  readonly expired: number;
}

function encodeToken(token: EnrolmentToken, revision: number): Buffer {
  return Buffer.from(JSON.stringify({ ...token, revision }));
}

/** Undefined when it is not exactly what `encodeToken` writes: a damaged token lets nobody in. */
function decodeToken(bytes: Buffer): (EnrolmentToken & { readonly revision: number }) | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { tokenId, sha256, createdMs, lifeMs, endsRunningMs, revision, ...rest } = value as Record<
    string,
    unknown
  >;
  const { name, type, location } = rest;
  if (typeof tokenId !== 'string' || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))
    return undefined;
  if (typeof createdMs !== 'number' || typeof lifeMs !== 'number' || typeof revision !== 'number')
    return undefined;
  if (endsRunningMs !== undefined && typeof endsRunningMs !== 'number') return undefined;
  return {
    tokenId,
    sha256,
    createdMs,
    lifeMs,
    revision,
    ...(endsRunningMs === undefined ? {} : { endsRunningMs }),
    ...(typeof name === 'string' ? { name } : {}),
    ...(typeof type === 'string' ? { type } : {}),
    ...(typeof location === 'string' ? { location } : {}),
  };
}

/** What a device says of itself when it registers. */
export interface Application extends Partial<DeviceFacts> {
  readonly name: string;
  /** Default: made of the name. */
  readonly deviceId?: string;
}

export class Enrolment {
  readonly #options: EnrolmentOptions;
  readonly #tokens = new Map<string, EnrolmentToken>();
  readonly #pendingSinceMs = new Map<string, number>();
  readonly #counts = { enrolled: 0, asked: 0, refused: 0, expired: 0 };
  #pairing: { readonly endsMs: number; leftDevices: number } | undefined;
  #strangers: number[] = [];
  #timer: NodeJS.Timeout | undefined;

  private constructor(options: EnrolmentOptions) {
    this.#options = options;
  }

  /** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
  static async open(options: EnrolmentOptions): Promise<Enrolment> {
    const enrolment = new Enrolment(options);
    await enrolment.#restore();
    if (options.runningMs !== undefined) {
      enrolment.#timer = setInterval(() => void enrolment.tick(), 60_000).unref();
      await enrolment.#beginLives();
    }
    return enrolment;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Lets devices in without asking, for a while. Opened again it starts anew. */
  openPairing({
    forMs,
    devicesMax = defaults.pairingDevicesMax,
  }: {
    readonly forMs: number;
    readonly devicesMax?: number;
  }): Pairing {
    this.#pairing = { endsMs: this.#options.clock.monotonicMs() + forMs, leftDevices: devicesMax };
    this.#options.log.info({ event: 'pairing-opened', forMs, devicesMax }, 'Devices may enrol');
    return this.pairing();
  }

  closePairing(): void {
    this.#pairing = undefined;
  }

  pairing(): Pairing {
    const { endsMs = 0, leftDevices = 0 } = this.#pairing ?? {};
    const leftMs = Math.max(0, endsMs - this.#options.clock.monotonicMs());
    const isOpen = this.#pairing !== undefined && leftMs > 0 && leftDevices > 0;
    return isOpen ? { isOpen, leftMs, leftDevices } : { isOpen, leftMs: 0, leftDevices: 0 };
  }

  /**
   * The text of the token is told once and stored nowhere.
   * @throws GatewayError `TOKENS_FULL`, `DEVICE_FIELD_INVALID`, `STORE_FAILED`.
   */
  async addToken(lifeMs: number, preset: TokenPreset = {}): Promise<{ token: EnrolmentToken; text: string }> {
    const {
      registry,
      randomBytes,
      clock,
      runningMs,
      isTimeKnown,
      tokensMax = defaults.tokensMax,
    } = this.#options;
    checkFacts(preset);
    return await registry.records.change(async () => {
      const dead = this.tokens().filter((token) => !this.#isLive(token));
      if (this.#tokens.size - dead.length >= tokensMax) {
        throw new GatewayError('TOKENS_FULL', `there are ${tokensMax} enrolment tokens already; revoke some`);
      }
      const createdMs = (isTimeKnown?.() ?? true) ? clock.wallMs() : 0;
      const { apiKey: text, key } = createApiKey(randomBytes, createdMs, 'ge');
      const endsRunningMs = runningMs === undefined ? {} : { endsRunningMs: runningMs() + lifeMs };
      const { keyId: tokenId, sha256 } = key;
      const token: EnrolmentToken = { tokenId, sha256, createdMs, lifeMs, ...endsRunningMs, ...preset };
      const value = encodeToken(token, registry.records.nextRevision);
      const cleared = dead.map((old) => ({ key: recordPrefix + old.tokenId, value: undefined }));
      await registry.records.write([{ key: recordPrefix + tokenId, value }, ...cleared], () => {
        for (const old of dead) this.#tokens.delete(old.tokenId);
        this.#tokens.set(tokenId, token);
      });
      return { token, text };
    });
  }

  /** Those that can still be used, and those that ended unused and were not cleared away yet. */
  tokens(): EnrolmentToken[] {
    return [...this.#tokens.values()];
  }

  /** Milliseconds the gateway has to run until the token ends; 0 when it has ended. */
  lifeLeftMs({ endsRunningMs, lifeMs }: EnrolmentToken): number {
    const { runningMs } = this.#options;
    if (runningMs === undefined || endsRunningMs === undefined) return lifeMs;
    const leftMs = endsRunningMs - runningMs();
    // The running time was lost, and began anew: nobody knows how old the token is.
    return leftMs > lifeMs ? 0 : Math.max(0, leftMs);
  }

  /** @throws GatewayError `TOKEN_UNKNOWN`, `STORE_FAILED`. */
  async revokeToken(tokenId: string): Promise<void> {
    const { records } = this.#options.registry;
    await records.change(async () => {
      if (!this.#tokens.has(tokenId)) {
        throw new GatewayError(
          'TOKEN_UNKNOWN',
          `there is no enrolment token ${JSON.stringify(tokenId.slice(0, 80))}`,
        );
      }
      await records.write([{ key: recordPrefix + tokenId, value: undefined }], () => {
        this.#tokens.delete(tokenId);
      });
    });
  }

  /**
   * A device asks to be let in. Active at once with a token or while a pairing window is open, else pending.
   * @throws GatewayError `ENROLMENT_TOKEN_INVALID`, `FORBIDDEN`, `ENROLMENT_FULL`, `RATE_LIMITED`, and what
   * `Registry.add` throws.
   */
  async register(application: Application, tokenText?: string): Promise<IssuedKey> {
    try {
      return await this.#register(application, tokenText);
    } catch (error) {
      this.#counts.refused += 1;
      throw error;
    }
  }

  /** Removes devices that waited too long. The time counts from the start of the gateway. */
  async tick(): Promise<void> {
    const { registry, clock, log } = this.#options;
    const nowMs = clock.monotonicMs();
    const pending = registry.list().filter(({ status }) => status === 'pending');
    for (const { deviceId } of pending) {
      const sinceMs = this.#pendingSinceMs.get(deviceId) ?? nowMs;
      this.#pendingSinceMs.set(deviceId, sinceMs);
      if (nowMs - sinceMs < defaults.pendingMs) continue;
      try {
        await registry.remove(deviceId);
        this.#counts.expired += 1;
        log.info({ event: 'pending-expired', deviceId }, 'A device waited too long for approval');
      } catch (error) {
        log.warn(
          { event: 'pending-kept', deviceId, err: error },
          'A device that waited too long stays for now',
        );
      }
    }
    const waiting = new Set(pending.map(({ deviceId }) => deviceId));
    for (const deviceId of this.#pendingSinceMs.keys()) {
      if (!waiting.has(deviceId)) this.#pendingSinceMs.delete(deviceId);
    }
  }

  stats(): EnrolmentStats {
    const { tokensMax = defaults.tokensMax } = this.#options;
    return { isPairing: this.pairing().isOpen, tokens: this.#tokens.size, tokensMax, ...this.#counts };
  }

  async #register(application: Application, tokenText: string | undefined): Promise<IssuedKey> {
    if (tokenText !== undefined) return await this.#registerWithToken(application, tokenText);
    const pairing = this.pairing().isOpen ? this.#pairing : undefined;
    if (pairing === undefined) return await this.#askToBeLetIn(application);
    // Taken before anything is awaited: two devices must not share the last place.
    pairing.leftDevices -= 1;
    try {
      const issued = await this.#add(application, 'active');
      this.#counts.enrolled += 1;
      return issued;
    } catch (error) {
      pairing.leftDevices += 1;
      throw error;
    }
  }

  async #registerWithToken(application: Application, text: string): Promise<IssuedKey> {
    const tokenId = keyIdOf(text) ?? '';
    const token = this.#liveToken(tokenId, text);
    const { name, type, location } = token;
    const preset = {
      ...(name === undefined ? {} : { name }),
      ...(type === undefined ? {} : { type }),
      ...(location === undefined ? {} : { location }),
    };
    const issued = await this.#add({ ...application, ...preset }, 'active', () => {
      // Somebody may have used it while this one waited for its turn.
      this.#liveToken(tokenId, text);
      return {
        changes: [{ key: recordPrefix + tokenId, value: undefined }],
        applied: () => this.#tokens.delete(tokenId),
      };
    });
    this.#counts.enrolled += 1;
    return issued;
  }

  async #askToBeLetIn(application: Application): Promise<IssuedKey> {
    const { registry, clock, pendingMax = defaults.pendingMax } = this.#options;
    if (pendingMax === 0) {
      throw new GatewayError('FORBIDDEN', 'no pairing window is open, and no enrolment token was given');
    }
    const nowMs = clock.monotonicMs();
    this.#strangers = this.#strangers.filter((atMs) => nowMs - atMs < defaults.strangersMs);
    if (this.#strangers.length >= defaults.strangersMax) {
      throw new GatewayError(
        'RATE_LIMITED',
        'too many devices asked to be let in; try again in five minutes',
      );
    }
    this.#strangers.push(nowMs);
    const issued = await this.#add(application, 'pending', () => {
      if (registry.stats().pending < pendingMax) return { changes: [] };
      throw new GatewayError(
        'ENROLMENT_FULL',
        `${pendingMax} devices wait for approval already; approve or remove some, or open a pairing window`,
      );
    });
    this.#counts.asked += 1;
    this.#pendingSinceMs.set(issued.device.deviceId, nowMs);
    return issued;
  }

  /** @throws GatewayError `ENROLMENT_TOKEN_INVALID`, which does not say whether it was wrong, used up or too old. */
  #liveToken(tokenId: string, text: string): EnrolmentToken {
    const token = this.#tokens.get(tokenId);
    const matches = matchesKey(text, token === undefined ? [] : [token], 0);
    if (token !== undefined && matches && this.#isLive(token)) return token;
    throw new GatewayError(
      'ENROLMENT_TOKEN_INVALID',
      'enrolment_token: expected one that was not used and has not ended',
    );
  }

  #isLive(token: EnrolmentToken): boolean {
    return this.lifeLeftMs(token) > 0;
  }

  async #add(
    application: Application,
    status: NonNullable<NewDevice['status']>,
    also?: () => AlsoChanged,
  ): Promise<IssuedKey> {
    const { registry } = this.#options;
    // A device whose record is damaged must not be taken over by whoever asks first.
    const isTaken = (deviceId: string): boolean => registry.isKnown(deviceId);
    const { deviceId = freeDeviceId(application.name, isTaken), ...facts } = application;
    // It would come before the device of that number, wherever either may be named.
    if (/^\d+$/.test(deviceId)) {
      throw new GatewayError('DEVICE_ID_INVALID', 'device id: expected one that is no number');
    }
    if (isTaken(deviceId)) {
      throw new GatewayError(
        'DEVICE_EXISTS',
        `device_id: there is a device ${deviceId.slice(0, 80)} already`,
      );
    }
    return await registry.add({ ...facts, deviceId, status }, also);
  }

  async #restore(): Promise<void> {
    const { records } = this.#options.registry;
    const found = new Set<string>();
    for await (const [key, bytes] of records.entries(recordPrefix)) {
      const decoded = decodeToken(bytes);
      if (decoded === undefined || key !== recordPrefix + decoded.tokenId) continue;
      const { revision, ...token } = decoded;
      if (records.judge(key, revision) !== 'newest') continue;
      found.add(key);
      this.#tokens.set(token.tokenId, token);
    }
    records.missing(found, (name) => name.startsWith(recordPrefix));
  }

  /** Tokens that were made beside a stopped gateway live from now on. */
  async #beginLives(): Promise<void> {
    const { registry, runningMs, log } = this.#options;
    const unbegun = this.tokens().filter(({ endsRunningMs }) => endsRunningMs === undefined);
    if (unbegun.length === 0 || runningMs === undefined) return;
    const begun = unbegun.map((token) => ({ ...token, endsRunningMs: runningMs() + token.lifeMs }));
    for (const token of begun) this.#tokens.set(token.tokenId, token);
    const write = () => {
      const revision = registry.records.nextRevision;
      const changes = begun.map((token) => ({
        key: recordPrefix + token.tokenId,
        value: encodeToken(token, revision),
      }));
      return registry.records.write(changes, () => undefined);
    };
    await registry.records.change(write).catch((error: unknown) => {
      log.warn({ event: 'token-unsaved', err: error }, 'The life of enrolment tokens could not be saved');
    });
  }
}
