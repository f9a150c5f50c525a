// Reads the configuration: YAML file, then environment over it, then secrets from files. Promises: every fault
// is reported, not only the first, and faults are a value, never an exception. Does not watch the file: a change
// takes a restart.

import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { distance } from 'fastest-levenshtein';
import { load, YAMLException } from 'js-yaml';
import * as v from 'valibot';
import { type Environment, givenByEnvironment, unknownVariables } from './environment.ts';
import { describeValue, type Fault } from './fault.ts';
import { type Config, configSchema, entriesOf, type Setting, settings } from './schema.ts';

const configBytesMax = 1024 * 1024;
const secretFileBytesMax = 64 * 1024;

export interface ConfigSource {
  /** Path of a YAML file; neither this nor `text` means defaults and environment alone. */
  readonly file?: string;
  /** YAML itself, instead of a file. */
  readonly text?: string;
  readonly env: Environment;
}

export interface LoadedConfig {
  readonly config: Config;
  /** One sentence each: worth a line in the log, no reason not to start. */
  readonly warnings: readonly string[];
}

export interface FaultyConfig {
  readonly faults: readonly Fault[];
}

type Tree = Record<string, unknown>;

/** A value somebody gave for a setting, and where. */
interface Given {
  readonly value: unknown;
  readonly variable?: string;
}

function isMapping(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const errnoTexts: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'no such file'],
  ['EACCES', 'permission denied'],
  ['EISDIR', 'it is a directory'],
]);

function errnoText(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
  return errnoTexts.get(code) ?? code;
}

/** The text of a file, or why there is none. */
function readText(
  file: string,
  bytesMax: number,
): { text: string; isReadableByAll: boolean } | { problem: string } {
  try {
    // Checked before reading: somebody may name a disk image.
    const { size, mode } = statSync(file);
    if (size > bytesMax) return { problem: `it has ${size} bytes, at most ${bytesMax} are read` };
    return { text: readFileSync(file, 'utf8'), isReadableByAll: (mode & 0o004) !== 0 };
  } catch (error) {
    return { problem: errnoText(error) };
  }
}

function parseYaml(text: string): { tree: unknown } | { fault: Fault } {
  try {
    return { tree: load(text) };
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    if (error.reason.includes('input is empty')) return { tree: {} };
    // The exception's own message quotes the lines around the fault, which may hold secrets.
    if (error.mark === undefined) return { fault: { path: '', message: `not YAML: ${error.reason}` } };
    const { line, column } = error.mark;
    return {
      fault: { path: '', line: line + 1, column: column + 1, message: `not YAML: ${error.reason}` },
    };
  }
}

function plain(key: string): string {
  return key.toLowerCase().replace(/[_-]/g, '');
}

/** `did you mean "port"?`, or what there is to choose from. */
function suggestion(key: string, known: readonly string[]): string {
  const ranked = known
    .map((name) => ({ name, edits: distance(plain(name), plain(key)) }))
    .sort((a, b) => a.edits - b.edits);
  const [nearest] = ranked;
  if (nearest !== undefined && nearest.edits <= Math.max(2, Math.floor(key.length / 3))) {
    return `did you mean "${nearest.name}"?`;
  }
  const elsewhere = settings.find(({ path }) => plain(path.at(-1) ?? '') === plain(key));
  if (elsewhere !== undefined) return `did you mean "${elsewhere.path.join('.')}"?`;
  return `known here are ${known.join(', ')}`;
}

// A key is quoted in faults: it must not bring line breaks or a screenful along.
function shownKey(key: string): string {
  return /^[\w.-]{1,60}$/.test(key) ? key : JSON.stringify(key.slice(0, 60));
}

/** Collects the settings a YAML tree gives; a key without a value (`url:`) counts as not given. */
function collect(
  schema: v.GenericSchema,
  tree: unknown,
  path: readonly string[],
  given: Map<string, Given>,
  faults: Fault[],
): void {
  if (tree === null || tree === undefined) return;
  const entries = entriesOf(schema);
  if (entries === undefined) {
    given.set(path.join('.'), { value: tree });
    return;
  }
  if (!isMapping(tree)) {
    // Not shown: `influx: the-token` is an easy slip.
    const kind = Array.isArray(tree) ? 'a list' : 'a single value';
    faults.push({ path: path.join('.'), message: `expected keys below it, got ${kind}` });
    return;
  }
  for (const key of Object.keys(tree)) {
    const below = Object.hasOwn(entries, key) ? entries[key] : undefined;
    if (below !== undefined) {
      collect(below, tree[key], [...path, key], given, faults);
      continue;
    }
    faults.push({
      path: [...path, shownKey(key)].join('.'),
      message: `unknown key; ${suggestion(key, Object.keys(entries))}`,
    });
  }
}

/** Puts the content of `<key>_file` in the place of `<key>`. */
function readSecret(setting: Setting, given: Map<string, Given>, baseDir: string, faults: Fault[]): void {
  const path = setting.path.join('.');
  const filePath = `${path}_file`;
  const direct = given.get(path);
  const file = given.get(filePath);
  if (file === undefined) return;
  const fromEnvironment = file.variable !== undefined;
  if (direct !== undefined && (direct.variable !== undefined) === fromEnvironment) {
    const names = fromEnvironment ? `${direct.variable} and ${file.variable}` : `${path} and ${filePath}`;
    faults.push({ path: filePath, message: `expected one of ${names}, got both` });
    return;
  }
  // The environment goes before the file, in whichever of the two forms.
  if (direct?.variable !== undefined || typeof file.value !== 'string') return;
  const fileName = resolve(fromEnvironment ? '.' : baseDir, file.value);
  const at = { path: filePath, ...(file.variable === undefined ? {} : { variable: file.variable }) };
  const read = readText(fileName, secretFileBytesMax);
  if ('problem' in read) {
    faults.push({ ...at, message: `cannot read ${JSON.stringify(fileName)}: ${read.problem}` });
    return;
  }
  const value = read.text.replace(/\r?\n$/, '');
  if (value === '') {
    faults.push({ ...at, message: `expected a secret in ${JSON.stringify(fileName)}, got an empty file` });
    return;
  }
  given.set(path, { value, ...(file.variable === undefined ? {} : { variable: file.variable }) });
}

