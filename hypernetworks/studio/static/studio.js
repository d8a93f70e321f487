/*
 * The studio's own part of the page: the cards of the library, dropping files anywhere, and two keys.
 *
 * Loaded after the panel's scripts, and uses their window.hypernetworksExtension. Names go into the page as text.
 */
(() => {
    "use strict";
    const { parseTags, toggle, refresh, isWritable, controls } = window.hypernetworksExtension;
    const { make, setText } = controls;
    const API = "./hypernetworks/v1";
    const SUFFIXES = [".pt", ".safetensors", ".bin", ".ckpt", ".pth"];
    const TAB = "hypernetworks";

    const byId = (id) => document.getElementById(id);
    const promptText = () => document.querySelector("#hypernetworks_prompt textarea")?.value ?? "";

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
            toggle(TAB, entry.name, entry.preferred_multiplier, entry.activation_text);
            window.hypernetworksExtension.sync();
            cards.forEach((each) => each.mark());
        });
        return button;
    }

    class Cards {
        constructor(host) {
            this.host = host;
            this.entries = [];
            this.search = make("input", { type: "search", placeholder: "Search …", "aria-label": "Search networks" });
            this.folder = make("select", { "aria-label": "Folder" });
            this.renewal = make("button", { type: "button" }, "Refresh");
            this.file = make("input", { type: "file", multiple: "", accept: SUFFIXES.join(","), hidden: "" });
            this.adding = make("button", { type: "button" }, "Add a file …");
            this.count = make("span", { class: "studio-count", role: "status" });
            this.grid = make("div", { class: "studio-grid" });
            this.empty = make("p", { class: "studio-empty", hidden: "" });
            const title = make("h2", {}, "Networks");
            const tools = [title, this.search, this.folder, this.renewal, this.adding, this.file, this.count];
            host.replaceChildren(make("div", { class: "studio-tools" }, ...tools), this.grid, this.empty);
            host.classList.add("studio-filled");
            this.listen();
            this.load(false);
        }

        listen() {
            this.search.addEventListener("input", () => this.render());
            this.folder.addEventListener("change", () => this.render());
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
            } catch (error) {
                this.say(`The list of networks can't be loaded (${error.message}). Is the studio still running?`);
            }
        }

        showFolders() {
            const chosen = this.folder.value;
            const folders = [...new Set(this.entries.map((entry) => entry.folder))].filter(Boolean).sort();
            const options = folders.map((folder) => make("option", { value: `in ${folder}` }, folder));
            this.folder.replaceChildren(make("option", { value: "" }, "All folders"), ...options);
            this.folder.value = folders.includes(chosen.slice(3)) ? chosen : "";
            this.folder.hidden = !folders.length;
        }

        render() {
            const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
            const folder = this.folder.value.slice(3);
            const shown = this.entries.filter((entry) => {
                const text = `${entry.full_name} ${entry.family ?? ""} ${entry.activation_text}`.toLowerCase();
                const inside = !folder || entry.folder === folder || entry.folder.startsWith(`${folder}/`);
                return inside && words.every((word) => text.includes(word));
            });
            this.shown = shown;
            this.grid.replaceChildren(...shown.map(card));
            this.empty.hidden = shown.length > 0;
            setText(this.empty, this.entries.length
                ? "No network matches. Clear the search, or choose another folder."
                : "No networks yet. Drop a hypernetwork file (.pt, .safetensors) here to add it.");
            this.say(shown.length === 1 ? "1 network" : `${shown.length} networks`);
            this.mark();
        }

        /** Press the cards whose tags the prompt has. */
        mark() {
            const names = new Set(parseTags(promptText()).map((tag) => tag.name.trim()));
            [...this.grid.children].forEach((button, index) => {
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
            if (!response.ok) return `${file.name} was not added: ${answer.error}`;
            const warnings = answer.warnings.length ? ` Note: ${answer.warnings.join("; ")}.` : "";
            return `Added ${answer.name} to ${answer.folder}.${warnings}`;
        } catch (error) {
            return `${file.name} was not added (${error.message}).`;
        }
    }

    async function addAll(files) {
        const said = [];
        for (const file of files) {
            cards.forEach((each) => each.say(`Adding ${file.name} …`));
            said.push(await add(file));
        }
        for (const each of cards) await each.load(true);
        cards.forEach((each) => each.say(said.join(" ")));
        window.dispatchEvent(new Event("hypernetworks-added"));
    }

    /** Pass a dropped image to the page's own field for it. */
    function restore(file) {
        const field = document.querySelector("#hypernetworks_restore input[type=file]");
        const clear = document.querySelector("#hypernetworks_restore button[aria-label*=lear]");
        if (!field) {
            if (!clear) return;
            clear.click();
            setTimeout(() => restore(file), 100);
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
        const picture = files.find((file) => nameOf(file).endsWith(".png"));
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
        else cards.forEach((each) => each.say(`Drop a hypernetwork (${SUFFIXES.join(", ")}) or a PNG saved here.`));
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

    /* ---------------------------------------------------------------- keys, and life of the page */

    document.addEventListener("keydown", (event) => {
        const isGenerate = event.key === "Enter" && (event.ctrlKey || event.metaKey);
        if (!isGenerate && event.key !== "Escape") return;
        if (event.key === "Escape" && document.querySelector(".studio-progress") === null) return;
        byId(isGenerate ? "hypernetworks_generate" : "hypernetworks_interrupt")?.click();
        event.preventDefault();
    });

    /** A narrow page has the image below, and a training above its fields: scroll there at the start. */
    document.addEventListener("click", (event) => {
        const isTraining = event.target.closest("#train_start, #train_example");
        const isGenerating = event.target.closest("#hypernetworks_generate") && window.innerWidth <= 760;
        if (!isTraining && !isGenerating) return;
        const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
        byId("studio_tabs")?.scrollIntoView({ behavior: calm ? "instant" : "smooth", block: "start" });
    });

    /** Show a newly trained network in the library at once, but only once. */
    let lastTrained = null;
    function noticeTrained() {
        const said = document.querySelector(".studio-trained")?.dataset.new ?? lastTrained;
        if (said === lastTrained) return;
        lastTrained = said;
        cards.forEach((each) => each.load(true));
    }

    document.addEventListener("click", (event) => {
        const button = event.target.closest(".studio-try");
        const names = new Set(parseTags(promptText()).map((tag) => tag.name.trim()));
        if (button && !names.has(button.dataset.name)) toggle(TAB, button.dataset.name);
    });

    function tick() {
        noticeTrained();
        for (const host of document.querySelectorAll(".studio-cards:not(.studio-filled)")) cards.push(new Cards(host));
        for (const each of cards) if (each.shown) each.mark();
    }

    setInterval(tick, 300);
    tick();
})();
