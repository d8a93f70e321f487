/*
 * What the page asks the studio again and again: the jobs (the pill in the header), the training, the length of the
 * prompt, whether it still runs; and what it saves of itself, for a reload.
 */
(() => {
    "use strict";
    const { API, activeTab, selectTab, notify, promptText, reloadCards, lookAtFit } = window.hypernetworksStudio;
    const { make, setText } = window.hypernetworksExtension.controls;
    const TITLE = "Hypernetworks studio";
    const [QUICK, SLOW, HIDDEN] = [500, 1500, 4000]; // milliseconds between two questions

    /* ---------------------------------------------------------------- what outlives a reload */

    const { own, state, save: keep } = window.hypernetworksStudioBefore;
    const FIELDS = {
        prompt: "textarea",
        negative: ":is(textarea, input)",
        steps: "input[type=number]",
        cfg: "input[type=number]",
        seed: "input",
        sampler: "input",
        batch: "input[type=number]",
        width: "input",
        height: "input",
        hires: "input",
        hires_scale: "input[type=number]",
        hires_strength: "input[type=number]",
        upscaler: "input",
        strength: "input[type=number]",
    };
    const OF_COMPARE = { x: "input", y: "input", z: "input", x_values: ":is(textarea, input)", y_values: ":is(textarea, input)", z_values: ":is(textarea, input)", without: "input" };
    const TEXTS = ["prompt", "negative", "sampler", "upscaler"];

    let model = null;
    const isOpened = () => document.body.classList.contains("studio-opened");

    /** The value of a field; undefined where it is empty, or not on the page. */
    function numberOrText(field, isText) {
        if (field?.type === "checkbox") return field.checked;
        if (!field || (field.value === "" && !isText)) return undefined;
        return isText ? field.value : Number(field.value);
    }

    const compared = Object.fromEntries(Object.entries(state.fields ?? {}).filter(([name]) => name.startsWith("compare_")));

    function current() {
        const fields = {};
        for (const [name, kind] of Object.entries(FIELDS)) {
            fields[name] = numberOrText(document.querySelector(`#hypernetworks_${name} ${kind}`), TEXTS.includes(name));
        }
        // gradio builds the Compare tab when it is first shown: until then, its fields are as they were saved.
        for (const [name, kind] of Object.entries(OF_COMPARE)) {
            const value = numberOrText(document.querySelector(`#compare_${name} ${kind}`), true);
            if (value !== undefined) compared[`compare_${name}`] = value;
        }
        return { model, fields: { ...fields, ...compared }, tab: activeTab() };
    }

    /** Keep the fields for the next load of the page, or another window. */
    function save() {
        // Before that, the fields don't have what was saved, and would be saved in its place.
        if (!isOpened() || model === null || document.querySelector("#hypernetworks_prompt textarea") === null) return;
        const text = JSON.stringify(current());
        if (text === save.last) return;
        save.last = text;
        keep(text);
    }

    const opening = setInterval(() => {
        if (!document.querySelector("#studio_tabs [role=tab]")) return;
        clearInterval(opening);
        if (state.tab && state.tab !== "Image") selectTab(state.tab);
    }, 100);
    window.addEventListener("pagehide", save);

    /* ---------------------------------------------------------------- the pill */

    let busy = null; // since when a job of this window runs

    function showJobs(jobs) {
        const pill = document.querySelector(".studio-pill");
        if (!pill) return;
        const running = jobs.find((job) => job.running);
        pill.hidden = !running;
        showTitle(jobs);
        if (!running) return;

        const share = running.total ? Math.floor((100 * running.done) / running.total) : null;
        const whose = running.mine || /training/.test(running.title) ? "" : " (another window)";
        const name = running.title.replace(/^(an?|the) /, "");
        const waiting = jobs.length > 1 ? ` · ${jobs.length - 1} waiting` : "";
        const text = `${name[0].toUpperCase()}${name.slice(1)}${whose}: ${running.note || "starting …"}${waiting}`;

        if (!pill.firstChild) {
            pill.bar = make("progress", { max: "100", "aria-label": "Progress of the job" });
            pill.words = make("span");
            pill.stop = make("button", { type: "button" }, "Interrupt");
            pill.stop.addEventListener("click", interrupt);
            pill.replaceChildren(pill.words, pill.bar, pill.stop);
        }
        setText(pill.words, text);
        if (share === null) pill.bar.removeAttribute("value");
        else pill.bar.value = share;
        pill.training = /training/.test(running.title);
        pill.stop.hidden = !pill.training && !jobs.some((job) => job.mine);
    }

    function interrupt() {
        if (!document.querySelector(".studio-pill").training) {
            document.getElementById("hypernetworks_interrupt")?.click();
            return;
        }
        selectTab("Train");
        setTimeout(() => document.getElementById("train_interrupt")?.click(), 300); // gradio may build the tab first
    }

    /** The page's title says how far this window's job is, and that a long one is done. */
    function showTitle(jobs) {
        const mine = jobs.find((job) => job.mine && job.running);
        if (mine) {
            busy ??= Date.now();
            document.title = mine.total ? `${Math.floor((100 * mine.done) / mine.total)} % · ${TITLE}` : `… ${TITLE}`;
        } else if (busy !== null) {
            document.title = document.hidden && Date.now() - busy > 5000 ? `✓ Done · ${TITLE}` : TITLE;
            busy = null;
        }
    }
    document.addEventListener("visibilitychange", () => {
        if (document.hidden) return;
        if (busy === null) document.title = TITLE;
        soon();
    });

    /* ---------------------------------------------------------------- the training */

    let seen = "";
    let kept;

    function showTraining(training) {
        if (kept !== undefined && training.kept && training.kept !== kept) reloadCards();
        kept = training.kept;
        if (!training.parts) return;
        const places = [...document.querySelectorAll(".studio-live")];
        if (!places.length) return; // the tab is not built yet
        for (const place of places) {
            const html = training.parts[place.dataset.part] ?? "";
            if (place.shown !== html) place.innerHTML = html; // the studio's own, in which names are escaped
            place.shown = html;
        }
        seen = training.version;
    }

    /* ---------------------------------------------------------------- asking */

    let run = null;
    let timer = null;
    let misses = 0;

    async function ask() {
        clearTimeout(timer);
        let jobs = [];
        try {
            const query = new URLSearchParams({ window: own, seen, tab: activeTab() === "Train" ? "train" : "" });
            const response = await fetch(`${API}/now?${query}`);
            if (!response.ok) throw new Error(`HTTP ${response.status}`);
            const answer = await response.json();
            back(answer);
            jobs = answer.jobs;
            showJobs(jobs);
            showTraining(answer.training);
            window.dispatchEvent(new CustomEvent("hypernetworks-now", { detail: answer }));
        } catch {
            misses += 1;
            if (misses >= 3) lose();
        }
        const pause = document.hidden ? HIDDEN : jobs.length ? QUICK : SLOW;
        timer = setTimeout(ask, pause);
    }

    function soon() {
        clearTimeout(timer);
        timer = setTimeout(ask, 100);
    }

    const lost = make("p", { class: "studio-lost", role: "alert" });

    function lose() {
        if (lost.isConnected) return;
        setText(lost, "The studio does not answer. If it was stopped, start it again: this page then goes on with your prompt and settings.");
        document.body.append(lost);
        document.body.classList.add("studio-is-lost");
    }

    /** The studio answers: still the same one, or started again, or with another model. */
    function back(answer) {
        if (run !== null && answer.run !== run) {
            save();
            location.reload();
            return;
        }
        [run, misses] = [answer.run, 0];
        if (lost.isConnected) {
            lost.remove();
            document.body.classList.remove("studio-is-lost");
            notify("The studio answers again.");
        }
        if (model !== null && answer.model !== model) {
            document.getElementById("studio_renew")?.click();
            lookAtFit();
            counted = null;
        }
        model = answer.model;
        showUnfinished(answer.unfinished);
    }

    /** What a killed studio has not finished: the server says so until the message is closed, or a job is started. */
    const unfinished = make("div", { class: "studio-unfinished", role: "status", hidden: "" });
    const seenIt = make("button", { type: "button", "aria-label": "Close the message" }, "×");
    unfinished.words = make("p");
    unfinished.append(unfinished.words, seenIt);
    seenIt.addEventListener("click", () => {
        unfinished.hidden = true;
        fetch(`${API}/seen?${new URLSearchParams({ window: own })}`, { method: "POST" });
    });

    function showUnfinished(text) {
        if (text && !unfinished.isConnected) document.body.append(unfinished);
        setText(unfinished.words, text ?? "");
        unfinished.hidden = !text;
    }

    /* ---------------------------------------------------------------- the length of the prompt */

    let counted = null;
    let counting;

    function countTokens() {
        const text = promptText();
        const host = document.getElementById("hypernetworks_prompt");
        if (text === counted || !host) return;
        counted = text;
        clearTimeout(counting);
        counting = setTimeout(async () => {
            try {
                const response = await fetch(`${API}/tokens`, { method: "POST", body: text });
                if (!response.ok) return;
                const [used, room] = await response.json();
                host.counter ??= make("span", { class: "studio-tokens" });
                if (!host.counter.isConnected) host.append(host.counter);
                setText(host.counter, `${used}/${room}`);
                host.counter.title = `${used} tokens; the model reads ${room} in the parts that the prompt needs`;
            } catch { /* it is asked again with the next change */ }
        }, 300);
    }

    /* ---------------------------------------------------------------- life of the page */

    document.addEventListener("click", soon, true);
    setInterval(() => {
        save();
        countTokens();
    }, 400);
    Object.assign(window.hypernetworksStudio, { ask: soon, current });
    ask();
})();
