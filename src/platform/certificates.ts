// What the gateway shows to whoever connects with TLS, over MQTT and HTTPS alike: the certificate of its own authority
// (local-ca.ts), or the one its owner brought along (own-certificate.ts). Promises: it is looked at while the gateway
// runs, renewed before it ends and when the machine's names change, and an own one is read again when its files
// change; open connections go on. What is wrong with an own one does not keep the gateway from running: it goes on
// with the last good one, else with that of its own authority, and says so.

import { X509Certificate } from 'node:crypto';
import type { Server as TlsServer } from 'node:tls';
import type { Clock } from './clock.ts';
import { isOutdatedCa, machineNames, openLocalCa, renewalReason, type TlsIdentity } from './local-ca.ts';
import type { Log } from './log.ts';
import { type OwnCertificate, readOwnCertificate } from './own-certificate.ts';

export interface CertificatesOptions {
  /** Where the own authority lives; created when missing. */
  readonly folder: string;
  /** Default: that of the own authority. */
  readonly own?: OwnCertificate | undefined;
  readonly clock: Pick<Clock, 'wallMs' | 'monotonicMs'>;
  readonly isDateKnown?: () => boolean;
  /** What a certificate must name; default the names and addresses of this machine. */
  readonly names?: () => readonly string[];
  readonly log: Log;
  readonly checkIntervalMs?: number;
}

export interface CertificatesStats {
  readonly shown: ShownCertificate;
  readonly endsMs: number;
  /** Undefined while the date is not known. */
  readonly leftMs: number | undefined;
  /** Changes since the start. */
  readonly renewals: number;
  /** Why the own certificate, as it is in its files now, is not used. */
  readonly fault: string | undefined;
}

/** As commands and HTTP show it. */
export interface ShownCertificate {
  readonly source: 'local' | 'own';
  readonly names: readonly string[];
  readonly begins_at: string;
  readonly ends_at: string;
  readonly fingerprint_sha256: string;
  readonly authority: {
    readonly path: string;
    readonly ends_at: string;
    readonly fingerprint_sha256: string;
  } | null;
}

/** @param ca Undefined for an own certificate. */
export function showCertificate(
  leaf: X509Certificate,
  ca?: { readonly path: string; readonly x509: X509Certificate },
): ShownCertificate {
  const time = (text: string) => new Date(text).toISOString();
  return {
    source: ca === undefined ? 'own' : 'local',
    names: (leaf.subjectAltName ?? leaf.subject)
      .split(', ')
      .map((name) => name.replace(/^(DNS|IP Address):/, '')),
    begins_at: time(leaf.validFrom),
    ends_at: time(leaf.validTo),
    fingerprint_sha256: leaf.fingerprint256,
    authority: ca
      ? { path: ca.path, ends_at: time(ca.x509.validTo), fingerprint_sha256: ca.x509.fingerprint256 }
      : null,
  };
}

/** What is shown now, with the facts about it. */
interface Shown extends TlsIdentity {
  readonly leaf: X509Certificate;
  /** Undefined for an own certificate. */
  readonly authority:
    | { readonly pem: string; readonly path: string; readonly x509: X509Certificate }
    | undefined;
}

const defaults = { checkIntervalMs: 30_000 };

/** An address that comes and goes must not cost a certificate each time. */
const namesSettleMs = 10 * 60_000;

/** Older ones are refused by RFC 8996. */
const minVersion = 'TLSv1.2';

