// The sections of the ring waiting for one lane, oldest first. Order is kept through releases: what is given
// back is the first to be taken again.

import type { Section } from './segment.ts';

export class Lane {
  #sections: Section[] = [];
  /** Sections before it are gone. */
  #head = 0;
  /** Sections before it are gone or held. */
  #next = 0;

  push(section: Section): void {
    this.#sections.push(section);
    // Also when nobody takes: what was moved to blocks meanwhile must not stay in memory.
    if (this.#sections.length % 1024 === 0) this.#forgetGone();
  }

  /**
   * Marks as held and answers the oldest waiting sections, up to so many points but at least one. Those without dates
   * are passed over unless wanted; `rewind` when they are.
   */
  hold(pointsMax: number, bytesMax: number, mayBeUndated: boolean): Section[] {
    const taken: Section[] = [];
    let points = 0;
    let bytes = 0;
    this.#forgetGone();
    let at = Math.max(this.#next, this.#head);
    for (; at < this.#sections.length; at += 1) {
      const section = this.#sections[at];
      if (section?.state !== 'waiting' || (section.isUndated && !mayBeUndated)) continue;
      if (taken.length > 0 && (points + section.points > pointsMax || bytes + section.bytes > bytesMax))
        break;
      section.state = 'held';
      taken.push(section);
      points += section.points;
      bytes += section.bytes;
    }
    this.#next = at;
    return taken;
  }

  /** Some section was given back: look from the start again. */
  rewind(): void {
    this.#next = this.#head;
  }

  /** Moves everything behind what the other lane has. */
  drainInto(other: Lane): void {
    for (const section of this.#sections) if (section.state !== 'gone') other.push(section);
    this.#sections = [];
    this.#head = 0;
    this.#next = 0;
  }

  /** The oldest section of a class that is not gone. */
  oldest(classIndex: number): Section | undefined {
    this.#forgetGone();
    for (let at = this.#head; at < this.#sections.length; at += 1) {
      const section = this.#sections[at];
      if (section !== undefined && section.class === classIndex && section.state !== 'gone') return section;
    }
    return undefined;
  }

  #forgetGone(): void {
    while (this.#head < this.#sections.length && this.#sections[this.#head]?.state === 'gone')
      this.#head += 1;
    if (this.#head < 1024 || this.#head * 2 < this.#sections.length) return;
    this.#sections = this.#sections.slice(this.#head);
    this.#next = Math.max(0, this.#next - this.#head);
    this.#head = 0;
  }
}
