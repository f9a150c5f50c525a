// What /health answers. Pure data; `gateway.ts` knows how the stages are.

export interface HealthReason {
  /** Stable, upper-case, for machines: `JOURNAL_FULL`, `UPLINK_DOWN`. */
  readonly code: string;
  /** One sentence for people. */
  readonly message: string;
}

export interface Health {
  /** False when the gateway fails its task: messages are refused, or alarms could not be heard. */
  readonly ok: boolean;
  /** Why not; with `ok`, what is worth knowing all the same (the uplink is down, the backlog grows). */
  readonly reasons: readonly HealthReason[];
}

export interface HealthAnswer {
  readonly status: 'ok' | 'degraded' | 'failing';
  readonly reasons: readonly HealthReason[];
}

/** Up to the words of others (what InfluxDB said, why a disk fails) and paths: these are for who has a key. */
function inShort({ code, message }: HealthReason): HealthReason {
  return { code, message: message.split(/: | \(/)[0] ?? code };
}

/**
 * HTTP status and body: 503 for failing alone, so that a watchdog does not restart for a lost uplink.
 * @param isForStranger From another machine, without a key.
 */
export function answerHealth(
  health: Health,
  isForStranger = false,
): {
  readonly statusCode: 200 | 503;
  readonly body: HealthAnswer;
} {
  const reasons = isForStranger ? health.reasons.map(inShort) : health.reasons;
  if (!health.ok) return { statusCode: 503, body: { status: 'failing', reasons } };
  return { statusCode: 200, body: { status: reasons.length === 0 ? 'ok' : 'degraded', reasons } };
}
