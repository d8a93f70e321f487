/*
 * Networks that are switched off: each tag with its settings is kept here, and the prompt is as if it had never been
 * there.
 */
(() => {
    "use strict";
    const { parseTags, controls } = window.hypernetworksExtension;
    if (controls.SwitchedOff) return;

    const STORED = "hypernetworks.switched_off.";

    class SwitchedOff {
        /**
         * @param {string} tab they belong to
         * @param {function} newRow makes the row of a name
         */
        constructor(tab, newRow) {
            this.key = STORED + tab;
            this.all = this.restored(newRow);
        }

        has(row) {
            return this.all.some((one) => one.row === row);
        }

        of(row) {
            return this.all.find((one) => one.row === row);
        }

        named(name) {
            return this.all.find(({ row }) => row.name === name)?.row;
        }

        tagOf(row) {
            return parseTags(this.of(row).piece)[0];
        }

        /** `kept` has its row, its slot among all rows, the tag's text, and the prompt before and after. */
        add(kept) {
            this.all.push(kept);
            this.all.sort((one, other) => one.slot - other.slot);
            this.store();
        }

        drop(row) {
            this.all = this.all.filter((one) => one.row !== row);
            this.store();
        }

        /** Also for the next time that this page is loaded. */
        store() {
            const kept = this.all.map(({ row, ...rest }) => ({ name: row.name, ...rest }));
            try {
                sessionStorage.setItem(this.key, JSON.stringify(kept));
            } catch { /* it holds for this page, then */ }
        }

        restored(newRow) {
            try {
                const kept = JSON.parse(sessionStorage.getItem(this.key) ?? "[]");
                const sound = kept.filter(({ name, piece }) => parseTags(piece)[0]?.name === name);
                return sound.map(({ name, ...rest }) => ({ row: newRow(name), ...rest }));
            } catch {
                return []; // nothing is kept, or not by us
            }
        }
    }

    controls.SwitchedOff = SwitchedOff;
})();
