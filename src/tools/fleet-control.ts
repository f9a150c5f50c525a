// What can be typed at a running fleet, a line at a time.

import type { Fleet, Member } from '../simulator/fleet.ts';
import { formatTable } from './command.ts';

export const controlHelp =
  'list | fail NAME | mend NAME | cut NAME | join NAME | wet NAME | dry NAME | pause [NAME] | resume [NAME] | ' +
  'rate MS [NAME] | quit';

const intervalMsMax = 86_400_000;

function listed(fleet: Fleet): string {
  const rows = fleet.members.map(({ device, node, transport }) => {
    const { connected, sent, acknowledged, refused, lost } = node.figures();
    const state = connected ? 'connected' : 'not connected';
    const counts = [sent, acknowledged, refused, lost].map(String);
    return [device.deviceId, device.type, transport, node.isFailed ? 'failed' : state, ...counts];
  });
  return formatTable(['ID', 'TYPE', 'VIA', 'STATE', 'SENT', 'ACKNOWLEDGED', 'REFUSED', 'LOST'], rows);
}

const toOne: Readonly<Record<string, (member: Member) => string>> = {
  fail: ({ node }) => {
    node.setFailed(true);
    return 'has failed';
  },
  mend: ({ node }) => {
    node.setFailed(false);
    return 'is back';
  },
  cut: ({ node }) => {
    node.setCutOff(true);
    return 'has no network, and measures on';
  },
  join: ({ node }) => {
    node.setCutOff(false);
    return 'is in the network again';
  },
  wet: ({ node }) => {
    node.setWet(true);
    return 'lies in water';
  },
  dry: ({ node }) => {
    node.setWet(false);
    return 'is dry';
  },
};

const probes = new Set(['wet', 'dry']);

/** One member by name, or why not. */
function pick(fleet: Fleet, word: string, name: string | undefined): Member | string {
  if (name === undefined) return `${word}: expected a name; list shows them`;
  const named = fleet.find(name);
  const found = probes.has(word) ? named.filter(({ device }) => device.kind === 'leak-probe') : named;
  const [member] = found;
  if (member === undefined) return `${word}: no ${probes.has(word) ? 'leak probe' : 'device'} named ${name}`;
  if (found.length > 1) return `${word}: ${found.map(({ device }) => device.deviceId).join(', ')}?`;
  return member;
}

/** Some of them, all without a name. */
function several(fleet: Fleet, name: string | undefined): readonly Member[] {
  return name === undefined ? fleet.members : fleet.find(name);
}

/** Does what the line says and answers what to tell; undefined: it is to end. */
export function obeyLine(fleet: Fleet, line: string): string | undefined {
  const [word = '', ...rest] = line.trim().toLowerCase().split(/\s+/);
  if (word === '') return '';
  if (word === 'quit' || word === 'exit' || word === 'q') return undefined;
  if (word === 'list') return listed(fleet);
  const act = Object.hasOwn(toOne, word) ? toOne[word] : undefined;
  if (act !== undefined) {
    const member = pick(fleet, word, rest[0]);
    return typeof member === 'string' ? member : `${member.device.deviceId} ${act(member)}`;
  }
  if (word === 'pause' || word === 'resume') {
    const members = several(fleet, rest[0]);
    for (const { node } of members) node.setPaused(word === 'pause');
    return `${members.length} devices ${word === 'pause' ? 'measure nothing' : 'measure again'}`;
  }
  if (word === 'rate') {
    const intervalMs = Number(rest[0]);
    if (!(intervalMs >= 1 && intervalMs <= intervalMsMax)) {
      return `rate: expected milliseconds between readings, 1 to ${intervalMsMax}`;
    }
    const members = several(fleet, rest[1]);
    for (const { node } of members) node.setInterval(intervalMs);
    return `${members.length} devices measure every ${intervalMs} ms`;
  }
  return word === 'help' ? controlHelp : `unknown: ${word}; ${controlHelp}`;
}
