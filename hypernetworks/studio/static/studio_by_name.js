/*
 * Which network a tag means: a name may be written in another case, with the folder or with the file's suffix.
 *
 * The same rule as Library.find, but for hashes in brackets; an exact name goes first. It comes before the cards, which
 * ask it as soon as they have their list.
 */
(() => {
    "use strict";
    const shared = window.hypernetworksStudio;
    const { parseTags, toggle } = window.hypernetworksExtension;
    const SUFFIX = /\.(pt|pth|safetensors|bin|ckpt)$/;
    const loose = (name) => name.normalize("NFKC").trim().replaceAll("\\", "/").toLowerCase();
    let [exact, likely] = [new Map(), new Map()];

    function know(entries) {
        [exact, likely] = [new Map(), new Map()];
        // The shortest names first: files that differ in their suffix share the full name.
        for (const key of ["name", "full_name"]) {
            for (const { name, [key]: written } of entries) {
                if (!exact.has(written)) exact.set(written, name);
                if (!likely.has(loose(written))) likely.set(loose(written), name);
            }
        }
    }

    /** The name of the network that a name in a tag means; the name itself where there is none. */
    function meant(written) {
        const wanted = loose(written);
        return exact.get(written) ?? exact.get(written.trim()) ?? likely.get(wanted) ?? likely.get(wanted.replace(SUFFIX, "")) ?? written.trim();
    }

    /** How the prompt writes a network: each spelling once. */
    const spellings = (name) => [...new Set(parseTags(shared.promptText()).map((tag) => tag.name.trim()))].filter((one) => meant(one) === name);

    /** A click on a card: remove all tags of the network, however they write it, or add one; whether it is in now. */
    function toggleNetwork({ name, preferred_multiplier: multiplier, activation_text: activation }) {
        const found = spellings(name);
        for (const one of found) toggle(shared.TAB, one, null, activation);
        return found.length ? false : toggle(shared.TAB, name, multiplier, activation);
    }

    Object.assign(shared, { know, meant, spellings, toggleNetwork });
})();
