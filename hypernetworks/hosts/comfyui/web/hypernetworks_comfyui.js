/*
 * Two nodes on ComfyUI's page: the curve of Hypernetwork Schedule, and the slots of Hypernetwork Stack; and previews of
 * networks beside the lists of their names.
 *
 * The nodes only arrange what the nodes have without this file: a text with points, and eight slots. The curve is the one of
 * the panel in webuis, from the project's javascript folder; ComfyUI starts every script of this folder, so it is
 * fetched from an address of its own. This module makes no global name; the curve's is hypernetworksExtension.
 */
import { app } from "../../scripts/app.js";

const NONE = "None";
const SLOTS = 8;
const USUAL_STEPS = 20;
const MOST_NODES = 200; // a graph may be large: the search for a sampler ends somewhere
const SHARED = new URL("../../hypernetworks_page/", import.meta.url);
const SCRIPTS = ["hypernetworks.js", "hypernetworks_catalogue.js", "hypernetworks_controls.js", "hypernetworks_curve.js"];
/** The panel's colours, in those of ComfyUI's themes. */
const COLOURS = {
    "--color-accent": "var(--p-primary-color, #60a5fa)",
    "--border-color-primary": "var(--border-color, #8886)",
    "--body-text-color": "var(--input-text, inherit)",
    "--background-fill-secondary": "var(--comfy-input-bg, transparent)",
    "--block-background-fill": "var(--comfy-menu-bg, #fff)",
    "--button-secondary-background-fill-hover": "var(--border-color, #8883)",
    "--hn-quiet": "var(--descrip-text, #9ca3af)",
};
const [PADDING, WIDEST, SHAPE, HINT] = [16, 448, 104 / 320, 60]; // of the curve, in pixels; SHAPE is height by width

let curves = null;

/** The class for curves; fetched once, when the first node needs it. */
function loadCurves() {
    curves = curves ?? (async () => {
        const style = document.createElement("link");
        Object.assign(style, { rel: "stylesheet", href: new URL("style.css", SHARED).href });
        document.head.append(style);
        for (const name of SCRIPTS) await import(new URL(name, SHARED).href); // in this order: each needs those before
        return window.hypernetworksExtension;
    })();
    return curves;
}

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/** Call `then` after `owner[name]`, whatever that was. */
function after(owner, name, then) {
    const before = owner[name];
    owner[name] = function (...given) {
        const result = before?.apply(this, given);
        then();
        return result;
    };
}

/* ---------------------------------------------------------------- Hypernetwork Schedule */

/** The steps of the first sampler behind a node, so that the curve has a dot for each. */
function stepsBehind(node) {
    const [waiting, seen] = [[node], new Set()];
    while (waiting.length && seen.size < MOST_NODES) {
        const one = waiting.shift();
        if (!one || seen.has(one)) continue;
        seen.add(one);
        const steps = Number(widgetOf(one, "steps")?.value);
        if (steps >= 1) return Math.round(steps);
        for (const id of (one.outputs ?? []).flatMap((output) => output.links ?? [])) {
            const link = one.graph?.getLink?.(id) ?? one.graph?.links?.[id];
            if (link) waiting.push(one.graph.getNodeById(link.target_id));
        }
    }
    return USUAL_STEPS;
}

/** What the node's three fields say, as a tag that the curve can show. */
function asTag(node, parseTags) {
    const value = (name) => widgetOf(node, name)?.value;
    const limits = [value("start") > 0 ? `:start=${value("start")}` : "", value("stop") < 1 ? `:stop=${value("stop")}` : ""];
    const text = String(value("points") ?? "").trim();
    const tags = parseTags(`<hypernet:schedule:${text}${limits.join("")}>`);
    const readable = tags.length === 1 && tags[0].text === text;
    return readable ? tags[0] : { text, problem: "Points can't be read: write value@position pairs, such as 0@0,1@0.5." };
}

function curveHeight(node) {
    const width = Math.min(WIDEST, Math.max(0, (node.size?.[0] ?? 0) - 2 * PADDING));
    return Math.ceil(width * SHAPE) + HINT;
}

async function addCurve(node) {
    const points = widgetOf(node, "points");
    if (!points || typeof node.addDOMWidget !== "function") return;
    const element = document.createElement("div");
    element.className = "hypernetworks-panel";
    for (const [name, colour] of Object.entries(COLOURS)) element.style.setProperty(name, colour);
    // Before anything is awaited: a widget that comes later would shift the values of a workflow that is being loaded.
    node.addDOMWidget("curve", "hypernetworks_curve", element, {
        serialize: false,
        hideOnZoom: false,
        getMinHeight: () => curveHeight(node),
        getMaxHeight: () => curveHeight(node),
    }).serialize = false;
    node.setSize?.([Math.max(node.size[0], 340), Math.max(node.size[1], node.computeSize()[1])]);

    const { Curve, parseTags, controls } = await loadCurves();
    const curve = new Curve((text) => {
        points.value = text;
        points.callback?.(text);
        node.setDirtyCanvas?.(true, true);
    });
    const problem = controls.make("p", { class: "hypernetworks-note", role: "status" });
    element.append(curve.element, problem, curve.button);
    curve.button.addEventListener("click", () => curve.toggle());

    const show = () => {
        const tag = asTag(node, parseTags);
        curve.show(tag, "the strength", stepsBehind(node));
        controls.setText(problem, tag.problem ?? "");
        curve.button.hidden = !curve.element.hidden || tag.problem !== null;
    };
    for (const name of ["points", "start", "stop"]) after(widgetOf(node, name), "callback", show);
    after(node, "onConfigure", show);
    element.addEventListener("pointerenter", show); // the steps of the sampler may have changed
    show();
}

