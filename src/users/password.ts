// Passwords of people: which are taken (NIST SP 800-63B §5.1.1.2: length, no rules of composition, none that guessers
// try first) and how they are stored (scrypt, a salt each). Promises: at most two are hashed at once and few wait, so
// that a flood of logins does not take a small machine's processors and memory; a wrong one takes as long as a right one.

import { scrypt, timingSafeEqual } from 'node:crypto';
import { GatewayError } from '../platform/errors.ts';
import { commonPasswords } from './common-passwords.ts';

export type RandomBytes = (bytes: number) => Buffer;

const charactersMin = 10;
const bytesMax = 256;

/** Cost: 32 MiB and about 0.1 s here, several times that on a Raspberry Pi (OWASP's least for scrypt is half of it). */
const cost = { n: 2 ** 15, r: 8, p: 1 } as const;
const hashBytes = 32;
const saltBytes = 16;

/** As it is stored, with its cost, so that the cost can be raised later. */
export interface PasswordHash {
  readonly n: number;
  readonly r: number;
  readonly p: number;
  /** Hexadecimal. */
  readonly salt: string;
  readonly hash: string;
}

/** Typed on another keyboard or system the same letters may come as other code points (NIST: normalise). */
function normalised(password: string): string {
  return password.normalize('NFKC');
}

function invalid(expected: string): GatewayError {
  return new GatewayError('PASSWORD_INVALID', `password: expected ${expected}`);
}

/** `aaaaaaaaaa`, `abcabcabcabc`, `1234567890`, `zyxwvutsrq`. */
function isPattern(text: string): boolean {
  const points = [...text].map((character) => character.codePointAt(0) ?? 0);
  for (const unit of [1, 2, 3, 4]) {
    if (points.every((point, index) => point === points[index % unit])) return true;
  }
  const steps = new Set(points.slice(1).map((point, index) => point - (points[index] ?? 0)));
  return steps.size === 1 || /^(0?1234567890?|0?9876543210?)\d*$/.test(text);
}

const ownWords = ['iotflow', 'gateway', 'password', 'admin', 'raspberry', 'raspberrypi', 'welcome', 'qwerty'];

/** What is left without the words everybody thinks of is what has to be guessed. */
function withoutWords(text: string, name: string): string {
  return [name, ...ownWords]
    .sort((a, b) => b.length - a.length)
    .reduce((rest, word) => rest.replaceAll(word, ''), text);
}

/**
 * For a password that is being set; what is only compared is not judged.
 * @throws GatewayError `PASSWORD_INVALID` with what was expected
 */
export function checkPassword(password: string, name: string): void {
  const text = normalised(password);
  if ([...text].length < charactersMin) throw invalid(`at least ${charactersMin} characters`);
  if (Buffer.byteLength(text) > bytesMax) throw invalid(`at most ${bytesMax} bytes`);
  const plain = text.toLowerCase();
  if (commonPasswords.has(plain) || isPattern(plain) || [...withoutWords(plain, name)].length < 4) {
    throw invalid('one that is not among the first that are tried; three or four words of your own are good');
  }
}

const slots = { running: 2, waiting: 8 };

export interface PasswordStats {
  readonly hashes: number;
  /** Turned away because too many were waiting. */
  readonly turnedAway: number;
  readonly waiting: number;
}

export class PasswordHasher {
  readonly #randomBytes: RandomBytes;
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #hashes = 0;
  #turnedAway = 0;

  constructor(randomBytes: RandomBytes) {
    this.#randomBytes = randomBytes;
  }

  /** @throws GatewayError `LOGIN_BUSY` when too many wait */
  async hash(password: string): Promise<PasswordHash> {
    const salt = this.#randomBytes(saltBytes);
    const hash = await this.#derive(password, { ...cost, salt });
    return { ...cost, salt: salt.toString('hex'), hash: hash.toString('hex') };
  }

  /**
   * Without a hash to compare with (nobody has this name) the work is done all the same.
   * @throws GatewayError `LOGIN_BUSY` when too many wait
   */
  async matches(password: string, stored: PasswordHash | undefined): Promise<boolean> {
    // Longer than any that was ever taken: not worth the work, and no secret either.
    if (Buffer.byteLength(password) > 4 * bytesMax) return false;
    const { salt, hash, ...costs } = stored ?? { ...cost, salt: '00'.repeat(saltBytes), hash: '' };
    const derived = await this.#derive(password, { ...costs, salt: Buffer.from(salt, 'hex') });
    const expected = Buffer.from(hash, 'hex');
    return expected.length === derived.length && timingSafeEqual(expected, derived);
  }

  stats(): PasswordStats {
    return { hashes: this.#hashes, turnedAway: this.#turnedAway, waiting: this.#waiting.length };
  }

  async #derive(
    password: string,
    { n, r, p, salt }: { n: number; r: number; p: number; salt: Buffer },
  ): Promise<Buffer> {
    await this.#enter();
    try {
      this.#hashes += 1;
      return await new Promise((resolve, reject) => {
        // Node's own limit is what this cost needs to the byte.
        const options = { N: n, r, p, maxmem: 256 * n * r };
        scrypt(normalised(password), salt, hashBytes, options, (error, derived) => {
          if (error === null) resolve(derived);
          else reject(error);
        });
      });
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }

  async #enter(): Promise<void> {
    if (this.#running < slots.running) {
      this.#running += 1;
      return;
    }
    if (this.#waiting.length >= slots.waiting) {
      this.#turnedAway += 1;
      throw new GatewayError('LOGIN_BUSY', 'too many logins at once; try again in a second');
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

/** Anything else is damage: a cost from a damaged record could stop the machine. */
export function isPasswordHash(value: unknown): value is PasswordHash {
  if (typeof value !== 'object' || value === null) return false;
  const { n, r, p, salt, hash } = value as Record<string, unknown>;
  const isHex = (text: unknown, bytes: number) =>
    typeof text === 'string' && text.length === 2 * bytes && /^[0-9a-f]+$/.test(text);
  if (typeof n !== 'number' || n < 2 ** 14 || n > 2 ** 17 || !Number.isInteger(Math.log2(n))) return false;
  if (r !== 8 || typeof p !== 'number' || !Number.isInteger(p) || p < 1 || p > 4) return false;
  return isHex(salt, saltBytes) && isHex(hash, hashBytes);
}
