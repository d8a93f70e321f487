/*
 * The gallery: the user's folder of images, by day; search, star, trash, and the settings of an image again.
 *
 * The studio names an image by its day and file, and takes no other name. Every text goes into the page as text.
 */
(() => {
    "use strict";
    const { API, activeTab, notify, fill, restore } = window.hypernetworksStudio;
    const { make, setText } = window.hypernetworksExtension.controls;
    const PAGE = 60; // images in one answer

    const address = (item) => `${API}/image?name=${encodeURIComponent(item.name)}`;
    const fileName = (item) => item.name.split("/").pop();

    function button(text, action) {
        const element = make("button", { type: "button" }, text);
        element.addEventListener("click", action);
        return element;
    }

    class Gallery {
        constructor(host) {
            this.host = host;
            this.items = [];
            this.search = make("input", { type: "search", placeholder: "Search prompts …", "aria-label": "Search images" });
            this.starred = make("input", { type: "checkbox" });
            this.count = make("span", { class: "studio-count", role: "status" });
            this.grid = make("div", { class: "studio-images" });
            this.more = button("Show more", () => this.load(true));
            this.empty = make("p", { class: "studio-empty", hidden: "" });
            const starred = make("label", {}, this.starred, " Starred");
            this.zip = make("a", { download: "images.zip", hidden: "" }, "Download all");
            const tools = make("div", { class: "studio-tools" }, this.search, starred, button("Refresh", () => this.load()), this.zip, this.count);
            const folder = make("small", {}, `Images are saved in ${host.dataset.folder}`);
            host.replaceChildren(tools, this.grid, this.more, this.empty, folder);
            host.classList.add("studio-filled");
            this.search.addEventListener("input", () => {
                clearTimeout(this.typing);
                this.typing = setTimeout(() => this.load(), 250);
            });
            this.starred.addEventListener("change", () => this.load());
        }

        async load(further = false) {
            const asked = Symbol("question");
            this.asked = asked;
            const after = further ? this.ended || (this.items[this.items.length - 1]?.name ?? "") : "";
            const words = { words: this.search.value, starred: this.starred.checked ? "1" : "", after };
            try {
                const response = await fetch(`${API}/images?${new URLSearchParams(words)}`);
                if (!response.ok) throw new Error(`HTTP ${response.status}`);
                const { items, ended } = await response.json();
                if (asked !== this.asked) return; // a later question is under way
                this.items = further ? [...this.items, ...items] : items;
                this.ended = ended; // the last image that was looked at, where there are too many for one search
                this.more.hidden = items.length < PAGE && !ended;
                setText(this.more, ended ? "Search older images" : "Show more");
                this.render();
            } catch (error) {
                setText(this.count, `The images can't be loaded (${error.message}).`);
            }
        }

        render() {
            this.grid.replaceChildren(...this.items.map((item, index) => {
                const picture = make("img", { src: address(item), alt: item.prompt.slice(0, 200), loading: "lazy" });
                const element = make("button", { type: "button", title: item.infotext.slice(0, 400) }, picture);
                if (item.starred) element.append(make("span", { class: "studio-star", "aria-label": "starred" }, "★"));
                element.addEventListener("click", () => {
                    if (comparison.first) comparison.show(item);
                    else viewer.show(this, index);
                });
                return element;
            }));
            this.zip.hidden = !this.items.length;
            this.zip.href = `${API}/images/zip?${new URLSearchParams({ words: this.search.value, starred: this.starred.checked ? "1" : "" })}`;
            const filtered = this.search.value || this.starred.checked;
            this.empty.hidden = this.items.length > 0 && !this.ended;
            if (this.ended) setText(this.empty, `Images before ${this.ended.slice(0, 10)} were not searched yet.`);
            else setText(this.empty, filtered ? "No image matches." : "No images yet. Each image that you generate is saved here.");
            setText(this.count, `${this.items.length}${this.more.hidden ? "" : "+"} ${this.items.length === 1 ? "image" : "images"}`);
        }
    }

    /** One image in large, and what can be done with it. */
    class Viewer {
        constructor() {
            this.dialog = make("dialog", { class: "studio-viewer", "aria-label": "Image" });
            this.picture = make("img", { alt: "" });
            this.text = make("textarea", { readonly: "", rows: "4", "aria-label": "Infotext" });
            this.star = button("☆ Star", () => this.change("star"));
            this.download = make("a", { download: "" }, "Download");
            const actions = [
                button("Use all", () => this.useAll()),
                button("Use prompt", () => this.use("#hypernetworks_prompt textarea", this.item.prompt)),
                button("Use seed", () => this.use("#hypernetworks_seed input", this.item.seed ?? undefined)),
                button("Copy infotext", () => this.copy()),
                button("Copy image", () => this.copyImage()),
                button("Compare with …", () => comparison.begin(this.item, this.dialog)),
                this.star,
                this.download,
                button("Move to trash", () => this.change("discard")),
                button("‹ Previous", () => this.step(-1)),
                button("Next ›", () => this.step(1)),
                button("Close", () => this.dialog.close()),
            ];
            this.dialog.append(this.picture, this.text, make("div", { class: "studio-tools" }, ...actions));
            this.dialog.addEventListener("keydown", (event) => {
                if (event.target === this.text) return;
                if (event.key === "ArrowLeft") this.step(-1);
                if (event.key === "ArrowRight") this.step(1);
            });
            this.dialog.addEventListener("click", (event) => {
                if (event.target === this.dialog) this.dialog.close(); // beside it
            });
        }

        show(gallery, index) {
            this.gallery = gallery;
            this.index = index;
            this.item = gallery.items[index];
            if (!this.dialog.isConnected) document.body.append(this.dialog);
            this.picture.src = address(this.item);
            this.picture.alt = this.item.prompt.slice(0, 200);
            this.text.value = this.item.infotext;
            this.download.href = address(this.item);
            this.download.download = fileName(this.item);
            setText(this.star, this.item.starred ? "★ Starred" : "☆ Star");
            if (!this.dialog.open) this.dialog.showModal();
        }

        step(by) {
            const next = this.index + by;
            if (next >= 0 && next < this.gallery.items.length) this.show(this.gallery, next);
        }

        use(selector, value) {
            if (value !== undefined) fill(document.querySelector(selector), value);
            this.dialog.close();
        }

        async useAll() {
            this.dialog.close();
            const response = await fetch(address(this.item));
            restore(new File([await response.blob()], fileName(this.item), { type: "image/png" }));
        }

        async copy() {
            try {
                await navigator.clipboard.writeText(this.item.infotext);
                notify("The infotext is copied.");
            } catch { // only pages of this machine, or with HTTPS, may write there
                this.text.select();
            }
        }

        async copyImage() {
            try {
                // Safari wants the promise, not what comes of it.
                const blob = fetch(address(this.item)).then((response) => response.blob());
                await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
                notify("The image is copied.");
            } catch {
                notify("This browser does not let the page copy images: use Download.", true);
            }
        }

        async change(action) {
            const on = this.item.starred ? "0" : "1";
            const query = new URLSearchParams({ name: this.item.name, on });
            const response = await fetch(`${API}/images/${action}?${query}`, { method: "POST" });
            if (!response.ok) {
                notify((await response.json()).error, true);
                return;
            }
            if (action === "star") {
                this.item.starred = !this.item.starred;
                this.gallery.render();
                this.show(this.gallery, this.index);
                return;
            }
            this.dialog.close();
            notify(`${fileName(this.item)} is in the folder "trash" of your images.`);
            this.gallery.load();
        }
    }

    /** Two images, one over the other: a slider uncovers the second. */
    class Comparison {
        constructor() {
            this.first = null;
            this.dialog = make("dialog", { class: "studio-viewer", "aria-label": "Two images" });
            this.images = [make("img", { alt: "The first image" }), make("img", { alt: "The second image" })];
            this.place = make("div", { class: "studio-over" }, ...this.images);
            this.slider = make("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": "Part of the first image" });
            this.slider.addEventListener("input", () => this.place.style.setProperty("--part", `${this.slider.value}%`));
            this.names = make("p", { class: "studio-done" });
            this.dialog.append(this.place, this.slider, this.names, make("div", { class: "studio-tools" }, button("Close", () => this.dialog.close())));
        }

        begin(item, dialog) {
            this.first = item;
            dialog.close();
            notify("Click the image to compare with.");
        }

        show(item) {
            if (!this.dialog.isConnected) document.body.append(this.dialog);
            [this.first, item].forEach((each, index) => {
                this.images[index].src = address(each);
            });
            setText(this.names, `${fileName(this.first)} | ${fileName(item)}`);
            this.first = null;
            this.dialog.showModal();
            this.slider.focus();
        }
    }

    const viewer = new Viewer();
    const comparison = new Comparison();
    const galleries = [];
    let wasActive = false;

    /** Read the folder each time the tab is opened: there may be new images. */
    function tick() {
        for (const host of document.querySelectorAll(".studio-gallery:not(.studio-filled)")) galleries.push(new Gallery(host));
        const isActive = activeTab() === "Gallery" && galleries.length > 0;
        if (isActive && !wasActive) galleries.forEach((each) => each.load());
        wasActive = isActive;
    }

    // gradio has changed the tab by the next frame; the interval is for every other way to it.
    document.addEventListener("click", (event) => {
        if (event.target.closest("#studio_tabs [role=tab]")) requestAnimationFrame(tick);
    });
    setInterval(tick, 300);
})();
