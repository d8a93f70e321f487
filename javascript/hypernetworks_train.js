/*
 * The tab "Train hypernetwork": how far a training is, the ones that wait, earlier runs, and the set-up.
 *
 * The server draws bar, curves and previews; names that users gave come as text and go into the page as text.
 */
(() => {
    "use strict";
    const { catalogue, controls, page } = window.hypernetworksExtension;
    if (!page || window.hypernetworksExtension.training) return;
    const { make, setText } = controls;
    const { root, isVisible } = page;

    const API = "./hypernetworks/v1/training";
    const TICK_MS = 1000;
    const PARTS = ["progress", "messages", "curves", "previews"];

    function button(text, label, action) {
        const element = make("button", { type: "button", class: "hypernetworks-button hypernetworks-worded", "aria-label": label }, text);
        element.addEventListener("click", action);
        return element;
    }

    class Training {
        constructor(host) {
            this.host = host;
            this.seen = "";
            this.kept = undefined;
            this.isAsking = false;
            this.isInView = false;
            this.parts = Object.fromEntries(PARTS.map((part) => [part, make("div", { "data-part": part })]));
            this.told = make("p", { role: "status", class: "hypernetworks-told" });
            this.interrupting = button("Interrupt", "Interrupt the training; its state is saved", () => this.act("interrupt"));
            this.waiting = make("ul", { "aria-label": "Trainings that wait" });
            this.setup = make("div", { "data-part": "setup" });
            this.setupText = make("p");
            this.setupLog = make("pre");
            this.setupButton = button("Set up", "Make the extension's own environment", () => this.act("setup"));
            this.setup.append(this.setupText, this.setupLog, this.setupButton);
            this.runs = make("ul", { "aria-label": "Runs" });
            this.title = make("h3", {}, "Runs");
            host.replaceChildren(
                this.setup, this.parts.progress, this.interrupting, this.told, this.parts.messages, this.waiting,
                this.parts.curves, this.parts.previews, this.title, this.runs,
            );
            for (const element of [this.setup, this.interrupting, this.title]) element.hidden = true;
            host.classList.add("hypernetworks-filled");
            host.addEventListener("click", (event) => this.tryOut(event.target.closest?.(".studio-try")));
        }

        /** Ask while the tab can be seen. Its lists are those of the webui's start, or of the last time. */
        follow() {
            const isInView = isVisible(this.host) && !document.hidden;
            if (isInView && !this.isInView) this.renewLists();
            this.isInView = isInView;
            if (isInView) this.ask();
        }

        async ask() {
            if (this.isAsking) return; // a slow server gets one question at a time
            this.isAsking = true;
            try {
                const response = await fetch(`${API}?${new URLSearchParams({ seen: this.seen })}`);
                if (!response.ok) throw new Error(`HTTP ${response.status}`);
                this.show(await response.json());
            } catch (error) {
                setText(this.told, `The webui does not answer (${error.message}).`);
            } finally {
                this.isAsking = false;
            }
        }

        show(state) {
            for (const [part, html] of Object.entries(state.parts ?? {})) {
                if (part in this.parts) this.parts[part].innerHTML = html; // drawn by our server, which escapes names
            }
            this.seen = state.version;
            if (this.told.textContent.startsWith("The webui does not answer")) setText(this.told, "");
            this.interrupting.hidden = !state.running;
            this.showSetup(state.setup);
            this.showList(this.waiting, state.waiting, (name) => this.waitingRow(name));
            this.title.hidden = state.runs.length === 0;
            // Not under the user's hands: a field that is edited stays.
            if (!this.runs.contains(document.activeElement)) this.showList(this.runs, state.runs, (run) => this.runRow(run));
            if (state.kept !== this.kept) {
                if (this.kept !== undefined && state.kept) this.renewCards();
                this.kept = state.kept;
            }
        }

        showSetup({ able, running, said, why }) {
            this.setup.hidden = !(able === false || running || said);
            setText(this.setupText, running ? "" : why.charAt(0).toUpperCase() + why.slice(1));
            setText(this.setupLog, said);
            this.setupLog.hidden = !said;
            this.setupButton.hidden = running || able !== false;
        }

        showList(list, items, rowOf) {
            const text = JSON.stringify(items);
            if (list.dataset.shown === text) return;
            list.dataset.shown = text;
            list.replaceChildren(...items.map(rowOf));
        }

        waitingRow(name) {
            const leaving = button("Remove", `Remove ${name} from the queue`, () => this.act("remove", { name }));
            return make("li", {}, make("span", {}, `${name} waits`), leaving);
        }

        runRow(run) {
            const query = new URLSearchParams({ name: run.name, v: run.step });
            const picture = run.has_preview
                ? make("img", { src: `${API}/preview?${query}`, alt: "", loading: "lazy" })
                : make("span", { "aria-hidden": "true" });
            const best = run.best_loss === null ? "" : ` · lowest validation loss ${run.best_loss.toFixed(4)} at step ${run.best_step}`;
            const words = make("p", {}, make("b", {}, run.name), ` · ${run.step} steps${best}`);
            const more = make("input", { type: "number", min: "1", max: "1000000", value: "100", "aria-label": `More steps for ${run.name}` });
            const steps = make("select", { "aria-label": `Saved steps of ${run.name}` });
            steps.append(...run.saved.map((step) => make("option", { value: step }, `step ${step}`)));
            if (run.saved.length) steps.value = run.saved.includes(run.best_step) ? run.best_step : run.saved[run.saved.length - 1];

            const going = button("Continue", `Continue ${run.name}`, () => this.act("continue", { name: run.name, number: more.value }));
            const keeping = button("Add to the cards", `Add ${run.name} to the cards`, () => this.act("keep", { name: run.name, number: steps.value }));
            const leaving = button("Move to trash", `Move ${run.name} to trash`, () => this.act("discard", { name: run.name }));
            for (const element of [going, more]) element.disabled = !run.can_go_on;
            for (const element of [keeping, steps]) element.disabled = !run.saved.length;
            return make("li", {}, picture, make("div", {}, words, make("div", {}, going, more, make("span", {}, "more steps"), steps, keeping, leaving)));
        }

        async act(action, asked = {}) {
            document.activeElement?.blur?.(); // the list may be drawn anew
            try {
                const headers = { Accept: "application/json", "X-Hypernetworks": "1" };
                const response = await fetch(`${API}/${action}?${new URLSearchParams(asked)}`, { method: "POST", headers });
                const answer = await response.json();
                setText(this.told, answer.said ?? answer.error ?? "");
                if (answer.kept) this.renewCards();
            } catch (error) {
                setText(this.told, `The webui does not answer (${error.message}).`);
            }
            this.ask();
        }

        /** What the form can choose: gradio fills its lists itself, after a click on our button. */
        renewLists() {
            root().querySelector("#hypernetworks_train_refresh")?.click();
        }

        /** The server has a new file: our lists, and the webui's cards by its own button. */
        renewCards() {
            this.renewLists();
            catalogue.refresh().catch(() => null);
            const buttons = root().querySelectorAll("[id$=_hypernetworks_extra_refresh]");
            for (const each of buttons) each.click();
        }

        /** "Add it to the prompt", beside a finished network. */
        tryOut(pressed) {
            if (!pressed) return;
            const added = window.hypernetworksExtension.insert(page.TABS[0], pressed.dataset.name, null);
            setText(this.told, added ? `${pressed.dataset.name} is in the prompt of ${page.TABS[0]}.` : "");
        }
    }

    const all = [];
    setInterval(() => {
        for (const host of root().querySelectorAll(".hypernetworks-training:not(.hypernetworks-filled)")) all.push(new Training(host));
        for (const each of [...all]) {
            if (!each.host.isConnected) all.splice(all.indexOf(each), 1);
            else each.follow();
        }
    }, TICK_MS);

    window.hypernetworksExtension.training = true;
})();
