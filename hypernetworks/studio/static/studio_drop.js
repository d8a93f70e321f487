/*
 * Checkpoints that are dropped on the page: the Model tab opens those that it knows, and says how to open others.
 *
 * They are told from networks by their first megabyte, which has the names of their tensors. None is sent to the
 * studio: that would copy gigabytes which are on this machine already.
 */
(() => {
    "use strict";
    const shared = window.hypernetworksStudio;
    const PARTS = ["model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.embedders."];
    const HEAD = 1 << 20;
    const LARGEST_SENT = 64 << 20; // bytes, as in web/limits.py

    /** Of a safetensors file or a pickle: both begin with the names of what is in them. */
    async function isCheckpoint(file) {
        const head = await file.slice(0, HEAD).text();
        return PARTS.some((part) => head.includes(part));
    }

    function openCheckpoint(file) {
        shared.selectTab("Model");
        shared.dropped = JSON.stringify([file.name, file.size]);
        shared.notify(`Opening ${file.name}: see the Model tab.`);
        document.getElementById("studio_open")?.click();
    }

    /** The Model tab has the answer: load what was found, or ask for the path (tabs/dropped.py calls this). */
    function openedCheckpoint(isFound) {
        setTimeout(() => { // the tab may be built only now
            if (isFound) document.getElementById("model_load")?.click();
            else document.querySelector("#model_path :is(input, textarea)")?.focus();
        }, 200);
    }

    /** What is too large to be sent to the Convert tab is looked for on the studio's machine (tabs/sources.py). */
    document.addEventListener("change", (event) => {
        const file = event.target.closest?.("#convert_lora input[type=file]") && event.target.files[0];
        if (!file || file.size <= LARGEST_SENT) return;
        event.stopImmediatePropagation();
        event.target.value = "";
        shared.dropped = JSON.stringify([file.name, file.size]);
        document.getElementById("studio_large")?.click();
    }, true);

    Object.assign(shared, { isCheckpoint, openCheckpoint, openedCheckpoint });
})();
