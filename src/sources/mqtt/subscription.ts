// What a client asked for with a SUBSCRIBE, and what all its subscriptions together ask for one message: it gets
// one copy, with the highest QoS and the identifiers of all that match [MQTT-3.3.4-2, -4].

import { matchesFilter } from '../../model/topic.ts';

export interface Subscription {
  /** The filter as the client sent it. */
  readonly topic: string;
  readonly qos: number;
  readonly rh?: number | undefined;
  readonly rap?: boolean | undefined;
  readonly nl?: boolean | undefined;
  readonly subscriptionIdentifier?: number | undefined;
}

export interface Wanted {
  readonly qos: number;
  readonly retainAsPublished: boolean;
  readonly identifiers: readonly number[];
}

/** What the first shared subscription asks for that matches; undefined when there is none. */
export function sharedBy(subscriptions: Iterable<Subscription>, topic: string): Wanted | undefined {
  for (const subscription of subscriptions) {
    const filter = sharedFilter(subscription.topic);
    if (filter === undefined || !matchesFilter(filter, topic)) continue;
    const { qos, rap, subscriptionIdentifier } = subscription;
    const identifiers = subscriptionIdentifier === undefined ? [] : [subscriptionIdentifier];
    return { qos, retainAsPublished: rap === true, identifiers };
  }
  return undefined;
}

/** Undefined when no subscription asks for the message; `isOwn`: the client published it itself. */
export function wantedBy(
  subscriptions: Iterable<Subscription>,
  topic: string,
  isOwn: boolean,
): Wanted | undefined {
  let qos = -1;
  let retainAsPublished = false;
  let identifiers: number[] | undefined;
  for (const subscription of subscriptions) {
    if (isOwn && subscription.nl === true) continue;
    if (!matchesFilter(subscription.topic, topic)) continue;
    qos = Math.max(qos, subscription.qos);
    retainAsPublished ||= subscription.rap === true;
    if (subscription.subscriptionIdentifier === undefined) continue;
    identifiers ??= [];
    identifiers.push(subscription.subscriptionIdentifier);
  }
  return qos < 0 ? undefined : { qos, retainAsPublished, identifiers: identifiers ?? [] };
}

const sharedPrefix = '$share/';

/** The filter within `$share/{group}/{filter}`; undefined for a subscription that is not shared. */
export function sharedFilter(topic: string): string | undefined {
  if (!topic.startsWith(sharedPrefix)) return undefined;
  const nameEnd = topic.indexOf('/', sharedPrefix.length);
  return nameEnd <= sharedPrefix.length ? '' : topic.slice(nameEnd + 1);
}
