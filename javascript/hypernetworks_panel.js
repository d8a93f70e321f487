/*
 * The panel of a tab, and clicks on cards. Both change the text of the prompt and nothing else, and read it again: the
 * prompt is the only state.
 */
(() => {
    "use strict";
    const { catalogue, controls, ...text } = window.hypernetworksExtension;
    if (text.toggle) return;
    const { parseTags, pieceOf, remove, removeAll, move, put, append, format, isWritable, options } = text;
    const { Row, Menu, Master, SwitchedOff, Verdicts, make, setText, isFocused } = controls;
    const { entryOf, remember } = catalogue;

    /* ---------------------------------------------------------------- prompts and options of this page */

    const STORED_DEFAULT = "hypernetworks.default_multiplier";
    const DEFAULT_OPTION = "extra_networks_default_multiplier";
    const TABS = ["txt2img", "img2img", "control", "video"]; // the last two are SD.Next's

    const root = () => (typeof window.gradioApp === "function" ? window.gradioApp() : document);
    const separator = () => options().extra_networks_add_text_separator ?? " ";
    const isVisible = (element) => element.getClientRects().length > 0;

    function promptOf(tab) {
        const id = `#${CSS.escape(`${tab}_prompt`)}`;
        return root().querySelector(`${id} textarea, ${id} input[type=text]`);
    }

    /** The prompt of a tab; if the tab has none, the visible one. */
    function promptFor(tab) {
        const known = [...new Set([...TABS, ...panels.map((panel) => panel.tab)])];
        return promptOf(tab) ?? known.map(promptOf).find((prompt) => prompt && isVisible(prompt)) ?? null;
    }

    /** Change only the characters that differ, to keep caret and scroll position, and tell gradio. */
    function write(prompt, text) {
        const old = prompt.value;
        if (text === old) return;
        const most = Math.min(old.length, text.length);
        let head = 0;
        while (head < most && old[head] === text[head]) head += 1;
        let tail = 0;
        while (tail < most - head && old[old.length - 1 - tail] === text[text.length - 1 - tail]) tail += 1;
        prompt.setRangeText(text.slice(head, text.length - tail), head, old.length - tail, "preserve");
        if (typeof window.updateInput === "function") window.updateInput(prompt);
        else prompt.dispatchEvent(new Event("input", { bubbles: true }));
    }

    const activationOf = (name) => (entryOf(name)?.activation_text ?? "").trim();
    const hasOption = () => DEFAULT_OPTION in options();

    /** The multiplier of cards without a preferred one. */
    function defaultMultiplier() {
        let value = NaN;
        try {
            value = parseFloat(hasOption() ? options()[DEFAULT_OPTION] : localStorage.getItem(STORED_DEFAULT));
        } catch { /* the browser forbids storage */ }
        return Number.isFinite(value) ? value : 1;
    }

    function setDefaultMultiplier(number) {
        if (hasOption()) options()[DEFAULT_OPTION] = number;
        try {
            if (!hasOption()) localStorage.setItem(STORED_DEFAULT, String(number));
        } catch { /* then it is kept until the page is closed */ }
    }

    /* ---------------------------------------------------------------- the panel */

    const panels = [];
    const [USUAL_STEPS, MOST_STEPS] = [20, 500];
    const QUIET_MS = 700; // after this long without a change, what was added or removed is said aloud

    class Panel {
        constructor(host) {
            this.host = host;
            this.tab = host.dataset.tab;
            this.rows = [];
            this.seen = null;
            this.told = null;
            this.off = new SwitchedOff(this.tab, (name) => new Row(this, name));
            this.verdicts = new Verdicts(host.dataset.check ?? "", () => this.sync(true));
            this.menu = new Menu((name) => this.add(name), (text) => this.say(text), () => this.verdicts.ask());
            this.master = new Master(this);
            this.standard = make("input", { type: "number", step: "0.05" });
            this.list = make("ul", { class: "hypernetworks-rows", "aria-label": "Networks in the prompt" });
            this.empty = make("p", { class: "hypernetworks-empty" });
            this.message = make("p", { class: "hypernetworks-message", role: "status" });
            this.live = make("p", { class: "hypernetworks-live", role: "status", "aria-live": "polite" });
            this.fill();
        }

        fill() {
            const caption = make("span", {}, "Default for cards");
            const standard = make("label", { class: "hypernetworks-default" }, caption, this.standard);
            standard.title = "Multiplier of networks without one of their own. Set it permanently in the webui's Settings "
                + "(Default multiplier for extra networks); this field lasts until the page is reloaded.";
            const parts = [this.menu.element, standard, this.master.element];
            const tools = make("div", { class: "hypernetworks-tools" }, ...parts);
            this.host.replaceChildren(this.list, this.empty, tools, this.message, this.live);
            this.host.classList.add("hypernetworks-filled");
            this.standard.addEventListener("input", () => {
                if (Number.isFinite(this.standard.valueAsNumber)) setDefaultMultiplier(this.standard.valueAsNumber);
            });
            this.sync(true);
        }

        /** Update the rows from the prompt; fast if nothing has changed. */
        sync(force = false) {
            const standard = format(defaultMultiplier());
            if (!isFocused(this.standard) && this.standard.value !== standard) this.standard.value = standard;
            const text = promptFor(this.tab)?.value ?? null;
            const steps = this.steps();
            if (text === this.seen && steps === this.seenSteps && !force) return;
            [this.seen, this.seenSteps] = [text, steps];
            const tags = parseTags(text ?? "");
            this.arrange(tags);
            this.master.follow(text, tags);
            this.empty.hidden = tags.length + this.off.all.length > 0;
            setText(this.empty, text === null ? "This tab has no prompt." : "No hypernetwork in the prompt.");
            this.tellLater(tags.map((tag) => tag.name));
        }

        /** The number of steps in this tab, for the curves. */
        steps() {
            const field = root().querySelector(`#${CSS.escape(`${this.tab}_steps`)} input[type=number]`);
            const steps = Math.round(Number(field?.value));
            return steps >= 1 ? Math.min(steps, MOST_STEPS) : USUAL_STEPS;
        }

        /** Make a row per tag, in their order. Rows with the same name are used again; unchanged ones stay in place. */
        arrange(tags) {
            const spare = [...this.rows];
            this.rows = tags.map((tag) => {
                const at = spare.findIndex((row) => row.name === tag.name);
                return at < 0 ? new Row(this, tag.name) : spare.splice(at, 1)[0];
            });
            spare.forEach((row) => row.element.remove());
            this.shown = [...this.rows];
            for (const { row, slot } of this.off.all) this.shown.splice(slot, 0, row);

            const names = this.shown.map((row) => row.name);
            this.shown.forEach((row, place) => {
                const there = this.list.children[place];
                if (there !== row.element) this.list.insertBefore(row.element, there ?? null);
                const several = names.indexOf(row.name) !== names.lastIndexOf(row.name);
                const count = several ? names.slice(0, place + 1).filter((name) => name === row.name).length : 0;
                const index = this.rows.indexOf(row);
                const tag = tags[index] ?? this.off.tagOf(row);
                row.show(tag, index, count, this.verdicts.of(row.name));
            });
            this.verdicts.about(names);
        }

        /** Change the prompt with a function of its text. */
        edit(change) {
            const prompt = promptFor(this.tab);
            if (prompt) write(prompt, change(prompt.value));
            this.sync();
        }

        add(name) {
            const added = insert(this.tab, name, entryOf(name)?.preferred_multiplier, activationOf(name));
            if (added) this.say("");
            return added;
        }

        removeRow(row) {
            const place = this.shown.indexOf(row);
            const activation = activationOf(row.name);
            if (this.off.has(row)) this.forgetOff(row);
            else this.edit((prompt) => (row.isIn(prompt) ? remove(prompt, row.index, activation, separator()) : prompt));
            const next = this.shown[Math.min(place, this.shown.length - 1)];
            (next?.removal ?? this.menu.renewal).focus(); // not the menu's input, which would open the menu
        }

        /* The order of the tags is the order in which the networks are applied. */

        moveRow(row, to) {
            const from = row.index;
            if (from < 0 || to < 0 || to >= this.rows.length || to === from) return;
            this.rows.splice(to, 0, ...this.rows.splice(from, 1)); // so that the row goes along with its tag
            this.edit((prompt) => (row.isIn(prompt) ? move(prompt, from, to, activationOf) : prompt));
        }

        /** The pointer is at that height while it holds a row. */
        dragRow(row, height) {
            const middles = this.rows.map(({ element }) => element.getBoundingClientRect()).map((r) => r.top + r.height / 2);
            const over = middles.findIndex((middle, index) => (index < row.index ? height < middle : false));
            const under = middles.findLastIndex((middle, index) => (index > row.index ? height > middle : false));
            if (over >= 0) this.moveRow(row, over);
            else if (under >= 0) this.moveRow(row, under);
        }

        switchRow(row, on) {
            if (on) this.putBack(row);
            else this.takeOut(row);
        }

        takeOut(row) {
            const slot = this.shown.indexOf(row);
            this.edit((prompt) => {
                if (!row.isIn(prompt)) return prompt;
                const { start, end } = pieceOf(prompt, row.index, activationOf(row.name));
                const after = remove(prompt, row.index, activationOf(row.name), separator());
                this.off.add({ row, slot, piece: prompt.slice(start, end), before: prompt, after });
                this.rows.splice(row.index, 1);
                return after;
            });
        }

        /** Where it was, if the prompt is still the same; else before the tag of the next row, or at the end. */
        putBack(row) {
            const { piece, before, after } = this.off.of(row);
            const following = this.shown.slice(this.shown.indexOf(row) + 1).find((other) => !this.off.has(other));
            this.off.drop(row);
            this.rows.splice(following?.index ?? this.rows.length, 0, row);
            this.edit((prompt) => (prompt === after ? before : put(prompt, piece, following?.index, separator())));
        }

        forgetOff(row) {
            this.off.drop(row);
            row.element.remove();
            this.sync(true);
        }

        /** Open the folded panel when its prompt gets its first tag; after that, it stays as the user has it. */
        unfold() {
            const label = this.host.closest("[id$=_hypernetworks_accordion]")?.querySelector(".label-wrap");
            if (this.unfolded || !label || !isVisible(label)) return;
            if (!this.off.all.length && !parseTags(promptFor(this.tab)?.value ?? "").length) return;
            this.unfolded = true;
            label.click();
        }

        /** A line for all to read. */
        say(text) {
            setText(this.message, text);
        }

        /** Tell screen readers what was added or removed, once the prompt stops changing. */
        tellLater(names) {
            clearTimeout(this.timer);
            if (this.told === null) this.told = names;
            else this.timer = setTimeout(() => this.tell(names), QUIET_MS);
        }

        tell(names) {
            const minus = (some, others) => {
                const left = [...others];
                return some.filter((name) => !left.includes(name) || !left.splice(left.indexOf(name), 1));
            };
            const [added, gone] = [minus(names, this.told), minus(this.told, names)];
            this.told = names;
            const sentence = (verb, them) => (them.length ? `${verb} ${them.join(", ")}.` : "");
            const text = `${sentence("Added", added)} ${sentence("Removed", gone)}`.trim();
            if (text) setText(this.live, text);
        }
    }

    /** Fill new panels, drop removed ones, and notice prompts that a script has changed, for which there is no event. */
    function tick() {
        for (const host of root().querySelectorAll(".hypernetworks-panel:not(.hypernetworks-filled)")) {
            panels.push(new Panel(host));
        }
        for (const panel of [...panels]) {
            if (!panel.host.isConnected) panels.splice(panels.indexOf(panel), 1);
            else if (isVisible(panel.host)) {
                panel.unfolded = true;
                panel.sync();
                panel.verdicts.askAgain();
            } else panel.unfold();
        }
    }

    /* ---------------------------------------------------------------- for cards and other scripts */

    function complain(tab, text) {
        panels.filter((panel) => panel.tab === tab).forEach((panel) => panel.say(text));
        console.warn(`Hypernetworks: ${text}`);
    }

    /** Append a tag, whatever is there already; one that is switched off comes back. Returns whether it could be done. */
    function insert(tab, name, multiplier, activation = "") {
        for (const panel of panels.filter((one) => one.tab === tab)) {
            const waiting = panel.off.named(name);
            if (waiting) {
                panel.putBack(waiting);
                return true;
            }
        }
        const prompt = promptFor(tab);
        const text = String(multiplier ?? "").trim() || format(defaultMultiplier());
        let problem = null;
        if (!prompt) problem = "There is no prompt to write the tag into.";
        else if (/[:>]/.test(name)) problem = `“${name}” can't be in a tag: rename it without “:” and “>”.`;
        else if (!isWritable(name)) problem = `“${name}” can't be in a tag: the webui takes it for a comment.`;
        else if (text.includes(">")) problem = `The multiplier “${text}” of ${name} can't be in a tag.`;
        if (problem !== null) complain(tab, problem);
        else {
            write(prompt, append(prompt.value, name, text, (activation ?? "").trim(), separator()));
            remember(name);
        }
        return problem === null;
    }

    /**
     * A click on a card: remove all tags of that name, or add one.
     *
     * @param {string} tab the tab: txt2img, img2img, or SD.Next's control and video
     * @param {string} name as in tags
     * @param {number|string|null} multiplier the network's own; null or "" for the default
     * @param {string} [activationText] added and removed with the tag
     * @returns {boolean} whether the prompt has the tag now
     */
    function toggle(tab, name, multiplier = null, activationText = "") {
        const prompt = promptFor(tab);
        const without = prompt ? removeAll(prompt.value, name, (activationText ?? "").trim(), separator()) : null;
        if (without === null) return insert(tab, name, multiplier, activationText);
        write(prompt, without);
        return false;
    }

    document.addEventListener("input", (event) => {
        panels.forEach((panel) => promptFor(panel.tab) === event.target && panel.sync());
    }, true);
    setInterval(tick, 300);
    tick();

    const page = { root, isVisible, promptOf, write, defaultMultiplier, TABS };
    Object.assign(window.hypernetworksExtension, { toggle, insert, sync: tick, page });
})();
