// Who may publish, read and retain what. Default is no. Pure; the outside contract's topic tree is the only source.

import { type DeviceTopic, filterCovers, isTopicFilter, parseDeviceTopic } from '../../model/topic.ts';

/**
 * An authenticated sender. `service` accounts (Home Assistant, tests) read everything, give commands, and share
 * Home Assistant's own topics.
 */
export interface Account {
  readonly deviceId: string;
  readonly service: boolean;
  /** Another one after the account was shut out: what was left here under the one before is not its own. */
  readonly epoch?: number;
}

/** Whether what was left by an account of that epoch is still the account's. */
export function isSameAccount(left: { readonly epoch: number }, account: Account | undefined): boolean {
  return account !== undefined && left.epoch === (account.epoch ?? 0);
}

/** What the registry offers this source. */
export interface Credentials {
  /** Undefined when the pair is wrong, unknown or revoked. */
  verify(deviceId: string, secret: string): Account | undefined;
  /** Whether the pair is right and the account may not come in, yet or for now. */
  isBarred?(deviceId: string, secret: string): boolean;
  /** The account as it is now; undefined when nobody can connect as it. Without, all that were known still are. */
  account?(deviceId: string): Account | undefined;
  /** Called with an account of which credentials stopped being valid; `inactive` when it has none left. */
  onRevoked(listener: (account: Account & { readonly status?: string }) => void): void;
}

export type PublishTarget =
  | { readonly kind: 'message'; readonly topic: DeviceTopic }
  | { readonly kind: 'gateway-command'; readonly name: string }
  | { readonly kind: 'device-command' }
  | { readonly kind: 'home-assistant' };

/** Where Home Assistant looks for devices and says that it is there: its discovery, birth and will topics. */
export const homeAssistantPrefix = 'homeassistant/';

/** Where a publish goes, undefined when the account may not publish there. */
export function publishTarget(root: string, account: Account, topic: string): PublishTarget | undefined {
  const device = parseDeviceTopic(root, topic);
  if (device !== undefined && device.channel !== 'commands') {
    return device.deviceId === account.deviceId ? { kind: 'message', topic: device } : undefined;
  }
  if (!account.service) return undefined;
  if (device !== undefined) return { kind: 'device-command' };
  const prefix = `${root}/gateway/commands/`;
  if (topic.startsWith(prefix) && topic.length > prefix.length) {
    return { kind: 'gateway-command', name: topic.slice(prefix.length) };
  }
  // With a topic root of that name, what the gateway says stays the gateway's.
  if (topic.startsWith(`${root}/`) || !topic.startsWith(homeAssistantPrefix)) return undefined;
  return topic.length > homeAssistantPrefix.length ? { kind: 'home-assistant' } : undefined;
}

/** Whether everything the filter can match is the account's to read. */
export function mayRead(root: string, account: Account, filter: string): boolean {
  if (!isTopicFilter(filter)) return false;
  if (filterCovers(`${root}/devices/${account.deviceId}/#`, filter)) return true;
  if (!account.service) return false;
  return (
    filterCovers(`${root}/devices/#`, filter) ||
    filterCovers(`${root}/gateway/#`, filter) ||
    filterCovers(`${homeAssistantPrefix}#`, filter)
  );
}

/**
 * Status, alarms and what Home Assistant discovers describe the present and may be retained. Telemetry is history and a retained command would
 * be carried out again at every reconnect: those are taken, but not retained.
 */
export function mayRetain(target: PublishTarget): boolean {
  if (target.kind === 'home-assistant') return true;
  if (target.kind !== 'message') return false;
  return target.topic.channel === 'status' || target.topic.channel === 'alarms';
}
