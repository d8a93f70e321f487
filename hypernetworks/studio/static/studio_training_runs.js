/*
 * The runs below the Train tab's fields: continue one, put a step's network into the library, move one to the trash.
 */
(() => {
    "use strict";
    const { API, activeTab, notify, reloadCards, openWith, ask } = window.hypernetworksStudio;
    const { make } = window.hypernetworksExtension.controls;

    function button(text, label, action) {
        const element = make("button", { type: "button", "aria-label": label }, text);
        element.addEventListener("click", action);
        return element;
    }

    const toTop = () => document.getElementById("studio_tabs")?.scrollIntoView({ block: "start" });

    function open(run, tab, button) {
        openWith(run.name, tab, button);
        toTop();
    }

    class Runs {
        constructor(host) {
            this.host = host;
            this.list = make("ul", { "aria-label": "Runs" });
            this.empty = make("p", { class: "studio-done" }, "No runs yet. What you train is listed here.");
            host.replaceChildren(make("h2", {}, "Runs"), this.list, this.empty);
            host.classList.add("studio-filled");
            this.load();
        }

        async load() {
            try {
                const response = await fetch(`${API}/runs`);
                if (response.ok) this.render(await response.json());
            } catch { /* the page says that the studio does not answer */ }
        }

        render(runs) {
            const text = JSON.stringify(runs);
            if (text === this.shown) return;
            this.shown = text;
            this.empty.hidden = runs.length > 0;
            this.list.replaceChildren(...runs.map((run) => this.row(run)));
        }

        row(run) {
            const query = new URLSearchParams({ name: run.name, v: run.step });
            const picture = run.has_preview
                ? make("img", { src: `${API}/runs/preview?${query}`, alt: "", loading: "lazy" })
                : make("span", { class: "studio-face", "aria-hidden": "true" }, [...run.name][0]);
            picture.addEventListener?.("error", () => picture.remove(), { once: true });
            const best = run.best_loss === null ? "" : ` · lowest validation loss ${run.best_loss.toFixed(4)} at step ${run.best_step}`;
            const words = make("p", {}, make("b", {}, run.name), ` · ${run.step} steps${best}`);
            const more = make("input", { type: "number", min: "1", max: "1000000", value: "100", "aria-label": `More steps for ${run.name}` });
            const steps = make("select", { "aria-label": `Saved steps of ${run.name}` });
            steps.append(...run.saved.map((step) => make("option", { value: step }, `step ${step}`)));
            if (run.saved.includes(run.best_step)) steps.value = run.best_step;
            else if (run.saved.length) steps.value = run.saved[run.saved.length - 1];

            const going = button("Continue", `Continue ${run.name}`, () => this.change("continue", run, more.value));
            const keeping = button("Add to the library", `Add to the library: ${run.name}`, () => this.change("keep", run, steps.value));
            const leaving = button("Move to trash", `Move to trash: ${run.name}`, () => this.change("discard", run, ""));
            const opening = button("Show in folder", `Show in folder: ${run.name}`, () => this.change("reveal", run, ""));
            const changing = button("Change settings", `Change settings of ${run.name}`, () => open(run, "Train", "studio_again"));
            const comparing = button("Compare steps", `Compare steps of ${run.name}`, () => open(run, "Compare", "studio_compare_run"));
            [going, more, changing].forEach((element) => element.toggleAttribute("disabled", !run.can_go_on));
            [keeping, steps, comparing].forEach((element) => element.toggleAttribute("disabled", !run.saved.length));
            const tools = make("div", { class: "studio-tools" }, going, more, make("span", {}, "more steps"), changing, steps, keeping, comparing, opening, leaving);
            return make("li", {}, picture, make("div", {}, words, tools));
        }

        async change(action, run, number) {
            const query = new URLSearchParams({ name: run.name, number });
            const response = await fetch(`${API}/runs/${action}?${query}`, { method: "POST" });
            const answer = await response.json();
            const done = { continue: `${run.name} goes on.`, keep: `${answer.kept} is in the library.`, reveal: `The folder of ${run.name} opens: ${answer.folder}`, discard: `${run.name} is in the folder "trash" beside the runs.` };
            notify(response.ok ? done[action] : answer.error, !response.ok);
            if (response.ok && action === "keep") reloadCards();
            if (response.ok && action === "continue") toTop();
            ask();
            this.load();
        }
    }

    const all = [];
    let count = 0;

    setInterval(() => {
        for (const host of document.querySelectorAll(".studio-runs:not(.studio-filled)")) all.push(new Runs(host));
        count += 1;
        if (activeTab() === "Train" && !document.hidden && count % 10 === 0) {
            // Not under the user's hands: a field that is edited stays.
            for (const each of all) if (!each.host.contains(document.activeElement)) each.load();
        }
    }, 400);
})();
