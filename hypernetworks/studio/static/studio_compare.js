/*
 * The Compare tab's sheet: it fills in cell by cell, and each cell can be looked at, saved and used.
 *
 * studio_live.js says when there is something new. Labels and infotexts go into the page as text.
 */
(() => {
    "use strict";
    const { API, restore } = window.hypernetworksStudio;
    const { own } = window.hypernetworksStudioBefore;
    const { make, setText } = window.hypernetworksExtension.controls;

    function button(text, action) {
        const element = make("button", { type: "button" }, text);
        element.addEventListener("click", action);
        return element;
    }

    const address = (sheet, cell) => `${API}/sheet/cell?${new URLSearchParams({ key: sheet.key, number: cell.file })}`;

    class Sheet {
        constructor(host) {
            this.pages = make("select", { "aria-label": "Page" });
            this.pages.addEventListener("change", () => this.render());
            this.size = make("input", { type: "range", min: "64", max: "512", value: "144", "aria-label": "Size of the images" });
            this.size.addEventListener("input", () => this.place.style.setProperty("--cell", `${this.size.value}px`));
            this.asHtml = make("a", { download: "sheet.html" }, "Download HTML");
            this.asPng = make("a", { download: "sheet.png" }, "Download PNG");
            this.title = make("p", { class: "studio-done" });
            this.place = make("div", { class: "studio-sheet-place", tabindex: "0", role: "region", "aria-label": "The sheet" });
            this.tools = make("div", { class: "studio-tools", hidden: "" }, this.pages, make("label", {}, "Size ", this.size), this.asHtml, this.asPng);
            host.replaceChildren(this.tools, this.title, this.place);
            host.classList.add("studio-filled");
        }

        async load() {
            const response = await fetch(`${API}/sheet?${new URLSearchParams({ window: own })}`);
            if (!response.ok) return;
            const sheet = await response.json();
            if (!sheet) return;
            const isNew = sheet.key !== this.sheet?.key;
            this.sheet = sheet;
            const number = isNew ? 0 : Number(this.pages.value);
            this.pages.replaceChildren(...sheet.pages.map((label, index) => make("option", { value: index }, label)));
            this.pages.value = String(number);
            this.pages.hidden = sheet.pages.length < 2;
            this.tools.hidden = !sheet.cells?.some((cell) => cell.file !== null);
            for (const [link, kind] of [[this.asHtml, "html"], [this.asPng, "png"]]) {
                link.href = `${API}/sheet/file?${new URLSearchParams({ key: sheet.key, kind, version: sheet.version })}`;
            }
            setText(this.title, sheet.title ?? "");
            this.render();
        }

        /** The table is made once for a sheet and a page; then only its new images are put in. */
        render() {
            const { sheet } = this;
            const shape = JSON.stringify([sheet.key, this.pages.value, sheet.columns, sheet.rows]);
            if (shape !== this.shape) this.build();
            this.shape = shape;
            for (const cell of this.shown()) {
                const place = this.places.get(String(cell.at));
                if (cell.file === null || place.firstChild) continue;
                const picture = make("img", { src: address(sheet, cell), alt: "", loading: "lazy" });
                const element = button("", () => viewer.show(this, cell));
                element.setAttribute("aria-label", cell.label);
                element.className = "studio-cell";
                element.append(picture);
                place.append(element);
            }
        }

        shown() {
            return (this.sheet.cells ?? []).filter((cell) => cell.at[0] === Number(this.pages.value));
        }

        build() {
            const { sheet } = this;
            this.places = new Map();
            const heads = (sheet.columns ?? []).map(({ label, note }) => make("th", { scope: "col" }, label, ...(note ? [make("small", {}, note)] : [])));
            const rows = (sheet.rows ?? []).map((label, row) => {
                const cells = this.shown().filter((cell) => cell.at[1] === row).map((cell) => {
                    const place = make("td");
                    this.places.set(String(cell.at), place);
                    return place;
                });
                return make("tr", {}, make("th", { scope: "row" }, label), ...cells);
            });
            this.place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, make("td"), ...heads)), make("tbody", {}, ...rows)));
        }
    }

    /** One cell in large, and what can be done with it. */
    class Viewer {
        constructor() {
            this.dialog = make("dialog", { class: "studio-viewer", "aria-label": "Image of the sheet" });
            this.picture = make("img", { alt: "" });
            this.label = make("p", { class: "studio-done" });
            this.download = make("a", { download: "" }, "Download");
            const actions = [
                button("Use these settings", () => this.use()),
                this.download,
                button("‹ Previous", () => this.step(-1)),
                button("Next ›", () => this.step(1)),
                button("Close", () => this.dialog.close()),
            ];
            this.dialog.append(this.picture, this.label, make("div", { class: "studio-tools" }, ...actions));
            this.dialog.addEventListener("keydown", (event) => {
                if (event.key === "ArrowLeft") this.step(-1);
                if (event.key === "ArrowRight") this.step(1);
            });
            this.dialog.addEventListener("click", (event) => {
                if (event.target === this.dialog) this.dialog.close(); // beside it
            });
        }

        show(sheet, cell) {
            [this.sheet, this.cell] = [sheet, cell];
            if (!this.dialog.isConnected) document.body.append(this.dialog);
            this.picture.src = address(sheet.sheet, cell);
            this.picture.alt = cell.label;
            setText(this.label, cell.label);
            this.download.href = this.picture.src;
            this.download.download = `${cell.label.replace(/[^\w.@-]+/g, "-").slice(0, 80) || "cell"}.png`;
            if (!this.dialog.open) this.dialog.showModal();
        }

        step(by) {
            const cells = this.sheet.shown().filter((cell) => cell.file !== null);
            const next = cells[cells.findIndex((cell) => String(cell.at) === String(this.cell.at)) + by];
            if (next) this.show(this.sheet, next);
        }

        /** Its PNG has all settings in its infotext: the same as if it was dropped on the page. */
        async use() {
            this.dialog.close();
            const response = await fetch(address(this.sheet.sheet, this.cell));
            if (response.ok) restore(new File([await response.blob()], this.download.download, { type: "image/png" }));
        }
    }

    const viewer = new Viewer();
    const sheets = [];
    let version = "";
    let seen = "";

    window.addEventListener("hypernetworks-now", (event) => {
        version = event.detail.sheet ?? "";
        tick();
    });

    function tick() {
        for (const host of document.querySelectorAll(".studio-sheet:not(.studio-filled)")) sheets.push(new Sheet(host));
        if (!sheets.length || version === seen) return; // gradio builds the tab when it is first opened
        seen = version;
        for (const each of sheets) each.load();
    }

    setInterval(tick, 500);
})();
