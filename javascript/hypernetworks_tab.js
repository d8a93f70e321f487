/*
 * The tab with the cards: a bar that filters them, a menu on each, and the order that was chosen last.
 *
 * The webui draws the cards and sorts them. We add elements and classes of our own to what it has drawn, and change
 * nothing of its own: it may draw everything anew at any time, which is noticed and done again.
 */
(() => {
    "use strict";
    const { catalogue, controls, page } = window.hypernetworksExtension;
    if (!page || window.hypernetworksExtension.cards) return;
    const { load, check, act, recent, entryOf } = catalogue;
    const { make, setText } = controls;
    const { root, isVisible } = page;

    const CARDS = "[id$=_hypernetworks_cards], [id$=_hypernetwork_cards]"; // A1111's and SD.Next's
    const [STORED_FILTER, STORED_SORT] = ["hypernetworks.filter", "hypernetworks.sort"];
    const [OUT, SEEN, STAR] = ["hypernetworks-filtered", "hypernetworks-card", "hypernetworks-favorite"];
    const TICK_MS = 400;
    let loaded = null; // family of the loaded model

    function stored(key, otherwise) {
        try {
            return JSON.parse(localStorage.getItem(key)) ?? otherwise;
        } catch {
            return otherwise; // storage is forbidden here, or holds something else
        }
    }

    function store(key, value) {
        try {
            localStorage.setItem(key, JSON.stringify(value));
        } catch { /* it holds for this page, then */ }
    }

    /* ---------------------------------------------------------------- the bar */

    const filter = { favorite: false, recent: false, fits: false, family: "", tag: "", ...stored(STORED_FILTER, {}) };

    const families = (entry) => (entry?.family ? String(entry.family).split(" or ") : ["Unknown"]);

    function isShown(name, latest) {
        const entry = entryOf(name);
        const mine = families(entry);
        if (filter.favorite && !entry?.favorite) return false;
        if (filter.recent && !latest.includes(name)) return false;
        if (filter.fits && loaded && mine[0] !== "Unknown" && !mine.includes(loaded)) return false;
        if (filter.family && !mine.includes(filter.family)) return false;
        return !filter.tag || (entry?.tags ?? []).includes(filter.tag);
    }

    class Bar {
        constructor(cards) {
            this.cards = cards;
            this.tab = cards.id.split("_hypernetwork")[0];
            this.toggles = [
                this.toggle("favorite", "★ Favourites", "Show favourites only"),
                this.toggle("recent", "Recent", "Show the networks that were used last"),
                this.toggle("fits", "Fits the model", "Hide networks that were made for another model family"),
            ];
            this.family = this.choice("family", "All families", "Show one model family");
            this.tag = this.choice("tag", "All tags", "Show networks with one tag");
            this.status = make("span", { role: "status" });
            const parts = [...this.toggles, this.family, this.tag, this.status];
            this.element = make("div", { class: "hypernetworks-bar" }, ...parts);
            // Above the whole pane: inside, the webui's grid has no place for it.
            const pane = cards.closest(".extra-network-pane");
            if (pane) pane.prepend(this.element);
            else cards.before(this.element);
        }

        toggle(key, words, title) {
            const button = make("button", { type: "button", title, "data-key": key }, words);
            button.addEventListener("click", () => this.change(key, !filter[key]));
            return button;
        }

        choice(key, all, title) {
            const list = make("select", { title, "aria-label": title, "data-all": all });
            list.addEventListener("change", () => this.change(key, list.value));
            return list;
        }

        change(key, value) {
            filter[key] = value;
            store(STORED_FILTER, filter);
            bars.forEach((bar) => bar.apply());
        }

        /** Show the filter's state, and hide the cards that it leaves out. */
        apply() {
            for (const button of this.toggles) button.setAttribute("aria-pressed", String(filter[button.dataset.key]));
            this.offer(this.family, filter.family, catalogue.entries.flatMap(families));
            this.offer(this.tag, filter.tag, catalogue.entries.flatMap((entry) => entry.tags ?? []));
            const latest = recent();
            for (const card of this.cards.querySelectorAll(".card[data-name]")) {
                const { name } = card.dataset;
                card.classList.toggle(OUT, !isShown(name, latest));
                card.classList.toggle(STAR, Boolean(entryOf(name)?.favorite));
            }
        }

        offer(list, chosen, values) {
            const known = [...new Set([...values, chosen].filter(Boolean))].sort();
            const wanted = ["", ...known];
            if (wanted.join("\n") !== [...list.options].map((option) => option.value).join("\n")) {
                list.replaceChildren(...wanted.map((value) => make("option", { value }, value || list.dataset.all)));
            }
            list.value = chosen;
            list.hidden = !known.length;
        }

        say(text) {
            setText(this.status, text);
        }

        /** New cards get their menu; whether there were any. */
        decorate() {
            const fresh = [...this.cards.querySelectorAll(`.card[data-name]:not(.${SEEN})`)];
            for (const card of fresh) {
                card.classList.add(SEEN);
                const words = `More about ${card.dataset.name}`;
                const button = make("button", { type: "button", class: "hypernetworks-more", title: words }, "⋯");
                button.setAttribute("aria-label", words);
                button.setAttribute("aria-haspopup", "menu");
                button.addEventListener("click", (event) => {
                    event.stopPropagation(); // the card's own click puts the tag in
                    openMenu(button, this, card);
                });
                card.append(button);
            }
            return fresh.length > 0;
        }
    }

    /* ---------------------------------------------------------------- the menu of a card */

    let menu = null;

    function closeMenu() {
        menu?.remove();
        menu = null;
    }

    function openMenu(button, bar, card) {
        closeMenu();
        const { name } = card.dataset;
        const entry = entryOf(name) ?? { name, tags: [], suffix: "" };
        menu = make("div", { class: "hypernetworks-menu", role: "menu", "aria-label": name });
        for (const [words, work] of itemsOf(entry, bar, card)) {
            const item = make("button", { type: "button", role: "menuitem" }, words);
            item.addEventListener("click", async () => {
                closeMenu();
                button.focus();
                bar.say("");
                try {
                    bar.say((await work()) ?? "");
                } catch (error) {
                    bar.say(`${name}: ${error.message}`);
                }
                bars.forEach((each) => each.apply());
            });
            menu.append(item);
        }
        document.body.append(menu);
        const place = button.getBoundingClientRect();
        menu.style.left = `${Math.max(0, Math.min(place.left, innerWidth - menu.offsetWidth - 8))}px`;
        menu.style.top = `${Math.max(0, Math.min(place.bottom, innerHeight - menu.offsetHeight - 8))}px`;
        menu.firstElementChild.focus();
    }

    function itemsOf(entry, bar, card) {
        const other = entry.suffix === ".safetensors" ? ".pt" : ".safetensors";
        return [
            [entry.favorite ? "☆ Remove from favourites" : "★ Add to favourites", () => favor(entry)],
            ["Tags …", () => editTags(entry)],
            ["Inspect", () => inspect(entry.name)],
            ["Use the last image as preview", () => usePreview(entry.name, bar.tab, card)],
            ["Show in folder", () => act("reveal", entry.name).then(() => "")],
            [`Convert to ${other}`, () => act("convert", entry.name).then(({ written }) => `${written} was written.`)],
        ];
    }

    async function favor(entry) {
        const { favorite } = await act("favorite", entry.name, { on: entry.favorite ? "0" : "1" });
        entry.favorite = favorite;
    }

    async function editTags(entry) {
        const text = window.prompt(`Tags of ${entry.name}, separated by commas`, (entry.tags ?? []).join(", "));
        if (text === null) return;
        const { tags } = await act("tags", entry.name, { tags: text });
        entry.tags = tags;
    }

    async function inspect(name) {
        const response = await fetch(`./hypernetworks/v1/inspect?${new URLSearchParams({ name })}`);
        const answer = await response.json();
        if (!response.ok) throw new Error(answer.error ?? `HTTP ${response.status}`);
        const close = make("button", { type: "button" }, "Close");
        const text = make("pre", {}, JSON.stringify(answer, null, 2));
        const dialog = make("dialog", { class: "hypernetworks-dialog", "aria-label": name }, text, close);
        close.addEventListener("click", () => dialog.close());
        dialog.addEventListener("close", () => dialog.remove());
        document.body.append(dialog);
        dialog.showModal();
    }

    /** The image that is selected in the tab's gallery, or its last one. */
    async function usePreview(name, tab, card) {
        const images = [...root().querySelectorAll(`#${CSS.escape(tab)}_gallery img`)].filter((image) => image.src);
        const chosen = images.find((image) => image.closest(".preview")) ?? images[images.length - 1];
        if (!chosen) throw new Error("generate an image first");
        const blob = await (await fetch(chosen.src)).blob();
        const { preview } = await act("set_preview", name, {}, blob);
        const shown = card.querySelector("img.preview");
        if (shown) shown.src = chosen.src;
        return shown ? "" : `${preview} was saved; refresh the tab to see it.`;
    }

    document.addEventListener("click", (event) => menu && !menu.contains(event.target) && closeMenu(), true);
    document.addEventListener("keydown", (event) => {
        if (!menu) return;
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") closeMenu();
        else if (step) {
            const items = [...menu.children];
            items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
        } else return;
        event.preventDefault();
        event.stopPropagation(); // a webui's Escape would interrupt the generation
    }, true);

    /* ---------------------------------------------------------------- the order of the cards */

    const SORT = ".extra-network-control--sort";
    const controlsOf = (bar) => root().querySelector(`#${CSS.escape(bar.cards.id.replace(/_cards$/, "_controls"))}`);

    function rememberSort(bar) {
        const box = controlsOf(bar);
        const active = box.querySelector(`${SORT}.extra-network-control--enabled`) ?? box.querySelector(SORT);
        const direction = box.querySelector(`${SORT}-dir`)?.dataset.sortdir;
        store(STORED_SORT, { key: active?.dataset.sortkey, mode: active?.dataset.sortmode, direction });
    }

    /** Click what the user would click: one button per order, or (Classic) one that goes through all of them. */
    function restoreSort(bar) {
        const box = controlsOf(bar);
        const { key, mode, direction } = stored(STORED_SORT, {});
        if (!box || !direction) return;
        const buttons = [...box.querySelectorAll(SORT)];
        const wanted = buttons.length > 1 ? buttons.find((button) => button.dataset.sortkey === key) : null;
        if (wanted && !wanted.classList.contains("extra-network-control--enabled")) wanted.click();
        for (let tries = 0; buttons.length === 1 && buttons[0].dataset.sortmode !== mode && tries < 6; tries += 1) {
            buttons[0].click();
        }
        const way = box.querySelector(`${SORT}-dir`);
        if (way && way.dataset.sortdir !== direction) way.click();
    }

    document.addEventListener("click", (event) => {
        const button = event.target.closest?.(`${SORT}, ${SORT}-dir`);
        const bar = event.isTrusted && button ? bars.find((one) => controlsOf(one)?.contains(button)) : null;
        if (bar) setTimeout(() => rememberSort(bar));
    });

    /* ---------------------------------------------------------------- following the page */

    const bars = [];

    async function learn() {
        const [answer] = await Promise.all([check("./hypernetworks/v1/check", []).catch(() => null), load()]);
        loaded = answer?.loaded ?? null;
    }

    function tick() {
        for (const cards of root().querySelectorAll(CARDS)) {
            const known = bars.find((bar) => bar.cards === cards && bar.element.isConnected);
            if (known || !isVisible(cards)) continue;
            const bar = new Bar(cards);
            bars.push(bar);
            restoreSort(bar);
        }
        for (const bar of [...bars]) {
            if (!bar.cards.isConnected || !bar.element.isConnected) {
                bar.element.remove();
                bars.splice(bars.indexOf(bar), 1);
            } else if (isVisible(bar.cards) && bar.decorate()) {
                bar.apply();
                learn().then(() => bars.forEach((each) => each.apply()), () => bar.say("The list can't be loaded."));
            }
        }
    }

    setInterval(tick, TICK_MS);
    window.hypernetworksExtension.cards = { filter };
})();
