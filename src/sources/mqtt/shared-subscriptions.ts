// Shared subscriptions [MQTT 5, 4.8.2], in both protocol versions: of the clients that subscribed to
// `$share/{group}/{filter}` one gets each message. In turn, those first that are connected and have room; a session
// whose client is away queues only what nobody connected can take.
//
// Promises: a message that counts as acknowledged was queued durably if its member has a session (`Sessions.prepare`
// chooses there). What a member had not acknowledged when its session ended goes to another one, except QoS 2 that
// was sent [MQTT-4.8.2-5]. Nothing is retained for a shared subscription.

import { matchesFilter } from '../../model/topic.ts';
import type { BrokerPacket } from './broker-internals.ts';
import type { Delivery } from './delivery.ts';
import type { QueuedMessage, Session } from './sessions.ts';
import type { StoredMessage } from './stored-message.ts';
import { type Subscription, sharedFilter } from './subscription.ts';

/** A connection with what it subscribed to. */
export interface Connected {
  readonly clientId: string;
  readonly session: Session | undefined;
  readonly delivery: Delivery | undefined;
  readonly subscriptions: ReadonlyMap<string, Subscription>;
}

interface Member {
  readonly clientId: string;
  readonly subscription: Subscription;
  readonly session: Session | undefined;
  /** Undefined while the client is away. */
  readonly delivery: Delivery | undefined;
}

interface Group {
  /** With `$share/` and the name of the group. */
  readonly topic: string;
  readonly members: readonly Member[];
}

/** Who gets a message that is on its way to durability, and the entry in its queue if it has a session. */
export interface Share {
  readonly topic: string;
  readonly member: Member;
  readonly queued: QueuedMessage | undefined;
}

/** Topics whose groups are remembered; devices publish to few. */
const matchesMax = 4096;
const nobody: readonly Group[] = [];

export class SharedSubscriptions {
  readonly #sessions: () => Iterable<Session>;
  readonly #matches = new Map<string, readonly Group[]>();
  readonly #turns = new Map<string, number>();
  #groups: readonly Group[] | undefined;
  /** Set by whoever knows the connections. */
  connected: () => Iterable<Connected> = () => [];

  constructor(sessions: () => Iterable<Session>) {
    this.#sessions = sessions;
  }

  /** Somebody subscribed, unsubscribed, came or went. */
  changed(): void {
    this.#groups = undefined;
    this.#matches.clear();
  }

  /** Groups that are to get messages on the topic. */
  matching(topic: string): readonly Group[] {
    this.#groups ??= this.#find();
    if (this.#groups.length === 0) return nobody;
    const known = this.#matches.get(topic);
    if (known !== undefined) return known;
    const matches = this.#groups.filter((group) => matchesFilter(sharedFilter(group.topic) ?? '', topic));
    if (this.#matches.size >= matchesMax) this.#matches.clear();
    this.#matches.set(topic, matches);
    return matches;
  }

  /** Whose turn it is. Undefined when nobody can take a message of this QoS. */
  choose(group: Group, qos: number, except?: string): Member | undefined {
    const able = group.members.filter((member) => member.clientId !== except && canTake(member, qos));
    const connected = able.filter(({ delivery }) => delivery !== undefined);
    const ready = connected.filter(({ delivery }) => delivery?.isReady === true);
    const candidates = [ready, connected, able].find(({ length }) => length > 0);
    if (candidates === undefined) return undefined;
    const turn = this.#turns.get(group.topic) ?? 0;
    this.#turns.set(group.topic, (turn + 1) % Number.MAX_SAFE_INTEGER);
    return candidates[turn % candidates.length];
  }

  /** The member that takes over what another one left unacknowledged. */
  successor(message: StoredMessage, predecessor: string): Member | undefined {
    const group = this.matching(message.topic).find(({ topic }) => topic === message.share);
    return group && this.choose(group, message.qos, predecessor);
  }

  /** Sends a publish to those who do not get it out of their session's queue; `done` when they had it. */
  deliver(packet: BrokerPacket, shares: readonly Share[], done: () => void): void {
    let waiting = 1;
    const finished = () => {
      waiting -= 1;
      if (waiting === 0) done();
    };
    for (const group of this.matching(packet.topic)) {
      const share = shares.find(({ topic }) => topic === group.topic);
      if (share?.queued !== undefined) continue;
      const isThere = share?.member.delivery?.isOpen === true;
      const member = isThere ? share?.member : this.choose(group, packet.qos);
      if (member?.delivery === undefined) continue;
      waiting += 1;
      member.delivery.deliverShared(packet, member.subscription, finished);
    }
    finished();
  }

  #find(): readonly Group[] {
    const groups = new Map<string, Member[]>();
    const add = (
      subscriptions: ReadonlyMap<string, Subscription>,
      member: Omit<Member, 'subscription'>,
    ): void => {
      for (const subscription of subscriptions.values()) {
        const { topic } = subscription;
        if (sharedFilter(topic) === undefined) continue;
        const members = groups.get(topic) ?? [];
        members.push({ ...member, subscription });
        groups.set(topic, members);
      }
    };
    const present = new Set<string>();
    for (const { clientId, session, delivery, subscriptions } of this.connected()) {
      if (delivery?.isOpen !== true) continue;
      present.add(clientId);
      add(subscriptions, { clientId, session, delivery });
    }
    for (const session of this.#sessions()) {
      const { clientId, subscriptions } = session;
      if (!present.has(clientId)) add(subscriptions, { clientId, session, delivery: undefined });
    }
    for (const topic of this.#turns.keys()) if (!groups.has(topic)) this.#turns.delete(topic);
    return [...groups].map(([topic, members]) => ({ topic, members }));
  }
}

/** QoS 0 is not kept for a client that is away. */
function canTake({ delivery, session, subscription }: Member, qos: number): boolean {
  if (delivery !== undefined) return delivery.isOpen;
  return session !== undefined && Math.min(qos, subscription.qos) > 0;
}

/** What a member gets of a publish: with the QoS, and the identifier, of its own subscription [MQTT-4.8.2-3]. */
export function sharedMessage(
  publish: Omit<StoredMessage, 'qos' | 'identifiers' | 'share'> & { readonly qos: number },
  { topic: share, qos, rap, subscriptionIdentifier }: Subscription,
): StoredMessage {
  const { topic, payload, properties, messageExpiry } = publish;
  return {
    topic,
    payload,
    qos: Math.min(publish.qos, qos) as StoredMessage['qos'],
    retain: publish.retain && rap === true,
    properties,
    messageExpiry,
    identifiers: subscriptionIdentifier === undefined ? [] : [subscriptionIdentifier],
    share,
  };
}
