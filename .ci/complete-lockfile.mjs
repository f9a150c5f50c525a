// Completes package-lock.json after `npm install` against a registry mirror that does not carry the
// platform packages of foreign machines (darwin, win32, …). npm leaves such optional packages out of the
// lock, and `npm ci` then refuses it. This adds the missing entries: exact version from the parent,
// platform from the name, no integrity (nothing here has seen the bytes). Machines of this project's own
// platforms (linux x64 and arm64, glibc) never install one of them.
import { readFileSync, writeFileSync } from 'node:fs';

const path = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(path, 'utf8'));

/** `cli-linux-x64-musl` → os linux, cpu x64, libc musl; undefined where the name tells no platform. */
function platformOf(name) {
  const words = name.split(/[-/.]/);
  const os = words.find((word) =>
    /^(android|darwin|win32|linux|freebsd|openbsd|netbsd|openharmony|sunos|aix|wasm32|linuxmusl)$/.test(word),
  );
  if (os === undefined) return undefined;
  const cpu = words.find((word) =>
    /^(x64|arm64|arm|ia32|ppc64|riscv64|s390x|loong64|wasm32|mips64el)$/.test(word),
  );
  const libc =
    words.includes('musl') || words.includes('musleabihf')
      ? 'musl'
      : words.includes('gnu')
        ? 'glibc'
        : undefined;
  return {
    cpu: [cpu ?? 'wasm32'],
    ...(libc === undefined ? {} : { libc: [libc] }),
    os: [os],
  };
}

let added = 0;
for (const entry of Object.values({ ...lock.packages })) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`;
    if (lock.packages[key] !== undefined) continue;
    const platform = platformOf(name);
    if (platform === undefined) continue;
    lock.packages[key] = { version, ...platform, ...(entry.dev ? { dev: true } : {}), optional: true };
    added += 1;
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`complete-lockfile: ${added} foreign platform packages added`);
