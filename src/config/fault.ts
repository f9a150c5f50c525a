// What is wrong with a configuration, in one line each: where, what was expected, what was given. Promises that
// the value of a secret is never in it, nor anything else that stands where a secret could have slipped.

export interface Fault {
  /** `mqtt.tls.port`; empty for the file as a whole. */
  readonly path: string;
  /** The environment variable at fault, where it is one. */
  readonly variable?: string;
  /** Counted from 1, for faults of the YAML itself. */
  readonly line?: number;
  readonly column?: number;
  /** `expected a whole number from 0 to 65535, got "abc"` */
  readonly message: string;
}

/** `mqtt.port: expected …`, `IOTFLOW_MQTT_PORT (mqtt.port): expected …`, `config.yaml:3:7: …`. */
export function formatFault(fault: Fault, fileName = 'configuration'): string {
  if (fault.variable !== undefined) {
    const place = fault.path === '' ? fault.variable : `${fault.variable} (${fault.path})`;
    return `${place}: ${fault.message}`;
  }
  if (fault.line !== undefined) return `${fileName}:${fault.line}:${fault.column ?? 1}: ${fault.message}`;
  return `${fault.path === '' ? fileName : fault.path}: ${fault.message}`;
}

const shownCharactersMax = 60;

/** A given value for people. Whole sections and lists are named by their kind alone. */
export function describeValue(value: unknown, isSecret: boolean): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  if (isSecret) return `a ${typeof value === 'string' ? 'text' : typeof value} (not shown: this is a secret)`;
  if (typeof value !== 'string') return String(value);
  // A URL may carry a password where none belongs.
  const shown = value.replace(/\/\/[^/@]*@/g, '//…@');
  return JSON.stringify(shown.length > shownCharactersMax ? `${shown.slice(0, shownCharactersMax)}…` : shown);
}
