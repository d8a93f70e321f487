/*
 * Prompts as text: reading the tags as hypernetworks/prompts does, and changing some characters of them.
 *
 * The first of the plain scripts that a webui puts into its page by the order of their names, and the studio, too:
 * text here, what the server knows of the networks in hypernetworks_catalogue.js, the controls of the panel in
 * hypernetworks_controls*.js and hypernetworks_curve.js, what ties them to a page's prompts in hypernetworks_panel.js,
 * the bar over the cards in hypernetworks_tab.js, completion in hypernetworks_typing.js. They share
 * window.hypernetworksExtension, and no other name of the page: popular extensions have globals such as
 * "hypernetworks", "loras" and "embeddings" of their own, and assign them at any time.
 */
(() => {
    "use strict";
    const MARK = "the hypernetwork extension";
    if (window.hypernetworksExtension?.mark === MARK) return; // the page has loaded this file already

    const EXTRA_NETWORK = /<([\p{L}\p{N}_]+):([^>]+)>/gu;
    const KIND = "hypernet";
    const FLOAT = /^\s*[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?\s*$/i;
    const ARGUMENTS = ["start", "stop", "hr", "k", "v", "attn", "lbw"];
    const PRESETS = ["NONE", "ALL", "INS", "IND", "INALL", "MIDD", "OUTD", "OUTS", "OUTALL"];
    const BLOCK_COUNTS = [11, 12, 16, 17];

    /** The webui's settings; Forge Neo declares them with `let`, so that they are no property of the window. */
    // biome-ignore lint/correctness/noUndeclaredVariables: the webui's, on some pages only
    const options = () => (typeof opts === "object" && opts !== null ? opts : {});

    const [FROM_HASH, FROM_SLASHES] = [/#[^\n]*/g, /\/\/[^\n]*/g];
    const BLOCK_OF_NEO = /\/\*[\s\S]*?\*\//g;
    const BLOCKS_OF_REFORGE = [/^\/\*[\s\S]*?\*\/(?=\n|$)/gm, /\/\*[^\n]*/g, /\*\/[^\n]*/g];

    /** What the webui takes out of prompts before it reads their tags: each as a pattern, in that order. */
    function commentsOf(settings) {
        const [first, ...dangling] = BLOCKS_OF_REFORGE;
        if ("enable_prompt_comments_def" in settings) return [first, FROM_HASH, FROM_SLASHES, ...dangling]; // no switch
        if (settings.enable_prompt_comments !== true) return [];
        return "save_prompt_comments" in settings ? [BLOCK_OF_NEO, FROM_HASH, FROM_SLASHES] : [FROM_HASH];
    }

    /** The prompt with blanks in place of its comments, so that what remains stands where it stood. */
    function uncommented(prompt) {
        const blanks = (comment) => comment.replace(/[^\n]/g, " ");
        return commentsOf(options()).reduce((text, pattern) => text.replace(pattern, blanks), prompt);
    }

    /** A finite number, as Python's float() reads it but without underscores, or NaN. */
    function toNumber(text) {
        const number = FLOAT.test(text) ? Number(text) : NaN;
        return Number.isFinite(number) ? number : NaN;
    }

    /** The shortest text for a number: 0.7, 1, -0.25. */
    const format = (number) => String(Object.is(number, -0) ? 0 : number);

    /** The texts before and after a separator; the second is undefined if there is none. */
    function partition(text, separator) {
        const at = text.indexOf(separator);
        return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
    }

    /** Why a text isn't a multiplier, or null. */
    function scheduleProblem(text) {
        if (!text.includes("@")) {
            return Number.isNaN(toNumber(text)) ? `"${text.trim()}" is not a number: write one such as 0.7` : null;
        }
        for (const pair of text.split(/[,;]/)) {
            const [value, position] = partition(pair, "@");
            if (position === undefined) return `"${pair.trim()}" has no position: write value@position such as 1@0.5`;
            if (Number.isNaN(toNumber(value))) return `the value "${value.trim()}" is not a number`;
            if (!(toNumber(position) >= 0)) return `the position "${position.trim()}" is not a number from 0 up`;
        }
        return null;
    }

    /** The largest position of a schedule with several points, or null. It decides the unit of start and stop. */
    function lastPosition(text) {
        const positions = text.split(/[,;]/).map((pair) => toNumber(partition(pair, "@")[1] ?? ""));
        return positions.length > 1 ? Math.max(...positions) : null;
    }

    const ARGUMENT_PROBLEMS = {
        hr: scheduleProblem,
        k: (text) => (Number.isNaN(toNumber(text)) ? `k="${text}" is not a number` : null),
        v: (text) => (Number.isNaN(toNumber(text)) ? `v="${text}" is not a number` : null),
        start: (text) => (toNumber(text) >= 0 ? null : `start="${text}" is not a position from 0 up`),
        stop: (text) => (toNumber(text) >= 0 ? null : `stop="${text}" is not a position from 0 up`),
        attn: (text) => (["both", "cross", "self"].includes(text) ? null : "write attn=cross or attn=self"),
        lbw: (text) => {
            if (PRESETS.includes(text.toUpperCase())) return null;
            const numbers = text.split(/[,;]/).map(toNumber);
            const fine = BLOCK_COUNTS.includes(numbers.length) && !numbers.some(Number.isNaN);
            return fine ? null : `lbw needs a preset (${PRESETS.join(", ")}) or ${BLOCK_COUNTS.join(", ")} numbers`;
        },
    };

    /** Whether a value after the multiplier is a list of block factors, as in older versions of LoRA block weight. */
    function isBlocks(text) {
        return PRESETS.includes(text.toUpperCase()) || BLOCK_COUNTS.includes(text.split(/[,;]/).length);
    }

    /** Why a network with this window would never be active, or null. */
    function windowProblem(given, strength, hires) {
        const [start, stop] = ["start", "stop"].map((name) => (given.has(name) ? toNumber(given.get(name)) : null));
        if (start === null && stop === null) return null;
        const last = lastPosition(strength);
        const largest = Math.max(start ?? 0, stop ?? 0);
        if (last !== null && last <= 1 && largest > 1) return "start and stop are steps, the schedule is in fractions";
        if (last > 1 && [start, stop].some((position) => position > 0 && position < 1)) {
            return "start and stop are fractions, the schedule is in steps";
        }
        if (start !== null && stop !== null && start > stop) return "start is after stop: exchange the two";

        const inSteps = last === null ? largest > 1 : last > 1;
        const schedules = [strength, hires].filter((text) => text !== undefined);
        const otherUnits = schedules.some((text) => lastPosition(text) !== null && lastPosition(text) > 1 !== inSteps);
        const [low, high] = [start ?? 0, stop ?? Infinity];
        const all = schedules.map(readPoints);
        const acts = all[0].some((point) => point.value !== 0);
        const actsHere = all.some(
            (points) =>
                valueBetween(points, low) !== 0 ||
                valueBetween(points, high) !== 0 ||
                points.some((point) => point.position >= low && point.position <= high && point.value !== 0),
        );
        return acts && !otherUnits && !actsHere ? "the schedule is 0 everywhere between start and stop" : null;
    }

    /** Why the items after a name are invalid, or null. */
    function itemsProblem(items) {
        const [strength = "1", ...more] = items.filter((item) => !item.includes("="));
        const first = scheduleProblem(strength);
        if (first !== null) return first;
        const given = new Map();
        for (const [key, value] of items.map((item) => partition(item, "=")).filter((pair) => pair[1] !== undefined)) {
            const name = key.trim();
            if (!ARGUMENTS.includes(name)) return `unknown argument "${name}": known are ${ARGUMENTS.join(", ")}`;
            if (given.has(name)) return `the argument "${name}" is given twice`;
            given.set(name, value.trim());
        }
        for (const item of more.map((text) => text.trim())) {
            if (isBlocks(item) && given.has("lbw")) return `"${item}" and lbw= are both block factors`;
            if (isBlocks(item)) given.set("lbw", item);
            else if (Number.isNaN(toNumber(item))) return `"${item}" after the multiplier has no name: write lbw= before it`;
        }
        for (const [name, value] of given) {
            const problem = ARGUMENT_PROBLEMS[name](value);
            if (problem !== null) return problem;
        }
        return windowProblem(given, strength, given.get("hr"));
    }

    /* The same computations as in hypernetworks/engine/multiplier.py; a test compares the two. */

    /** The points of a multiplier, by ascending position, with their text, so that unchanged ones are written as before. */
    function readPoints(text) {
        const pairs = text.includes("@") ? text.split(/[,;]/) : [`${text}@0`];
        const points = pairs.map((pair) => {
            const [value, position] = partition(pair, "@").map(toNumber);
            return { value, position, text: pair.trim() };
        });
        return points.sort((one, other) => one.position - other.position);
    }

    /** The schedule of a valid tag, without its hires pass. */
    function readSchedule(tag) {
        const points = readPoints(tag.text ?? "1");
        const named = new Map(tag.items.slice(1).map((item) => partition(item, "=")).map(([k, v]) => [k.trim(), v]));
        const [start, stop] = ["start", "stop"].map((name) => (named.has(name) ? toNumber(named.get(name)) : null));
        const inSteps = points[points.length - 1].position > 1;
        const windowInSteps = points.length === 1 ? Math.max(start ?? 0, stop ?? 0) > 1 : inSteps;
        return { points, inSteps, start, stop, windowInSteps };
    }

    const positionOf = (step, total, inSteps) => (inSteps ? step : total > 1 ? step / (total - 1) : 0);

    /** The value at a position: linear between points, constant before the first and after the last. */
    function valueBetween(points, position) {
        let before = null;
        for (const point of points) {
            if (point.position > position) {
                if (before === null) return point.value;
                const share = (position - before.position) / (point.position - before.position);
                return before.value + share * (point.value - before.value);
            }
            before = point;
        }
        return before.value;
    }

    /** The multiplier at a step of `total`, counted from 0. */
    function valueAt({ points, inSteps, start, stop, windowInSteps }, step, total) {
        const position = positionOf(step, total, windowInSteps);
        if (start !== null && position < start) return 0;
        if (stop !== null && position > stop) return 0;
        return valueBetween(points, positionOf(step, total, inSteps));
    }

    /** Pairs of square brackets, inner ones first, with the colons and bars on their own level. A backslash escapes. */
    function findBrackets(text) {
        const found = [];
        const open = []; // null is a round bracket, whose colons are weights
        for (let index = 0; index < text.length; index += 1) {
            const character = text[index];
            const top = open[open.length - 1];
            if (character === "\\") index += 1;
            else if (character === "[") open.push({ from: index, colons: [], bars: [] });
            else if (character === "(") open.push(null);
            else if (character === ")" && top === null) open.pop();
            else if (character === "]") {
                while (open.length && open[open.length - 1] === null) open.pop();
                if (open.length) found.push({ ...open.pop(), to: index });
            } else if (top && character === ":") top.colons.push(index);
            else if (top && character === "|") top.bars.push(index);
        }
        return found;
    }

    /** Whether a position is inside [prompt editing:0.5] or [one|two], where a tag can't work. */
    function isEdited(masked, brackets, position) {
        return brackets.some(({ from, to, colons, bars }) => {
            if (position <= from || position >= to) return false;
            if (!colons.length) return bars.length > 0;
            return /^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$/.test(masked.slice(colons[colons.length - 1] + 1, to));
        });
    }

    /** A tag with its name, items, start and end in the prompt, the position of its multiplier, and its number. */
    function readTag(inner, start, edited) {
        const items = inner.split(":");
        const tag = { name: items[0], items, start, end: start + inner.length + KIND.length + 3 };
        tag.afterName = start + KIND.length + 2 + items[0].length;
        let from = tag.afterName + 1;
        for (const item of items.slice(1)) {
            if (tag.from === undefined && !item.includes("=")) {
                const core = item.trim();
                tag.from = from + (core ? item.indexOf(core) : 0);
                tag.to = tag.from + (core || item).length;
                tag.text = core;
            }
            from += item.length + 1;
        }
        const number = tag.text === undefined ? 1 : toNumber(tag.text);
        tag.number = Number.isNaN(number) ? null : number;
        tag.problem = itemsProblem(items.slice(1));
        if (!tag.name.trim()) tag.problem = "it has no name: write <hypernet:NAME>";
        if (edited) tag.problem = tag.problem ?? "it can't work inside [prompt editing]: use a schedule outside";
        return tag;
    }

    /** The hypernetwork tags of a prompt, in order, without those in comments. Never throws on text. */
    function parseTags(given) {
        const prompt = uncommented(given);
        const masked = prompt.replace(EXTRA_NETWORK, (whole) => "\0".repeat(whole.length));
        const brackets = findBrackets(masked);
        return [...prompt.matchAll(EXTRA_NETWORK)]
            .filter((match) => match[1] === KIND)
            .map((match) => readTag(match[2], match.index, isEdited(masked, brackets, match.index)));
    }

    /** The prompt with another multiplier, a number or text, in the tag of that index; all else stays. */
    function rewrite(prompt, index, value) {
        const tag = parseTags(prompt)[index];
        if (!tag) return prompt;
        const text = typeof value === "number" ? format(value) : value;
        if (tag.from === undefined) return `${prompt.slice(0, tag.afterName)}:${text}${prompt.slice(tag.afterName)}`;
        return prompt.slice(0, tag.from) + text + prompt.slice(tag.to);
    }

    /** The prompt with every plain multiplier scaled by a factor; schedules and named arguments stay. */
    function scale(prompt, factor) {
        if (factor === 1) return prompt;
        return parseTags(prompt).reduce((text, { number }, index) => {
            return number === null ? text : rewrite(text, index, Number((number * factor).toFixed(4)));
        }, prompt);
    }

    /**
     * An activation text as it may stand in the prompt by now. Other extensions (prompt-all-in-one) and users change the
     * blanks around its commas and between its words.
     */
    function anyBlanks(activation) {
        const literal = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
        const words = (part) => part.trim().split(/\s+/).map(literal).join("\\s+");
        return activation.split(",").map(words).join("\\s*,\\s*");
    }

    /** How many characters at the start of `rest` are the activation text that was inserted with a tag. */
    function lengthOfActivation(rest, activation) {
        if (!activation.trim()) return 0;
        const found = rest.match(new RegExp(`^\\s*,?\\s*${anyBlanks(activation)}(?![\\p{L}\\p{N}_])`, "u"));
        return found ? found[0].length : 0;
    }

    /** The prompt without a tag, the activation text right after it, and a separator before it. */
    function remove(prompt, index, activation = "", separator = " ") {
        const tag = parseTags(prompt)[index];
        if (!tag) return prompt;
        const before = prompt.slice(0, tag.start);
        const rest = prompt.slice(tag.end);
        // ", " may have become "," or " , " since it was put there.
        const comma = separator.includes(",") && before.match(/[^\S\n]*,[^\S\n]*$/);
        const own = comma ? comma[0].length : separator.length;
        const tidy = separator && (comma || before.endsWith(separator)) ? before.slice(0, -own) : before;
        const behind = rest.slice(lengthOfActivation(rest, activation));
        return tidy + (behind.startsWith(" ") && /(^|\s)$/.test(tidy) ? behind.slice(1) : behind);
    }

    /** The prompt without a phrase between commas or line ends that starts after `from`. */
    function removePhrase(prompt, phrase, from) {
        if (!phrase.trim()) return prompt;
        const pattern = `(^|,|\\n)[^\\S\\n]*${anyBlanks(phrase)}(?=[^\\S\\n]*(?:,|\\n|$))`;
        return prompt.slice(0, from) + prompt.slice(from).replace(new RegExp(pattern, "u"), "");
    }

    /** The prompt without all tags of a name and the activation text, or null if it has no such tag. */
    function removeAll(prompt, name, activation = "", separator = " ") {
        const tags = parseTags(prompt);
        const indices = tags.map((_, index) => index).filter((index) => tags[index].name.trim() === name.trim());
        if (!indices.length) return null;
        const withActivation = indices.some((i) => lengthOfActivation(prompt.slice(tags[i].end), activation));
        const text = indices.reverse().reduce((now, index) => remove(now, index, activation, separator), prompt);
        if (withActivation) return text;
        return removePhrase(text, activation, Math.min(tags[indices.pop()].start, text.length));
    }

    /** A tag of the prompt together with its activation text: where it stands. */
    function pieceOf(prompt, index, activation = "") {
        const { start, end } = parseTags(prompt)[index];
        return { start, end: end + lengthOfActivation(prompt.slice(end), activation) };
    }

    /** The prompt with its tags in another order; what stands between them stays. Each takes its activation text along. */
    function move(prompt, from, to, activationOf = () => "") {
        const pieces = parseTags(prompt).map(({ name }, index) => pieceOf(prompt, index, activationOf(name)));
        if (!pieces[from] || !pieces[to]) return prompt;
        const texts = pieces.map(({ start, end }) => prompt.slice(start, end));
        texts.splice(to, 0, ...texts.splice(from, 1));
        let [moved, behind] = ["", 0];
        pieces.forEach(({ start, end }, index) => {
            moved += prompt.slice(behind, start) + texts[index];
            behind = end;
        });
        return moved + prompt.slice(behind);
    }

    /** The prompt with a text before its tag of that index, or at its end. */
    function put(prompt, text, index, separator = " ") {
        const next = parseTags(prompt)[index];
        if (next) return `${prompt.slice(0, next.start)}${text}${separator}${prompt.slice(next.start)}`;
        const inComment = uncommented(`${prompt}.`).endsWith(" ");
        if (inComment) return `${prompt}\n${text}`;
        return prompt + (prompt && !/\s$/.test(prompt) ? separator : "") + text;
    }

    /** The prompt with a tag, and its activation text, at its end. */
    function append(prompt, name, multiplier, activation = "", separator = " ") {
        const tag = `<${KIND}:${name}:${multiplier}>`;
        return put(prompt, tag + (activation ? ` ${activation}` : ""), undefined, separator);
    }

    /** Whether a tag can contain that name. */
    const isWritable = (name) => name.trim() !== "" && !/[:>]/.test(name) && uncommented(name) === name;

    const asText = { parseTags, rewrite, scale, remove, removeAll, pieceOf, move, put, append, isWritable };
    const curves = { readSchedule, positionOf, valueBetween, valueAt };

    // Not writable, because cards use it by its name and other scripts may assign anything.
    const value = { mark: MARK, ...asText, format, options, curves };
    Object.defineProperty(window, "hypernetworksExtension", { value, configurable: true });
})();
