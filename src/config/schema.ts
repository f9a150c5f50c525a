// Every setting of the gateway: its type, default and what is expected of it, in this one place. Keys are as in
// YAML (snake_case); the code sees `Config`, the same tree in camelCase. Units are part of the names.
// Sections are plain objects, settings are `optional`: the loader walks this tree and relies on that.

import { hostname } from 'node:os';
import * as v from 'valibot';
import { deviceIdPattern } from '../model/topic.ts';
import { gatewayIdFrom, machineMark } from './gateway-id.ts';

/** What the loader must know of a setting beyond its type. */
export interface SettingNotes {
  /** Its value is shown to nobody, and `<key>_file` may name a file that holds it. */
  readonly secret?: true;
  /** A path, relative to the folder of the configuration file. */
  readonly path?: true;
}

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;
const gibibyte = 1024 * mebibyte;

function wholeNumber(min: number, max: number, fallback: number) {
  const expected =
    max === Number.MAX_SAFE_INTEGER
      ? `a whole number of at least ${min}`
      : `a whole number from ${min} to ${max}`;
  return v.optional(
    v.pipe(
      v.number(expected),
      v.check((given) => Number.isInteger(given) && given >= min && given <= max, expected),
    ),
    fallback,
  );
}

function atLeast(min: number, fallback: number) {
  return wholeNumber(min, Number.MAX_SAFE_INTEGER, fallback);
}

function atLeastIfGiven(min: number) {
  const expected = `a whole number of at least ${min}`;
  return v.optional(
    v.pipe(
      v.number(expected),
      v.check((given) => Number.isSafeInteger(given) && given >= min, expected),
    ),
  );
}

function port(fallback: number) {
  return wholeNumber(0, 65_535, fallback);
}

function yesOrNo(fallback: boolean) {
  return v.optional(v.boolean('true or false'), fallback);
}

function pattern(expected: string, form: RegExp) {
  return v.pipe(v.string(expected), v.regex(form, expected));
}

// Printable and not empty: what a header, a tag or a query may carry.
const text = pattern('text of 1 to 256 characters, no control characters', /^[^\p{Cc}]{1,256}$/u);
const address = pattern('an IP address or a host name to listen on', /^[0-9A-Za-z.:%_-]{1,253}$/);
const path = v.pipe(
  pattern('a path', /^[^\p{Cc}]{1,4096}$/u),
  v.metadata({ path: true } satisfies SettingNotes),
);
const secret = v.pipe(
  // Header values: a line break in a token is a copying accident that would fail later and less clearly.
  pattern('a secret of 1 to 4096 printable characters without line breaks', /^[^\p{Cc}]{1,4096}$/u),
  v.metadata({ secret: true } satisfies SettingNotes),
);

const urlExpected = 'a URL that starts with http:// or https:// and holds no user name or password';
const url = v.pipe(
  v.string(urlExpected),
  v.check((given) => {
    if (!URL.canParse(given)) return false;
    const { protocol, username, password } = new URL(given);
    return (protocol === 'http:' || protocol === 'https:') && username === '' && password === '';
  }, urlExpected),
);

const brokersExpected =
  'one or more URLs with commas, each mqtt:// or mqtts:// without user name or password';
const brokers = v.pipe(
  v.string(brokersExpected),
  v.check(
    (given) =>
      given.split(',').every((part) => {
        if (!URL.canParse(part.trim())) return false;
        const { protocol, hostname, username, password } = new URL(part.trim());
        const isMqtt = protocol === 'mqtt:' || protocol === 'mqtts:';
        return isMqtt && hostname !== '' && username === '' && password === '';
      }),
    brokersExpected,
  ),
);

const bridgeFormats = ['line_protocol', 'json'] as const;
const clockTrusts = ['auto', 'always', 'synchronized'] as const;
const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

const serialPath = pattern('a path that starts with /', /^\/[^\p{Cc}]{1,4095}$/u);
const serialPortsExpected = 'auto, or a list of paths that start with /';

