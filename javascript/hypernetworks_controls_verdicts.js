/*
 * What the server knows of the networks in a prompt: before an image is made, not after.
 */
(() => {
    "use strict";
    const { catalogue, controls } = window.hypernetworksExtension;
    if (controls.Verdicts) return;

    const PAUSE_MS = 200; // nobody is asked at every key
    const [SOON_MS, NOW_AND_THEN_MS, SWITCH_MS] = [2000, 15000, 40000];

    class Verdicts {
        /**
         * @param {string} address of the question; empty where nobody answers
         * @param {function} learned called after each answer
         */
        constructor(address, learned) {
            this.address = address;
            this.learned = learned;
            this.names = [];
            this.known = {};
            this.askedAt = 0;
            this.switchedAt = 0;
        }

        of(name) {
            return this.known[name];
        }

        previewOf(name) {
            const version = this.known[name]?.preview;
            if (!version) return null;
            return `${this.address.replace(/check$/, "preview")}?${new URLSearchParams({ name, version })}`;
        }

        /** These are in the prompt by now. */
        about(names) {
            this.names = [...new Set(names)];
            if (this.names.every((name) => name in this.known)) return;
            clearTimeout(this.asking);
            this.asking = setTimeout(() => this.ask(), PAUSE_MS);
        }

        async ask() {
            const { names } = this;
            this.askedAt = Date.now();
            if (!this.address || !names.length) return;
            const turn = Symbol("question");
            this.turn = turn;
            try {
                const { networks } = await catalogue.check(this.address, names);
                if (this.turn !== turn) return;
                // The server answers for so many names and no more: the others are not asked for again and again.
                this.known = Object.fromEntries(names.map((name) => [name, networks[name] ?? {}]));
                this.learned();
            } catch { /* the server is busy or away: the rows say what is known */ }
        }

        /** Ask again now and then, and often after a switch of the checkpoint, which takes its time. */
        askAgain() {
            const { sd_model_checkpoint, sd_checkpoint_hash } = window.hypernetworksExtension.options();
            const model = `${sd_model_checkpoint} ${sd_checkpoint_hash}`;
            if (model !== (this.model ?? model)) this.switchedAt = Date.now();
            this.model = model;
            const pause = Date.now() - this.switchedAt < SWITCH_MS ? SOON_MS : NOW_AND_THEN_MS;
            if (!document.hidden && Date.now() - this.askedAt > pause) this.ask();
        }
    }

    controls.Verdicts = Verdicts;
})();
