/*
 * Completion in the prompt: "<hypernet:" opens a list of networks. Where another extension completes tags in this
 * prompt, it is left to do so.
 */
(() => {
    "use strict";
    const { catalogue, controls, page, format, isWritable } = window.hypernetworksExtension;
    if (!page || Object.isFrozen(window.hypernetworksExtension)) return;
    const { load, entryOf } = catalogue;
    const { make, newId } = controls;
    const { promptOf, write, defaultMultiplier, TABS } = page;

    const BEGUN = /<hypernet:([^:<>\n]*)$/i;
    const MOST = 20;
    const list = make("ul", { class: "hypernetworks-typing", role: "listbox", "aria-label": "Networks", hidden: "" });
    let [prompt, shown, active] = [null, [], 0];

    const begun = (box) => box.value.slice(0, box.selectionStart).match(BEGUN);

    /** tagcomplete marks the prompts that it is at work in. */
    const isOthers = (box) => box.classList.contains("autocomplete");

    function close() {
        list.hidden = true;
        prompt?.removeAttribute("aria-activedescendant");
        prompt = null;
    }

    function matches(typed) {
        const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
        const fits = ({ name }) => isWritable(name) && words.every((word) => name.toLowerCase().includes(word));
        const starts = ({ name }) => Number(!name.toLowerCase().startsWith(typed.toLowerCase()));
        return catalogue.entries.filter(fits).sort((one, other) => starts(one) - starts(other)).slice(0, MOST);
    }

    const numberOf = (entry) => format(entry.preferred_multiplier ?? defaultMultiplier());

    function show(box, typed) {
        prompt = box;
        shown = matches(typed);
        list.replaceChildren(...shown.map((entry) => {
            const remark = [numberOf(entry), entry.family].filter(Boolean).join(" · ");
            const option = make("li", { id: newId(), role: "option" }, make("bdi", {}, entry.name), make("small", {}, remark));
            option.addEventListener("mousedown", (event) => {
                event.preventDefault(); // the prompt keeps the focus
                choose(entry);
            });
            return option;
        }));
        if (!shown.length) {
            close();
            return;
        }
        if (!list.isConnected) document.body.append(list);
        list.hidden = false;
        const place = box.getBoundingClientRect();
        list.style.left = `${place.left}px`;
        list.style.top = `${place.bottom}px`;
        mark(0);
    }

    function mark(index) {
        active = (index + shown.length) % shown.length;
        [...list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === active)));
        list.children[active].scrollIntoView({ block: "nearest" });
        prompt.setAttribute("aria-activedescendant", list.children[active].id);
    }

    /** The rest of a tag behind the caret is replaced, too: "<hypernet:i|nk:0.5>" becomes one tag, not two halves. */
    function choose(entry) {
        const box = prompt;
        const found = begun(box);
        close();
        if (!found) return;
        const before = box.value.slice(0, found.index);
        const rest = box.value.slice(box.selectionStart).replace(/^[^<>\s,]*>/, "");
        const tag = `<hypernet:${entry.name}:${numberOf(entry)}>`;
        const activation = (entryOf(entry.name)?.activation_text ?? "").trim();
        const text = before + tag + (activation ? ` ${activation}` : "");
        write(box, text + rest);
        box.setSelectionRange(text.length, text.length);
        catalogue.remember(entry.name);
    }

    document.addEventListener("input", (event) => {
        const box = event.target;
        if (![...TABS, "hypernetworks"].some((tab) => promptOf(tab) === box) || isOthers(box)) return;
        const found = begun(box);
        if (!found) {
            close();
            return;
        }
        const again = () => begun(box) && document.activeElement === box && show(box, begun(box)[1]);
        load().then(again, () => null); // without a list there is nothing to offer
    }, true);

    document.addEventListener("keydown", (event) => {
        if (list.hidden || event.target !== prompt) return;
        if (event.key === "ArrowDown") mark(active + 1);
        else if (event.key === "ArrowUp") mark(active - 1);
        else if ((event.key === "Enter" && !event.ctrlKey) || event.key === "Tab") choose(shown[active]);
        else if (event.key === "Escape") close();
        else return;
        event.preventDefault();
        event.stopPropagation(); // a webui's Escape would interrupt the generation
    }, true);

    document.addEventListener("focusout", (event) => event.target === prompt && close());

    Object.freeze(window.hypernetworksExtension); // this is the last of our files
})();
