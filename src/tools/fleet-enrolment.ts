// How a simulated fleet gets its keys as real devices do: it registers over HTTP, and keeps what it is told in a file.
// Promises: a key that was told is in the file before the next device registers, so that a run which ends early leaves
// no device behind that nobody has a key of.

import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { replaceFile } from '../platform/disk.ts';
import { GatewayError } from '../platform/errors.ts';
import { JsonClient, type JsonClientOptions, type Reply, refusalMessage } from '../simulator/json-client.ts';
import type { FleetDevice } from '../simulator/presets.ts';

export interface FleetEnrolment {
  readonly api: JsonClientOptions;
  /** JSON of device ids and keys; made when missing. */
  readonly keysFile: string;
  /** One for each device; undefined: a pairing window is open, or somebody approves. */
  readonly tokens: readonly string[] | undefined;
  readonly tell: (line: string) => void;
}

/** Tries after a busy answer; the limit for strangers refills within a second or two. */
const triesMax = 30;
const busyWaitMs = 1000;

/** Registers those the file has no key of. */
export async function enrolFleet(devices: readonly FleetDevice[], enrolment: FleetEnrolment): Promise<void> {
  const { api, keysFile, tokens, tell } = enrolment;
  const keys: Record<string, unknown> = existsSync(keysFile)
    ? JSON.parse(readFileSync(keysFile, 'utf8'))
    : {};
  const strangers = devices.filter(({ deviceId }) => keys[deviceId] === undefined);
  if (tokens !== undefined && tokens.length < strangers.length) {
    const message = `--tokens: expected one for each of ${strangers.length} devices, got ${tokens.length}`;
    throw new GatewayError('ARGUMENT_INVALID', message);
  }
  const client = new JsonClient(api);
  let pending = 0;
  try {
    for (const [index, device] of strangers.entries()) {
      const { apiKey, status } = await register(client, device, tokens?.[index]);
      keys[device.deviceId] = apiKey;
      await replaceFile(keysFile, `${JSON.stringify(keys, undefined, 2)}\n`, 0o600);
      if (status === 'pending') pending += 1;
    }
  } finally {
    client.cut();
  }
  if (strangers.length > 0) tell(`${strangers.length} devices registered, their keys are in ${keysFile}`);
  if (pending > 0) tell(`${pending} of them wait for approval: iotflow devices approve ID`);
}

async function register(client: JsonClient, device: FleetDevice, token: string | undefined) {
  const body = {
    device_id: device.deviceId,
    name: device.name,
    device_type: device.type,
    location: device.location,
    firmware_version: device.firmwareVersion,
    hardware_version: device.hardwareVersion,
    ...(token === undefined ? {} : { enrolment_token: token }),
  };
  let reply: Reply | undefined;
  for (let tries = 0; tries < triesMax; tries += 1) {
    reply = await client.ask('POST', '/api/v1/devices/register', body);
    if (reply.status !== 429 && reply.status !== 503) break;
    await sleep(reply.retryAfterMs ?? busyWaitMs);
  }
  const told = (reply?.body.device ?? {}) as { readonly api_key?: unknown; readonly status?: unknown };
  if (reply?.status === 201 && typeof told.api_key === 'string') {
    return { apiKey: told.api_key, status: told.status };
  }
  const reason = refusalMessage(reply?.body) ?? `answered ${reply?.status}`;
  throw new GatewayError('ENROLMENT_REFUSED', `${device.deviceId} cannot register: ${reason}`);
}
