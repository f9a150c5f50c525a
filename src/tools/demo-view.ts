// What the demo shows: one screen, drawn anew a few times a second on a terminal, or a line per event where the
// output is a file. Pure but for the stream it writes to.

import { stripVTControlCharacters } from 'node:util';

export interface DemoFigures {
  readonly elapsedMs: number;
  readonly addresses: readonly string[];
  readonly nodes: readonly {
    readonly deviceId: string;
    readonly connected: boolean;
    readonly acknowledged: number;
  }[];
  readonly sent: number;
  readonly acknowledged: number;
  /** Points that wait for the uplink. */
  readonly waiting: number;
  readonly delivered: number;
  readonly uplinkIsUp: boolean;
  /** Alarms that sound or wait for somebody, worded for people. */
  readonly alarms: readonly { readonly message: string; readonly state: string }[];
  readonly isSounding: boolean;
  /** Milliseconds from the wet message to the buzzer, once it happened. */
  readonly alarmLatencyMs: number | undefined;
}

export interface DemoView {
  /** Something happened: shown in the story, and once as a line of its own without a terminal. */
  tell(elapsedMs: number, text: string): void;
  draw(figures: DemoFigures): void;
  /** The buzzer's stand-in: the terminal's bell, about once a second. */
  ring(): void;
  /** Leaves the terminal as it was. */
  close(): void;
}

export interface DemoTerminal {
  write(text: string): void;
  readonly isTerminal: boolean;
  readonly columns: number;
}

const storyLines = 9;

function clockText(elapsedMs: number): string {
  const seconds = Math.floor(elapsedMs / 1000);
  return `${String(Math.floor(seconds / 60)).padStart(2, '0')}:${String(seconds % 60).padStart(2, '0')}`;
}

const style = {
  bold: (text: string) => `\u001b[1m${text}\u001b[22m`,
  dim: (text: string) => `\u001b[2m${text}\u001b[22m`,
  red: (text: string) => `\u001b[97;41m${text}\u001b[0m`,
  green: (text: string) => `\u001b[32m${text}\u001b[39m`,
  yellow: (text: string) => `\u001b[33m${text}\u001b[39m`,
};

function bar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return '█'.repeat(full) + '░'.repeat(width - full);
}

function statusLine(figures: DemoFigures): string {
  return (
    `${clockText(figures.elapsedMs)}  acknowledged ${figures.acknowledged}/${figures.sent}` +
    `  in InfluxDB ${figures.delivered}  waiting ${figures.waiting}` +
    `  uplink ${figures.uplinkIsUp ? 'up' : 'CUT'}` +
    `  ${figures.alarms.length === 0 ? 'no alarm' : figures.alarms.map((alarm) => alarm.message).join(', ')}`
  );
}

function screen(figures: DemoFigures, story: readonly string[]): string[] {
  const uplink = figures.uplinkIsUp ? style.green('up') : style.yellow('CUT: no internet');
  const waitingShare = figures.waiting / Math.max(200, figures.waiting);
  const lines = [
    `${style.bold('IoTFlow Edge demo')}   ${clockText(figures.elapsedMs)}   ${style.dim(figures.addresses.join('   '))}`,
    '',
    ` nodes      ${figures.nodes
      .map((node) => `${node.connected ? style.green('●') : style.yellow('○')} ${node.deviceId}`)
      .join('   ')}`,
    ` readings   ${figures.sent} sent, ${figures.acknowledged} acknowledged, each on disk before its PUBACK`,
    ` journal    ${bar(waitingShare, 24)} ${figures.waiting} waiting for the uplink`,
    ` uplink     ${uplink}, ${figures.delivered} delivered to InfluxDB`,
    '',
  ];
  if (figures.alarms.length === 0) {
    lines.push(` alarm      ${style.dim('none')}`);
  } else {
    for (const alarm of figures.alarms) {
      const latency =
        figures.alarmLatencyMs === undefined
          ? ''
          : `, ${figures.alarmLatencyMs.toFixed(1)} ms after the message`;
      const sound = figures.isSounding ? `buzzer ON${latency}` : 'silent';
      lines.push(` alarm      ${style.red(` ${alarm.message} `)} ${alarm.state}, ${sound}`);
    }
  }
  lines.push('', ...story.slice(-storyLines).map((line) => ` ${style.dim(line)}`), '');
  lines.push(
    style.dim(
      ' space: acknowledge the alarm   u: cut or restore the uplink   w: wet or dry the probe   Ctrl-C: end',
    ),
  );
  return lines;
}

/** Cuts a line to the terminal's width; a wrapped line would tear the picture. */
function fitted(line: string, columns: number): string {
  const excess = stripVTControlCharacters(line).length - columns;
  return excess <= 0 ? line : `${stripVTControlCharacters(line).slice(0, columns - 1)}…`;
}

export function createDemoView(terminal: DemoTerminal): DemoView {
  const story: string[] = [];
  let lastLineMs = Number.NEGATIVE_INFINITY;
  let lastBellMs = Number.NEGATIVE_INFINITY;
  if (terminal.isTerminal) terminal.write('\u001b[?25l\u001b[2J');
  return {
    tell(elapsedMs, text) {
      const line = `${clockText(elapsedMs)}  ${text}`;
      story.push(line);
      if (story.length > storyLines) story.shift();
      if (!terminal.isTerminal) terminal.write(`${line}\n`);
    },
    draw(figures) {
      if (!terminal.isTerminal) {
        if (figures.elapsedMs - lastLineMs < 5000) return;
        lastLineMs = figures.elapsedMs;
        terminal.write(`${statusLine(figures)}\n`);
        return;
      }
      const lines = screen(figures, story).map((line) => `${fitted(line, terminal.columns)}\u001b[K`);
      terminal.write(`\u001b[H${lines.join('\n')}\u001b[J`);
    },
    ring() {
      if (!terminal.isTerminal || performance.now() - lastBellMs < 1000) return;
      lastBellMs = performance.now();
      terminal.write('\u0007');
    },
    close() {
      if (terminal.isTerminal) terminal.write('\u001b[?25h\n');
    },
  };
}
