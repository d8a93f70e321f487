/*
 * The server's list of networks, fetched when it is first needed.
 */
(() => {
    "use strict";
    if (window.hypernetworksExtension.catalogue) return;

    const LIST = "./hypernetworks/v1/list";
    const REFRESH = "./hypernetworks/v1/refresh";
    const catalogue = { entries: [], loading: null, loaded: false };

    async function fetchEntries() {
        const response = await fetch(LIST, { headers: { Accept: "application/json" } });
        if (!response.ok) throw new Error(`HTTP ${response.status}`);
        const entries = await response.json();
        if (!Array.isArray(entries)) throw new Error("the answer is not a list");
        return entries.filter((entry) => entry && typeof entry.name === "string");
    }

    /** Fetch the list, unless that was done before. Throws an error if the server doesn't return one. */
    function load() {
        if (catalogue.loaded) return Promise.resolve(catalogue.entries);
        catalogue.loading = catalogue.loading ?? fetchEntries()
            .then((entries) => {
                catalogue.loaded = true;
                catalogue.entries = entries;
                return entries;
            })
            .finally(() => {
                catalogue.loading = null;
            });
        return catalogue.loading;
    }

    /** Let the server scan its folders, then fetch the list again. */
    async function refresh() {
        await fetch(REFRESH, { method: "POST" }).catch(() => null); // fetching the list reports a missing server
        catalogue.loaded = false;
        return load();
    }

    /** What the server says of these names on the loaded model: {loaded, networks: {name: {problem, family, preview}}}. */
    async function check(address, names) {
        const query = new URLSearchParams(names.map((name) => ["name", name]));
        const response = await fetch(`${address}?${query}`, { headers: { Accept: "application/json" } });
        if (!response.ok) throw new Error(`HTTP ${response.status}`);
        return response.json();
    }

    /** Ask the server to change or show something of one network; the answer, or an Error with its sentence. */
    async function act(what, name, more = {}, body = undefined) {
        const query = new URLSearchParams({ name, ...more });
        const headers = { Accept: "application/json", "X-Hypernetworks": "1" };
        const response = await fetch(`./hypernetworks/v1/${what}?${query}`, { method: "POST", headers, body });
        const answer = await response.json().catch(() => ({}));
        if (!response.ok) throw new Error(answer.error ?? `HTTP ${response.status}`);
        return answer;
    }

    /* What the user has put into a prompt lately, the latest first. */

    const RECENT = "hypernetworks.recent";
    const MOST_RECENT = 20;

    function recent() {
        try {
            const names = JSON.parse(localStorage.getItem(RECENT) ?? "[]");
            return Array.isArray(names) ? names : [];
        } catch {
            return []; // storage is forbidden here
        }
    }

    function remember(name) {
        const names = [name, ...recent().filter((other) => other !== name)].slice(0, MOST_RECENT);
        try {
            localStorage.setItem(RECENT, JSON.stringify(names));
        } catch { /* as above */ }
    }

    const entryOf = (name) => catalogue.entries.find((entry) => entry.name === name);

    window.hypernetworksExtension.catalogue = Object.assign(catalogue, { load, refresh, check, act, recent, remember, entryOf });
    window.hypernetworksExtension.refresh = refresh;
})();
