/*
 * A multiplier over the steps, as a curve that can be drawn with the mouse, by touch or with the keyboard.
 *
 * It has a tag to show, and a function for the new text of its multiplier. Nothing else is stored.
 */
(() => {
    "use strict";
    if (window.hypernetworksExtension.Curve) return;
    const { format, curves, controls } = window.hypernetworksExtension;
    const { readSchedule, positionOf, valueBetween, valueAt } = curves;
    const { make, setText, isFocused } = controls;

    const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [320, 104, 34, 16, 10, 22];
    const NEAR = 15; // largest distance between a point and a finger on it, in units of the drawing
    const MOST_DOTS = 60;
    const MOST_VALUE = 100;
    const SVG = "http://www.w3.org/2000/svg";
    const COARSE = 0.05; // of values and fractions; with Shift, FINE
    const FINE = 0.01;
    const ARROWS = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
    const HOW = "Click to add a point, drag to move it, double-click to remove it.";
    const HOW_KEYS = "Arrow keys move it (Shift: finer), Enter adds one, Delete removes it.";

    function draw(kind, attributes = {}, ...children) {
        const element = document.createElementNS(SVG, kind);
        for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
        element.append(...children);
        return element;
    }

    const clamp = (number, low, high) => Math.min(Math.max(number, low), high);
    const round = (number, unit) => Number((Math.round(number / unit) * unit).toFixed(2));
    const short = (number) => format(Number(number.toFixed(2)));
    const last = (list) => list[list.length - 1];

    /** One network's multiplier over the steps. `write` gets the new text of the multiplier. */
    class Curve {
        constructor(write) {
            this.write = write;
            this.tag = null;
            this.grip = null; // the dragged point: its index, and the text to restore with Escape
            this.handles = [];
            this.zero = draw("line", { class: "hypernetworks-zero" });
            this.plan = draw("polyline", { class: "hypernetworks-plan" });
            this.line = draw("polyline", { class: "hypernetworks-line" });
            this.dots = draw("path", { class: "hypernetworks-dots" });
            this.labels = draw("g");
            this.points = draw("g");
            const children = [this.zero, this.plan, this.line, this.dots, this.labels, this.points];
            this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group" }, ...children);
            this.hint = make("p", { class: "hypernetworks-hint" }, HOW);
            this.element = make("div", { class: "hypernetworks-curve", hidden: "" }, this.svg, this.hint);
            this.icon = draw("polyline", {});
            const picture = draw("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, this.icon);
            const look = "hypernetworks-button hypernetworks-draw";
            this.button = make("button", { type: "button", class: look }, picture);
            this.listen();
        }

        listen() {
            this.svg.addEventListener("pointerdown", (event) => this.press(event));
            this.svg.addEventListener("pointermove", (event) => this.drag(event));
            for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => this.release());
            // A touch that starts on a point moves it. One that starts elsewhere may scroll the page, so only a tap adds
            // a point.
            this.svg.addEventListener("touchstart", (event) => {
                if (event.touches.length === 1 && this.nearest(event.touches[0]) >= 0) event.preventDefault();
            }, { passive: false });
            this.svg.addEventListener("click", (event) => {
                if (this.byFinger && this.nearest(event) < 0) this.addAt(event);
            });
            this.svg.addEventListener("dblclick", (event) => this.remove(this.nearest(event)));
            this.svg.addEventListener("keydown", (event) => this.type(event));
            this.svg.addEventListener("focusin", () => this.tell());
            this.svg.addEventListener("focusout", () => this.tell());
        }

        /* ------------------------------------------------ showing */

        /** Show a tag over `steps` steps; hidden if the multiplier is a single number, or invalid. */
        show(tag, label, steps) {
            Object.assign(this, { tag, label, steps });
            const drawn = tag.problem === null && (tag.text ?? "").includes("@");
            this.schedule = tag.problem === null ? readSchedule(tag) : null;
            const { start = null, stop = null } = this.schedule ?? {};
            this.element.hidden = !drawn && start === null && stop === null;
            this.button.disabled = tag.problem !== null;
            const words = drawn ? `Back to one number for ${label}` : `Draw ${label} over the steps`;
            this.button.title = words;
            this.button.setAttribute("aria-label", words);
            this.icon.setAttribute("points", drawn ? "1,8 15,8" : "1,13 5,4 10,10 15,3");
            if (!this.element.hidden) this.render();
        }

        render() {
            const { points } = this.schedule;
            this.values = Array.from({ length: this.steps }, (_, step) => valueAt(this.schedule, step, this.steps));
            // The scale stays the same during a drag, or the point would move away from the pointer.
            if (!this.grip) this.range = this.rangeOf([...this.values, ...points.map(({ value }) => value)]);
            const where = this.values.map((value, step) => {
                return [this.x(positionOf(step, this.steps, this.inSteps)), this.y(value)];
            });
            const flat = (pairs) => pairs.map((pair) => pair.join(",")).join(" ");
            this.line.setAttribute("points", flat(where));
            const dots = this.steps <= MOST_DOTS ? where.map(([x, y]) => `M${x},${y}h0`) : [];
            this.dots.setAttribute("d", dots.join(""));
            const held = [{ ...points[0], position: 0 }, ...points, { ...last(points), position: this.end }];
            this.plan.setAttribute("points", flat(held.map((p) => [this.x(p.position), this.y(p.value)])));
            for (const [key, at] of Object.entries({ x1: LEFT, x2: WIDTH - RIGHT, y1: this.y(0), y2: this.y(0) })) {
                this.zero.setAttribute(key, at);
            }
            this.renderLabels();
            this.renderPoints();
            const values = `from ${short(this.values[0])} to ${short(last(this.values))}`;
            this.svg.setAttribute("aria-label", `Multiplier of ${this.label} ${values} over ${this.steps} steps`);
            this.tell();
        }

        /** Whether positions are steps and not fractions of the pass; a single point doesn't decide that. */
        get inSteps() {
            return this.schedule.points.length > 1 ? this.schedule.inSteps : this.schedule.windowInSteps;
        }

        /** The largest position that is shown. */
        get end() {
            return this.inSteps ? Math.max(this.steps - 1, 2, last(this.schedule.points).position) : 1;
        }

        rangeOf(values) {
            const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)];
            return [Math.floor(low * 2) / 2, Math.ceil(high * 2) / 2];
        }

        x(position) {
            const share = clamp(position / this.end, 0, 1);
            return Number((LEFT + share * (WIDTH - LEFT - RIGHT)).toFixed(1));
        }

        y(value) {
            const [low, high] = this.range;
            const at = TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
            return Number(clamp(at, 3, HEIGHT - 3).toFixed(1));
        }

        renderLabels() {
            const text = (x, y, anchor, words) => draw("text", { x, y, "text-anchor": anchor }, words);
            const marks = [...new Set([this.range[0], 0, this.range[1]])];
            const unit = (position) => (this.inSteps ? `step ${short(position)}` : `${position * 100} %`);
            this.labels.replaceChildren(
                ...marks.map((value) => text(LEFT - 8, this.y(value) + 4, "end", short(value))),
                text(LEFT, HEIGHT - 5, "start", unit(0)),
                text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "middle", `${this.steps} steps`),
                text(WIDTH - RIGHT, HEIGHT - 5, "end", unit(this.end)),
            );
        }

        /** Handles stay the same elements while points move, so that focus and drags continue. */
        renderPoints() {
            const { points } = this.schedule;
            const movable = points.length > 1 || (this.tag.text ?? "").includes("@") ? points : [];
            while (this.handles.length > movable.length) this.handles.pop().remove();
            while (this.handles.length < movable.length) {
                const circles = [draw("circle", { r: NEAR, class: "hypernetworks-near" }), draw("circle", { r: 5 })];
                const attributes = { role: "slider", tabindex: "0", "aria-orientation": "vertical" };
                this.handles.push(draw("g", attributes, ...circles));
                this.points.append(last(this.handles));
            }
            movable.forEach((point, index) => {
                const attributes = {
                    transform: `translate(${this.x(point.position)} ${this.y(point.value)})`,
                    "aria-label": `Point ${index + 1} of ${points.length} of ${this.label}`,
                    "aria-valuemin": Math.min(this.range[0], point.value),
                    "aria-valuemax": Math.max(this.range[1], point.value),
                    "aria-valuenow": point.value,
                    "aria-valuetext": this.words(point),
                };
                Object.entries(attributes).forEach((pair) => this.handles[index].setAttribute(...pair));
            });
        }

        words({ value, position }) {
            return `${short(value)} at ${this.inSteps ? `step ${short(position)}` : `${short(position * 100)} %`}`;
        }

        /** Describe the focused point below the curve, or what can be done. */
        tell() {
            const index = this.handles.findIndex(isFocused);
            const point = this.schedule?.points[index];
            setText(this.hint, point ? `${this.words(point)}. ${this.grip ? "" : HOW_KEYS}` : HOW);
        }

        /* ------------------------------------------------ changing */

        /** Turn a number into a curve, or a curve into its strongest value. */
        toggle() {
            const { points } = this.schedule;
            if ((this.tag.text ?? "").includes("@")) {
                const values = points.map(({ value }) => value);
                this.write(format(values.reduce((one, other) => (Math.abs(other) > Math.abs(one) ? other : one))));
            } else {
                this.put(this.asPoints());
                this.handles[0]?.focus();
            }
        }

        /** Copies of the points; a single number becomes two points, at the first step and at the last. */
        asPoints() {
            const { points } = this.schedule;
            if (points.length > 1) return points.map((point) => ({ ...point }));
            return [0, this.end].map((position) => ({ value: points[0].value, position }));
        }

        put(points) {
            if (points.length === 1) {
                this.write(format(points[0].value));
                return;
            }
            // If no position were above 1, they would be fractions instead of steps.
            if (this.inSteps && last(points).position < 2) points.push({ value: points.pop().value, position: 2 });
            const separator = this.tag.text?.includes(";") && !this.tag.text.includes(",") ? ";" : ",";
            this.write(points.map((p) => p.text ?? `${format(p.value)}@${format(p.position)}`).join(separator));
        }

        /** Value and position at the pointer, rounded. */
        under(event) {
            const box = this.svg.getBoundingClientRect();
            const x = ((event.clientX - box.left) / box.width) * WIDTH;
            const y = ((event.clientY - box.top) / box.height) * HEIGHT;
            const [low, high] = this.range;
            const value = high - ((y - TOP) / (HEIGHT - TOP - BOTTOM)) * (high - low);
            const position = clamp((x - LEFT) / (WIDTH - LEFT - RIGHT), 0, 1) * this.end;
            const unit = event.shiftKey ? FINE : COARSE;
            const tidy = round(clamp(value, -MOST_VALUE, MOST_VALUE), unit);
            return { value: tidy, position: this.inSteps ? Math.round(position) : round(position, unit), x, y };
        }

        /** The index of the point at the pointer, or -1. */
        nearest(event) {
            const { x, y } = this.under(event);
            const { points } = this.schedule;
            const distance = (point) => Math.hypot(this.x(point.position) - x, this.y(point.value) - y);
            const far = this.handles.map((_, index) => distance(points[index]));
            const least = Math.min(...far);
            return least <= NEAR ? far.lastIndexOf(least) : -1;
        }

        press(event) {
            if (event.button !== 0 || this.button.disabled) return;
            const index = this.nearest(event);
            this.byFinger = event.pointerType === "touch";
            if (index < 0 && this.byFinger) return;
            event.preventDefault();
            this.grip = { index, before: this.tag.text ?? "1" };
            if (index < 0) this.grip.index = this.addAt(event);
            else this.handles[index].focus({ preventScroll: true });
            this.svg.setPointerCapture(event.pointerId);
        }

        /** Add a point at the pointer, and return its index. */
        addAt(event) {
            const { value, position } = this.under(event);
            const points = this.asPoints();
            const same = points.findIndex((point) => point.position === position);
            const after = points.filter((point) => point.position < position).length;
            if (same >= 0) points[same] = { value, position };
            else points.splice(after, 0, { value, position });
            this.put(points);
            const index = same >= 0 ? same : after;
            this.handles[index]?.focus({ preventScroll: true });
            return index;
        }

        drag(event) {
            if (this.grip) this.move(this.grip.index, this.under(event));
        }

        release() {
            this.grip = null;
            if (!this.element.hidden) this.render();
        }

        /** Move a point, but not past its neighbours, so that the order stays. */
        move(index, { value, position }) {
            const points = this.asPoints();
            if (!points[index]) return;
            const [low, high] = [points[index - 1]?.position ?? 0, points[index + 1]?.position ?? this.end];
            const moved = { value, position: clamp(position, low, high) };
            if (moved.value === points[index].value && moved.position === points[index].position) return;
            points[index] = moved;
            this.put(points);
        }

        remove(index) {
            if (index < 0) return;
            this.grip = null;
            const points = this.asPoints();
            points.splice(index, 1);
            this.put(points);
            if (this.element.hidden) this.button.focus();
            else this.handles[Math.min(index, this.handles.length - 1)]?.focus();
        }

        type(event) {
            const index = this.handles.findIndex(isFocused);
            const point = this.schedule?.points[index];
            if (!point || event.ctrlKey || event.metaKey || event.altKey) return;
            const unit = event.shiftKey ? FINE : COARSE;
            const [up, right] = ARROWS[event.key] ?? [0, 0];
            const plus = (number, change) => Number((number + change).toFixed(4));
            if (up) this.move(index, { ...point, value: plus(point.value, up * unit) });
            else if (right) {
                const step = this.inSteps ? 1 : unit;
                this.move(index, { ...point, position: plus(point.position, right * step) });
            } else if (event.key === "Delete" || event.key === "Backspace") this.remove(index);
            else if (event.key === "Enter" || event.key === "Insert") this.addBeside(index);
            else if (event.key === "Escape" && this.grip) {
                this.write(this.grip.before);
                this.release();
            } else return;
            event.preventDefault();
            event.stopPropagation();
        }

        /** Add a point halfway to the next one; from the last, halfway to the one before. */
        addBeside(index) {
            const points = this.asPoints();
            const at = index < points.length - 1 ? index + 1 : index;
            const [one, other] = [points[at - 1], points[at]];
            const middle = (one.position + other.position) / 2;
            const position = this.inSteps ? Math.round(middle) : Number(middle.toFixed(2));
            points.splice(at, 0, { value: Number(valueBetween(points, middle).toFixed(2)), position });
            this.put(points);
            this.handles[at]?.focus();
        }
    }

    window.hypernetworksExtension.Curve = Curve;
})();
