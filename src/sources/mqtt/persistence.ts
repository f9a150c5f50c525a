// The interface aedes wants of a persistence, on top of `Sessions`. Thin: what is promised is promised there.

import { Readable } from 'node:stream';
import {
  type BrokerClient,
  type BrokerPacket,
  type BrokerSubscription,
  filterOf,
  forBroker,
} from './broker-internals.ts';
import type { Sessions } from './sessions.ts';
import type { StoredMessage } from './stored-message.ts';
import type { Subscription } from './subscription.ts';

/** A resumed session may have no subscriptions; aedes says "session present" only if there is one to restore. */
export const placeholderFilter = '$session-present';

export interface PersistenceHooks {
  /** What the client asked for with the filter, undefined where it was refused. */
  granted(client: BrokerClient, filter: string): Subscription | undefined;
  /** CONNACK is out: what waits may be sent. */
  ready(client: BrokerClient): void;
  putWill(client: BrokerClient, will: BrokerPacket): void;
  /** Packet ids of QoS 2 messages received and not yet released by the client. */
  incoming(client: BrokerClient): Set<number>;
  /** True once for the first copy of a QoS 2 message. */
  isFirstCopy(packet: BrokerPacket): boolean;
  /** Whether the client was cut off for reading too slowly; its queue then stays as it is. */
  isOverflowing(client: BrokerClient): boolean;
}

/** Any object with a client's id: aedes passes both. */
type ClientRef = Pick<BrokerClient, 'id'> & Partial<BrokerClient>;

export function brokerPersistence(sessions: Sessions, hooks: PersistenceHooks) {
  let brokerId = '';

  return {
    async setup(broker: { id: string }): Promise<void> {
      brokerId = broker.id;
    },

    async storeRetained(packet: BrokerPacket): Promise<void> {
      sessions.retain({ ...packet, retain: true });
    },
    createRetainedStream(filter: string): Readable {
      return Readable.from(retainedPackets(sessions, [filter]));
    },
    createRetainedStreamCombi(filters: string[]): Readable {
      return Readable.from(retainedPackets(sessions, filters));
    },

    async addSubscriptions(client: BrokerClient, subscriptions: BrokerSubscription[]): Promise<void> {
      const session = sessions.find(client.id);
      if (session === undefined) return;
      // aedes passes the whole SUBSCRIBE, the filters it was told to refuse included.
      const granted = subscriptions.flatMap(({ topic }) => hooks.granted(client, filterOf(topic)) ?? []);
      await sessions.subscribe(session, granted);
    },
    async removeSubscriptions(client: ClientRef, topics: string[]): Promise<void> {
      const session = sessions.find(client.id);
      if (session !== undefined) await sessions.unsubscribe(session, topics.map(filterOf));
    },
    async subscriptionsByClient(client: ClientRef): Promise<Subscription[]> {
      const session = sessions.find(client.id);
      if (session === undefined || !session.resumed) return [];
      const subscriptions = [...session.subscriptions.values()];
      if (subscriptions.length === 0) return [{ topic: placeholderFilter, qos: 0 }];
      return subscriptions.map((asked) => ({ ...forBroker(asked), asked }));
    },
    async subscriptionsByTopic(topic: string): Promise<Subscription[]> {
      return topic.startsWith('$') || sessions.size === 0 ? [] : [{ topic, qos: 1 }];
    },
    async cleanSubscriptions(client: ClientRef): Promise<void> {
      // While a client connects its session was just made; later calls mean that the session ended.
      if (client.connecting === true) return;
      const session = sessions.find(client.id);
      if (session !== undefined) await sessions.end(session);
    },
    async countOffline(): Promise<{ subsCount: number; clientsCount: number }> {
      return { subsCount: 0, clientsCount: sessions.size };
    },

    async outgoingEnqueue(_subscription: unknown, packet: BrokerPacket): Promise<void> {
      sessions.link(packet);
    },
    async outgoingEnqueueCombi(subscriptions: unknown[], packet: BrokerPacket): Promise<void> {
      if (subscriptions.length > 0) sessions.link(packet);
    },
    async outgoingUpdate(client: BrokerClient, packet: BrokerPacket): Promise<void> {
      const session = sessions.find(client.id);
      // For PUBRELs alone: PUBLISH does not go out by way of aedes.
      if (session !== undefined && packet.cmd === 'pubrel')
        await sessions.release(session, packet.messageId ?? 0);
    },
    async outgoingClearMessageId(client: ClientRef, packet: BrokerPacket): Promise<BrokerPacket | undefined> {
      const session = sessions.find(client.id);
      // Without a packet id aedes means "not delivered after all": another delivery of it is under way.
      if (session === undefined || packet.messageId === undefined) return undefined;
      if (client.conn !== undefined && hooks.isOverflowing(client as BrokerClient)) return undefined;
      const queued = sessions.acknowledged(session, packet.messageId);
      return queued && { cmd: 'publish', ...packetFields(sessions, queued.message) };
    },
    /** aedes asks for it when CONNACK is out. What it would send goes another way. */
    outgoingStream(client: BrokerClient): Readable {
      // And once more when the session has ended.
      if (client.connecting) hooks.ready(client);
      return Readable.from([]);
    },

    async incomingStorePacket(client: BrokerClient, packet: BrokerPacket): Promise<void> {
      // `accept` made it durable before it let the packet come this far.
      hooks.incoming(client).add(packet.messageId ?? 0);
    },
    async incomingGetPacket(client: BrokerClient, packet: BrokerPacket): Promise<BrokerPacket> {
      if (!hooks.isFirstCopy(packet) && hooks.incoming(client).has(packet.messageId ?? 0)) return packet;
      throw new Error('no such packet');
    },
    async incomingDelPacket(client: BrokerClient, packet: BrokerPacket): Promise<void> {
      const session = sessions.find(client.id);
      const messageId = packet.messageId ?? 0;
      if (session === undefined || client.clean) {
        hooks.incoming(client).delete(messageId);
        return;
      }
      try {
        await sessions.forgetIncoming(session, messageId);
      } catch {
        // aedes would send PUBCOMP all the same. Cut off, the client comes back and releases the message again.
        client.conn.destroy();
        await new Promise<never>(() => {});
      }
    },

    async putWill(client: BrokerClient, will: BrokerPacket): Promise<void> {
      will.brokerId = brokerId;
      will.clientId = client.id;
      hooks.putWill(client, will);
    },
    async getWill(): Promise<undefined> {},
    // The source knows when one is over with: here it has but the client's id, which another may have by then.
    async delWill(): Promise<undefined> {},
    /** Wills of an earlier run are seen to in wills.ts, not by aedes' sweep minutes later. */
    streamWill(): Readable {
      return Readable.from([]);
    },
    getClientList(): Readable {
      return Readable.from([]);
    },
    async destroy(): Promise<void> {},
  };
}

function* retainedPackets(sessions: Sessions, filters: readonly string[]): Generator<BrokerPacket> {
  for (const message of sessions.retained.matching(filters))
    yield { cmd: 'publish', ...packetFields(sessions, message) };
}

function packetFields(sessions: Sessions, message: StoredMessage) {
  const messageExpiry = sessions.brokerExpiry(message);
  return {
    topic: message.topic,
    payload: message.payload,
    qos: message.qos,
    retain: message.retain,
    ...(message.properties === undefined ? {} : { properties: message.properties }),
    ...(messageExpiry === undefined ? {} : { messageExpiry }),
  };
}
