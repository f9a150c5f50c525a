// The seam to a keyed store on disk: small state that must survive. `level-store.ts` implements it on LevelDB.

export interface StoreWrite {
  readonly key: string;
  /** Undefined deletes. */
  readonly value: Buffer | undefined;
}

export interface StoreRange {
  readonly gte?: string;
  readonly lt?: string;
  readonly reverse?: boolean;
  readonly limit?: number;
}

/** One stage's share of a store. Keys are UTF-8 text in byte order. */
export interface Store {
  get(key: string): Promise<Buffer | undefined>;
  /**
   * All or nothing, fsynced before it resolves.
   * @throws GatewayError `STORE_FAILED` with the disk's error as cause; a later write may succeed.
   */
  write(writes: readonly StoreWrite[]): Promise<void>;
  /** Entries whose checksum fails are left out and counted, never returned wrong. */
  entries(range?: StoreRange): AsyncIterable<readonly [key: string, value: Buffer]>;
}
