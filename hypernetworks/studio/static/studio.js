/*
 * The studio's own part of the page: the cards of the library, dropping files anywhere, keys, and undoing.
 *
 * Loaded after the panel's scripts, and uses their window.hypernetworksExtension. Names go into the page as text.
 * studio_gallery.js and studio_live.js follow, and share window.hypernetworksStudio.
 */
(() => {
    "use strict";
    const { parseTags, toggle, refresh, isWritable, controls } = window.hypernetworksExtension;
    const { make, setText } = controls;
    const API = "./hypernetworks/v1";
    const SUFFIXES = [".pt", ".safetensors", ".bin", ".ckpt", ".pth"];
    const IMAGES = [".png", ".jpg", ".jpeg", ".webp", ".avif"];
    const TAB = "hypernetworks";
    const STARTER = "a strawberry on blue <hypernet:ink:0.8>"; // of a new window, as in widgets.py

    const byId = (id) => document.getElementById(id);
    const promptField = () => document.querySelector("#hypernetworks_prompt textarea");
    const promptText = () => promptField()?.value ?? "";

    /** Write into a field of gradio's as if it had been typed. */
    function fill(field, text) {
        if (!field || field.value === text) return;
        field.value = text;
        field.dispatchEvent(new Event("input", { bubbles: true }));
        field.dispatchEvent(new Event("change", { bubbles: true }));
    }

    /* ---------------------------------------------------------------- tabs and messages */

    const tabs = () => [...document.querySelectorAll("#studio_tabs [role=tab]")];
    const activeTab = () => tabs().find((tab) => tab.getAttribute("aria-selected") === "true")?.textContent.trim() ?? "";

    function selectTab(name) {
        if (activeTab() !== name) tabs().find((tab) => tab.textContent.trim() === name)?.click();
    }

    const toast = make("div", { class: "studio-toast", role: "status", hidden: "" });

    /** Say something where it is seen from anywhere on the page; it replaces what was said before. */
    function notify(text, isWrong = false) {
        const closing = make("button", { type: "button", "aria-label": "Close the message" }, "×");
        closing.addEventListener("click", () => {
            toast.hidden = true;
        });
        toast.replaceChildren(make("p", {}, text), closing);
        toast.classList.toggle("studio-error", isWrong);
        toast.hidden = false;
        document.body.append(toast);
        clearTimeout(toast.timer);
        toast.timer = setTimeout(() => {
            toast.hidden = true;
        }, isWrong ? 20_000 : 8_000);
    }

    /* ---------------------------------------------------------------- cards */

    function size(bytes) {
        return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
    }

    /** One network: a button that is pressed while the prompt has its tag. */
    function card(entry) {
        const face = make("span", { class: "studio-face", "aria-hidden": "true" });
        if (entry.preview !== null && entry.preview !== undefined) {
            const query = `name=${encodeURIComponent(entry.full_name)}&v=${entry.preview}`;
            face.append(make("img", { src: `${API}/preview?${query}`, alt: "", loading: "lazy" }));
        } else {
            face.append([...entry.name][0] ?? "?");
        }
        const facts = [entry.folder, entry.family, size(entry.size)].filter(Boolean).join(" · ");
        const words = make("span", { class: "studio-words" }, make("bdi", {}, entry.name), make("small", {}, facts));
        const button = make("button", { type: "button", class: "studio-card", "aria-pressed": "false" }, face, words);
        button.title = [entry.name, entry.description].filter(Boolean).join("\n");
        if (!isWritable(entry.name)) {
            button.disabled = true;
            button.title = "Its name can't be in a tag: rename the file without “:” and “>”.";
        }
        button.addEventListener("click", () => {
            const isIn = toggle(TAB, entry.name, entry.preferred_multiplier, entry.activation_text);
            if (isIn) marks.use(entry.full_name);
            window.hypernetworksExtension.sync();
            cards.forEach((each) => each.mark());
        });
        const star = make("button", { type: "button", class: "studio-favourite", "aria-label": `Favourite: ${entry.name}` }, "★");
        star.addEventListener("click", () => {
            marks.star(entry.full_name);
            cards.forEach((each) => each.render());
        });
        const misfit = make("small", { class: "studio-misfit", hidden: "" }, "doesn’t fit this model");
        words.append(misfit);
        return Object.assign(make("div", { class: "studio-slot" }, button, star), { button, star, misfit });
    }

    /** What this browser remembers of networks: favourites, and what was used last. */
    const marks = {
        key: "hypernetworks.marks",
        read() {
            try {
                return { stars: [], used: [], ...JSON.parse(localStorage.getItem(this.key) ?? "{}") };
            } catch {
                return { stars: [], used: [] };
            }
        },
        write(value) {
            try {
                localStorage.setItem(this.key, JSON.stringify(value));
            } catch { /* private windows forget */ }
        },
        star(name) {
            const { stars, used } = this.read();
            this.write({ used, stars: stars.includes(name) ? stars.filter((one) => one !== name) : [...stars, name] });
        },
        use(name) {
            const { stars, used } = this.read();
            this.write({ stars, used: [name, ...used.filter((one) => one !== name)].slice(0, 100) });
        },
    };

    const byName = (one, other) => one.name.localeCompare(other.name);
    const ORDERS = {
        Name: () => byName,
        Newest: () => (one, other) => other.mtime - one.mtime,
        "Last used": ({ used }) => {
            const place = new Map(used.map((name, index) => [name, index - used.length]));
            return (one, other) => (place.get(one.full_name) ?? 0) - (place.get(other.full_name) ?? 0) || byName(one, other);
        },
        Size: () => (one, other) => other.size - one.size,
    };

    class Cards {
        constructor(host) {
            this.host = host;
            this.entries = [];
            this.made = new Map(); // cards by their entry: a search makes none anew
            this.misfits = {};
            this.order = make("select", { "aria-label": "Order of networks" });
            this.order.append(...Object.keys(ORDERS).map((name) => make("option", {}, name)));
            this.family = make("select", { "aria-label": "Model family", hidden: "" });
            this.fitting = make("input", { type: "checkbox" });
            this.search = make("input", { type: "search", placeholder: "Search …", "aria-label": "Search networks" });
            this.folder = make("select", { "aria-label": "Folder" });
            this.renewal = make("button", { type: "button" }, "Refresh");
            this.file = make("input", { type: "file", multiple: "", accept: SUFFIXES.join(","), hidden: "" });
            this.adding = make("button", { type: "button" }, "Add a file …");
            this.count = make("span", { class: "studio-count", role: "status" });
            this.grid = make("div", { class: "studio-grid" });
            this.empty = make("p", { class: "studio-empty", hidden: "" });
            const title = make("h2", {}, "Networks");
            this.fittingLabel = make("label", { hidden: "" }, this.fitting, " Only those that fit");
            const choices = [this.search, this.folder, this.family, this.order, this.fittingLabel];
            const tools = [title, ...choices, this.renewal, this.adding, this.file, this.count];
            host.replaceChildren(make("div", { class: "studio-tools" }, ...tools), this.grid, this.empty);
            host.classList.add("studio-filled");
            this.listen();
            this.load(false);
        }

        listen() {
            this.search.addEventListener("input", () => this.render());
            for (const choice of [this.folder, this.family, this.order, this.fitting]) {
                choice.addEventListener("change", () => this.render());
            }
            this.renewal.addEventListener("click", () => this.load(true));
            this.adding.addEventListener("click", () => this.file.click());
            this.file.addEventListener("change", () => {
                addAll([...this.file.files]);
                this.file.value = "";
            });
        }

        async load(lookAgain) {
            try {
                if (lookAgain) await refresh(); // the panel's menu, too
                const response = await fetch(`${API}/list`);
                if (!response.ok) throw new Error(`HTTP ${response.status}`);
                this.entries = await response.json();
                this.showFolders();
                this.render();
                await this.look();
            } catch (error) {
                this.say(`The list of networks can't be loaded (${error.message}). Is the studio still running?`);
            }
        }

        /** Which networks the loaded model can't use: it is asked again when the model changes. */
        async look() {
            const response = await fetch(`${API}/fits`);
            if (!response.ok) return;
            this.misfits = await response.json();
            this.fittingLabel.hidden = !Object.keys(this.misfits).length;
            this.render();
        }

        showFamilies() {
            const chosen = this.family.value;
            const families = [...new Set(this.entries.map((entry) => entry.family))].filter(Boolean).sort();
            this.family.replaceChildren(make("option", { value: "" }, "All families"), ...families.map((one) => make("option", {}, one)));
            this.family.value = families.includes(chosen) ? chosen : "";
            this.family.hidden = families.length < 2;
        }

        showFolders() {
            this.showFamilies();
            const chosen = this.folder.value;
            const folders = [...new Set(this.entries.map((entry) => entry.folder))].filter(Boolean).sort();
            const options = folders.map((folder) => make("option", { value: `in ${folder}` }, folder));
            this.folder.replaceChildren(make("option", { value: "" }, "All folders"), ...options);
            this.folder.value = folders.includes(chosen.slice(3)) ? chosen : "";
            this.folder.hidden = !folders.length;
        }

        /** Those that search and choices leave: favourites first, then in the chosen order, what doesn't fit last. */
        chosen() {
            const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
            const folder = this.folder.value.slice(3);
            const known = marks.read();
            const stars = new Set(known.stars);
            const order = ORDERS[this.order.value || "Name"](known);
            const rank = (entry) => (stars.has(entry.full_name) ? 0 : 1) + (entry.full_name in this.misfits ? 2 : 0);
            const found = this.entries.filter((entry) => {
                const text = `${entry.full_name} ${entry.family ?? ""} ${entry.activation_text}`.toLowerCase();
                const inside = !folder || entry.folder === folder || entry.folder.startsWith(`${folder}/`);
                const isOfFamily = !this.family.value || entry.family === this.family.value;
                const isUsable = !this.fitting.checked || !(entry.full_name in this.misfits);
                return inside && isOfFamily && isUsable && words.every((word) => text.includes(word));
            });
            return { stars, found: found.sort((one, other) => rank(one) - rank(other) || order(one, other)) };
        }

        cardOf(entry) {
            const key = `${entry.full_name} ${entry.mtime} ${entry.preview} ${entry.activation_text} ${entry.preferred_multiplier}`;
            if (!this.made.has(key)) this.made.set(key, card(entry));
            return this.made.get(key);
        }

        render() {
            const { stars, found } = this.chosen();
            this.shown = found;
            const slots = found.map((entry) => this.cardOf(entry));
            found.forEach((entry, index) => {
                const { star, misfit } = slots[index];
                star.setAttribute("aria-pressed", String(stars.has(entry.full_name)));
                misfit.hidden = !(entry.full_name in this.misfits);
                misfit.title = this.misfits[entry.full_name] ?? "";
            });
            const old = [...this.grid.children];
            const isSame = old.length === slots.length && old.every((element, index) => element === slots[index]);
            if (!isSame) this.grid.replaceChildren(...slots);
            this.empty.hidden = found.length > 0;
            setText(this.empty, this.entries.length
                ? "No network matches. Clear the search, or choose another folder."
                : "No networks yet. Drop a hypernetwork file (.pt, .safetensors) here to add it.");
            this.say(found.length === 1 ? "1 network" : `${found.length} networks`);
            this.mark();
        }

        /** Press the cards whose tags the prompt has. */
        mark() {
            const names = new Set(parseTags(promptText()).map((tag) => tag.name.trim()));
            [...this.grid.children].forEach(({ button }, index) => {
                const { name, full_name: fullName } = this.shown[index];
                const pressed = String(names.has(name) || names.has(fullName));
                if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
            });
        }

        say(text) {
            setText(this.count, text);
        }
    }

    const cards = [];

    /* ---------------------------------------------------------------- files that are dropped */

    const nameOf = (file) => file.name.toLowerCase();
    const isNetwork = (file) => SUFFIXES.some((suffix) => nameOf(file).endsWith(suffix));

    async function add(file) {
        const query = `name=${encodeURIComponent(file.name)}`;
        const options = { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } };
        try {
            const response = await fetch(`${API}/add?${query}`, options);
            const answer = await response.json();
            if (!response.ok) return { text: `${file.name} was not added: ${answer.error}.`, isWrong: true };
            const warnings = answer.warnings.length ? ` Note: ${answer.warnings.join("; ")}.` : "";
            return { text: `Added ${answer.name} to ${answer.folder}.${warnings}`, isWrong: false };
        } catch (error) {
            return { text: `${file.name} was not added (${error.message}).`, isWrong: true };
        }
    }

    async function addAll(files) {
        const said = [];
        for (const file of files) {
            notify(`Adding ${file.name} …`);
            said.push(await add(file));
        }
        for (const each of cards) await each.load(true);
        notify(said.map(({ text }) => text).join(" "), said.some(({ isWrong }) => isWrong));
        window.dispatchEvent(new Event("hypernetworks-added"));
    }

    /** Pass an image to the page's own field for it, and show what comes of it. */
    function restore(file) {
        selectTab("Image");
        notify(`Restoring prompt and settings from ${file.name}: the Image tab says what was restored.`);
        pass(file);
    }

    function pass(file, patience = 50) {
        if (!document.body.classList.contains("studio-opened") && patience > 0) {
            setTimeout(() => pass(file, patience - 1), 100); // else the opening would fill the fields after us
            return;
        }
        const field = document.querySelector("#hypernetworks_restore input[type=file]");
        const clear = document.querySelector("#hypernetworks_restore button[aria-label*=lear]");
        if (!field) {
            if (!clear) return;
            clear.click();
            setTimeout(() => pass(file, patience), 100);
            return;
        }
        const transfer = new DataTransfer();
        transfer.items.add(file);
        field.files = transfer.files;
        field.dispatchEvent(new Event("change", { bubbles: true }));
    }

    function drop(event) {
        const files = [...(event.dataTransfer?.files ?? [])];
        const networks = files.filter(isNetwork);
        const picture = files.find((file) => IMAGES.some((suffix) => nameOf(file).endsWith(suffix)));
        if (!files.length) return;
        if (event.target.closest?.("#train_upload")) { // training images: gradio's own field takes them
            document.body.classList.remove("studio-dragging");
            return;
        }
        event.preventDefault();
        event.stopPropagation();
        document.body.classList.remove("studio-dragging");
        if (networks.length) addAll(networks);
        else if (picture) restore(picture);
        else notify(`Drop a hypernetwork (${SUFFIXES.join(", ")}) or an image with settings (${IMAGES.join(", ")}).`, true);
    }

    const hasFiles = (event) => event.dataTransfer?.types?.includes("Files");
    document.addEventListener("drop", drop, true);
    document.addEventListener("dragover", (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        document.body.classList.add("studio-dragging");
    }, true);
    document.addEventListener("dragleave", (event) => {
        if (event.relatedTarget === null) document.body.classList.remove("studio-dragging");
    }, true);

    /* ---------------------------------------------------------------- keys */

    const LISTS = "input[aria-expanded=true], ul.options, .hypernetworks-menu [role=listbox]:not([hidden]), dialog[open]";
    let hadList = false;
    // Asked before gradio hears of the key, which closes the list then.
    document.addEventListener("keydown", () => {
        hadList = [...document.querySelectorAll(LISTS)].some((element) => element.getClientRects().length);
    }, true);

    document.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            // Fields of other tabs are no part of an image: Compare's starts a comparison itself.
            if (event.target.closest?.("#studio_tabs") && activeTab() !== "Image") return;
            byId("hypernetworks_generate")?.click();
            event.preventDefault();
        } else if (event.key === "Escape" && !hadList && !event.defaultPrevented) {
            if (document.querySelector(".studio-progress") === null) return;
            byId("hypernetworks_interrupt")?.click();
            event.preventDefault();
        }
    });

    /* ---------------------------------------------------------------- undoing what cards and sliders wrote */

    const JOIN_MS = 800; // a slider that moves writes many times, which is one step to undo
    const undone = { past: [], future: [], known: null };

    document.addEventListener("input", (event) => {
        if (event.target !== promptField()) return;
        const text = event.target.value;
        const last = undone.past[undone.past.length - 1];
        if (!event.isTrusted && undone.known !== null && undone.known !== text) {
            if (last?.after === undone.known && Date.now() - last.at < JOIN_MS) Object.assign(last, { after: text, at: Date.now() });
            else undone.past.push({ before: undone.known, after: text, at: Date.now() });
            undone.future = [];
        }
        undone.known = text;
    }, true);

    /** The browser forgets what can be undone when a program writes into a field: do that part here. */
    document.addEventListener("keydown", (event) => {
        const isKey = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
        if (!isKey || event.target !== promptField()) return;
        const [from, to] = event.shiftKey ? [undone.future, undone.past] : [undone.past, undone.future];
        const step = from[from.length - 1];
        if (!step || step[event.shiftKey ? "before" : "after"] !== event.target.value) return;
        event.preventDefault();
        to.push(from.pop());
        undone.known = null; // this is no new step
        fill(event.target, event.shiftKey ? step.after : step.before);
    }, true);

    /* ---------------------------------------------------------------- buttons, and life of the page */

    /** What a click starts is shown: in its tab, and on a narrow page, scrolled to. */
    document.addEventListener("click", (event) => {
        const isTraining = event.target.closest("#train_start, #train_example");
        const isGenerating = event.target.closest("#hypernetworks_generate");
        if (isGenerating) selectTab("Image");
        if (!isTraining && !(isGenerating && window.innerWidth <= 760)) return;
        const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
        const scroll = { behavior: calm ? "instant" : "smooth", block: "start" };
        setTimeout(() => byId("studio_tabs")?.scrollIntoView(scroll), 150); // the tab has its height by then
    });

    /** Choose an image whose settings are to be restored. */
    const chooser = make("input", { type: "file", accept: IMAGES.join(","), hidden: "" });
    chooser.addEventListener("change", () => {
        if (chooser.files[0]) restore(chooser.files[0]);
        chooser.value = "";
    });
    document.addEventListener("click", (event) => {
        if (event.target.closest("#studio_restore")) chooser.click();
    });

    /** A trained network goes into the prompt; in place of the example's tag, where that is still as it was. */
    document.addEventListener("click", (event) => {
        const button = event.target.closest(".studio-try");
        if (!button) return;
        const tags = parseTags(promptText());
        if (tags.some((tag) => tag.name.trim() === button.dataset.name)) return;
        if (promptText() === STARTER) tags.forEach((tag) => toggle(TAB, tag.name));
        toggle(TAB, button.dataset.name);
    });

    document.addEventListener("click", (event) => {
        const button = event.target.closest(".studio-example");
        if (!button) return;
        fill(promptField(), button.textContent);
        byId("hypernetworks_generate")?.click();
    });

    /** An infotext that can be reached by keyboard and copied, but not changed. */
    function openInfotext() {
        const field = document.querySelector("#hypernetworks_infotext textarea");
        if (!field?.disabled) return;
        field.disabled = false;
        field.readOnly = true;
    }

    /** gradio names its drop fields otherwise than they read, which confuses who commands by voice. */
    function nameParts() {
        for (const field of document.querySelectorAll(".upload-container[aria-label]")) field.removeAttribute("aria-label");
    }

    function tick() {
        nameParts();
        undone.known ??= promptField()?.value ?? null;
        openInfotext();
        for (const host of document.querySelectorAll(".studio-cards:not(.studio-filled)")) cards.push(new Cards(host));
        for (const each of cards) if (each.shown) each.mark();
    }

    const shared = { API, activeTab, selectTab, notify, fill, restore, promptField, promptText };
    window.hypernetworksStudio = { ...shared, reloadCards: () => cards.forEach((each) => each.load(true)), lookAtFit: () => cards.forEach((each) => each.look()) };

    setInterval(tick, 300);
    tick();
})();
