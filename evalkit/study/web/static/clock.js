// One clock for all clips. The clips follow it: small differences are made up by playing a little faster or slower, large
// ones by jumping. While one clip waits for data, all wait. When the longest has ended, all begin again; shorter ones rest
// on their last picture until then.

const TOLERANCE_S = 0.03; // a frame at 30 frames a second
const JUMP_S = 0.25;
const REST_S = 0.6;

export class Clock extends EventTarget {
  #videos;
  #wanted = false; // play has been pressed
  #held = true; // waiting for data
  #from = 0; // time at which the clock was started last
  #since = 0; // when that was

  /** Events: `tick`, `change` (playing or not). */
  constructor(videos) {
    super();
    this.#videos = videos;
    document.addEventListener("visibilitychange", () => document.hidden && this.#hold());
    requestAnimationFrame(() => this.#tick());
  }

  get duration() {
    return Math.max(0, ...this.#videos.map((video) => video.duration || 0));
  }

  get playing() {
    return this.#wanted;
  }

  get waiting() {
    return this.#wanted && this.#held;
  }

  get time() {
    return Math.min(this.#now(), this.duration);
  }

  play() {
    this.#wanted = true;
    this.#held = true;
    if (this.#from >= this.duration) this.#from = 0;
    this.dispatchEvent(new Event("change"));
  }

  pause() {
    this.#hold();
    this.#wanted = false;
    this.dispatchEvent(new Event("change"));
  }

  seek(time) {
    this.#hold();
    this.#from = time;
    this.#videos.forEach((video) => this.#put(video));
  }

  #now() {
    return this.#held || !this.#wanted ? this.#from : this.#from + (performance.now() - this.#since) / 1000;
  }

  #tick() {
    if (this.#wanted) {
      if (!this.#videos.every((video) => this.#ready(video))) this.#hold();
      else if (this.#held) this.#release();
      else if (this.#now() > this.duration + REST_S) this.seek(0);
      else this.#videos.forEach((video) => this.#steer(video));
    }
    this.dispatchEvent(new Event("tick"));
    requestAnimationFrame(() => this.#tick());
  }

  #ready(video) {
    if (video.seeking || video.error || !video.duration) return false;
    const near = video.currentTime > video.duration - JUMP_S;
    return video.readyState >= (near ? HTMLMediaElement.HAVE_CURRENT_DATA : HTMLMediaElement.HAVE_FUTURE_DATA);
  }

  #hold() {
    if (!this.#held) this.#from = this.time;
    this.#held = true;
    this.#videos.forEach((video) => video.paused || video.pause());
  }

  // All are ready: put those right that are elsewhere, and start once that has been done.
  #release() {
    const astray = this.#videos.filter((video) => Math.abs(video.currentTime - this.#target(video)) > TOLERANCE_S);
    if (astray.length) {
      astray.forEach((video) => this.#put(video));
      return;
    }
    this.#held = false;
    this.#since = performance.now();
    this.#videos.forEach((video) => this.#steer(video));
  }

  #target(video) {
    return Math.min(this.#now(), video.duration || 0);
  }

  #put(video) {
    const target = this.#target(video);
    if (video.readyState > 0 && video.currentTime !== target) video.currentTime = target;
  }

  #steer(video) {
    if (this.#now() >= video.duration || video.ended) return; // it rests
    if (video.paused) video.play().catch((error) => error.name === "NotAllowedError" && this.pause());
    const ahead = video.currentTime - this.#now();
    if (Math.abs(ahead) > JUMP_S) this.#put(video);
    video.playbackRate = Math.abs(ahead) > TOLERANCE_S ? 1 - Math.sign(ahead) * Math.min(0.25, 2 * Math.abs(ahead)) : 1;
  }
}

/** Load a clip again after it has failed, less and less often. */
export function reloading(video, onTrouble) {
  let failures = 0;
  video.addEventListener("error", () => {
    onTrouble(true);
    failures += 1;
    setTimeout(() => video.load(), Math.min(1000 * 2 ** failures, 20000));
  });
  video.addEventListener("loadeddata", () => {
    failures = 0;
    onTrouble(false);
  });
}
