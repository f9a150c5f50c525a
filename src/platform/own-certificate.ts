// A certificate the owner of the house brings along (`tls.cert_path`, `tls.key_path`): read whole and tried before it
// is used, so that what does not fit is said in words that name the file, not by the first client that is refused.

import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { open } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { errorCode } from './errors.ts';
import type { TlsIdentity } from './local-ca.ts';

export interface OwnCertificate {
  /** PEM: the server's certificate, then those between it and its authority. */
  readonly certPath: string;
  /** PEM, not encrypted. */
  readonly keyPath: string;
}

/** More than any chain has. */
const bytesMax = 256 * 1024;

/** What a person reads. */
class Fault extends Error {}

async function readPem(setting: string, path: string): Promise<{ text: string; mode: number }> {
  try {
    const file = await open(path, 'r');
    try {
      const { size, mode } = await file.stat();
      if (size > bytesMax) throw new Fault(`${setting} ${path} is no PEM file: it has ${size} bytes`);
      return { text: await file.readFile('utf8'), mode };
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault(`${setting} ${path} cannot be read: ${errorCode(error) ?? String(error)}`);
  }
}

function certificateIn(text: string, path: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch {
    throw new Fault(`tls.cert_path ${path} holds no certificate in PEM`);
  }
}

function keyIn(text: string, path: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch {
    const isEncrypted = text.includes('ENCRYPTED');
    throw new Fault(
      isEncrypted
        ? `tls.key_path ${path} is encrypted: nobody is there to be asked for its passphrase`
        : `tls.key_path ${path} holds no private key in PEM`,
    );
  }
}

/** The identity, or why it cannot be used. Its dates are not judged: clients do. */
export async function readOwnCertificate({
  certPath,
  keyPath,
}: OwnCertificate): Promise<TlsIdentity | { readonly fault: string }> {
  try {
    const { text: certificates } = await readPem('tls.cert_path', certPath);
    const { text: key, mode } = await readPem('tls.key_path', keyPath);
    if ((mode & 0o007) !== 0) {
      throw new Fault(
        `tls.key_path ${keyPath} is open to every user of this machine: chmod o-rwx mends that`,
      );
    }
    if (!certificateIn(certificates, certPath).checkPrivateKey(keyIn(key, keyPath))) {
      throw new Fault(`tls.key_path ${keyPath} is not the key of the first certificate in ${certPath}`);
    }
    try {
      createSecureContext({ key, cert: certificates });
    } catch (error) {
      // A key too short, an algorithm of the past.
      throw new Fault(`tls.cert_path ${certPath} cannot be used: ${errorCode(error) ?? String(error)}`);
    }
    return { key, certificates };
  } catch (error) {
    if (error instanceof Fault) return { fault: error.message };
    throw error;
  }
}
