/*
 * The curves of a training say their values under the pointer; its previews are shown in large when they are clicked.
 */
(() => {
    "use strict";
    const { make } = window.hypernetworksExtension.controls;
    const SVG = "http://www.w3.org/2000/svg";
    const [LEFT, RIGHT, TOP, BOTTOM] = [44, 8, 22, 18]; // margins of a plot, as in train/views.py

    /* ---------------------------------------------------------------- values under the pointer */

    const pointsOf = (line) => line.getAttribute("points").trim().split(/\s+/).map((pair) => pair.split(",").map(Number));
    const nearest = (points, x) => points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));

    function part(svg, kind, name) {
        const found = svg.querySelector(`.${name}`) ?? document.createElementNS(SVG, kind);
        found.setAttribute("class", name);
        if (!found.isConnected) svg.append(found);
        return found;
    }

    function show(svg, clientX) {
        const [first, last, low, high, isLog] = svg.dataset.frame.split(" ").map(Number);
        const { width, height } = svg.viewBox.baseVal;
        const box = svg.getBoundingClientRect();
        const x = ((clientX - box.left) / box.width) * width;
        const scale = (value) => (isLog ? Math.log(Math.max(value, 1e-12)) : value);
        const lossAt = (y) => {
            const at = scale(high) - ((y - TOP) / (height - TOP - BOTTOM)) * (scale(high) - scale(low));
            return isLog ? Math.exp(at) : at;
        };

        const lines = [...svg.querySelectorAll("polyline")];
        const found = lines.map((line) => [line.getAttribute("class").replace("studio-", "").replaceAll("-", " "), nearest(pointsOf(line), x)]);
        if (!found.length) return;
        const [at] = found[0][1]; // the line with the most points comes first
        const step = Math.round(first + ((at - LEFT) / (width - LEFT - RIGHT)) * (last - first));
        const words = found.map(([name, [, y]]) => `${name} ${lossAt(y).toPrecision(3)}`).join(" · ");

        const mark = part(svg, "line", "studio-at");
        for (const [key, value] of Object.entries({ x1: at, x2: at, y1: TOP, y2: height - BOTTOM })) mark.setAttribute(key, value);
        const label = part(svg, "text", "studio-hover");
        label.textContent = `step ${step}: ${words}`;
        const half = label.getComputedTextLength() / 2;
        label.setAttribute("x", String(Math.min(Math.max(at, half + 4), width - half - 4)));
        label.setAttribute("y", String(TOP + 10));
        label.setAttribute("text-anchor", "middle");
    }

    document.addEventListener("pointermove", (event) => {
        const svg = event.target.closest?.(".studio-curves svg[data-frame]");
        if (svg) show(svg, event.clientX);
        for (const left of document.querySelectorAll(".studio-hover, .studio-at")) if (left.ownerSVGElement !== svg) left.remove();
    });

    /* ---------------------------------------------------------------- previews in large */

    const dialog = make("dialog", { class: "studio-viewer", "aria-label": "Preview" });
    const picture = make("img", { alt: "" });
    const words = make("p", { class: "studio-done" });
    const closing = make("button", { type: "button" }, "Close");
    closing.addEventListener("click", () => dialog.close());
    dialog.append(picture, words, closing);
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

    document.addEventListener("click", (event) => {
        const small = event.target.closest?.(".studio-strip img");
        if (!small) return;
        if (!dialog.isConnected) document.body.append(dialog);
        [picture.src, picture.alt, words.textContent] = [small.src, small.alt, small.alt];
        dialog.showModal();
    });
})();