export const configSchema = v.object({
  version: v.optional(v.literal(1, '1, the only version there is'), 1),
  gateway_id: v.optional(
    pattern('1 to 64 characters of a-z, 0-9, - and _, the first a letter or digit', deviceIdPattern),
    () => gatewayIdFrom(hostname(), machineMark()),
  ),
  data_dir: v.optional(path, 'data'),
  topic_root: v.optional(
    pattern(
      'topic levels of letters, digits, - and _, at most 64 characters',
      /^(?=.{1,64}$)[\w-]+(\/[\w-]+)*$/,
    ),
    'iotflow',
  ),
  log: v.object({
    level: v.optional(v.picklist(logLevels, `one of ${logLevels.join(', ')}`), 'info'),
  }),
  mqtt: v.object({
    host: v.optional(address, '0.0.0.0'),
    port: port(1883),
    tls: v.object({ port: port(8883) }),
    ws: v.object({ port: port(9001) }),
    lan_plaintext: yesOrNo(false),
    connect_timeout_ms: wholeNumber(100, 600_000, 5_000),
    connect_bytes_max: wholeNumber(256, mebibyte, 4 * kibibyte),
    packet_bytes_max: wholeNumber(kibibyte, 256 * mebibyte, 64 * kibibyte),
    connections_max: wholeNumber(1, 100_000, 200),
    connections_per_address_max: wholeNumber(1, 100_000, 20),
    // A bridge, a bench and Home Assistant on the same machine share the loopback address.
    connections_loopback_max: wholeNumber(1, 100_000, 200),
    unauthenticated_max: wholeNumber(1, 100_000, 10),
    unauthenticated_loopback_max: wholeNumber(1, 100_000, 50),
    client_id_bytes_max: wholeNumber(23, 65_535, 128),
    keepalive_max_s: wholeNumber(10, 65_535, 600),
    inflight_inbound_max: wholeNumber(1, 65_535, 1_024),
    subscriptions_per_client_max: wholeNumber(1, 10_000, 100),
    topic_levels_max: wholeNumber(5, 200, 8),
    topic_bytes_max: wholeNumber(64, 65_535, 256),
    client_queue_bytes_max: atLeast(16 * kibibyte, mebibyte),
    sessions_max: wholeNumber(0, 100_000, 100),
    session_expiry_max_s: wholeNumber(60, 0xffff_fffe, 7 * 86_400),
    session_queue_messages_max: wholeNumber(0, 1_000_000, 1_000),
    session_queue_bytes_max: atLeast(0, mebibyte),
    session_queues_bytes_max: atLeast(0, 16 * mebibyte),
    retained_bytes_max: wholeNumber(0, 256 * mebibyte, 4 * kibibyte),
    retained_max: wholeNumber(0, 1_000_000, 2_000),
    retained_per_device_max: wholeNumber(0, 1_000_000, 20),
    retained_home_assistant_max: wholeNumber(0, 1_000_000, 1000),
    ack_timeout_ms: wholeNumber(100, 3_600_000, 20_000),
  }),
  http: v.object({
    enabled: yesOrNo(true),
    host: v.optional(address, '0.0.0.0'),
    port: port(8080),
    lan_plaintext: yesOrNo(false),
  }),
  https: v.object({ enabled: yesOrNo(true), port: port(8443) }),
  tls: v.object({ cert_path: v.optional(path), key_path: v.optional(path) }),
  serial: v.object({
    ports: v.optional(
      v.union(
        [v.literal('auto'), v.pipe(v.array(serialPath), v.maxLength(16, 'at most 16 paths'))],
        serialPortsExpected,
      ),
      'auto',
    ),
  }),
  influx: v.object({
    url: v.optional(url),
    token: v.optional(secret),
    token_file: v.optional(path),
    org: v.optional(text, 'iotflow'),
    bucket: v.optional(text, 'telemetry'),
    batch_points: wholeNumber(1, 100_000, 5_000),
    flush_interval_ms: wholeNumber(10, 3_600_000, 1_000),
    timeout_ms: wholeNumber(100, 600_000, 10_000),
    drain_jitter_ms: wholeNumber(0, 3_600_000, 30_000),
  }),
  bridge: v.object({
    url: v.optional(brokers),
    username: v.optional(text),
    password: v.optional(secret),
    password_file: v.optional(path),
    ca_path: v.optional(path),
    client_id: v.optional(text),
    topic: v.optional(
      pattern(
        'topic levels of letters, digits, - and _, at most 64 characters',
        /^(?=.{1,64}$)[\w-]+(\/[\w-]+)*$/,
      ),
      'iotflow/points',
    ),
    format: v.optional(v.picklist(bridgeFormats, `one of ${bridgeFormats.join(', ')}`), 'line_protocol'),
    in_flight_max: wholeNumber(1, 65_535, 100),
    timeout_ms: wholeNumber(100, 600_000, 10_000),
  }),
  flume: v.object({
    base_url: v.optional(url, 'https://api.flumewater.com'),
    client_id: v.optional(text),
    client_secret: v.optional(secret),
    client_secret_file: v.optional(path),
    username: v.optional(text),
    password: v.optional(secret),
    password_file: v.optional(path),
    requests_per_hour: wholeNumber(1, 3_600, 120),
  }),
  voicemonkey: v.object({
    base_url: v.optional(url, 'https://api-v3.voicemonkey.io'),
    token: v.optional(secret),
    token_file: v.optional(path),
    device: v.optional(text),
  }),
  buzzer: v.object({ led: v.optional(path) }),
  button: v.object({ device: v.optional(path), long_press_ms: wholeNumber(1_000, 60_000, 3_000) }),
  home_assistant: v.object({ enabled: yesOrNo(true) }),
  journal: v.object({
    ring_segments: wholeNumber(4, 1_024, 16),
    max_bytes: atLeast(mebibyte, 2 * gibibyte),
    max_age_days: wholeNumber(1, 36_500, 365),
    event_max_age_days: wholeNumber(1, 36_500, 3_650),
    alarm_max_age_days: wholeNumber(1, 36_500, 3_650),
    pending_bytes_max: atLeast(64 * kibibyte, 16 * mebibyte),
    // Publishers send again after a second without an answer (esp-mqtt's default).
    ack_delay_max_ms: wholeNumber(0, 800, 250),
  }),
  wear: v.object({
    card_endurance_bytes: atLeastIfGiven(gibibyte),
    life_years: wholeNumber(1, 100, 10),
    budget_bytes_per_day: atLeastIfGiven(mebibyte),
    sample_interval_ms: wholeNumber(1_000, 3_600_000, 60_000),
  }),
  dead_letters: v.object({
    max: wholeNumber(0, 10_000_000, 10_000),
    max_bytes: atLeast(0, 64 * mebibyte),
  }),
  time: v.object({
    trust: v.optional(v.picklist(clockTrusts, `one of ${clockTrusts.join(', ')}`), 'auto'),
    synchronized_path: v.optional(path),
  }),
  history: v.object({
    enabled: yesOrNo(true),
    raw_hours: wholeNumber(1, 8_760, 48),
    max_age_days: wholeNumber(1, 3_650, 30),
    max_bytes: atLeast(mebibyte, 512 * mebibyte),
  }),
  rules: v.object({ silent_after_ms: wholeNumber(1_000, 86_400_000, 150_000) }),
  users: v.object({
    session_idle_hours: wholeNumber(1, 8_760, 24),
    session_max_days: wholeNumber(1, 365, 14),
  }),
  registry: v.object({
    devices_max: wholeNumber(1, 100_000, 1_000),
    pending_max: wholeNumber(0, 1_000, 20),
  }),
  commands: v.object({
    expires_in_ms: wholeNumber(1_000, 2_592_000_000, 86_400_000),
    pending_per_device_max: wholeNumber(1, 10_000, 100),
    pending_max: wholeNumber(1, 100_000, 2_000),
    finished_per_device_max: wholeNumber(0, 10_000, 100),
    finished_max: wholeNumber(0, 100_000, 5_000),
    bytes_max: atLeast(64 * kibibyte, 8 * mebibyte),
    attempts_max: wholeNumber(1, 1_000, 10),
    retry_ms: wholeNumber(1_000, 3_600_000, 10_000),
    retry_max_ms: wholeNumber(1_000, 86_400_000, 300_000),
  }),
  host_health: v.object({
    enabled: yesOrNo(true),
    interval_ms: wholeNumber(1_000, 86_400_000, 60_000),
  }),
});

