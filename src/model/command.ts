// A command on its way to a device, and what may become of handing it over. The words that the outbox and the
// transports share.

/** The last level of the topic: `{root}/devices/{id}/commands/{kind}`. */
export const commandKindPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;

/** What a device is sent. The id is in the payload, so that a node can tell a copy from a new command. */
export interface OutgoingCommand {
  readonly id: string;
  readonly kind: string;
  readonly payload: Buffer;
}

/** What became of handing a command to its device, once. */
export type Delivery =
  /** The device has it: it said so (PUBACK). */
  | { readonly kind: 'taken' }
  /** Given to its connection, which has no way to confirm it (a subscription with QoS 0). */
  | { readonly kind: 'sent' }
  /** The device does not listen, or went away before it said anything. */
  | { readonly kind: 'offline'; readonly wasSent: boolean }
  /** It listens, and takes nothing at this moment: it was not given to it. */
  | { readonly kind: 'busy' }
  /** It listens, and confirmed nothing in time. */
  | { readonly kind: 'unanswered' }
  | { readonly kind: 'refused'; readonly reason: string };

/** A way to devices: MQTT, a serial line. */
export interface Downlink {
  /** Never rejects, and answers in bounded time. */
  deliver(deviceId: string, command: OutgoingCommand): Promise<Delivery>;
  /** Called when a device begins to listen to its commands; also when it already did. */
  onReachable(listener: (deviceId: string) => void): void;
}
