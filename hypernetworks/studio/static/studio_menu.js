/*
 * The menu of a card: one menu for all of them, which is filled when it is opened.
 */
(() => {
    "use strict";
    const { parseTags, toggle } = window.hypernetworksExtension;
    const { API, TAB, notify, openWith, reloadCards, promptText, use, meant, spellings, toggleNetwork } = window.hypernetworksStudio;
    const { make } = window.hypernetworksExtension.controls;
    const SIDE = 768; // pixels of a preview

    const menu = make("div", { class: "studio-menu", role: "menu", "aria-label": "Network", hidden: "" });
    let opener = null;

    function close() {
        if (menu.hidden) return;
        menu.hidden = true;
        if (menu.contains(document.activeElement)) opener?.focus();
    }

    async function change(action, entry, text = "", body = null) {
        const query = new URLSearchParams({ name: entry.full_name, text });
        const response = await fetch(`${API}/card/${action}?${query}`, { method: "POST", body });
        const answer = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
        if (!response.ok) notify(`${entry.name}: ${answer.error}.`, true);
        else if (action !== "reveal") await reloadCards();
        return response.ok ? answer : null;
    }

    function solo(entry) {
        const others = new Set(parseTags(promptText()).map((tag) => tag.name.trim()).filter((name) => meant(name) !== entry.name));
        for (const name of others) toggle(TAB, name);
        if (!spellings(entry.name).length) toggleNetwork(entry);
        use(entry.full_name);
    }

    /** The image that the Image tab shows, small enough for a card. */
    async function preview(entry) {
        const shown = document.querySelector("#hypernetworks_gallery .preview img[data-testid='detailed-image']") ?? document.querySelector("#hypernetworks_gallery img");
        if (!shown) {
            notify("Generate an image first: the one in the Image tab becomes the preview.", true);
            return;
        }
        await shown.decode().catch(() => null);
        const factor = Math.min(1, SIDE / Math.max(shown.naturalWidth, shown.naturalHeight));
        const canvas = make("canvas");
        [canvas.width, canvas.height] = [shown.naturalWidth * factor, shown.naturalHeight * factor];
        canvas.getContext("2d").drawImage(shown, 0, 0, canvas.width, canvas.height);
        const body = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
        if (await change("preview", entry, "", body)) notify(`The image is the preview of ${entry.name} now.`);
    }

    async function tags(entry) {
        const text = window.prompt(`Tags of ${entry.name}, separated by commas`, entry.tags.join(", "));
        if (text !== null) await change("tags", entry, text);
    }

    async function rename(entry) {
        const to = window.prompt(`New name of ${entry.name}`, entry.name)?.trim();
        if (!to || to === entry.name) return;
        if (await change("rename", entry, to)) notify(`${entry.name} is called ${to} now. Prompts that name it need the new name.`);
    }

    async function discard(entry) {
        if (!window.confirm(`Move ${entry.name} to the trash?`)) return;
        const answer = await change("discard", entry);
        if (answer) notify(`${entry.name} is in ${answer.folder}: move it back from there to restore it.`);
    }

    const ACTIONS = [
        ["Only this network", solo],
        ["Inspect", (entry) => openWith(entry.name, "Inspect", "studio_inspect")],
        ["Compare multipliers", (entry) => openWith(entry.name, "Compare", "studio_compare")],
        ["Convert …", (entry) => openWith(entry.name, "Convert", "studio_convert")],
        ["Use the shown image as preview", preview],
        ["Tags …", tags],
        ["Rename …", rename],
        ["Show in folder", (entry) => change("reveal", entry)],
        ["Move to trash", discard],
    ];

    function open({ entry, more }) {
        opener = more;
        menu.replaceChildren(...ACTIONS.map(([words, action]) => {
            const item = make("button", { type: "button", role: "menuitem", tabindex: "-1" }, words);
            item.addEventListener("click", () => {
                close();
                action(entry);
            });
            return item;
        }));
        if (!menu.isConnected) (document.querySelector("main") ?? document.body).append(menu);
        menu.hidden = false;
        const place = more.getBoundingClientRect();
        menu.style.left = `${Math.max(4, Math.min(place.left, window.innerWidth - menu.offsetWidth - 4))}px`;
        menu.style.top = `${Math.max(4, Math.min(place.bottom + 2, window.innerHeight - menu.offsetHeight - 4))}px`;
        menu.firstChild.focus();
    }

    const STEPS = { ArrowDown: 1, ArrowUp: -1 };
    menu.addEventListener("keydown", (event) => {
        const items = [...menu.children];
        const at = items.indexOf(document.activeElement);
        if (event.key === "Escape" || event.key === "Tab") close();
        else if (event.key in STEPS) items[(at + STEPS[event.key] + items.length) % items.length].focus();
        else return;
        event.preventDefault();
        event.stopPropagation(); // Escape would interrupt a job
    });

    window.addEventListener("hypernetworks-menu", (event) => open(event.detail));
    document.addEventListener("pointerdown", (event) => menu.contains(event.target) || close(), true);
    window.addEventListener("scroll", close, true);
    window.addEventListener("resize", close);
})();
