// The one binary's argument line: finds the command, parses its options, shows help. Promises: whatever is typed,
// the answer is what was asked for, or one clear line on standard error and an exit code that is not zero.

import { parseArgs } from 'node:util';
import { distance } from 'fastest-levenshtein';
import type { Environment } from '../config/environment.ts';
import { GatewayError } from '../platform/errors.ts';
import { alarmCommands } from './alarms.ts';
import { auditCommand } from './audit.ts';
import { backupCommand } from './backup.ts';
import { checkConfigCommand } from './check-config.ts';
import type { Call, Command, CommandOption, Output } from './command.ts';
import { outboxCommands } from './commands.ts';
import { deadLetterCommands } from './dead-letters.ts';
import { deviceCommands } from './devices.ts';
import { doctorCommand } from './doctor.ts';
import { fieldTypeCommands } from './field-types.ts';
import { historyCommands } from './history.ts';
import { journalCommands } from './journal.ts';
import { restoreCommand } from './restore.ts';
import { statusCommand } from './status.ts';
import { tlsCommand } from './tls.ts';
import { userCommands } from './users.ts';

const exitCodes = { done: 0, failed: 1, calledWrongly: 2 } as const;

export interface CliContext {
  readonly env: Environment;
  readonly stdout: Output;
  readonly stderr: Output;
  /** For `--version`. */
  readonly version: string;
  /** Commands that need the gateway itself (`run`, `demo`, `simulate …`), shown before the operator's. */
  readonly commands: readonly Command[];
}

const operatorCommands: readonly Command[] = [
  checkConfigCommand,
  ...deviceCommands,
  ...userCommands,
  ...alarmCommands,
  ...outboxCommands,
  ...journalCommands,
  ...deadLetterCommands,
  ...fieldTypeCommands,
  ...historyCommands,
  statusCommand,
  tlsCommand,
  auditCommand,
  backupCommand,
  restoreCommand,
  doctorCommand,
];

type Values = Readonly<Record<string, string | boolean | undefined>>;

function usage(command: Command): string {
  const positionals = (command.positionals ?? []).map((name) => ` ${name}`).join('');
  const options = Object.keys(command.options ?? {}).length > 0 ? ' [options]' : '';
  return `iotflow ${command.name}${positionals}${options}`;
}

function optionLines(options: Readonly<Record<string, CommandOption>>): string[] {
  const shown = Object.entries({ ...options, help: { type: 'boolean', help: 'Show this' } as CommandOption });
  const heads = shown.map(([name, { value }]) => `--${name}${value === undefined ? '' : ` ${value}`}`);
  const width = Math.max(...heads.map((head) => head.length));
  return shown.map(([, { help }], index) => `  ${(heads[index] ?? '').padEnd(width)}  ${help}`);
}

function commandHelp(command: Command): string {
  const details = command.details === undefined ? [] : ['', command.details];
  return [
    `Usage: ${usage(command)}`,
    '',
    command.summary,
    ...details,
    '',
    ...optionLines(command.options ?? {}),
    '',
  ].join('\n');
}

function overview(commands: readonly Command[]): string {
  const heads = commands.map(({ name, positionals = [] }) => [name, ...positionals].join(' '));
  const width = Math.max(...heads.map((head) => head.length));
  const lines = commands.map(({ summary }, index) => `  ${(heads[index] ?? '').padEnd(width)}  ${summary}`);
  return ['Usage: iotflow COMMAND [options]', '', ...lines, '', 'Each command has --help.', ''].join('\n');
}

/** The command whose words the arguments start with; the longest name wins. */
function findCommand(commands: readonly Command[], argv: readonly string[]): Command | undefined {
  return commands
    .filter(({ name }) => name.split(' ').every((word, index) => argv[index] === word))
    .sort((a, b) => b.name.length - a.name.length)
    .at(0);
}

function unknownCommand(commands: readonly Command[], argv: readonly string[]): string {
  if (argv[0]?.startsWith('-')) return `expected a command before ${argv[0]}; iotflow --help lists them`;
  const words = argv.filter((word) => !word.startsWith('-'));
  const [nearest] = commands
    .map(({ name }) => {
      const typed = words.slice(0, name.split(' ').length).join(' ');
      return { name, typed, edits: distance(name, typed) };
    })
    .sort((a, b) => a.edits - b.edits);
  const typed = JSON.stringify(words.slice(0, 2).join(' ').slice(0, 60));
  if (nearest === undefined || nearest.edits > Math.max(2, nearest.name.length / 2)) {
    return `unknown command ${typed}; iotflow --help lists them`;
  }
  return `unknown command ${typed}; did you mean "${nearest.name}"?`;
}

