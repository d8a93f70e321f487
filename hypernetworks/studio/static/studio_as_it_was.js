/*
 * What a page was before it was loaded again: the window's name, its fields and its tab. Gradio's event at the opening
 * (page.py) and the page's scripts both run this, since either may come first; the second one finds it done.
 */
window.hypernetworksStudioBefore ??= (() => {
    "use strict";
    const [NAME, STATE, VERSION] = ["hypernetworks.window", "hypernetworks.studio", "1 "];

    /** A storage that forgets, where the browser forbids to remember. */
    function stored(storage, key, value) {
        try {
            if (value === undefined) return window[storage].getItem(key);
            window[storage].setItem(key, value);
        } catch { /* private windows */ }
        return null;
    }

    /** This window's name: the same after a reload. Nobody can guess it, since it stands for the window's jobs. */
    function windowName() {
        const known = stored("sessionStorage", NAME);
        if (known) return known;
        const name = [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");
        stored("sessionStorage", NAME, name);
        return name;
    }

    function read() {
        try {
            return JSON.parse(stored("sessionStorage", STATE) ?? stored("localStorage", STATE) ?? "{}");
        } catch { /* of another version */ }
        return {};
    }

    function save(text) {
        stored("sessionStorage", STATE, text);
        stored("localStorage", STATE, text); // for the next window
    }

    const [own, state] = [windowName(), read()];
    return { own, state, save, saved: VERSION + JSON.stringify({ ...state, window: own }) };
})();
