// Reads vitest's JSON report; fails when a test was skipped, for in CI every package is installed and a
// skipped test is one that proves nothing.
import { readFileSync } from 'node:fs';

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const skipped = report.testResults
  .flatMap((file) => file.assertionResults)
  .filter((result) => !['passed', 'failed'].includes(result.status));
for (const result of skipped) console.log(`skipped: ${result.fullName}`);
console.log(`${report.numPassedTests} passed, ${report.numFailedTests} failed, ${skipped.length} skipped`);
if (skipped.length > 0 || report.numFailedTests > 0 || report.numPassedTests === 0) process.exit(1);
