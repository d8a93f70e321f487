/*
 * Below the prompt: earlier prompts, presets, generating for ever, and a notification when a long job ends.
 *
 * All of it is kept in this browser alone. A choice is filled in by the server (page.py), since gradio's own lists
 * can't be filled from here.
 */
(() => {
    "use strict";
    const { notify, current } = window.hypernetworksStudio;
    const { make } = window.hypernetworksExtension.controls;
    const [HISTORY, PRESETS, NOTIFY] = ["hypernetworks.history", "hypernetworks.presets", "hypernetworks.notify"];
    const [MOST_PROMPTS, MOST_PRESETS, LONG_MS] = [100, 100, 20_000];

    function read(key, otherwise) {
        try {
            return JSON.parse(localStorage.getItem(key) ?? "null") ?? otherwise;
        } catch {
            return otherwise;
        }
    }

    function write(key, value) {
        try {
            localStorage.setItem(key, JSON.stringify(value));
        } catch { /* private windows forget */ }
    }

    /** Fill the page's fields, whatever they are, as after a reload. */
    function apply(fields) {
        window.hypernetworksStudio.chosen = `1 ${JSON.stringify({ model: current().model, fields })}`;
        document.getElementById("studio_apply")?.click();
    }

    const options = (first, names) => [make("option", { value: "" }, first), ...names.map((name, index) => make("option", { value: index }, name))];
    const shortened = (text) => (text.length > 90 ? `${text.slice(0, 90)}…` : text);

    class Tools {
        constructor(host) {
            this.history = make("select", { "aria-label": "Earlier prompts" });
            this.presets = make("select", { "aria-label": "Presets" });
            this.saving = make("button", { type: "button" }, "Save preset …");
            this.removing = make("button", { type: "button", hidden: "" }, "Delete preset");
            this.forever = make("button", { type: "button", "aria-pressed": "false", title: "Generate again and again, each time with a random seed, until Interrupt or Escape" }, "Forever");
            this.bell = make("button", { type: "button", "aria-pressed": "false", title: "A notification when a job of more than 20 seconds ends" }, "Notify me");
            host.replaceChildren(make("div", { class: "studio-tools" }, this.history, this.presets, this.saving, this.removing, this.forever, this.bell));
            host.classList.add("studio-filled");
            this.listen();
            this.render();
        }

        listen() {
            this.history.addEventListener("change", () => {
                const [prompt, negative] = read(HISTORY, [])[Number(this.history.value)] ?? [];
                if (prompt !== undefined) apply({ prompt, negative });
                this.history.value = "";
            });
            this.presets.addEventListener("change", () => {
                const preset = read(PRESETS, [])[Number(this.presets.value)];
                this.removing.hidden = !preset || this.presets.value === "";
                if (!this.removing.hidden) apply(preset.fields);
            });
            this.saving.addEventListener("click", () => this.save());
            this.removing.addEventListener("click", () => {
                write(PRESETS, read(PRESETS, []).filter((_, index) => index !== Number(this.presets.value)));
                this.render();
            });
            this.forever.addEventListener("click", () => forever(!isForever));
            this.bell.addEventListener("click", () => this.askToNotify());
        }

        save() {
            const name = window.prompt("Name of the preset: it keeps the prompt and all settings of this page")?.trim().slice(0, 80);
            if (!name) return;
            const others = read(PRESETS, []).filter((preset) => preset.name !== name);
            write(PRESETS, [...others, { name, fields: current().fields }].slice(-MOST_PRESETS));
            this.render();
            this.presets.value = String(others.length);
            this.removing.hidden = false;
        }

        async askToNotify() {
            const wanted = !read(NOTIFY, false);
            const allowed = wanted && "Notification" in window && (await Notification.requestPermission()) === "granted";
            if (wanted && !allowed) notify("This browser does not allow notifications for this page.", true);
            write(NOTIFY, allowed);
            this.render();
        }

        render() {
            this.history.replaceChildren(...options("History", read(HISTORY, []).map(([prompt]) => shortened(prompt))));
            this.presets.replaceChildren(...options("Presets", read(PRESETS, []).map(({ name }) => name)));
            this.removing.hidden = true;
            this.bell.setAttribute("aria-pressed", String(read(NOTIFY, false)));
        }
    }

    const tools = [];

    function remember() {
        const { prompt, negative } = current().fields;
        if (!prompt?.trim()) return;
        const others = read(HISTORY, []).filter(([one, other]) => one !== prompt || other !== negative);
        write(HISTORY, [[prompt, negative ?? ""], ...others].slice(0, MOST_PROMPTS));
        for (const each of tools) if (!each.presets.value) each.render();
    }

    /* ---------------------------------------------------------------- for ever */

    let isForever = false;
    let waits = 0; // answers in a row in which this window had no job: one may come between two of them

    function forever(on) {
        isForever = on;
        waits = on ? 2 : 0;
        for (const { forever: toggle } of tools) toggle.setAttribute("aria-pressed", String(on));
    }

    function again(jobs) {
        if (!isForever) return;
        waits = jobs.some((job) => job.mine) ? 0 : waits + 1;
        if (waits < 2) return;
        waits = -4; // the new job needs a moment to be seen
        document.getElementById("hypernetworks_random")?.click();
        setTimeout(() => document.getElementById("hypernetworks_generate")?.click(), 300);
    }

    /* ---------------------------------------------------------------- when a long job ends */

    let since = null;

    function tell(jobs) {
        if (jobs.some((job) => job.mine)) {
            since ??= Date.now();
            return;
        }
        const wasLong = since !== null && Date.now() - since > LONG_MS;
        since = null;
        if (!wasLong || !document.hidden || !read(NOTIFY, false) || !("Notification" in window)) return;
        const note = new Notification("Hypernetworks studio", { body: "The job is done.", tag: "hypernetworks" });
        note.addEventListener("click", () => window.focus());
    }

    window.addEventListener("hypernetworks-now", ({ detail: { jobs } }) => {
        tell(jobs);
        again(jobs);
    });

    document.addEventListener("click", (event) => {
        if (event.target.closest("#hypernetworks_generate")) remember();
        if (event.target.closest("#hypernetworks_interrupt, .studio-pill button")) forever(false);
    }, true);

    setInterval(() => {
        for (const host of document.querySelectorAll(".studio-prompts:not(.studio-filled)")) tools.push(new Tools(host));
    }, 300);
})();