function treeOf(given: ReadonlyMap<string, Given>): Tree {
  const tree: Tree = {};
  for (const { path } of settings) {
    let at = tree;
    for (const key of path.slice(0, -1)) {
      at[key] ??= {};
      at = at[key] as Tree;
    }
    const found = given.get(path.join('.'));
    if (found !== undefined) at[path.at(-1) ?? ''] = found.value;
  }
  return tree;
}

function camelCase(key: string): string {
  return key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function camelized(tree: unknown): unknown {
  if (!isMapping(tree)) return tree;
  return Object.fromEntries(
    Object.entries(tree)
      .filter(([key]) => !key.endsWith('_file'))
      .map(([key, value]) => [camelCase(key), camelized(value)]),
  );
}

function schemaFaults(issues: readonly v.BaseIssue<unknown>[], given: ReadonlyMap<string, Given>): Fault[] {
  return issues.map((issue) => {
    const keys = (issue.path ?? []).map(({ key }) => key);
    const setting = settings.find(({ path }) => path.every((key, index) => keys[index] === key));
    const path = keys.map((key) => (typeof key === 'number' ? `[${key}]` : `.${key}`)).join('');
    const found = setting && given.get(setting.path.join('.'));
    const got = describeValue(issue.input, setting?.notes.secret === true);
    return {
      path: path.replace(/^\./, ''),
      ...(found?.variable === undefined ? {} : { variable: found.variable }),
      message: `expected ${issue.message}, got ${got}`,
    };
  });
}

/** What is allowed and yet hardly meant. */
function oddities(
  file: string | undefined,
  isReadableByAll: boolean,
  fromFile: ReadonlyMap<string, Given>,
  given: ReadonlyMap<string, Given>,
): string[] {
  const found: string[] = [];
  const secrets = settings
    .filter(({ notes, path }) => notes.secret && fromFile.has(path.join('.')))
    .map(({ path }) => path.join('.'));
  if (file !== undefined && isReadableByAll && secrets.length > 0) {
    found.push(`${file} holds ${secrets.join(', ')} and every user may read it; chmod 640 mends that`);
  }
  if (given.has('influx.token') && !given.has('influx.url')) {
    found.push('influx.token is set and influx.url is not: nothing is forwarded to InfluxDB');
  }
  return found;
}

/**
 * Reads, completes and checks the configuration. Relative paths in a file are relative to the folder of that
 * file, those of the environment to the working directory.
 */
export function loadConfig(source: ConfigSource): LoadedConfig | FaultyConfig {
  const faults: Fault[] = [];
  let text = source.text ?? '';
  let isReadableByAll = false;
  if (source.file !== undefined) {
    const read = readText(source.file, configBytesMax);
    if ('problem' in read) return { faults: [{ path: '', message: `cannot be read: ${read.problem}` }] };
    ({ text, isReadableByAll } = read);
  }
  const parsed = parseYaml(text);
  const fromFile = new Map<string, Given>();
  if ('fault' in parsed) faults.push(parsed.fault);
  else collect(configSchema, parsed.tree, [], fromFile, faults);

  const given = new Map(fromFile);
  for (const setting of settings) {
    const found = givenByEnvironment(setting, source.env);
    if (found !== undefined) given.set(setting.path.join('.'), found);
  }
  const baseDir = source.file === undefined ? '.' : dirname(source.file);
  for (const setting of settings) {
    if (setting.notes.secret) readSecret(setting, given, baseDir, faults);
  }

  const checked = v.safeParse(configSchema, treeOf(given));
  if (!checked.success) faults.push(...schemaFaults(checked.issues, given));
  if (given.has('influx.url') && given.has('bridge.url')) {
    const message = 'expected one of influx.url and bridge.url, got both: points are forwarded to one place';
    faults.push({ path: 'bridge.url', message });
  }
  const [pathGiven, pathMissing] = given.has('tls.cert_path')
    ? (['tls.cert_path', 'tls.key_path'] as const)
    : (['tls.key_path', 'tls.cert_path'] as const);
  if (given.has(pathGiven) && !given.has(pathMissing)) {
    faults.push({ path: pathMissing, message: `expected a path, as ${pathGiven} is set, got nothing` });
  }
  if (faults.length > 0 || !checked.success) return { faults };

  // Defaults too: with `--config /etc/…` the data must not depend on where the command was typed.
  for (const { path, notes } of settings) {
    if (!notes.path) continue;
    const section = path.slice(0, -1).reduce((at, key) => at[key] as Tree, checked.output as Tree);
    const key = path.at(-1) ?? '';
    const value = section[key];
    const isFromEnvironment = given.get(path.join('.'))?.variable !== undefined;
    if (typeof value === 'string') section[key] = resolve(isFromEnvironment ? '.' : baseDir, value);
  }
  const warnings = [
    ...unknownVariables(source.env),
    ...oddities(source.file, isReadableByAll, fromFile, given),
  ];
  // The only place where names change; `Config` describes exactly this.
  return { config: camelized(checked.output) as Config, warnings };
}
