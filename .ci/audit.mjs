// `npm audit`, where the registry answers it: mirrors often do not, and a build must not depend on it. Fails on an
// advisory that is high or critical. What is known to be bad for sure is in deny-list.json, which needs no network.
//   node .ci/audit.mjs [more options for npm]
import { spawnSync } from 'node:child_process';

const { stdout } = spawnSync(
  'npm',
  [
    'audit',
    '--json',
    '--package-lock-only',
    '--fetch-retries=1',
    '--fetch-timeout=20000',
    ...process.argv.slice(2),
  ],
  { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
);
const answer = parsed(stdout);
if (answer?.vulnerabilities === undefined) {
  console.log(`npm audit: not answered by the registry (${answer?.statusCode ?? 'no connection'})`);
  process.exit(0);
}
const findings = Object.values(answer.vulnerabilities);
for (const { name, severity, range } of findings) console.log(`${severity}: ${name} ${range}`);
const grave = findings.filter(({ severity }) => ['high', 'critical'].includes(severity));
console.log(`npm audit: ${findings.length} findings, ${grave.length} of them high or critical`);
if (grave.length > 0) process.exit(1);

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
