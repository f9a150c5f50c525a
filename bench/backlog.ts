// Fills a gateway's journal the way months without an uplink would, only faster: line protocol over MQTT, acknowledged,
// while nobody listens where the gateway forwards to.

import { progress, thousands } from './figures.ts';
import { type LoadReport, type Publisher, runLoad } from './mqtt-load.ts';

const linesPerMessage = 400;
/** VictoriaMetrics counts values, not points. */
export const fieldsPerLine = 2;

/** Points in one data directory so far, and where the next ones begin in time, so that none is written twice. */
export interface Backlog {
  points: number;
  readonly firstTimestampMs: number;
}

export function emptyBacklog(): Backlog {
  // Old enough that ten million points at one a second and publisher still end before today.
  return { points: 0, firstTimestampMs: Date.now() - 30 * 86_400_000 };
}

/** Adds points until there are `points`; throws unless every one of them was acknowledged. */
export async function fillBacklog(
  port: number,
  publishers: readonly Publisher[],
  backlog: Backlog,
  points: number,
): Promise<void> {
  const messages = Math.ceil((points - backlog.points) / linesPerMessage);
  if (messages <= 0) return;
  const report: LoadReport = await runLoad({
    port,
    publishers,
    // 10 publishers × 4 messages × 400 lines stay well below what may wait for the disk.
    window: 4,
    messages,
    linesPerMessage,
    firstTimestampMs: backlog.firstTimestampMs + (backlog.points / publishers.length) * 1_000,
    stepMs: 1_000,
    timeoutMs: 900_000,
  });
  if (report.unacknowledged > 0)
    throw new Error(`backlog: ${report.unacknowledged} messages not acknowledged`);
  backlog.points += messages * linesPerMessage;
  progress(
    `backlog of ${thousands(backlog.points)} points, the last ones at ` +
      `${thousands(report.messagesPerSecond * linesPerMessage)} points/s`,
  );
}