type CamelCase<Key extends string> = Key extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Key;

type Camelized<Tree> = Tree extends readonly unknown[]
  ? Readonly<Tree>
  : Tree extends object
    ? {
        // What a file held is under the key of the secret itself.
        readonly [Key in keyof Tree as Key extends `${string}_file`
          ? never
          : CamelCase<Key & string>]: Camelized<Tree[Key]>;
      }
    : Tree;

/** The settings as the stages see them: complete, validated, camelCase, paths absolute. */
export type Config = Camelized<v.InferOutput<typeof configSchema>>;

/** One setting of the schema. */
export interface Setting {
  /** `['mqtt', 'tls', 'port']` */
  readonly path: readonly string[];
  readonly type: 'number' | 'boolean' | 'text' | 'list';
  readonly notes: SettingNotes;
}

function typeOf(schema: v.GenericSchema): Setting['type'] {
  if (schema.type === 'number' || schema.type === 'boolean') return schema.type;
  if (schema.type === 'union') return 'list';
  return typeof (schema as { literal?: unknown }).literal === 'number' ? 'number' : 'text';
}

type Entries = Readonly<Record<string, v.GenericSchema>>;

/** The keys below a section; undefined for a setting. */
export function entriesOf(schema: v.GenericSchema): Entries | undefined {
  return schema.type === 'object' ? (schema as unknown as { entries: Entries }).entries : undefined;
}

function settingsBelow(schema: v.GenericSchema, path: readonly string[]): Setting[] {
  const entries = entriesOf(schema);
  if (entries !== undefined) {
    return Object.entries(entries).flatMap(([key, below]) => settingsBelow(below, [...path, key]));
  }
  const { wrapped } = schema as unknown as { wrapped: v.GenericSchema };
  return [{ path, type: typeOf(wrapped), notes: v.getMetadata(wrapped) as SettingNotes }];
}

/** Every setting, in the order of the schema. */
export const settings: readonly Setting[] = settingsBelow(configSchema, []);
