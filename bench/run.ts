// Every bench, one after the other, and one report on stdout. `npm run bench -- memory start-time` runs those two.
// Ends with 1 when a bench failed; a goal that was missed is reported, not punished: the machine may be busy.

import { readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { argv, version } from 'node:process';
import { measureAlarmLatency } from './alarm-latency.ts';
import { measureBackup } from './backup.ts';
import { measureDeviceBytes } from './device-bytes.ts';
import { measureDrain } from './drain.ts';
import { progress, type Section, sectionText } from './figures.ts';
import { measureFleet } from './fleet.ts';
import { measureForwarder } from './forwarder.ts';
import { measureHistory } from './history.ts';
import { measureJournalBacklog } from './journal-backlog.ts';
import { measureJournalThinning } from './journal-thinning.ts';
import { measureJournalWear } from './journal-wear.ts';
import { measureLetterWear } from './letter-wear.ts';
import { measureMemory } from './memory.ts';
import { measureMqttRate } from './mqtt-rate.ts';
import { measureStartTime } from './start-time.ts';
import { measureWearGovernor } from './wear-governor.ts';

const benches: Readonly<Record<string, () => Promise<Section>>> = {
  'mqtt-rate': measureMqttRate,
  fleet: measureFleet,
  'alarm-latency': measureAlarmLatency,
  drain: measureDrain,
  'device-bytes': measureDeviceBytes,
  'wear-governor': measureWearGovernor,
  memory: measureMemory,
  'start-time': measureStartTime,
  backup: measureBackup,
  history: measureHistory,
  // Parts of it, for whoever looks for the cause of a figure above.
  forwarder: measureForwarder,
  'journal-backlog': measureJournalBacklog,
  'journal-thinning': measureJournalThinning,
  'journal-wear': measureJournalWear,
  'letter-wear': measureLetterWear,
};

const asked = argv.slice(2);
const unknown = asked.filter((name) => benches[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(
    `no bench named ${unknown.join(', ')}; there are ${Object.keys(benches).join(', ')}\n`,
  );
  process.exit(2);
}

const load = readFileSync('/proc/loadavg', 'utf8').split(' ')[0] ?? '';
process.stdout.write(
  `# Benchmarks, ${new Date().toISOString().slice(0, 10)}\n\n` +
    `${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${version}, ` +
    `load ${load} at the start. Ratios travel to other machines, figures do not.\n\n`,
);
for (const [name, measure] of Object.entries(benches)) {
  if (asked.length > 0 && !asked.includes(name)) continue;
  progress(`--- ${name}`);
  try {
    process.stdout.write(`${sectionText(await measure())}\n`);
  } catch (error) {
    process.exitCode = 1;
    process.stdout.write(
      `## ${name}\n\n- FAILED: ${error instanceof Error ? error.message : String(error)}\n\n`,
    );
  }
}
process.exit();