export class Certificates {
  readonly #options: CertificatesOptions;
  readonly #listeners = new Set<() => void>();
  #shown: Shown;
  #fault: string | undefined;
  /** Of one look alone: perhaps the second of two files is only about to be written. */
  #suspicion: string | undefined;
  #renewals = 0;
  #renamedMs = -Infinity;
  #checking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  private constructor(options: CertificatesOptions, shown: Shown, fault: string | undefined) {
    this.#options = options;
    this.#shown = shown;
    this.#fault = fault;
  }

  static async open(options: CertificatesOptions): Promise<Certificates> {
    const { own, log, checkIntervalMs = defaults.checkIntervalMs } = options;
    const read = own && (await readOwnCertificate(own));
    const fault = read && 'fault' in read ? read.fault : undefined;
    if (fault !== undefined) {
      log.error(
        { event: 'tls-own-certificate-refused', reason: fault },
        'Goes on with one of its own authority',
      );
    }
    const shown = read && 'key' in read ? ownShown(read) : await localShown(options);
    const certificates = new Certificates(options, shown, fault);
    certificates.#timer = setInterval(() => void certificates.check(), checkIntervalMs).unref();
    return certificates;
  }

  /** PEM, for devices to trust; undefined while the certificate is of another authority. */
  get ca(): string | undefined {
    return this.#shown.authority?.pem;
  }

  /** Whether it is shown for this host name, so that the machine is reached by it. */
  isFor(name: string): boolean {
    return this.#shown.leaf.checkHost(name, { subject: 'never' }) !== undefined;
  }

  /** What a TLS server is to be made with; `follow` is for what comes later. */
  serverOptions(): { key: string; cert: string; minVersion: typeof minVersion } {
    return { key: this.#shown.key, cert: this.#shown.certificates, minVersion };
  }

  /** From now on new connections are shown what is good then; those that are open go on as they began. */
  follow(server: Pick<TlsServer, 'setSecureContext' | 'once'>): void {
    const listener = () => server.setSecureContext(this.serverOptions());
    this.#listeners.add(listener);
    server.once('close', () => this.#listeners.delete(listener));
  }

  /** Looks whether something is due. Never fails: what goes wrong is told, and tried again. */
  check(): Promise<void> {
    this.#checking ??= this.#check()
      .catch((error: unknown) => {
        this.#options.log.error({ event: 'tls-check-failed', err: error }, 'The certificate was not renewed');
      })
      .finally(() => {
        this.#checking = undefined;
      });
    return this.#checking;
  }

  stats(): CertificatesStats {
    const { leaf, authority } = this.#shown;
    const { clock, isDateKnown } = this.#options;
    const endsMs = Date.parse(leaf.validTo);
    return {
      shown: showCertificate(leaf, authority),
      endsMs,
      leftMs: isDateKnown?.() === false ? undefined : endsMs - clock.wallMs(),
      renewals: this.#renewals,
      fault: this.#fault,
    };
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#checking;
  }

  async #check(): Promise<void> {
    const { own } = this.#options;
    if (own !== undefined && (await this.#checkOwn(own))) return;
    if (this.#shown.authority !== undefined) await this.#checkLocal(this.#shown.authority.pem);
  }

  /** Whether it can be used. */
  async #checkOwn(own: OwnCertificate): Promise<boolean> {
    const { log } = this.#options;
    const read = await readOwnCertificate(own);
    if ('fault' in read) {
      const isSure = read.fault === this.#suspicion;
      this.#suspicion = read.fault;
      if (isSure && read.fault !== this.#fault) {
        this.#fault = read.fault;
        log.error(
          { event: 'tls-own-certificate-refused', reason: read.fault },
          'Goes on with the last good one',
        );
      }
      return false;
    }
    this.#fault = undefined;
    this.#suspicion = undefined;
    this.#show(ownShown(read), 'files-changed');
    return true;
  }

  async #checkLocal(ca: string): Promise<void> {
    const { clock, isDateKnown, names = machineNames } = this.#options;
    const nowMs = isDateKnown?.() === false ? undefined : clock.wallMs();
    const reason = renewalReason(this.#shown.certificates, ca, names(), nowMs);
    if (reason === undefined && !(nowMs !== undefined && isOutdatedCa(ca, nowMs))) return;
    if (reason === 'names-changed') {
      if (clock.monotonicMs() - this.#renamedMs < namesSettleMs) return;
      this.#renamedMs = clock.monotonicMs();
    }
    this.#show(await localShown(this.#options), reason ?? 'ca-renewed');
  }

  #show(shown: Shown, reason: string): void {
    if (shown.certificates === this.#shown.certificates && shown.key === this.#shown.key) return;
    this.#shown = shown;
    this.#renewals += 1;
    for (const listener of this.#listeners) listener();
    this.#options.log.info({ event: 'tls-certificate-changed', reason, ...this.stats().shown });
  }
}

function ownShown(identity: TlsIdentity): Shown {
  return { ...identity, leaf: new X509Certificate(identity.certificates), authority: undefined };
}

async function localShown({ folder, clock, isDateKnown, names, log }: CertificatesOptions): Promise<Shown> {
  const isKnown = isDateKnown?.() ?? true;
  const given = names === undefined ? {} : { names: names() };
  const { ca, caPath, ...identity } = await openLocalCa({
    folder,
    clock,
    isDateKnown: isKnown,
    log,
    ...given,
  });
  const authority = { pem: ca, path: caPath, x509: new X509Certificate(ca) };
  return { ...identity, leaf: new X509Certificate(identity.certificates), authority };
}
