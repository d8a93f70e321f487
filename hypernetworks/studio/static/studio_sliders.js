/*
 * Sliders of fields that take more than is usual: they move over the usual values only, and the number beside them takes all.
 *
 * gradio's own slider would stretch over all values, so that a pixel means several steps.
 */
(() => {
    "use strict";
    const { fill } = window.hypernetworksStudio;
    const { setText } = window.hypernetworksExtension.controls;
    const USUAL = { hypernetworks_steps: 150, hypernetworks_cfg: 30 };

    /** Put a slider up to the usual end in the place of gradio's; it writes into the number. */
    function place(host, end) {
        const whole = host.querySelector("input[type=range]:not(.studio-usual)");
        if (!whole) return;
        const usual = whole.cloneNode();
        usual.classList.add("studio-usual");
        usual.max = end;
        whole.removeAttribute("id");
        whole.style.setProperty("display", "none", "important");
        whole.after(usual);
        usual.addEventListener("input", () => {
            fill(host.querySelector("input[type=number]"), usual.value);
            show(host, usual);
        });
    }

    function show(host, usual) {
        const number = host.querySelector("input[type=number]").value;
        usual.value = number; // at its end, where that is more
        usual.style.setProperty("--range_progress", `${(100 * (usual.value - usual.min)) / (usual.max - usual.min)}%`);
        setText(host.querySelector("[data-testid=max-value]"), usual.max);
    }

    function tick() {
        for (const [id, end] of Object.entries(USUAL)) {
            const host = document.getElementById(id);
            if (!host) continue;
            if (!host.querySelector(".studio-usual")) place(host, end);
            const usual = host.querySelector(".studio-usual");
            if (usual) show(host, usual);
        }
    }

    setInterval(tick, 300);
    tick();
})();