/** Node's complaint about an option, in one line, with the nearest option there is. */
function optionFault(error: unknown, command: Command): string {
  const [line = ''] = (error instanceof Error ? error.message : String(error)).split('\n');
  const ambiguous = /^Option '([^']*)' argument is ambiguous/.exec(line)?.[1];
  if (ambiguous !== undefined) return `write ${ambiguous}=VALUE when the value begins with a minus`;
  const given = /^Unknown option '--?([^']*)'/.exec(line)?.[1];
  if (given === undefined) return `${line.replace(/\.$/, '')}; see iotflow ${command.name} --help`;
  const [nearest] = [...Object.keys(command.options ?? {}), 'help'].sort(
    (a, b) => distance(a, given) - distance(b, given),
  );
  const unknown = `unknown option "--${given.slice(0, 60)}"`;
  if (nearest === undefined || distance(nearest, given) > Math.max(2, nearest.length / 2)) {
    return `${unknown}; see iotflow ${command.name} --help`;
  }
  return `${unknown}; did you mean "--${nearest}"?`;
}

function positionalsFault(command: Command, given: readonly string[]): string | undefined {
  const names = command.positionals ?? [];
  const missing = names[given.length];
  if (missing !== undefined && !missing.startsWith('['))
    return `expected ${missing}; usage: ${usage(command)}`;
  if (given.length <= names.length || names.at(-1)?.includes('…')) return undefined;
  return `did not expect ${JSON.stringify(given[names.length])}; usage: ${usage(command)}`;
}

function callOf(context: CliContext, values: Values, positionals: readonly string[]): Call {
  return {
    positionals,
    text: (option) => {
      const value = values[option];
      return typeof value === 'string' ? value : undefined;
    },
    flag: (option) => values[option] === true,
    env: context.env,
    version: context.version,
    stdout: context.stdout,
    stderr: context.stderr,
  };
}

/** Runs what was typed (without node and script); answers the exit code. Never throws for the operator's faults. */
export async function runCli(argv: readonly string[], context: CliContext): Promise<number> {
  const commands = [...context.commands, ...operatorCommands];
  const complain = (message: string, code: number): number => {
    context.stderr.write(`iotflow: ${message}\n`);
    return code;
  };
  const [first] = argv;
  if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
    (first === undefined ? context.stderr : context.stdout).write(overview(commands));
    return first === undefined ? exitCodes.calledWrongly : exitCodes.done;
  }
  if (first === '--version') {
    context.stdout.write(`${context.version}\n`);
    return exitCodes.done;
  }
  const command = findCommand(commands, argv);
  if (command === undefined) {
    const group = commands.filter(({ name }) => name.startsWith(`${first} `));
    const rest = argv.slice(1);
    if (group.length > 0 && rest.every((word) => word === '--help' || word === '-h')) {
      (rest.length === 0 ? context.stderr : context.stdout).write(overview(group));
      return rest.length === 0 ? exitCodes.calledWrongly : exitCodes.done;
    }
    return complain(unknownCommand(commands, argv), exitCodes.calledWrongly);
  }

  let parsed: { values: Values; positionals: readonly string[] };
  try {
    const options = Object.entries(command.options ?? {}).map(
      ([name, { type }]) => [name, { type }] as const,
    );
    parsed = parseArgs({
      args: argv.slice(command.name.split(' ').length),
      options: { ...Object.fromEntries(options), help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
      strict: true,
    });
  } catch (error) {
    return complain(optionFault(error, command), exitCodes.calledWrongly);
  }
  if (parsed.values.help === true) {
    context.stdout.write(commandHelp(command));
    return exitCodes.done;
  }
  const fault = positionalsFault(command, parsed.positionals);
  if (fault !== undefined) return complain(fault, exitCodes.calledWrongly);
  try {
    return await command.run(callOf(context, parsed.values, parsed.positionals));
  } catch (error) {
    // Anything else is a fault of the program: it ends the process with its stack.
    if (!(error instanceof GatewayError)) throw error;
    return complain(error.message.split('\n').join(' '), exitCodes.failed);
  }
}
