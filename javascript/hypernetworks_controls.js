/*
 * The controls of the panel: the menu that adds a network, the slider over all of them. A row for each tag is in
 * hypernetworks_controls_row.js, its curve in hypernetworks_curve.js.
 *
 * They know no prompt: a panel hands them tags to show and functions to call. Every name goes into the page as text,
 * never as markup.
 */
(() => {
    "use strict";
    const { scale, format, isWritable, catalogue } = window.hypernetworksExtension;
    const { load, refresh, entryOf } = catalogue;

    let lastId = 0;
    function newId() {
        lastId += 1;
        return `hypernetworks-${lastId}`;
    }

    /** An element with attributes and children; text is inserted as text, never as markup. */
    function make(kind, attributes = {}, ...children) {
        const element = document.createElement(kind);
        for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
        element.append(...children);
        return element;
    }

    function setText(element, text) {
        if (element.textContent !== text) element.textContent = text;
    }

    const isFocused = (element) => element.matches(":focus");

    /* ---------------------------------------------------------------- the menu, a combobox with search */

    const MOST_OPTIONS = 60;
    let pointerIsDown = false;
    document.addEventListener("pointerdown", () => { pointerIsDown = true; }, true);
    for (const end of ["pointerup", "pointercancel"]) {
        document.addEventListener(end, () => { pointerIsDown = false; }, true);
    }

    class Menu {
        constructor(add, say, renewed = () => null) {
            this.add = add;
            this.say = say;
            this.renewed = renewed;
            this.active = -1;
            this.shown = [];
            const list = newId();
            this.input = make("input", {
                type: "text", role: "combobox", placeholder: "Add a network …", "aria-label": "Add a network",
                "aria-expanded": "false", "aria-controls": list, "aria-autocomplete": "list",
                autocomplete: "off", spellcheck: "false",
            });
            this.list = make("ul", { id: list, role: "listbox", "aria-label": "Networks", hidden: "" });
            this.renewal = make("button", { type: "button", class: "hypernetworks-button hypernetworks-worded" }, "↻ Refresh");
            this.renewal.title = "Look for new files";
            this.renewal.setAttribute("aria-label", "Refresh: look for new files");
            this.element = make("div", { class: "hypernetworks-add" }, this.input, this.renewal, this.list);
            this.listen();
        }

        listen() {
            this.input.addEventListener("focus", () => this.open());
            this.input.addEventListener("click", () => this.render());
            this.input.addEventListener("input", () => this.render());
            this.input.addEventListener("blur", () => this.leave());
            this.input.addEventListener("keydown", (event) => this.press(event));
            this.list.addEventListener("mousedown", (event) => event.preventDefault()); // the input keeps the focus
            this.list.addEventListener("click", (event) => {
                const option = event.target.closest("[role=option]");
                if (option) this.choose(this.shown[[...this.list.children].indexOf(option)]?.name);
            });
            this.renewal.addEventListener("click", () => this.renew());
        }

        open() {
            this.render();
            if (catalogue.loaded) return;
            load().then(() => isFocused(this.input) && this.render(), (error) => this.fail(error));
        }

        /** Close, but not while a mouse button is down: what is below would move away from under the click. */
        leave() {
            const closeUnlessBack = () => isFocused(this.input) || this.close();
            const afterClick = () => setTimeout(closeUnlessBack);
            if (pointerIsDown) document.addEventListener("pointerup", afterClick, { once: true, capture: true });
            else closeUnlessBack();
        }

        close() {
            this.active = -1;
            this.list.hidden = true;
            this.input.setAttribute("aria-expanded", "false");
            this.input.removeAttribute("aria-activedescendant");
        }

        fail(error) {
            this.say(`The list of networks can't be loaded (${error.message}). Type a name and press Enter instead.`);
        }

        async renew() {
            try {
                const { length } = await refresh();
                this.say(length === 1 ? "1 network found." : `${length} networks found.`);
                this.renewed();
            } catch (error) {
                this.fail(error);
            }
        }

        matches() {
            const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
            return catalogue.entries.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
        }

        render() {
            const found = this.matches();
            this.shown = found.slice(0, MOST_OPTIONS);
            this.active = -1;
            this.input.removeAttribute("aria-activedescendant");
            this.list.replaceChildren(...this.shown.map((entry) => this.option(entry)));
            const rest = found.length - this.shown.length;
            if (rest > 0) this.list.append(make("li", { role: "presentation" }, `and ${rest} more: type to search`));
            this.list.hidden = !this.shown.length;
            this.input.setAttribute("aria-expanded", String(!this.list.hidden));
        }

        option(entry) {
            const writable = isWritable(entry.name);
            const remark = writable ? String(entry.family ?? "") : "can't be in a tag: rename the file";
            const attributes = { id: newId(), role: "option", "aria-selected": "false", title: entry.name };
            if (!writable) attributes["aria-disabled"] = "true";
            return make("li", attributes, make("bdi", {}, entry.name), make("small", {}, remark));
        }

        press(event) {
            const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
            if (step) this.move(step);
            else if (event.key === "Enter") this.enter();
            else if (event.key === "Escape" && !this.list.hidden) this.close();
            else return;
            event.preventDefault();
            event.stopPropagation(); // a webui's Escape would interrupt the generation
        }

        move(step) {
            if (this.list.hidden) this.render();
            const count = this.shown.length;
            if (!count) return;
            this.active = this.active < 0 && step < 0 ? count - 1 : (this.active + step + count) % count;
            [...this.list.children].forEach((option, index) => {
                if (index < count) option.setAttribute("aria-selected", String(index === this.active));
            });
            const option = this.list.children[this.active];
            option.scrollIntoView({ block: "nearest" });
            this.input.setAttribute("aria-activedescendant", option.id);
        }

        /** Choose the marked option, or the one that matches the text, or, without a list, the text itself. */
        enter() {
            const typed = this.input.value.trim();
            const fitting = typed ? this.matches() : [];
            const same = fitting.find(({ name }) => name.toLowerCase() === typed.toLowerCase());
            const only = fitting.length === 1 ? fitting[0] : null;
            const meant = this.shown[this.active] ?? entryOf(typed) ?? same ?? only;
            if (meant) this.choose(meant.name);
            else if (typed && !catalogue.loaded) this.choose(typed);
            else if (typed) this.say(`${fitting.length || "No"} networks match “${typed}”.`);
        }

        choose(name) {
            if (name === undefined || !this.add(name)) return;
            this.input.value = "";
            this.close();
        }
    }

    /* ---------------------------------------------------------------- the master slider */

    /** Scales all plain numbers, always from their values when it was first moved, so that their ratios stay. */
    class Master {
        constructor(panel) {
            this.panel = panel;
            this.base = null; // the prompt when it was first moved
            this.written = null; // the prompt that it wrote last
            this.dragged = false;
            this.slider = make("input", { type: "range", min: "0", max: "2", step: "0.05", value: "1" });
            this.slider.setAttribute("aria-label", "All multipliers times");
            this.output = make("output", {}, "×1");
            const children = [make("span", {}, "All"), this.slider, this.output];
            this.element = make("label", { class: "hypernetworks-master" }, ...children);
            this.element.title = "Scales all multipliers except schedules; Escape restores them";
            this.listen();
        }

        listen() {
            this.slider.addEventListener("input", () => this.move());
            this.slider.addEventListener("pointerdown", () => { this.dragged = true; });
            // With the keyboard, every step ends with "change" too, so scaling ends when the focus leaves.
            this.slider.addEventListener("change", () => this.dragged && this.release());
            this.slider.addEventListener("blur", () => this.release());
            this.slider.addEventListener("keydown", (event) => {
                this.dragged = false;
                if (event.key !== "Escape" || this.base === null) return;
                event.preventDefault();
                event.stopPropagation();
                this.panel.edit(() => this.base);
                this.reset();
            });
        }

        move() {
            const factor = this.slider.valueAsNumber;
            this.panel.edit((prompt) => {
                if (this.base === null || prompt !== this.written) this.base = prompt;
                this.written = scale(this.base, factor);
                return this.written;
            });
            this.show(factor);
        }

        /** Back to 1, unless it is at 0: all multipliers are 0 then, and only the previous prompt has their values. */
        release() {
            this.dragged = false;
            if (this.slider.valueAsNumber !== 0) this.reset();
        }

        reset() {
            this.base = null;
            this.written = null;
            this.show(1);
        }

        show(factor) {
            this.slider.value = String(factor);
            this.slider.setAttribute("aria-valuetext", `times ${format(factor)}`);
            setText(this.output, `×${format(factor)}`);
        }

        /** Show the current prompt; a change by someone else ends a scaling. */
        follow(prompt, tags) {
            if (this.base !== null && prompt !== this.written) this.reset();
            this.slider.disabled = !tags.some((tag) => tag.number !== null);
            this.element.hidden = !tags.length;
        }
    }

    window.hypernetworksExtension.controls = { Menu, Master, make, newId, setText, isFocused };
})();
