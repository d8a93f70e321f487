/*
 * A row of the panel: the controls of one tag.
 */
(() => {
    "use strict";
    const { parseTags, rewrite, format, controls } = window.hypernetworksExtension;
    if (controls.Row) return;
    const { make, newId, setText, isFocused } = controls;

    const SIGN = "⚠ ";
    const OFF = "Switched off: it is not in the prompt.";

    /** The controls of one tag. They stay the same elements while the prompt changes, so focus and drags survive. */
    class Row {
        constructor(panel, name) {
            this.panel = panel;
            this.name = name;
            this.index = -1;
            const note = newId();
            const common = { "aria-describedby": note };
            const button = { type: "button", class: "hypernetworks-button" };
            this.handle = make("button", { ...button, class: `${button.class} hypernetworks-handle` }, "⠿");
            this.use = make("input", { ...common, type: "checkbox", role: "switch" });
            this.picture = null; // made when there is a preview
            this.slider = make("input", { ...common, type: "range", min: "-1", max: "2", step: "0.05" });
            this.number = make("input", { ...common, type: "number", step: "0.05" });
            this.text = make("input", { ...common, type: "text", spellcheck: "false", autocomplete: "off" });
            this.removal = make("button", button, "×");
            this.curve = new window.hypernetworksExtension.Curve((text) => this.change(text)); // it is loaded after this file
            this.note = make("p", { id: note, class: "hypernetworks-note" });
            this.count = make("small");
            this.element = make("li", {}, ...this.parts());
            this.listen();
        }

        /** The name shows its end where it is too long: that is where the names of a series differ. */
        parts() {
            const name = make("bdi", { class: "hypernetworks-name", title: this.name }, make("bdi", {}, this.name));
            this.title = make("span", { class: "hypernetworks-label" }, name, this.count);
            const inputs = [this.slider, this.number, this.text, this.curve.button, this.removal];
            return [this.handle, this.use, this.title, ...inputs, this.note, this.curve.element];
        }

        listen() {
            this.slider.addEventListener("input", () => this.change(format(this.slider.valueAsNumber)));
            this.number.addEventListener("input", () => {
                if (Number.isFinite(this.number.valueAsNumber)) this.change(format(this.number.valueAsNumber));
            });
            this.text.addEventListener("input", () => {
                const allowed = this.text.value.replace(/[:>=]/g, ""); // these would end the multiplier
                if (allowed !== this.text.value) this.text.value = allowed;
                this.change(allowed.trim());
            });
            for (const input of [this.number, this.text]) {
                input.addEventListener("blur", () => this.panel.sync(true));
            }
            this.use.addEventListener("change", () => this.panel.switchRow(this, this.use.checked));
            this.curve.button.addEventListener("click", () => {
                this.curve.toggle();
                if (!this.slider.hidden) this.slider.focus();
            });
            this.listenToRemoval();
            this.listenToHandle();
        }

        listenToRemoval() {
            this.removal.addEventListener("click", () => this.panel.removeRow(this));
            this.removal.addEventListener("keydown", (event) => {
                if (event.key === "Delete") this.panel.removeRow(this);
            });
        }

        /** The row follows the pointer over its neighbours; the arrow keys do the same. */
        listenToHandle() {
            // Listens at the window: a pointer's capture would end where the row gets another place on the page.
            this.handle.addEventListener("pointerdown", (event) => {
                if (event.button !== 0) return;
                const ends = new AbortController();
                const listen = (kind, listener) => window.addEventListener(kind, listener, { signal: ends.signal });
                this.element.classList.add("hypernetworks-dragged");
                listen("pointermove", ({ clientY }) => this.panel.dragRow(this, clientY));
                for (const end of ["pointerup", "pointercancel"]) {
                    listen(end, () => {
                        ends.abort();
                        this.element.classList.remove("hypernetworks-dragged");
                    });
                }
            });
            this.handle.addEventListener("keydown", (event) => {
                const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
                if (!step) return;
                event.preventDefault();
                this.panel.moveRow(this, this.index + step);
                this.handle.focus();
            });
        }

        change(text) {
            this.panel.edit((prompt) => (this.isIn(prompt) ? rewrite(prompt, this.index, text) : prompt));
        }

        isIn(prompt) {
            return parseTags(prompt)[this.index]?.name === this.name;
        }

        /**
         * Show what a tag says.
         *
         * @param {object} tag as parseTags has it
         * @param {number} index of the tag in the prompt; -1 for one that is switched off
         * @param {number} count which of several tags of that name it is, from 1; 0 where it is the only one
         * @param {object} [verdict] what the server says of the name
         */
        show(tag, index, count, verdict) {
            this.index = index;
            // Someone who types in the text field keeps it, even while the text happens to be a number.
            const plain = tag.number !== null && !isFocused(this.text);
            const moved = !plain && (isFocused(this.slider) || isFocused(this.number));
            this.slider.hidden = !plain;
            this.number.hidden = !plain;
            this.text.hidden = plain;
            if (plain) this.showNumber(tag.number);
            else if (this.text.value.trim() !== tag.text) this.text.value = tag.text ?? "";
            if (moved) this.text.focus();

            const label = count ? `${this.name} (${count})` : this.name;
            setText(this.count, count ? ` (${count})` : "");
            this.nameControls(label);
            this.curve.show(tag, label, this.panel.steps());
            this.showState(tag, index < 0, verdict);
        }

        /** Whether it will act, and why not. The tag's own fault comes first: the server is asked for names only. */
        showState(tag, off, verdict) {
            const problem = tag.problem ?? verdict?.problem ?? null;
            const warning = problem === null ? "" : SIGN + problem;
            setText(this.note, off ? OFF : warning);
            this.element.classList.toggle("hypernetworks-wrong", problem !== null && !off);
            this.element.classList.toggle("hypernetworks-off", off);
            this.use.checked = !off;
            for (const input of [this.slider, this.number, this.text]) input.disabled = off;
            this.curve.button.disabled = off || tag.problem !== null;
            this.handle.disabled = off;

            this.showPicture(verdict?.preview ? this.panel.previewOf(this.name, verdict.preview) : null);
        }

        showPicture(address) {
            if ((this.picture?.getAttribute("src") ?? null) === address) return;
            this.picture?.remove();
            this.picture = address === null ? null : make("img", { alt: "", src: address });
            if (this.picture === null) return;
            this.picture.addEventListener("error", (event) => { event.target.hidden = true; });
            this.title.prepend(this.picture);
        }

        showNumber(number) {
            if (!isFocused(this.slider) || this.slider.valueAsNumber !== number) {
                const [low, high] = [Math.min(-1, Math.floor(number)), Math.max(2, Math.ceil(number))];
                this.slider.min = String(low);
                this.slider.max = String(high);
                this.slider.value = String(number);
                // Where the style draws its marks: "without" and "as it was trained".
                this.slider.style.setProperty("--hn-at-0", String(-low / (high - low)));
                this.slider.style.setProperty("--hn-at-1", String((1 - low) / (high - low)));
            }
            this.slider.setAttribute("aria-valuetext", format(number)); // it rounds to its steps, the tag doesn't
            const typing = isFocused(this.number) && [number, NaN].some((n) => Object.is(n, this.number.valueAsNumber));
            if (!typing) this.number.value = format(number);
        }

        nameControls(label) {
            if (this.label === label) return;
            this.label = label;
            this.slider.setAttribute("aria-label", `Multiplier of ${label}`);
            this.text.setAttribute("aria-label", `Multiplier of ${label}`);
            this.number.setAttribute("aria-label", `Multiplier of ${label} as a number`);
            const named = [
                [this.removal, `Remove ${label}`],
                [this.use, `Use ${label}`],
                [this.handle, `Move ${label} up or down`],
            ];
            for (const [control, words] of named) {
                control.setAttribute("aria-label", words);
                control.title = words;
            }
        }
    }

    controls.Row = Row;
})();
