// Where a simulated fleet connects and as whom: what the command line says, or the gateway on this machine, with
// which it registers by itself. With --enrol it registers over HTTP as real devices do. An API key is the MQTT
// password, too.

import { readFileSync } from 'node:fs';
import { dataPaths } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { GatewayError } from '../platform/errors.ts';
import type { FleetDevice } from '../simulator/presets.ts';
import type { Call } from './command.ts';
import { requireConfig } from './configuration.ts';
import { storedDevices } from './devices.ts';
import { enrolFleet } from './fleet-enrolment.ts';
import { callOperation } from './operator.ts';
import { urlOf } from './simulation.ts';

export interface Login {
  readonly username: string;
  readonly password: string;
}

interface Places {
  readonly mqttUrl: string;
  /** Undefined: nothing there speaks HTTP. */
  readonly httpUrl: string | undefined;
}

export interface Access extends Places {
  /** By device id; one without logs in as nobody. */
  readonly logins: ReadonlyMap<string, Login>;
}

function readJson(file: string, what: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new GatewayError('ARGUMENT_INVALID', `cannot read ${what} ${file}: ${String(error)}`);
  }
  if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  throw new GatewayError('ARGUMENT_INVALID', `${what} ${file}: expected a JSON object`);
}

function keysIn(file: string, devices: readonly FleetDevice[]): Map<string, Login> {
  const keys = readJson(file, '--keys');
  return new Map(
    devices.map(({ deviceId }) => {
      const password = keys[deviceId];
      if (typeof password === 'string') return [deviceId, { username: deviceId, password }] as const;
      throw new GatewayError('ARGUMENT_INVALID', `--keys ${file}: expected a key of ${deviceId}`);
    }),
  );
}

/** Undefined when the command line names no broker and no logins. */
export function statedAccess(call: Call, devices: readonly FleetDevice[]): Access | undefined {
  const keysFile = call.text('keys');
  const username = call.text('user');
  const url = urlOf(call, 'url');
  const ways = [keysFile !== undefined, username !== undefined, call.flag('anonymous')].filter(Boolean);
  if (ways.length > 1) {
    throw new GatewayError('ARGUMENT_INVALID', 'expected one of --keys, --user and --anonymous');
  }
  if (ways.length === 0) {
    if (url === undefined) return undefined;
    throw new GatewayError('ARGUMENT_INVALID', '--url: expected --keys, --user or --anonymous with it');
  }
  const places = { mqttUrl: url ?? 'mqtt://127.0.0.1:1883', httpUrl: urlOf(call, 'http-url') };
  if (keysFile !== undefined) return { ...places, logins: keysIn(keysFile, devices) };
  if (username === undefined) return { ...places, logins: new Map() };
  const password = call.env.IOTFLOW_PASSWORD;
  if (password === undefined) {
    throw new GatewayError('ARGUMENT_INVALID', '--user: expected its password in $IOTFLOW_PASSWORD');
  }
  return { ...places, logins: new Map(devices.map(({ deviceId }) => [deviceId, { username, password }])) };
}

function localPlaces(config: Config): Places {
  let ports: Readonly<Record<string, unknown>> = {};
  try {
    ports = readJson(dataPaths(config.dataDir).portsFile, 'ports');
  } catch {
    // As without one.
  }
  if (typeof ports.mqtt !== 'number') {
    throw new GatewayError(
      'GATEWAY_NOT_RUNNING',
      `no gateway runs with data_dir ${config.dataDir}: start one, or name a broker with --url`,
    );
  }
  const httpUrl = typeof ports.http === 'number' ? `http://127.0.0.1:${ports.http}` : undefined;
  return { mqttUrl: `mqtt://127.0.0.1:${ports.mqtt}`, httpUrl };
}

/** Registers over HTTP, with the gateway on this machine or the one the command line names. */
export async function enrolledAccess(call: Call, devices: readonly FleetDevice[]): Promise<Access> {
  const keysFile = call.text('keys');
  if (keysFile === undefined) {
    throw new GatewayError('ARGUMENT_INVALID', '--enrol: expected --keys FILE to keep the keys in');
  }
  const url = urlOf(call, 'url');
  const { mqttUrl, httpUrl } =
    url === undefined
      ? localPlaces(requireConfig(call).config)
      : { mqttUrl: url, httpUrl: urlOf(call, 'http-url') };
  if (httpUrl === undefined) {
    throw new GatewayError('ARGUMENT_INVALID', '--enrol: expected --http-url beside --url, or http.enabled');
  }
  const tokensFile = call.text('tokens');
  const caFile = call.text('ca');
  await enrolFleet(devices, {
    api: { url: httpUrl, ...(caFile === undefined ? {} : { ca: readFileSync(caFile) }) },
    keysFile,
    tokens:
      tokensFile === undefined ? undefined : readFileSync(tokensFile, 'utf8').split(/\s+/).filter(Boolean),
    tell: (line) => call.stderr.write(`${line}\n`),
  });
  return { mqttUrl, httpUrl, logins: keysIn(keysFile, devices) };
}

/** Registers the devices with the gateway that runs on this machine. */
export async function localAccess(call: Call, devices: readonly FleetDevice[]): Promise<Access> {
  const { config } = requireConfig(call);
  const places = localPlaces(config);
  const logins = new Map<string, Login>();
  for (const { deviceId, name, type, location } of devices) {
    const ask = async (operation: string, args: Readonly<Record<string, unknown>>): Promise<string> => {
      const issued = await callOperation(config, operation, { device_id: deviceId, ...args }, storedDevices);
      return (issued as { readonly api_key: string }).api_key;
    };
    const password = await ask('devices.add', { name, type, location }).catch((error: unknown) => {
      if (!(error instanceof GatewayError) || error.code !== 'DEVICE_EXISTS') throw error;
      // From an earlier run, whose keys were kept nowhere.
      return ask('devices.rotate', {});
    });
    logins.set(deviceId, { username: deviceId, password });
  }
  return { ...places, logins };
}
