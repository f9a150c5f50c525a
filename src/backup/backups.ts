// The gateway's side of a backup: what lies on the disk at one moment, handed out in pages to the command that
// writes the file. Promises: the journal, the state and their devices are of the same moment; nobody waits for the
// reader; a reader that went away is forgotten after the lease.

import { randomBytes } from 'node:crypto';
import type { JournalSnapshot } from '../journal/snapshot.ts';
import { GatewayError } from '../platform/errors.ts';
import type { LevelSnapshot } from '../platform/level-store.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import { type BackupHeader, encodeRecord, jsonRecord } from './record.ts';

const defaults = {
  /** Between two pages: then the reader is taken for dead. */
  leaseMs: 30_000,
  /** A page is a moment of the event loop, in which no alarm is heard. */
  pageBytes: 256 * 1024,
};

export interface BackupsOptions {
  readonly journal: { snapshot(): JournalSnapshot };
  readonly state: { snapshot(): LevelSnapshot };
  /** Of this moment, but for what the journal says. */
  readonly header: () => Omit<BackupHeader, 'points' | 'isThinning'>;
  readonly leaseMs?: number;
}

export interface BackupsStats {
  /** Being read at this moment: 0 or 1. */
  readonly open: number;
  readonly finished: number;
  /** Given up: the reader died, or the ring turned faster than it read. */
  readonly abandoned: number;
  /** In memory because the ring wanted it back before it was read. */
  readonly heldBytes: number;
}

interface Session {
  readonly id: string;
  readonly journal: JournalSnapshot;
  readonly state: LevelSnapshot;
  readonly records: AsyncGenerator<Buffer, void, void>;
  isReading: boolean;
  isRead: boolean;
  lease: NodeJS.Timeout | undefined;
}

export class Backups {
  /** `backup.begin {}`, `backup.read {id}` until `isEnd`, `backup.end {id}`. */
  readonly operations: Operations;
  readonly #options: BackupsOptions;
  #session: Session | undefined;
  #isClosed = false;
  #finished = 0;
  #abandoned = 0;

  constructor(options: BackupsOptions) {
    this.#options = options;
    this.operations = new Map<string, Operation>([
      ['backup.begin', async () => this.#begin()],
      ['backup.read', async ({ id }) => await this.#read(id)],
      ['backup.end', async ({ id }) => await this.#end(id)],
    ]);
  }

  stats(): BackupsStats {
    return {
      open: this.#session === undefined ? 0 : 1,
      finished: this.#finished,
      abandoned: this.#abandoned,
      heldBytes: this.#session?.journal.heldBytes ?? 0,
    };
  }

  /** Ends the one that is being read. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#drop();
  }

  #begin(): { id: string; header: BackupHeader } {
    if (this.#isClosed) throw new GatewayError('BACKUP_CLOSED', 'the gateway is stopping');
    if (this.#session !== undefined) {
      throw new GatewayError('BACKUP_BUSY', 'another backup is being made; try again when it is done');
    }
    // In one turn of the event loop: of the same moment.
    const state = this.#options.state.snapshot();
    let journal: JournalSnapshot;
    try {
      journal = this.#options.journal.snapshot();
    } catch (error) {
      void state.close();
      throw error;
    }
    const { points, isThinning } = journal;
    const header: BackupHeader = { ...this.#options.header(), points, isThinning };
    const id = randomBytes(8).toString('hex');
    const records = encodedRecords(header, journal, state);
    this.#session = { id, journal, state, records, isReading: false, isRead: false, lease: undefined };
    this.#renew(this.#session);
    return { id, header };
  }

  async #read(id: unknown): Promise<{ data: string; isEnd: boolean; unreadableBytes: number }> {
    const session = this.#of(id);
    if (session.isReading) throw new GatewayError('BACKUP_BUSY', 'the page before is still being read');
    clearTimeout(session.lease);
    session.isReading = true;
    try {
      const page: Buffer[] = [];
      let bytes = 0;
      while (bytes < defaults.pageBytes && !session.isRead) {
        const next = await session.records.next();
        if (next.done === true) {
          session.isRead = true;
          break;
        }
        page.push(next.value);
        bytes += next.value.length;
      }
      this.#renew(session);
      const { unreadableBytes } = session.journal;
      return { data: Buffer.concat(page).toString('base64'), isEnd: session.isRead, unreadableBytes };
    } catch (error) {
      await this.#drop();
      throw error;
    } finally {
      session.isReading = false;
    }
  }

  async #end(id: unknown): Promise<Record<string, never>> {
    const { isRead } = this.#of(id);
    await this.#drop({ isFinished: isRead });
    return {};
  }

  #of(id: unknown): Session {
    const session = this.#session;
    if (session !== undefined && session.id === id) return session;
    throw new GatewayError('BACKUP_LOST', 'this backup was given up: nothing of it was asked for too long');
  }

  #renew(session: Session): void {
    if (this.#session !== session) return;
    session.lease = setTimeout(() => void this.#drop(), this.#options.leaseMs ?? defaults.leaseMs);
    session.lease.unref();
  }

  async #drop({ isFinished } = { isFinished: false }): Promise<void> {
    const session = this.#session;
    if (session === undefined) return;
    this.#session = undefined;
    if (isFinished) this.#finished += 1;
    else this.#abandoned += 1;
    clearTimeout(session.lease);
    await session.journal.close();
    await session.state.close();
  }
}

async function* encodedRecords(
  header: BackupHeader,
  journal: JournalSnapshot,
  state: LevelSnapshot,
): AsyncGenerator<Buffer, void, void> {
  yield encodeRecord(jsonRecord('header', header));
  for await (const { name, fileBytes, position, bytes } of journal.ring()) {
    yield encodeRecord({ kind: 'ring', key: `${name} ${fileBytes} ${position}`, value: bytes });
  }
  for await (const [key, value] of state.entries()) yield encodeRecord({ kind: 'state', key, value });
  for await (const [key, value] of journal.blocks()) yield encodeRecord({ kind: 'block', key, value });
}