/* ---------------------------------------------------------------- Hypernetwork Stack */

const noRoom = () => [0, -4]; // the canvas adds a gap of 4 to each

/** Show the slots that hold something, and one more. */
function grow(node) {
    const isUsed = (number) => {
        const name = `name_${number}`;
        const linked = node.inputs?.some((input) => input.name === name && (input.link ?? null) !== null);
        return linked || (widgetOf(node, name)?.value ?? NONE) !== NONE;
    };
    const numbers = Array.from({ length: SLOTS }, (_, index) => index + 1);
    const last = Math.max(0, ...numbers.filter(isUsed));
    for (const number of numbers) {
        for (const widget of ["name", "strength"].map((part) => widgetOf(node, `${part}_${number}`)).filter(Boolean)) {
            widget.hidden = number > last + 1;
            if (widget.options) widget.options.hidden = widget.hidden; // where nodes are drawn by Vue
            // Some versions leave room for what is hidden.
            if (widget.hidden) widget.computeSize = noRoom;
            else if (widget.computeSize === noRoom) delete widget.computeSize;
        }
    }
}

/** The same, and the node becomes as much higher or lower as its slots need. */
function growAndFit(node) {
    const needed = () => node.computeSize?.()[1] ?? 0;
    const before = needed();
    grow(node);
    const change = needed() - before;
    if (change) node.setSize?.([node.size[0], Math.max(node.size[1] + change, needed())]);
    node.setDirtyCanvas?.(true, true);
}

function growing(node) {
    const again = () => growAndFit(node);
    for (let number = 1; number <= SLOTS; number += 1) {
        const widget = widgetOf(node, `name_${number}`);
        if (widget) after(widget, "callback", again);
    }
    after(node, "onConnectionsChange", again);
    after(node, "onConfigure", () => grow(node)); // a workflow knows the size that its author gave the node
    again();
}

/* ---------------------------------------------------------------- previews of networks */

const LISTING = ["HypernetworkApply", "HypernetworkStack", "HypernetworkInspect"]; // nodes with a list of names
const ENTRY = ".litecontextmenu .litemenu-entry, [role=listbox] [role=option]"; // of a list, on the canvas or drawn by Vue
const PREVIEW_EDGE = 256;

/** The node that an event is for, whether it is drawn on the canvas or by Vue. */
function nodeUnder(event) {
    const id = event.target.closest?.("[data-node-id]")?.dataset.nodeId;
    const graph = app.canvas?.graph ?? app.graph;
    return id === undefined ? app.canvas?.node_over : graph?.getNodeById(Number(id));
}

/** Show the image beside a network while the pointer is on its name in a list. */
function showPreviews() {
    const image = Object.assign(document.createElement("img"), { alt: "", className: "hypernetworks-preview", hidden: true });
    image.setAttribute("aria-hidden", "true");
    Object.assign(image.style, {
        position: "fixed",
        zIndex: 99999, // above the lists, whatever theme they have
        maxWidth: `${PREVIEW_EDGE}px`,
        maxHeight: `${PREVIEW_EDGE}px`,
        border: "1px solid var(--border-color, #8886)",
        borderRadius: "4px",
        pointerEvents: "none",
    });
    document.body.append(image);

    let [isOurs, entry] = [false, null]; // whether the open list is of one of our nodes; the entry under the pointer
    const hide = () => {
        entry = null;
        image.hidden = true;
    };
    const place = () => {
        if (!entry?.isConnected) return hide();
        const [list, row] = [entry.parentElement, entry].map((element) => element.getBoundingClientRect());
        image.hidden = false;
        // Beside the list, on the side that has room.
        const right = list.right + PREVIEW_EDGE < window.innerWidth;
        image.style.left = `${right ? list.right + 8 : Math.max(0, list.left - image.width - 8)}px`;
        image.style.top = `${Math.max(0, Math.min(row.top, window.innerHeight - image.height - 8))}px`;
    };
    image.addEventListener("load", place);
    image.addEventListener("error", hide); // no image beside this network

    // At the document and before others: lists come and go, and stop events themselves.
    document.addEventListener(
        "pointerdown",
        (event) => {
            hide();
            if (!event.target.closest?.(ENTRY)) isOurs = LISTING.includes(nodeUnder(event)?.comfyClass);
        },
        true,
    );
    document.addEventListener(
        "pointerover",
        (event) => {
            const found = isOurs ? event.target.closest?.(ENTRY) : null;
            if (!found) return hide();
            if (found === entry) return;
            hide();
            entry = found;
            const name = (found.dataset.value ?? found.textContent).trim();
            const address = new URL("preview", SHARED);
            address.searchParams.set("name", name);
            if (name !== NONE) image.src = address.href;
        },
        true,
    );
    document.addEventListener("keydown", hide, true);
}

app.registerExtension({
    name: "hypernetworks.nodes",
    setup: showPreviews,
    nodeCreated(node) {
        const kind = node.comfyClass ?? node.type;
        if (kind === "HypernetworkStack") growing(node);
        if (kind === "HypernetworkSchedule") {
            addCurve(node).catch((error) => console.warn("hypernetworks: no curve, only its text:", error));
        }
    },
});
