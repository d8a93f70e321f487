/*
 * The cards of the library: search, choices, order, favourites; a click puts a tag into the prompt.
 *
 * studio_menu.js has the menu of a card. Names go into the page as text.
 */
(() => {
    "use strict";
    const { parseTags, refresh, isWritable, controls } = window.hypernetworksExtension;
    const { API, SUFFIXES, addAll, promptText, know, meant, toggleNetwork } = window.hypernetworksStudio;
    const { make, setText } = controls;
    const collator = new Intl.Collator(); // much quicker than localeCompare for thousands of names
    const FIRST = 60; // cards that are put in at once

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
            const isIn = toggleNetwork(entry);
            if (isIn) marks.use(entry.full_name);
            window.hypernetworksExtension.sync();
            cards.forEach((each) => each.mark());
        });
        const more = make("button", { type: "button", class: "studio-more", "aria-label": `Menu: ${entry.name}`, "aria-haspopup": "menu" }, "⋯");
        more.addEventListener("click", () => window.dispatchEvent(new CustomEvent("hypernetworks-menu", { detail: { entry, more } })));
        const star = make("button", { type: "button", class: "studio-favourite", "aria-label": `Favourite: ${entry.name}` }, "★");
        star.addEventListener("click", () => {
            marks.star(entry.full_name);
            cards.forEach((each) => each.render());
        });
        const misfit = make("small", { class: "studio-misfit", hidden: "" }, "doesn’t fit this model");
        words.append(misfit);
        return Object.assign(make("div", { class: "studio-slot" }, button, star, more), { button, star, misfit });
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

    const keyOf = (entry) => (entry.key ??= JSON.stringify([entry.full_name, entry.mtime, entry.preview, entry.activation_text, entry.preferred_multiplier, entry.tags]));
    const byName = (one, other) => collator.compare(one.name, other.name);
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
            this.tag = make("select", { "aria-label": "Tag", hidden: "" });
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
            const choices = [this.search, this.folder, this.family, this.tag, this.order, this.fittingLabel];
            const tools = [title, ...choices, this.renewal, this.adding, this.file, this.count];
            host.replaceChildren(make("div", { class: "studio-tools" }, ...tools), this.grid, this.empty);
            host.classList.add("studio-filled");
            this.listen();
            this.load(false);
            // Cards beyond the first screens are put in when their end comes near.
            this.end = make("div", { class: "studio-end" });
            this.watch = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.showMore(), { rootMargin: "600px" });
        }

        listen() {
            this.search.addEventListener("input", () => this.render());
            for (const choice of [this.folder, this.family, this.tag, this.order, this.fitting]) {
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
                know(this.entries);
                this.showFolders();
                this.render();
                window.dispatchEvent(new Event("hypernetworks-listed"));
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

        /** Fill a choice, and hide it where there is nothing to choose. */
        offer(choice, all, words) {
            const chosen = choice.value;
            const known = [...new Set(words)].filter(Boolean).sort();
            choice.replaceChildren(make("option", { value: "" }, all), ...known.map((one) => make("option", {}, one)));
            choice.value = known.includes(chosen) ? chosen : "";
            choice.hidden = known.length < (choice === this.family ? 2 : 1);
        }

        showFolders() {
            this.offer(this.family, "All families", this.entries.map((entry) => entry.family));
            this.offer(this.tag, "All tags", this.entries.flatMap((entry) => entry.tags));
            const chosen = this.folder.value;
            const folders = [...new Set(this.entries.map((entry) => entry.folder))].filter(Boolean).sort();
            const options = folders.map((folder) => make("option", { value: `in ${folder}` }, folder));
            this.folder.replaceChildren(make("option", { value: "" }, "All folders"), ...options);
            this.folder.value = folders.includes(chosen.slice(3)) ? chosen : "";
            this.folder.hidden = !folders.length;
        }

        /** All of them: favourites first, then in the chosen order, what doesn't fit last. */
        sorted(known, stars) {
            const basis = [this.entries, this.misfits, this.order.value, JSON.stringify(known)];
            if (this.basis?.every((part, index) => part === basis[index])) return this.inOrder; // a search sorts nothing anew
            const order = ORDERS[this.order.value || "Name"](known);
            const rank = (entry) => (stars.has(entry.full_name) ? 0 : 1) + (entry.full_name in this.misfits ? 2 : 0);
            this.basis = basis;
            this.inOrder = [...this.entries].sort((one, other) => rank(one) - rank(other) || order(one, other));
            return this.inOrder;
        }

        /** Those that search and choices leave. */
        chosen() {
            const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
            const folder = this.folder.value.slice(3);
            const known = marks.read();
            const stars = new Set(known.stars);
            const found = this.sorted(known, stars).filter((entry) => {
                entry.text ??= `${entry.full_name} ${entry.family ?? ""} ${entry.activation_text} ${entry.tags.join(" ")}`.toLowerCase();
                const isTagged = !this.tag.value || entry.tags.includes(this.tag.value);
                const inside = !folder || entry.folder === folder || entry.folder.startsWith(`${folder}/`);
                const isOfFamily = !this.family.value || entry.family === this.family.value;
                const isUsable = !this.fitting.checked || !(entry.full_name in this.misfits);
                return inside && isOfFamily && isTagged && isUsable && words.every((word) => entry.text.includes(word));
            });
            return { stars, found };
        }

        cardOf(entry) {
            const key = keyOf(entry);
            if (!this.made.has(key)) this.made.set(key, card(entry));
            return this.made.get(key);
        }

        render() {
            const { stars, found } = this.chosen();
            [this.shown, this.stars] = [found, stars];
            const old = [...this.grid.children];
            const begins = old.length <= found.length && old.slice(0, FIRST).every((slot, index) => slot === this.made.get(keyOf(found[index])));
            const slots = found.slice(0, begins ? Math.max(old.length, FIRST) : FIRST).map((entry) => this.slotOf(entry));
            const isSame = old.length === slots.length && old.every((slot, index) => slot === slots[index]);
            if (!isSame) this.grid.replaceChildren(...slots);
            this.place();
            this.empty.hidden = found.length > 0;
            setText(this.empty, this.entries.length
                ? "No network matches. Clear the search, or choose another folder."
                : "No networks yet. Drop a hypernetwork file (.pt, .safetensors) here to add it.");
            this.say(found.length === 1 ? "1 network" : `${found.length} networks`);
            this.mark();
        }

        slotOf(entry) {
            const slot = this.cardOf(entry);
            slot.star.setAttribute("aria-pressed", String(this.stars.has(entry.full_name)));
            slot.misfit.hidden = !(entry.full_name in this.misfits);
            slot.misfit.title = this.misfits[entry.full_name] ?? "";
            return slot;
        }

        showMore() {
            const there = this.grid.children.length;
            if (!this.shown || there >= this.shown.length) return;
            this.grid.append(...this.shown.slice(there, there + FIRST).map((entry) => this.slotOf(entry)));
            this.place();
            this.mark();
        }

        /** The end is watched anew: it may be in view still, which an observer tells once only. */
        place() {
            this.watch.unobserve(this.end);
            this.end.remove();
            if (this.shown.length <= this.grid.children.length) return;
            this.grid.after(this.end);
            this.watch.observe(this.end);
        }

        /** Press the cards whose tags the prompt has. */
        mark() {
            const basis = [promptText(), this.shown, this.grid.children.length];
            if (this.marked?.every((part, index) => part === basis[index])) return; // it is asked three times a second
            this.marked = basis;
            const names = new Set(parseTags(basis[0]).map((tag) => meant(tag.name)));
            [...this.grid.children].forEach((slot, index) => {
                const isPressed = names.has(this.shown[index].name);
                if (slot.isPressed !== isPressed) slot.button.setAttribute("aria-pressed", String(isPressed));
                slot.isPressed = isPressed;
            });
        }

        say(text) {
            setText(this.count, text);
        }
    }

    const cards = [];

    function tick() {
        for (const host of document.querySelectorAll(".studio-cards:not(.studio-filled)")) cards.push(new Cards(host));
        for (const each of cards) if (each.shown) each.mark();
    }

    Object.assign(window.hypernetworksStudio, {
        reloadCards: () => Promise.all(cards.map((each) => each.load(true))),
        lookAtFit: () => cards.forEach((each) => each.look()),
        use: marks.use.bind(marks),
    });
    setInterval(tick, 300);
    tick();
})();
