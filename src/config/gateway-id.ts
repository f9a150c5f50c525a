// What a gateway is called when its configuration does not say: the host name, and a mark of its own, because cards
// flashed from one image all have the same host name, and points of two gateways under one name can never be told
// apart again. Stable as long as the board is the same; with another board, or where it is to be kept for good,
// `gateway_id` says it.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

// The board's serial number is there on a Raspberry Pi, and differs even between clones of one card. The machine id
// is not to be shown in the clear (machine-id(5)): hence the digest.
const markPaths = ['/proc/device-tree/serial-number', '/etc/machine-id'];
const markLength = 6;

/** Undefined on a machine that has nothing of its own. */
export function machineMark(paths: readonly string[] = markPaths): string | undefined {
  for (const path of paths) {
    const text = readText(path).replaceAll('\0', '').trim();
    // An image that was never started says `uninitialized`; an emulated board has the serial number 0.
    if (text === '' || text === 'uninitialized' || /^0+$/.test(text)) continue;
    return createHash('sha256').update(`iotflow gateway ${text}`).digest('hex').slice(0, markLength);
  }
  return undefined;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** In the grammar of device ids. */
export function gatewayIdFrom(hostName: string, mark: string | undefined): string {
  const end = mark === undefined ? '' : `-${mark}`;
  const id = hostName
    .toLowerCase()
    .replace(/\..*$/, '')
    .replace(/[^a-z0-9_-]+/g, '-')
    .replace(/^[^a-z0-9]+|-+$/g, '')
    .slice(0, 64 - end.length);
  return `${id === '' ? 'gateway' : id}${end}`;
}
