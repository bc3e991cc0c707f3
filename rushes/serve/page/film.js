/** Plays a video by its own clock, as it is or, where the browser cannot, as clips made one after another. */

import { clipOf, streamOf } from "./api.js";

const PIECE = 20; // seconds of a clip: soon made, long enough to watch on
const LEAD = 0.05; // seconds into a moment, so that the picture before a cut does not flash up

/** One <video> element that is asked for seconds of a library video, whatever plays there. */
export class Film {
  /** @param {HTMLVideoElement} element @param {(text: string) => void} say what a person should know meanwhile */
  constructor(element, say) {
    this.element = element;
    this.say = say;
    this.video = null;
    this.whole = true; // else clips
    this.offset = 0; // the second of the video at which the clip that plays begins
    element.addEventListener("ended", () => this.#goOn());
    element.addEventListener("error", () => this.#failed());
    element.addEventListener("playing", () => this.say(element.muted && this.muted ? "Muted, because the browser asks for a click first." : ""));
    element.addEventListener("waiting", () => !this.whole && this.say("Preparing this moment …"));
  }

  /** Play `video` (of the API) from `start` seconds on, past whatever moment that was. */
  load(video, start) {
    const same = this.video?.id === video.id && this.element.hasAttribute("src");
    if (!same) {
      this.whole = video.playable;
      this.muted = false;
    }
    this.video = video;
    if (same) this.seek(start);
    else this.#begin(start);
  }

  /** Go to this second and play. @param {number} seconds */
  seek(seconds) {
    const inside = this.whole || (seconds >= this.offset && seconds < this.offset + (this.element.duration || 0) - 0.1);
    if (!inside || !this.element.hasAttribute("src")) {
      this.#begin(seconds);
      return;
    }
    this.element.currentTime = seconds - this.offset;
    this.#play();
  }

  /** The second of the video that is on screen. */
  get time() {
    return this.offset + this.element.currentTime;
  }

  toggle() {
    if (this.element.paused) this.#play();
    else this.element.pause();
  }

  /** Stop, and let go of the connection. */
  close() {
    this.video = null;
    this.element.pause();
    this.element.removeAttribute("src");
    this.element.load();
    this.say("");
  }

  #begin(seconds) {
    const length = this.video.seconds;
    if (this.whole) {
      this.offset = 0;
      this.element.src = streamOf(this.video.id);
      this.element.currentTime = seconds + (seconds > 0 ? LEAD : 0);
    } else {
      this.offset = Math.max(0, Math.min(seconds, length - 0.5));
      this.element.src = clipOf(this.video.id, this.offset, Math.min(length, this.offset + PIECE));
      this.say("Preparing this moment …");
    }
    this.#play();
  }

  #goOn() {
    if (this.video && !this.whole && this.offset + this.element.duration < this.video.seconds - 0.5) {
      this.#begin(this.offset + this.element.duration);
    }
  }

  /** A browser may lack what the server thought it can play; then clips are the way, and after them there is none. */
  #failed() {
    if (!this.video || !this.element.hasAttribute("src")) return;
    if (this.whole) {
      const at = this.element.currentTime;
      this.whole = false;
      this.#begin(at);
    } else {
      this.element.removeAttribute("src");
      this.say("This moment cannot be played. Its file may be gone or damaged there.");
    }
  }

  /** Browsers let a page play with sound only after a click or a key; a link that was opened has to begin muted. */
  #play() {
    this.element.play().catch((error) => {
      if (error.name !== "NotAllowedError") return;
      this.muted = this.element.muted = true;
      this.element.play().catch(() => this.say("Press play to begin."));
    });
  }
}
