// Settings from environment variables: `IOTFLOW_` and the path in capitals for every setting, and the names that
// installations of the projects before this one use. An empty variable is one that is not set.

import { distance } from 'fastest-levenshtein';
import { type Setting, settings } from './schema.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

const prefix = 'IOTFLOW_';

/** Variables with our prefix that are no settings. */
const otherVariables: ReadonlySet<string> = new Set(['IOTFLOW_CONFIG', 'IOTFLOW_BACKUP_PASSPHRASE']);

/** Path → the name other projects use; ours wins over it. */
const inheritedNames: ReadonlyMap<string, string> = new Map([
  ['influx.url', 'INFLUXDB_URL'],
  ['influx.token', 'INFLUXDB_TOKEN'],
  ['influx.org', 'INFLUXDB_ORG'],
  ['influx.bucket', 'INFLUXDB_BUCKET'],
  ['influx.batch_points', 'INFLUXDB_BATCH_SIZE'],
  ['influx.flush_interval_ms', 'INFLUXDB_FLUSH_INTERVAL'],
  ['influx.timeout_ms', 'INFLUXDB_TIMEOUT'],
  ['flume.client_id', 'FLUME_CLIENT_ID'],
  ['flume.client_secret', 'FLUME_CLIENT_SECRET'],
  ['flume.username', 'FLUME_USERNAME'],
  ['flume.password', 'FLUME_PASSWORD'],
  ['voicemonkey.token', 'VOICE_MONKEY_TOKEN'],
  ['voicemonkey.device', 'VOICE_MONKEY_DEVICE'],
]);

/** `mqtt.tls.port` → `IOTFLOW_MQTT_TLS_PORT` */
export function variableOf(setting: Setting): string {
  return prefix + setting.path.join('_').toUpperCase();
}

export interface GivenByEnvironment {
  readonly variable: string;
  /** As YAML would have given it; text that is not of the setting's type stays text, for the schema to refuse. */
  readonly value: unknown;
}

function yes(text: string): boolean | undefined {
  if (/^(true|yes|on|1)$/i.test(text)) return true;
  if (/^(false|no|off|0)$/i.test(text)) return false;
  return undefined;
}

function typedValue(text: string, type: Setting['type']): unknown {
  switch (type) {
    case 'number':
      return /^\s*[+-]?\d+(\.\d+)?\s*$/.test(text) ? Number(text) : text;
    case 'boolean':
      return yes(text.trim()) ?? text;
    case 'list':
      return text.trim() === 'auto' ? 'auto' : text.split(',').map((part) => part.trim());
    case 'text':
      return text;
  }
}

/** What the environment says about a setting. */
export function givenByEnvironment(setting: Setting, env: Environment): GivenByEnvironment | undefined {
  const path = setting.path.join('.');
  // `IOTFLOW_VERSION` is what container images call the program's own version.
  if (path === 'version') return undefined;
  for (const variable of [variableOf(setting), inheritedNames.get(path)]) {
    const text = variable === undefined ? undefined : env[variable];
    if (variable !== undefined && text !== undefined && text !== '') {
      return { variable, value: typedValue(text, setting.type) };
    }
  }
  return undefined;
}

/**
 * One sentence for each variable that has our prefix and sets nothing. No faults: container platforms put
 * variables of their own (`IOTFLOW_SERVICE_HOST`) beside ours.
 */
export function unknownVariables(env: Environment): string[] {
  const known = settings.map(variableOf);
  return Object.keys(env)
    .filter((name) => name.startsWith(prefix) && !known.includes(name) && !otherVariables.has(name))
    .map((name) => {
      const [nearest] = [...known].sort((a, b) => distance(a, name) - distance(b, name));
      return `${name}: sets nothing; the nearest variable that does is ${nearest}`;
    });
}
