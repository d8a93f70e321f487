/*
 * The studio's own part of the page: messages, dropping files anywhere, keys, and undoing.
 *
 * Loaded after the panel's scripts, and uses their window.hypernetworksExtension. Names go into the page as text.
 * The other files of the studio follow, and share window.hypernetworksStudio.
 */
(() => {
    "use strict";
    const { parseTags, toggle, controls } = window.hypernetworksExtension;
    const { make } = controls;
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

    /** Let the server fill a tab's fields for something chosen, by a hidden button: gradio's lists can't be filled from here. */
    function openWith(name, tab, button) {
        selectTab(tab);
        shared.chosen = name;
        byId(button)?.click();
    }

    /* What a tab offers is renewed after it is seen: gradio's own event for that would hold it up for a tenth of a second. */

    const RENEWED = ["Inspect", "Convert", "Train", "Model"];
    const LISTING = ["Inspect", "Convert"]; // they offer networks alone
    const isListed = new Set(); // those of them that offer the networks of now
    let renewed = "";

    function renewTab() {
        const tab = activeTab();
        const button = byId(`studio_shown_${tab.toLowerCase()}`);
        if (tab === renewed || (RENEWED.includes(tab) && !button)) return; // gradio builds it when it is first shown
        renewed = tab;
        if (isListed.has(tab)) return;
        if (LISTING.includes(tab)) isListed.add(tab);
        button?.click();
    }

    window.addEventListener("hypernetworks-listed", () => {
        isListed.clear();
        renewed = "";
    });

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

    /** Networks go into the library; a checkpoint is none, and opens in the Model tab. */
    async function addAll(files) {
        const networks = [];
        for (const file of files) {
            if (await shared.isCheckpoint(file)) shared.openCheckpoint(file);
            else networks.push(file);
        }
        if (!networks.length) return;

        const said = [];
        for (const file of networks) {
            notify(`Adding ${file.name} …`);
            said.push(await add(file));
        }
        await shared.reloadCards();
        notify(said.map(({ text }) => text).join(" "), said.some(({ isWrong }) => isWrong));
        window.dispatchEvent(new Event("hypernetworks-added"));
    }

    /** Pass an image to the page's own field for it, and show what comes of it. */
    function restore(file) {
        selectTab("Image");
        notify(`Restoring prompt and settings from ${file.name}: the Image tab says what was restored.`);
        pass(file);
    }

    /** Put a file into a field of gradio's, in place of the one that is there. */
    function pass(file, place = "#hypernetworks_restore", patience = 50) {
        if (!document.body.classList.contains("studio-opened") && patience > 0) {
            setTimeout(() => pass(file, place, patience - 1), 100); // else the opening would fill the fields after us
            return;
        }
        const field = document.querySelector(`${place} input[type=file]`);
        const clear = document.querySelector(`${place} button[aria-label*=lear]`);
        if (!field) { // it has a file, or one is on the way
            clear?.click();
            if (patience > 0) setTimeout(() => pass(file, place, patience - 1), 100);
            else notify(`${file.name} was not taken: wait until the file before it is there, and drop it again.`, true);
            return;
        }
        const transfer = new DataTransfer();
        transfer.items.add(file);
        field.files = transfer.files;
        field.dispatchEvent(new Event("change", { bubbles: true }));
    }

    const isImage = (file) => IMAGES.some((suffix) => nameOf(file).endsWith(suffix));
    const FIELDS = { // that want a file themselves, and which
        "#hypernetworks_image": isImage,
        "#convert_lora": (file) => nameOf(file).endsWith(".safetensors"),
    };

    /** Whether a file was dropped on a field that wants it; it is in there then. */
    function intoField(target, files) {
        const place = Object.keys(FIELDS).find((each) => target.closest?.(each));
        const file = place && files.find(FIELDS[place]);
        if (file) pass(file, place);
        return Boolean(file);
    }

    function drop(event) {
        const files = [...(event.dataTransfer?.files ?? [])];
        const networks = files.filter(isNetwork);
        const picture = files.find(isImage);
        if (!files.length) return;
        document.body.classList.remove("studio-dragging");
        if (event.target.closest?.("#train_upload")) return; // training images: gradio's own field takes them
        event.preventDefault();
        event.stopPropagation();
        if (intoField(event.target, files)) return;
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
        if (shared.spellings(shared.meant(button.dataset.name)).length) return;
        const tags = parseTags(promptText());
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
        for (const field of document.querySelectorAll(".upload-container:not(.icon-mode)[aria-label]")) field.removeAttribute("aria-label");
        // Its icon for further files is a button in a button, of which the outer one does nothing.
        for (const icon of document.querySelectorAll("button .upload-container.icon-mode:not([aria-label='Add files'])")) {
            icon.setAttribute("aria-label", "Add files");
            const outer = icon.parentElement.closest("button");
            for (const [name, value] of Object.entries({ role: "group", tabindex: "-1", title: "Add files", "aria-label": "Add files" })) outer.setAttribute(name, value);
        }
    }

    function tick() {
        renewTab();
        nameParts();
        undone.known ??= promptField()?.value ?? null;
        openInfotext();
    }

    const shared = { API, TAB, SUFFIXES, activeTab, selectTab, openWith, notify, fill, restore, addAll, promptField, promptText };
    window.hypernetworksStudio = shared; // the other files add to it

    setInterval(tick, 300);
    tick();
})();
