// What is installed is what was looked at: every package pinned by its SHA-512, from no host of the lockfile's
// choosing, none known to be bad (deny-list.json), none that runs code at install, none with a licence that binds
// users. Plain Node, so that it runs before `npm ci` puts anything on the disk.
//   node .ci/check-lockfile.mjs [FOLDER with package.json and package-lock.json]
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Their scripts would compile what the package brings along compiled. */
const scriptsNotRun = ['classic-level'];

const licences = ['0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'MIT', 'PSF-2.0'];

const folder = process.argv[2] ?? join(import.meta.dirname, '..');
const manifest = readJson(join(folder, 'package.json'));
const lock = readJson(join(folder, 'package-lock.json'));
const denied = deniedVersions(readJson(join(import.meta.dirname, 'deny-list.json')));

const faults = [];
let packages = 0;
let runtime = 0;
let foreign = 0;

for (const kind of ['dependencies', 'devDependencies']) {
  for (const [name, version] of Object.entries(manifest[kind] ?? {})) {
    if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))
      faults.push(`${name}: ${version} is not one exact version`);
  }
}
if (lock.lockfileVersion !== 3) faults.push('package-lock.json: lockfileVersion is not 3');
for (const [path, entry] of Object.entries(lock.packages)) {
  if (path === '') continue;
  packages += 1;
  const name = entry.name ?? path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
  const title = `${name}@${entry.version}`;
  if (!entry.dev) runtime += 1;
  if (entry.link || entry.resolved !== undefined) faults.push(`${title}: comes from ${entry.resolved}`);
  if (isForeign(entry)) foreign += 1;
  else if (!/^sha512-[A-Za-z0-9+/]{86}==$/.test(entry.integrity ?? ''))
    faults.push(`${title}: no sha512 integrity`);
  if (entry.hasInstallScript && !scriptsNotRun.includes(name))
    faults.push(`${title}: runs a script at install`);
  if (!entry.dev && !licences.includes(entry.license)) faults.push(`${title}: licence ${entry.license}`);
  for (const { versions, why, source } of denied.get(name) ?? []) {
    if (versions.some((version) => matches(entry.version, version)))
      faults.push(`${title}: ${why} (${source})`);
  }
}
for (const name of scriptsNotRun) {
  if (manifest.allowScripts?.[name] !== false) faults.push(`package.json: allowScripts.${name} is not false`);
}
for (const fault of faults) console.log(fault);
console.log(
  `${packages} packages, ${runtime} of them for running; ${foreign} for building on other machines have no integrity; ${faults.length} faults`,
);
if (faults.length > 0 || runtime === 0) process.exit(1);

/** A tool's build for a machine this project is not built on, which complete-lockfile.mjs added unseen. */
function isForeign({ integrity, dev, optional, os, cpu, libc }) {
  const isOwn =
    os?.includes('linux') && ['x64', 'arm64'].some((one) => cpu?.includes(one)) && !libc?.includes('musl');
  return integrity === undefined && dev === true && optional === true && os !== undefined && !isOwn;
}

function deniedVersions(list) {
  const byName = new Map();
  for (const { why, source, packages } of list) {
    for (const [name, versions] of Object.entries(packages)) {
      byName.set(name, [...(byName.get(name) ?? []), { versions, why, source }]);
    }
  }
  return byName;
}

/** `pattern`: one version, `*`, or `<` and the first one that is good. */
function matches(version, pattern) {
  if (pattern === '*' || pattern === version) return true;
  return pattern.startsWith('<') && isBelow(version, pattern.slice(1));
}

function isBelow(version, limit) {
  const numbers = (text) => text.split('-')[0].split('.').map(Number);
  const [a, b] = [numbers(version), numbers(limit)];
  const at = a.findIndex((number, index) => number !== b[index]);
  return at === -1 ? version.includes('-') : a[at] < b[at];
}

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}
