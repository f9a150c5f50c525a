// The software bill of materials of what runs: CycloneDX, from the lockfile alone, so that it is the same wherever it
// is made. Fails when it is not what the lockfile says, or tells where it was made.
//   node .ci/sbom.mjs [FILE]      default: artifacts/sbom.cdx.json
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const root = join(import.meta.dirname, '..');
const file = resolve(process.argv[2] ?? join(root, 'artifacts', 'sbom.cdx.json'));
const { name, version, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));

const runs = new Set();
for (const [path, entry] of Object.entries(packages)) {
  if (path === '' || entry.dev || entry.optional || entry.devOptional) continue;
  runs.add(`${path.split('node_modules/').at(-1)}@${entry.version}`);
}

const options = ['--sbom-format=cyclonedx', '--sbom-type=application', '--package-lock-only', '--offline'];
const text = execFileSync('npm', ['sbom', ...options], {
  cwd: root,
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'inherit'],
  maxBuffer: 64 * 1024 * 1024,
});
const bill = JSON.parse(text);
// npm takes the name of the folder.
bill.metadata.component.name = name;
// Not with npm's --omit=dev: that leaves out what is needed for running and for building.
const isTitled = ({ name, version }) => runs.has(`${name}@${version}`);
bill.components = bill.components.filter(isTitled).map((component) => ({ ...component, scope: 'required' }));
const kept = new Set([bill.metadata.component, ...bill.components].map((component) => component['bom-ref']));
bill.dependencies = bill.dependencies
  .filter(({ ref }) => kept.has(ref))
  .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter((one) => kept.has(one)) }));
// The program itself needs its tools for being built alone, even those that others need for running.
const own = bill.dependencies.find(({ ref }) => ref === bill.metadata.component['bom-ref']);
const tools = Object.entries(devDependencies).map(([tool, its]) => `${tool}@${its}`);
own.dependsOn = own.dependsOn.filter((one) => !tools.includes(one));

const faults = faultsOf(bill);
if (faults.length > 0) {
  console.error(faults.join('\n'));
  process.exit(1);
}
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, `${JSON.stringify(bill, null, 2)}\n`);
console.log(`${bill.components.length} components of ${name} ${version} in ${file}`);

function faultsOf(bill) {
  const found = [];
  const expect = (isSo, fault) => isSo || found.push(fault);
  expect(bill.bomFormat === 'CycloneDX' && /^1\.\d$/.test(bill.specVersion), 'not CycloneDX 1');
  expect(/^urn:uuid:[0-9a-f-]{36}$/.test(bill.serialNumber), 'no serial number');
  expect(bill.metadata.component.purl === `pkg:npm/${name}@${version}`, 'not of this program');
  const refs = new Set([bill.metadata.component['bom-ref']]);
  const described = new Set();
  for (const component of bill.components) {
    const title = `${component.name}@${component.version}`;
    expect(!refs.has(component['bom-ref']), `${title}: twice`);
    refs.add(component['bom-ref']);
    described.add(title);
    const purl = `pkg:npm/${component.name.replace(/^@/, '%40')}@${component.version}`;
    expect(component.purl === purl, `${title}: purl ${component.purl}`);
    expect(
      component.hashes?.some(({ alg, content }) => alg === 'SHA-512' && /^[0-9a-f]{128}$/.test(content)),
      `${title}: no hash`,
    );
    expect(component.licenses?.length > 0, `${title}: no licence`);
  }
  for (const { ref, dependsOn } of bill.dependencies) {
    for (const one of [ref, ...dependsOn]) expect(refs.has(one), `${one}: a dependency that is no component`);
  }
  for (const title of runs) expect(described.has(title), `${title}: missing`);
  const printed = JSON.stringify({ ...bill, $schema: undefined });
  for (const trace of [root, process.env.HOME, 'node_modules', 'http:', 'https:', 'registry']) {
    expect(!trace || !printed.includes(trace), `it tells of ${trace}`);
  }
  expect(!printed.includes(`"${hostname()}"`), 'it tells of this machine');
  return found;
}
